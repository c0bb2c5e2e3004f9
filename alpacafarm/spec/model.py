"""`model`: the policy's weights or shape, its prompt, its token limits and how it samples."""

from typing import Literal

from pydantic import Field, model_validator

from alpacafarm.spec.base import Problem, Strict, refuse

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
        unit = 2 * self.heads
        if self.hidden_size % unit:
            fix = unit * max(1, self.hidden_size // unit)
            text = (
                f"must be a multiple of 2 * .heads = {unit} (rotary positions need an even head size); "
                f"set .hidden_size={fix}"
            )
            refuse(Problem("hidden_size", self.hidden_size, text))
        return self


class LoraSpec(Strict):
    """Low-rank adapters through `peft`, for every trained model (Hu et al. 2021, arXiv:2106.09685)."""

    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)
    dropout: float = Field(ge=0, lt=1)
    targets: list[str] | Literal["all-linear"]
    export: Literal["merged", "adapter"] = "merged"


class ModelSpec(Strict):
    """The policy: `path`, a Hugging Face folder or hub id, or `architecture`, built by `upstream.base`.

    `shape` is what a hub id's config.json says of its size, for plans: they look nothing up. No key has it.
    """

    name: str
    path: str | None
    revision: str | None
    architecture: ArchitectureSpec | None
    dtype: Literal["float32", "bfloat16"]
    prompt: PromptStyle
    max_prompt_tokens: int = Field(ge=4)
    max_response_tokens: int = Field(ge=1)
    lora: LoraSpec | None
    shape: dict[str, bool | int | str] | None = None

    @model_validator(mode="after")
    def path_or_architecture(self) -> "ModelSpec":
        if (self.path is None) == (self.architecture is None):
            other = "null" if self.architecture is None else "{...}"
            text = (
                f".architecture={other}, and exactly one of the two is required; "
                "choose model=path and set .path, or choose model=world or model=scratch and leave .path out"
            )
            refuse(Problem("path", self.path, text))
        if self.architecture and self.prompt == "chat":
            text = "needs a chat template, which a tokenizer that is trained here has not; set .prompt=short"
            refuse(Problem("prompt", self.prompt, text))
        if self.architecture and self.max_length > self.architecture.max_positions:
            text = (
                f"must be at least .max_prompt_tokens + .max_response_tokens = {self.max_length}; "
                f"set .architecture.max_positions={self.max_length} or lower one of the two"
            )
            refuse(Problem("architecture.max_positions", self.architecture.max_positions, text))
        return self

    @property
    def max_length(self) -> int:
        return self.max_prompt_tokens + self.max_response_tokens
