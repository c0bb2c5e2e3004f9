"""The memory of one process at its fullest, for a stage that has not run.

Bytes follow from the shapes of the models, from how ZeRO shards them, and from what autograd keeps. Nothing
is fitted: a number is a size of something, counted where a docstring says. `make bench` compares the sum with
what stages take. Not in it: what an allocator keeps beyond what is in use, and a GPU's context.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from alpacafarm.cost.load import Load, Net
from alpacafarm.cost.shape import Shape
from alpacafarm.spec.cluster import ClusterSpec
from alpacafarm.spec.model import LoraSpec, ModelSpec

BYTES = {"float32": 4, "bfloat16": 2}
BUCKET = 5e8  # elements that DeepSpeed reduces at once, its default of `reduce_bucket_size`
LIVE = 1e9  # elements that ZeRO-3 keeps gathered, its default of `stage3_max_live_parameters`
CHUNK = 2**25  # logits that are held at once, `alpacafarm.models.heads.CHUNK_ELEMENTS`
# Copies of a chunk of logits in float32 that are alive together, forward and backward (counted on the CPU by
# the growth of the process over `ops.logprobs.token_stats` and `token_stats_beside`).
LOGITS, WITH_ENTROPY, BESIDE_REFERENCE = 3, 4, 6
SAMPLED_LOGITS = 5  # the same of `rollout.draw`: logits, float32, scaled, weights, their sums
INTERPRETER = 450 * 2**20  # resident with torch, transformers and DeepSpeed loaded, measured on Linux

Part = Literal[
    "process", "weights", "optimiser", "gradients", "buffers", "activations", "logits", "cache", "copies"
]
Parts = Mapping[Part, float]


@dataclass(frozen=True)
class Estimate:
    """Bytes of one process when it holds most; `parts` add up to `total`. `moment` says when that is."""

    moment: str
    parts: Parts

    @property
    def total(self) -> int:
        return round(sum(self.parts.values()))


@dataclass(frozen=True)
class Layout:
    """How models lie on the processes. `on_gpu`: torch's allocator counts, not the resident process."""

    engine: Literal["deepspeed", "plain"]
    stage: int
    world: int
    dtype: str
    on_gpu: bool
    checkpointing: bool
    lora: LoraSpec | None
    optimiser_offloaded: bool
    weights_offloaded: bool

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return BYTES[self.dtype]

    def share(self, stage: int) -> float:
        """Of what ZeRO shards from `stage` on."""
        return 1 / self.world if self.stage >= stage else 1.0


def layout(cluster: ClusterSpec, model: ModelSpec, *, world: int, on_gpu: bool) -> Layout:
    offload = cluster.zero.offload
    return Layout(
        engine=cluster.engine,
        stage=0 if cluster.engine == "plain" else cluster.zero_stage(world=world, dtype=model.dtype),
        world=world,
        dtype=model.dtype,
        on_gpu=on_gpu,
        checkpointing=cluster.gradient_checkpointing,
        lora=model.lora,
        # On a machine without GPU what is offloaded to the CPU stays where it was.
        optimiser_offloaded=offload.optimizer == "nvme" or (on_gpu and offload.optimizer == "cpu"),
        weights_offloaded=offload.parameters == "nvme" or (on_gpu and offload.parameters == "cpu"),
    )


def estimate(load: Load, lay: Layout) -> Estimate:
    """The fullest of a stage's moments."""
    held = resident(load, lay)
    found = [Estimate(name, {**held, **parts}) for name, parts in moments(load, lay).items()]
    return max(found, key=lambda one: one.total)


def resident(load: Load, lay: Layout) -> dict[Part, float]:
    """What is there all the time: weights, and Adam's states with float32 masters (Rajbhandari et al. 2020,
    section 3). DeepSpeed keeps masters beside float32 weights too, from ZeRO-1 on."""
    whole = sum(net.parameters for net in (*load.trained, *load.frozen))
    weights = 0.0 if lay.weights_offloaded else whole * lay.size * lay.share(3)
    masters = lay.stage >= 1 or lay.dtype != "float32"
    states = trainable(load, lay) * (12 if masters else 8) * lay.share(1)
    return {
        "process": 0 if lay.on_gpu else INTERPRETER,
        "weights": weights,
        "optimiser": 0.0 if lay.optimiser_offloaded else states,
        "buffers": bucket(load, lay) + trainable(load, lay) * 4 * lay.share(3) if lay.stage == 3 else 0.0,
    }


def bucket(load: Load, lay: Layout) -> float:
    """What DeepSpeed gathers gradients in to reduce them: a GPU gives it whole, the CPU as it is used."""
    if not load.trained:
        return 0.0
    return lay.size * (BUCKET if lay.on_gpu and lay.stage else min(BUCKET, trainable(load, lay)))


def trainable(load: Load, lay: Layout) -> int:
    """Parameters under the optimiser: all, or the adapters and a scorer's head."""
    if lay.lora is None:
        return sum(net.parameters for net in load.trained)
    return sum(adapters(net, lay.lora) + net.shape.hidden * net.is_scorer for net in load.trained)


def adapters(net: Net, lora: LoraSpec) -> int:
    """Parameters of rank-r adapters: r (inputs + outputs) of each layer that is adapted."""
    linear = net.shape.linear
    named = linear if lora.targets == "all-linear" else {n: linear[n] for n in lora.targets if n in linear}
    return net.shape.layers * lora.rank * sum(a + b for a, b in named.values())


def moments(load: Load, lay: Layout) -> dict[str, dict[Part, float]]:
    """What is added to the resident part, when."""
    found: dict[str, dict[Part, float]] = {"at rest": {}}
    nets = (*load.trained, *load.frozen)
    gathered = 0.0
    if lay.stage == 3:
        gathered = min(LIVE, max(net.parameters for net in nets)) * lay.size
    if load.trained:
        together = sum(net.parameters for net in load.trained)  # in one module, as an anchor is
        together += load.use.anchored * load.trained[0].parameters
        found |= training(load, lay, min(LIVE, together) * lay.size if lay.stage == 3 else 0.0)
    if load.sampled:
        found |= sampling(load, lay)
    if load.frozen and load.measured:
        tokens = load.measured * load.length
        found["measuring"] = {
            "activations": max(passing(net.shape, lay) for net in load.frozen) * tokens,
            "logits": max(head_bytes(load, net, lay, LOGITS, rows=load.measured) for net in load.frozen),
            "copies": gathered,
        }
    return found


def training(load: Load, lay: Layout, gathered: float) -> dict[str, dict[Part, float]]:
    """An update: at the end of a forward pass, when gradients are reduced, at the optimiser's step; and
    without a GPU the export, which copies the weights to where they are already.

    Sizes per parameter are those of the tensors that DeepSpeed 0.19 makes (runtime/engine.py,
    zero/stage_1_and_2.py, zero/stage3.py).
    """
    count, size = trainable(load, lay), lay.size
    # Gradients that stay here, in float32; an optimiser elsewhere has them with it
    own = 0.0 if lay.optimiser_offloaded else 4 * count * lay.share(2)
    before = own if load.micro_batches > 1 and lay.stage < 3 else 0.0
    made = own if lay.stage < 2 else size * count * lay.share(2)
    reducing = bucket(load, lay) if lay.engine == "deepspeed" and lay.stage < 3 else 0.0
    tokens = load.rows * load.length
    found: dict[str, dict[Part, float]] = {
        "forward and backward": {
            "gradients": before,
            "activations": sum(activations(net.shape, lay) for net in load.trained) * tokens,
            "logits": max(head_bytes(load, net, lay) for net in load.trained),
            "copies": gathered + (reducing if lay.on_gpu and lay.stage else 0.0),
        },
        "reduction of gradients": {
            "gradients": made + (before if lay.stage else 0.0),
            "copies": gathered + reducing,
        },
    }
    if not lay.optimiser_offloaded:
        found["optimiser's step"] = {"gradients": own, "copies": step_scratch(load, lay)}
    if not lay.on_gpu:
        found["export"] = {"copies": size * sum(net.parameters for net in load.trained)}
    return found


def step_scratch(load: Load, lay: Layout) -> float:
    """Temporaries of torch's AdamW in float32: on the CPU two of the tensor that it is at, which is the whole
    share under ZeRO and the largest parameter without; on a GPU one of all that it has."""
    count = trainable(load, lay)
    if lay.on_gpu:
        return count * 4 * lay.share(1)
    if lay.stage:
        return count * 8 * lay.share(1)
    largest = max(max(net.shape.vocab, net.shape.ff) * net.shape.hidden for net in load.trained)
    return min(count, largest) * 8


def activations(shape: Shape, lay: Layout) -> float:
    """Bytes that autograd keeps of a token (the method of Korthikanti et al. 2022, section 4, for
    transformers' blocks with fused attention: without a matrix of scores). With checkpointing the inputs of
    all blocks and one block's (section 5)."""
    size, index = lay.size, 0 if lay.dtype == "float32" else 1
    norm, ff = shape.family.saved_norm[index], shape.family.saved_ff[index]
    if lay.lora is not None and shape.family.is_gated:
        norm -= 2 * size  # a frozen norm needs no input for its weight's gradient
    block = norm * shape.hidden + ff * shape.ff + 2 * size * (shape.query + shape.key)
    block += 4 * shape.heads + 8  # the attention's log-sum-exp, the norms' deviations
    if shape.family.norms_heads:
        block += (8, 6)[index] * (shape.query + shape.key)
    if lay.lora is not None:
        block += size * lay.lora.rank * len(shape.linear)
    ends = (norm / 2 + 4) * shape.hidden
    if lay.checkpointing:
        return shape.layers * size * shape.hidden + block + ends
    return shape.layers * block + ends


def passing(shape: Shape, lay: Layout) -> float:
    """Bytes of a token in a forward pass that keeps nothing: the stream, a norm, a block's widest step."""
    return lay.size * (2 * shape.hidden + max(4 * shape.hidden, 3 * shape.ff)) + 4 * shape.hidden


def head_bytes(
    load: Load, net: Net, lay: Layout, copies: int | None = None, *, rows: int | None = None
) -> float:
    """Logits of response tokens, a chunk at a time."""
    if net.is_scorer:
        return 0.0
    if copies is None:
        copies = WITH_ENTROPY if load.use.entropy else LOGITS
        copies = BESIDE_REFERENCE if load.use.anchored else copies
    tokens = (load.rows if rows is None else rows) * load.response
    return copies * 4 * min(tokens * net.shape.vocab, CHUNK)


def sampling(load: Load, lay: Layout) -> dict[str, dict[Part, float]]:
    """A batch of responses: the prompts' forward pass, and at the end keys and values of every position with
    the logits of the last one. The cache is taken whole at the beginning, but the CPU gives it as it is
    written to. Under ZeRO-3 the policy is gathered.
    """
    policy = (load.trained or load.frozen)[0]
    shape, rows = policy.shape, load.sampled
    gathered = policy.parameters * lay.size if lay.stage == 3 else 0.0
    a_token = 2 * shape.layers * shape.key * lay.size * rows
    return {
        "prompts of a batch": {
            "cache": a_token * (load.length if lay.on_gpu else load.prompt),
            "activations": passing(shape, lay) * rows * load.prompt,
            "copies": gathered,
        },
        "end of a batch": {
            "cache": a_token * load.length,
            "logits": SAMPLED_LOGITS * 4 * rows * shape.vocab,
            "copies": gathered,
        },
    }
