"""The base model as it is: nothing is trained, its answers are evaluated, as LLaMA 7B's are in table 2 of
Dubois et al. 2023."""

from alpacafarm.ports import Upstream
from alpacafarm.rollout.decode import DecodeSpec
from alpacafarm.spec.data import Split
from alpacafarm.spec.method import MethodSpec
from alpacafarm.spec.model import Sampling
from alpacafarm.stage import Kind, Stage


class Spec(MethodSpec):
    """One sample for each instruction of `split`."""

    split: Split
    sampling: Sampling


def plan(spec: Spec, up: Upstream) -> Stage:
    return up.stage(
        "decode base",
        "alpacafarm.rollout.decode:decode",
        DecodeSpec(n=1, sampling=spec.sampling, stream="policy", prompts=None),
        makes=Kind.OUTPUTS,
        inputs={"policy": up.base(), "rows": up.rows(spec.split)},
    )
