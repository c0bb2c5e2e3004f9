"""What a stage holds on a device and does there: which models, how many rows at once, how long."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from alpacafarm.cost.shape import Shape, is_model, shape_of_node
from alpacafarm.spec.run import RunSpec
from alpacafarm.stage import Given, Kind, Node, Stage


@dataclass(frozen=True)
class Use:
    """How a stage function uses its models, as far as its inputs do not tell.

    `sides`: responses of one row of a micro-batch; `both`: both sides of pairs are learned from; `critic`: a
    value network is trained beside the policy; `anchored`: the reference's logits stand beside the policy's;
    `entropy`: the loss needs it.
    """

    sides: int = 1
    both: bool = True
    critic: bool = False
    anchored: bool = False
    entropy: bool = False


PAIRED = Use(sides=2)
USES = {
    "alpacafarm.methods.sft:train": Use(both=False),
    "alpacafarm.methods.pretrain:train": Use(),
    "alpacafarm.methods.reward_condition:train": Use(),
    "alpacafarm.methods.kto:train": Use(),
    "alpacafarm.methods.rm:train": PAIRED,
    "alpacafarm.methods.rm_ensemble:train_member": PAIRED,
    "alpacafarm.methods.dpo:train": PAIRED,
    "alpacafarm.methods.online_dpo:train": PAIRED,
    "alpacafarm.methods.ppo:train": Use(critic=True, entropy=True),
    "alpacafarm.methods.reinforce:train": Use(entropy=True),
    "alpacafarm.methods.quark:train": Use(anchored=True, entropy=True),
}


@dataclass(frozen=True)
class Net:
    """A model in memory. A scorer is a sequence classifier with one label."""

    role: str
    shape: Shape
    is_scorer: bool = False

    @property
    def parameters(self) -> int:
        return self.shape.scorer_parameters if self.is_scorer else self.shape.parameters


@dataclass(frozen=True)
class Load:
    """`rows` and `micro_batches` are those of an update of one process, `sampled` rows are drawn at once."""

    trained: tuple[Net, ...]
    frozen: tuple[Net, ...]
    use: Use
    rows: int
    micro_batches: int
    measured: int  # rows of one forward pass that trains nothing, 0 where a stage only samples
    sampled: int
    prompt: int  # tokens of a row, at most
    response: int

    @property
    def length(self) -> int:
        return self.prompt + self.response


def load_of(stage: Stage, spec: RunSpec, world: int) -> Load | None:
    """None where a model's shape is not known, or the stage holds no model."""
    if not stage.uses_devices:
        return None
    use = USES.get(stage.run) or guessed(stage)
    nets = dict(models(stage, spec))
    if not nets or None in nets.values():
        return None
    found = {role: net for role, net in nets.items() if net is not None}
    optim = stage.params.get("optim")
    rollouts = stage.params.get("rollouts_per_step")
    trained, frozen = held(stage, use, found)
    micro_batch = spec.cluster.micro_batch
    share = 1 if optim is None else -(-int(optim["batch_size"]) // world)
    units = micro_batch * use.sides if rollouts and use.sides > 1 else micro_batch
    return Load(
        trained=tuple(trained),
        frozen=tuple(frozen),
        use=use,
        rows=min(share * (1 if rollouts else use.sides), micro_batch * use.sides),
        micro_batches=-(-share // units),
        measured=0 if stage.makes is Kind.OUTPUTS and _sampling(stage) else micro_batch,
        sampled=sampled_at_once(stage, spec, world),
        prompt=spec.model.max_prompt_tokens,
        response=response_tokens(stage, spec),
    )


def held(stage: Stage, use: Use, nets: Mapping[str, Net]) -> tuple[list[Net], list[Net]]:
    """The models that the stage trains, and those that it only asks; `nets` are those among its inputs."""
    if stage.params.get("optim") is None:
        return [], list(nets.values())
    init = nets.get("init") or next(iter(nets.values()))
    is_policy = stage.makes is Kind.POLICY
    trained = [Net("policy" if is_policy else "reward model", init.shape, is_scorer=not is_policy)]
    if use.critic:
        trained.append(Net("critic", nets["reward"].shape, is_scorer=True))
    reference = [Net("reference", init.shape)] if stage.params.get("rollouts_per_step") else []
    return trained, [*reference, *(net for role, net in nets.items() if role != "init")]


def guessed(stage: Stage) -> Use:
    """Of a method of the user's own: both sides of pairs where it trains on pairs."""
    kinds = [node.makes if isinstance(node, Stage) else node.kind for node in stage.inputs.values()]
    return PAIRED if Kind.PAIRS in kinds and "optim" in stage.params else Use()


def models(stage: Stage, spec: RunSpec) -> Iterator[tuple[str, Net | None]]:
    """The models among a stage's inputs by role, each member of an ensemble once; None where the shape is not
    known. A stage without any model to start from builds `model.architecture`."""
    if "optim" in stage.params and not any(map(is_model, stage.inputs.values())):
        shape = shape_of_node(stage, spec.model)
        yield "init", None if shape is None else Net("policy", shape)
    for role, node in stage.inputs.items():
        if is_model(node):
            shape = shape_of_node(node, spec.model)
            is_scorer = _kind(node) is Kind.REWARD
            for number in range(members(node)):
                name = f"{role} {number + 1}" if number else role
                yield name, None if shape is None else Net(name, shape, is_scorer)


def has_model(stage: Stage, spec: RunSpec) -> bool:
    return any(True for _ in models(stage, spec))


def members(node: Node) -> int:
    """Reward models that score together."""
    if isinstance(node, Stage):
        return max(1, sum(role.startswith("member_") for role in node.inputs))
    return max(1, len(list(Path(node.location).glob("members/*"))))


def sampled_at_once(stage: Stage, spec: RunSpec, world: int) -> int:
    """Rows of one batch of sampling, 0 where the stage does not sample."""
    if _sampling(stage) is None:
        return 0
    most = spec.cluster.generation_batch
    rollouts = stage.params.get("rollouts_per_step")
    return most if rollouts is None else min(most, -(-int(rollouts) // world))


def response_tokens(stage: Stage, spec: RunSpec) -> int:
    """New tokens of what the stage samples itself, else the longest response that is read."""
    sampling = _sampling(stage)
    if sampling is None:
        return spec.model.max_response_tokens
    return int(sampling["max_new_tokens"])


def _sampling(stage: Stage) -> dict[str, int] | None:
    pick = stage.params.get("pick")
    told = stage.params.get("sampling") or (pick or {}).get("sampling")
    return told if isinstance(told, dict) else None


def _kind(node: Node) -> Kind:
    return node.kind if isinstance(node, Given) else node.makes
