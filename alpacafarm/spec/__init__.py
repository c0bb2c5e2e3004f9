"""What a user may write: pydantic models, imported without torch, transformers or Hydra."""
