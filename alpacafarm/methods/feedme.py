"""Binary FeedME: supervised fine-tuning on the chosen response of each judged pair (Dubois et al. 2023,
supplement; after OpenAI's FeedME, on the answers that people rated highest). The release has no script."""

from pydantic import Field

from alpacafarm.methods.sft import tuned
from alpacafarm.ports import Upstream
from alpacafarm.spec.method import MethodSpec, OptimSpec
from alpacafarm.stage import Stage


class Spec(MethodSpec):
    """`epochs` over the chosen responses, from the SFT model. Ties have none and are left out."""

    epochs: int = Field(ge=1)
    optim: OptimSpec


def plan(spec: Spec, up: Upstream) -> Stage:
    return tuned(spec.name, spec, up, init=up.sft(), demonstrations={"pairs": up.preferences()})
