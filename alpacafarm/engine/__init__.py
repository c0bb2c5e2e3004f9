"""A model under an optimiser: plain torch, or DeepSpeed."""
