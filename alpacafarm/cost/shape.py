"""A model's shape from its config.json, without loading transformers: what memory and time follow from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alpacafarm.spec.model import ArchitectureSpec, ModelSpec
from alpacafarm.stage import Given, Kind, Node, Stage

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Family:
    """What config.json leaves to the architecture (`model_type`), as transformers builds it.

    `saved_norm` and `saved_ff` count, for float32 and for bfloat16, the bytes that autograd keeps of each
    layer per hidden and per feed-forward element and token, attention's own left out: found by listing the
    tensors that are saved, see tests/unit/cost/test_activations.py. Norms of Llama and its descendants
    compute in float32 whatever the dtype.
    """

    is_gated: bool
    is_tied: bool  # where config.json does not say
    qkv_bias: bool
    bias: bool  # of all other linear layers; norms then have one too
    saved_norm: tuple[int, int]
    saved_ff: tuple[int, int]
    learned_positions: int | None = None  # rows of the position table beyond the positions; None: rotary
    norms_heads: bool = False  # queries and keys have norms of their own


LLAMA = Family(True, False, False, False, (24, 16), (16, 8))
FAMILIES = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": replace(LLAMA, qkv_bias=True),
    "qwen3": replace(LLAMA, norms_heads=True),
    "gpt2": Family(False, True, True, True, (16, 8), (20, 10), learned_positions=0),
    "opt": Family(False, True, True, True, (16, 8), (4, 2), learned_positions=2),
    "gpt_neox": Family(False, False, True, True, (24, 12), (8, 4)),
}
NAMES = {  # GPT-2's and OPT's names for what others call
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_inner",
    "max_position_embeddings": "n_positions",
}


@dataclass(frozen=True)
class Shape:
    """A decoder-only language model. Sizes in elements."""

    family: Family
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    ff: int
    vocab: int
    positions: int
    is_tied: bool
    attention_bias: bool
    mlp_bias: bool

    @property
    def query(self) -> int:
        return self.heads * self.head_size

    @property
    def key(self) -> int:
        """Of keys, and as much of values."""
        return self.kv_heads * self.head_size

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """The linear layers of one block, inputs and outputs, by Llama's names."""
        attention = {
            "q_proj": (self.hidden, self.query),
            "k_proj": (self.hidden, self.key),
            "v_proj": (self.hidden, self.key),
            "o_proj": (self.query, self.hidden),
        }
        gate = {"gate_proj": (self.hidden, self.ff)} if self.family.is_gated else {}
        return attention | gate | {"up_proj": (self.hidden, self.ff), "down_proj": (self.ff, self.hidden)}

    @property
    def layer(self) -> int:
        """Parameters of one block."""
        family = self.family
        norm = self.hidden * (2 if family.bias else 1)
        biases = (self.query + 2 * self.key) * (family.qkv_bias or self.attention_bias)
        biases += self.hidden * (family.bias or self.attention_bias)
        biases += (self.ff * (2 if family.is_gated else 1) + self.hidden) * (family.bias or self.mlp_bias)
        heads = 2 * self.head_size * family.norms_heads
        return sum(a * b for a, b in self.linear.values()) + 2 * norm + biases + heads

    @property
    def head(self) -> int:
        """Parameters of the language-model head that no other part shares."""
        return 0 if self.is_tied else self.vocab * self.hidden

    @property
    def backbone(self) -> int:
        """Parameters of everything but the head."""
        rows = self.family.learned_positions
        table = 0 if rows is None else (self.positions + rows) * self.hidden
        norm = self.hidden * (2 if self.family.bias else 1)
        return self.layers * self.layer + self.vocab * self.hidden + table + norm

    @property
    def parameters(self) -> int:
        """Of the language model."""
        return self.backbone + self.head

    @property
    def scorer_parameters(self) -> int:
        """Of a reward model on the same backbone: a sequence classifier with one label."""
        return self.backbone + self.hidden


def shape_of_config(config: Config) -> Shape | None:
    """None for an architecture that is not in FAMILIES, and for sizes that no model has."""
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None or config.get("word_embed_proj_dim", config.get("hidden_size")) != config.get(
        "hidden_size"
    ):
        return None

    def size(name: str, default: int | None = None) -> int:
        for key in (name, NAMES.get(name), "ffn_dim" if name == "intermediate_size" else None):
            if key is not None and config.get(key) is not None:
                return above_zero(int(config[key]))
        if default is None:
            raise KeyError(name)
        return default

    try:
        hidden, heads = size("hidden_size"), size("num_attention_heads")
        return Shape(
            family=family,
            hidden=hidden,
            layers=size("num_hidden_layers"),
            heads=heads,
            kv_heads=size("num_key_value_heads", heads),
            head_size=size("head_dim", hidden // heads),
            ff=size("intermediate_size", 4 * hidden),
            vocab=size("vocab_size"),
            positions=size("max_position_embeddings", 0),
            is_tied=bool(config.get("tie_word_embeddings", family.is_tied)),
            attention_bias=bool(config.get("attention_bias", False)),
            mlp_bias=bool(config.get("mlp_bias", False)),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def above_zero(size: int) -> int:
    if size < 1:
        raise ValueError(size)
    return size


def shape_of_architecture(spec: ArchitectureSpec) -> Shape:
    """Of the Llama that `upstream.base` builds."""
    return Shape(
        family=LLAMA,
        hidden=spec.hidden_size,
        layers=spec.layers,
        heads=spec.heads,
        kv_heads=spec.heads,
        head_size=spec.hidden_size // spec.heads,
        ff=spec.ff_size,
        vocab=spec.vocab_size,
        positions=spec.max_positions,
        is_tied=spec.tie_embeddings,
        attention_bias=False,
        mlp_bias=False,
    )


def shape_of_folder(folder: Path) -> Shape | None:
    """Of a Hugging Face or an artifact's folder; of adapters that of their base, where it is here."""
    for place in (folder, folder / "model"):
        config = _json(place / "config.json")
        if config is not None:
            return shape_of_config(config)
        adapter = _json(place / "adapter_config.json")
        if adapter is not None:
            return shape_of_folder(Path(str(adapter.get("base_model_name_or_path"))))
    return None


def shape_of_model(model: ModelSpec) -> Shape | None:
    """Of the run's policy; None where its config is neither on this machine nor in `model.shape`."""
    if model.architecture is not None:
        return shape_of_architecture(model.architecture)
    found = shape_of_folder(Path(str(model.path)).expanduser())
    return shape_of_config(model.shape) if found is None and model.shape is not None else found


def shape_of_node(node: Node, model: ModelSpec) -> Shape | None:
    """Of the model that a node of the plan is or will be: it has the shape of what it was made from."""
    if isinstance(node, Given):
        if node.location == model.path:
            return shape_of_model(model)
        return shape_of_folder(Path(node.location))
    for role in ("init", "policy", "trained", "member_0"):
        if role in node.inputs:
            return shape_of_node(node.inputs[role], model)
    return shape_of_model(model)


def is_model(node: Node) -> bool:
    kind = node.makes if isinstance(node, Stage) else node.kind
    return kind in (Kind.POLICY, Kind.REWARD)


def _json(path: Path) -> Config | None:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, Mapping) else None
