"""`model`: the policy's weights or shape, its prompt, its token limits and how it samples."""

from typing import Literal

from pydantic import Field, model_validator

from alpacafarm.spec.base import Strict

PromptStyle = Literal["alpaca", "short", "chat"]


class Sampling(Strict):
    """How responses are drawn. `top_k=0` and `top_p=1` leave the distribution whole."""

    temperature: float = Field(gt=0)
    top_p: float = Field(gt=0, le=1)
    top_k: int = Field(ge=0)
    max_new_tokens: int = Field(ge=1)

    @property
    def truncates(self) -> bool:
        """Whether tokens are cut off the distribution, which makes sampled KL estimates invalid."""
        return self.top_p < 1 or self.top_k > 0


class ArchitectureSpec(Strict):
    """A Llama built from nothing (`transformers.LlamaConfig`), with a byte-level BPE tokenizer."""

    vocab_size: int = Field(ge=300)
    hidden_size: int = Field(ge=8)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    ff_size: int = Field(ge=8)
    max_positions: int = Field(ge=16)
    tie_embeddings: bool

    @model_validator(mode="after")
    def heads_divide_hidden(self) -> "ArchitectureSpec":
        if self.hidden_size % (2 * self.heads):
            raise ValueError(
                f"hidden_size={self.hidden_size} must be a multiple of 2 * heads = {2 * self.heads} "
                f"(rotary positions need an even head size); set hidden_size to {2 * self.heads * max(1, self.hidden_size // (2 * self.heads))}"
            )
        return self


class LoraSpec(Strict):
    """Low-rank adapters through `peft`, for every trained model of the run (Hu et al. 2021,
    arXiv:2106.09685)."""

    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)
    dropout: float = Field(ge=0, lt=1)
    targets: list[str] | Literal["all-linear"]
    export: Literal["merged", "adapter"] = "merged"


class ModelSpec(Strict):
    """The policy. Either `path` (a Hugging Face folder or hub id) or `architecture` (built by
    `upstream.base`)."""

    name: str
    path: str | None
    revision: str | None
    architecture: ArchitectureSpec | None
    dtype: Literal["float32", "bfloat16"]
    prompt: PromptStyle
    max_prompt_tokens: int = Field(ge=4)
    max_response_tokens: int = Field(ge=1)
    lora: LoraSpec | None

    @model_validator(mode="after")
    def path_or_architecture(self) -> "ModelSpec":
        if (self.path is None) == (self.architecture is None):
            raise ValueError(
                f"path={self.path!r} and architecture={'given' if self.architecture else None}: exactly one is required; "
                "set model.path to a Hugging Face folder or hub id, or choose model=world or model=scratch"
            )
        if self.architecture and self.max_length > self.architecture.max_positions:
            raise ValueError(
                f"max_prompt_tokens + max_response_tokens = {self.max_length} must be at most "
                f"architecture.max_positions={self.architecture.max_positions}; raise max_positions to {self.max_length}"
            )
        return self

    @property
    def max_length(self) -> int:
        return self.max_prompt_tokens + self.max_response_tokens
