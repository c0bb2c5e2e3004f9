"""What an evaluation asks its judge, in which stage, and what it does where that knows nothing of a pair."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alpacafarm.data.rows import write_outputs, write_rows
from alpacafarm.errors import JudgeError
from alpacafarm.evals.winrate import _rate
from alpacafarm.judges.against import (
    Answers,
    AskSpec,
    Told,
    ask,
    failures,
    judged,
    read_answers,
    read_judged,
    verdicts,
)
from alpacafarm.ports import Artifact
from alpacafarm.spec.judge import (
    AlpacaEvalJudge,
    ApiJudge,
    JudgeSpec,
    LocalJudge,
    MemberSpec,
    PoolJudge,
    RecordedJudge,
    RewardJudge,
    Single,
    WorldJudge,
    is_waited_for,
)
from alpacafarm.stage import Kind
from alpacafarm.types import Example, Output, Pair, Verdict

ROWS = [Example("a", "Say yes."), Example("b", "Say no.")]


class Judge:
    """Knows the rows in `known`, and prefers the second output."""

    name = "some"

    def __init__(self, known: str) -> None:
        self.known = known

    def compare(self, pairs: Sequence[Pair]) -> list[Verdict]:
        return [self._verdict(pair) for pair in pairs]

    def _verdict(self, pair: Pair) -> Verdict:
        if pair.id in self.known:
            return Verdict(2.0, self.name, calls=1)
        return Verdict(None, self.name, failure=f"refused: row {pair.id}", calls=1)


class Bill:
    calls = 0

    def spend(self, *, judge_calls: int, price_usd: float) -> None:
        self.calls += judge_calls


def output(row: Example, text: str, sample: int = 0) -> Output:
    return Output(row.id, row.instruction, row.input, text, "some", sample=sample)


def told(known: str, bill: Bill) -> Told:
    answers = Answers(ROWS, {row.id: output(row, "New.") for row in ROWS}, draws={}, null={})
    pairs = answers.against({row.id: ["Old."] for row in ROWS})
    return verdicts(Judge(known), pairs, bill)  # type: ignore[arg-type]


@pytest.mark.parametrize(("known", "lost"), [("ab", 0), ("b", 1)])
def test_failed_verdicts_are_counted_by_their_kind_and_left_out(known: str, lost: int):
    found = told(known, Bill())
    rate = _rate(found)
    assert rate is not None
    assert (rate["win_rate"], rate["n_total"], rate["n_failures"]) == (100.0, 2 - lost, lost)
    assert failures(found) == ({"refused": lost} if lost else {})


def test_no_verdict_at_all_is_no_rate_and_was_paid_for():
    bill = Bill()
    found = told("", bill)
    assert _rate(found) is None
    assert failures(found) == {"refused": 2}
    assert bill.calls == 2


WORLD = WorldJudge(kind="world", pool="eval", pool_seed=0)


class Stage:
    """The context of a stage whose judge is `Judge(known)`."""

    def __init__(self, out: Path, known: str) -> None:
        self.out, self.known = out, known
        self.dist = SimpleNamespace(rank=0)
        self.facts: dict[str, Any] = {}
        self.calls = 0

    def judge(self, spec: JudgeSpec, inputs: object) -> Judge:
        return Judge(self.known)

    def record(self, **facts: Any) -> None:
        self.facts |= facts

    def spend(self, *, judge_calls: int, price_usd: float) -> None:
        self.calls += judge_calls


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Artifact]:
    """Two rows with an output each, and two draws and a redraw of the SFT model."""
    kinds = {"rows": Kind.ROWS, "outputs": Kind.OUTPUTS, "sft_outputs": Kind.OUTPUTS}
    made = {role: Artifact(tmp_path / role, kind, role) for role, kind in kinds.items()}
    write_rows(made["rows"].path / "rows.jsonl", ROWS)
    write_outputs(made["outputs"].path / "outputs.json", [output(row, "New.") for row in ROWS])
    drawn = [output(row, f"Draw {sample}.", sample) for row in ROWS for sample in range(3)]
    write_outputs(made["sft_outputs"].path / "outputs.json", drawn)
    return made


@pytest.mark.parametrize("known", ["ab", "b"])
def test_verdicts_of_a_stage_of_their_own_are_those_of_one_that_goes_on(inputs, tmp_path, known):
    asking, at_once = Stage(tmp_path / "made", known), Stage(tmp_path / "none", known)
    ask(AskSpec(sft_draws=2, judge=WORLD), inputs, asking)  # type: ignore[arg-type]
    answers = read_answers(inputs, 2)
    found = read_judged(Artifact(asking.out, Kind.VERDICTS, "key", asking.facts), answers)
    assert found == judged(WORLD, answers, inputs, at_once)  # type: ignore[arg-type]
    assert [pair.output_1 for pair, _ in found.sft] == ["Draw 0.", "Draw 1."] * 2
    assert asking.calls == at_once.calls == 6
    assert not (tmp_path / "none").exists()


def test_a_judge_that_knows_no_row_fails_before_it_is_asked_of_the_draws(inputs, tmp_path):
    stage = Stage(tmp_path / "made", "")
    with pytest.raises(JudgeError, match=r"^the judge some gave no verdict on any of the 2 rows \(2 refused"):
        ask(AskSpec(sft_draws=2, judge=WORLD), inputs, stage)  # type: ignore[arg-type]
    assert stage.calls == 2
    assert not (tmp_path / "made").exists()


API = ApiJudge(
    kind="api",
    model="gpt-4o-mini",
    prompt="pairwise",
    answer="label",
    temperature=0,
    max_tokens=9,
    seed=0,
    both_orders=False,
    extra=None,
)
ALPACA_EVAL = AlpacaEvalJudge(
    kind="alpaca_eval", name="alpaca_eval_gpt4", model=None, seed=0, both_orders=False, one_per_prompt=False
)
LOCAL = LocalJudge(kind="local", path="gpt2", revision=None, prompt="pairwise", both_orders=True)
RECORDED = RecordedJudge(kind="recorded", path="told.json")


def pool(*judges: Single) -> PoolJudge:
    members = {str(i): MemberSpec(weight=1, judge=judge, noise=None) for i, judge in enumerate(judges)}
    return PoolJudge(kind="pool", members=members)


@pytest.mark.parametrize("judge", [API, ALPACA_EVAL, pool(API, API), pool(WORLD, RECORDED, API)])
def test_answers_of_an_api_are_waited_for(judge: JudgeSpec):
    assert is_waited_for(judge)


@pytest.mark.parametrize(
    "judge",
    [WORLD, RECORDED, LOCAL, RewardJudge(kind="reward", soft=True), pool(WORLD, RECORDED), pool(API, LOCAL)],
)
def test_judges_that_answer_here_are_not(judge: JudgeSpec):
    assert not is_waited_for(judge)
