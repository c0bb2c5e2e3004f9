"""A preference source and an evaluation from outside of the package, chosen as methods are."""

import sys

import pytest

from alpacafarm import run

SOURCE = """
from alpacafarm.data.plan import pairs_from_file
from alpacafarm.spec.feedback import FeedbackSpec


class Spec(FeedbackSpec):
    path: str


def plan(spec, up):
    return pairs_from_file(up, "feedback.path", spec.path)
"""
EVALUATION = """
from alpacafarm.spec.eval import EvalSpec
from alpacafarm.stage import Kind


class Spec(EvalSpec):
    weight: float


def plan(spec, up, candidate):
    return up.stage("weigh", "own_evaluation:weigh", spec, makes=Kind.SCORES, inputs={"policy": candidate})
"""


METHOD = """
from alpacafarm.spec.method import MethodSpec


class Spec(MethodSpec):
    kl_coef: float


def plan(spec, up):
    raise NotImplementedError
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user's folder with two modules and a YAML file for each."""
    for group, module, text, value in [
        ("feedback", "own_pairs", SOURCE, "path: null"),
        ("eval", "own_evaluation", EVALUATION, "weight: 0.5"),
        ("method", "own_method", METHOD, "kl_coef: 0.1"),
    ]:
        (tmp_path / f"{module}.py").write_text(text)
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "own.yaml").write_text(f"name: own\n_module: {module}\n{value}\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for module in ("own_pairs", "own_evaluation", "own_method"):
        sys.modules.pop(module, None)


def test_a_source_and_an_evaluation_of_ones_own_are_planned(home, things):
    asked = ["--config-dir", str(home / "conf"), "method=dpo", "feedback=own", "eval=own"]
    (made,) = run.check([*asked, f"feedback.path={things['pairs']}", "store=store"])
    assert made.plan.scores.run == "own_evaluation:weigh"
    assert made.plan.scores.params == {"name": "own", "_module": "own_evaluation", "weight": 0.5}
    assert "annotate" not in {stage.name for stage in made.plan.stages}


def test_a_wrong_key_of_them_is_refused_like_any_other(home, things):
    asked = ["--config-dir", str(home / "conf"), "method=dpo", "feedback=own", "eval=own"]
    with pytest.raises(
        run.SpecError, match=r"feedback\.path=null: must be a text(.*\n)+eval\.weight=heavy: must be a number"
    ):
        run.check([*asked, "eval.weight=heavy"])


def test_a_method_of_ones_own_is_among_those_to_choose(home):
    (home / "conf" / "method" / "half.yaml").write_text("name: [")
    own = ["--config-dir", str(home / "conf")]
    with pytest.raises(run.SpecError, match=r"^method is missing: .* known: .*, orpo, own, ppo, "):
        run.check(own)
    with pytest.raises(run.SpecError, match=r"^kl_coef=0\.1: .* one: dr_grpo, grpo, own, ppo, "):
        run.check([*own, "method=dpo", "kl_coef=0.1"])
    with pytest.raises(run.SpecError, match=r"^method is missing: .* known: .*, orpo, ppo, "):
        run.check([])
