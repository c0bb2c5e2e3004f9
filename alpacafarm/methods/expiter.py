"""Expert iteration: the policy imitates the best of its own samples (Anthony et al. 2017; Dubois et al. 2023,
section 4; examples/scripts/expiter.sh)."""

from pydantic import Field

from alpacafarm.methods.best_of_n import chosen
from alpacafarm.methods.sft import tuned
from alpacafarm.ports import Upstream
from alpacafarm.rollout.decode import DecodeSpec
from alpacafarm.spec.method import MethodSpec, OptimSpec
from alpacafarm.spec.model import Sampling
from alpacafarm.stage import Node, Stage


class Spec(MethodSpec):
    """Each of `rounds` samples `n` responses for `prompts` unlabeled instructions (null: all), and trains for
    `epochs` on the best ones, from the policy of the round before."""

    rounds: int = Field(ge=1, le=50)
    n: int = Field(ge=2)
    prompts: int | None = Field(ge=1)
    sampling: Sampling
    epochs: int = Field(ge=1)
    optim: OptimSpec


def plan(spec: Spec, up: Upstream) -> Stage:
    policy: Node = up.sft()
    for number in range(1, spec.rounds + 1):
        last = _round(number, spec, up, policy)
        policy = last
    return last


def _round(number: int, spec: Spec, up: Upstream, policy: Node) -> Stage:
    ordinal = f", round {number}" if spec.rounds > 1 else ""
    best = chosen(
        f"best of {spec.n}",
        up,
        policy,
        n=spec.n,
        decoding=DecodeSpec(
            n=spec.n, sampling=spec.sampling, stream=f"expiter {number}", prompts=spec.prompts
        ),
        split="unlabeled",
        ordinal=ordinal,
    )
    return tuned(f"{spec.name}{ordinal}", spec, up, init=policy, demonstrations={"best": best})
