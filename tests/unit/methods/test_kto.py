"""KTO: where it starts, what its reference point is and does not depend on, what it learns from."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pytest

from alpacafarm.data.rows import read_rows, write_rows
from alpacafarm.errors import ArtifactError
from alpacafarm.methods import kto
from alpacafarm.ports import Artifact
from alpacafarm.rollout import reference
from alpacafarm.rollout.reference import read_logprobs, response_logprobs
from alpacafarm.stage import Kind
from alpacafarm.training.thumbs import mismatched
from alpacafarm.types import Example, Thumb
from tests.unit.methods.conftest import CLUSTER, Tiny, optim
from tests.unit.methods.judged import measured, write_pairs


def spec(**changes: object) -> kto.Spec:
    values = {
        "name": "kto",
        "unpaired": False,
        "beta": 0.1,
        "desirable_weight": 1.0,
        "undesirable_weight": 1.0,
        "epochs": 1,
        "snapshot_every": None,
        "pick": None,
        "optim": optim(lr=1e-2, batch_size=48),
    }
    return kto.Spec.model_validate({**values, **changes})


def inputs(tiny: Tiny, judged: Artifact, *, unpaired: bool = False) -> Mapping[str, Artifact]:
    role = "pairs" if judged.kind is Kind.PAIRS else "thumbs"
    given = {"policy": tiny.policy, role: judged}
    ctx = tiny.context(f"mismatched-{judged.key}-{unpaired}")
    kto.measure_mismatched(kto.MismatchedSpec(unpaired=unpaired), given, ctx)
    if judged.kind is Kind.PAIRS:
        whole = measured(tiny, judged)
    else:
        own = tiny.context(f"reference-{judged.key}")
        reference.measure(reference.ReferenceSpec(), given, own)
        whole = Artifact(own.out, Kind.LOGPROBS, "reference")
    others = Artifact(ctx.out, Kind.LOGPROBS, "mismatched")
    return {"init": tiny.policy, role: judged, "reference": whole, "mismatched_reference": others}


def trained(
    tiny: Tiny, name: str, given: Mapping[str, Artifact], how: kto.Spec, **context: Any
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """The log of a run, and what it recorded."""
    ctx = tiny.context(name, **context)
    kto.train(how, given, ctx)
    ctx.track.close()
    lines = (ctx.out / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], ctx.facts


def moved(tiny: Tiny, given: Mapping[str, Artifact], **changes: object) -> Artifact:
    trained(tiny, "moved", given, spec(epochs=4, **changes))
    return Artifact(tiny.home / "moved" / "out", Kind.POLICY, "moved")


def write_thumbs(tiny: Tiny) -> Artifact:
    rows = read_rows(tiny.rows.path / "rows.jsonl", Example)
    thumbs = [Thumb(**asdict(row), desirable=i % 3 > 0) for i, row in enumerate(rows)]
    write_rows(tiny.home / "thumbs" / "rows.jsonl", thumbs)
    return Artifact(tiny.home / "thumbs", Kind.ROWS, "thumbs")


@pytest.fixture
def pairs(tiny: Tiny) -> Artifact:
    return write_pairs(tiny, tiny.home / "pairs")


def test_it_starts_at_half_of_the_mean_weight(tiny: Tiny, pairs):
    how = spec(desirable_weight=1.5, undesirable_weight=0.5)
    (first, *_), facts = trained(tiny, "run", inputs(tiny, pairs), how)
    assert first["loss"] == pytest.approx(0.5, abs=1e-5)
    assert first["reference_point"] == pytest.approx(0.0, abs=1e-4)
    assert (facts["ties"], facts["desirable"], facts["undesirable"]) == (6, 18, 18)


@pytest.mark.parametrize("unpaired", [False, True])
def test_training_parts_desirable_from_undesirable_responses(tiny: Tiny, pairs, unpaired):
    given = inputs(tiny, pairs, unpaired=unpaired)
    log, facts = trained(tiny, "run", given, spec(unpaired=unpaired, epochs=12, beta=1.0))
    assert facts["desirable"] + facts["undesirable"] == (18 if unpaired else 36)
    assert log[-1]["margin"] > log[0]["margin"] + 0.1
    assert log[-1]["logratio/desirable"] > log[-1]["logratio/undesirable"]
    assert log[-1]["loss"] < 0.49


def test_own_thumbs_are_learned_from(tiny: Tiny):
    given = inputs(tiny, write_thumbs(tiny), unpaired=True)
    log, facts = trained(tiny, "run", given, spec(unpaired=True, epochs=12, beta=1.0))
    assert (facts["desirable"], facts["undesirable"]) == (16, 8)
    assert log[-1]["margin"] > 0.1


@pytest.mark.parametrize("liked", [True, False])
def test_the_step_is_measured_and_lost_as_computed_by_hand(tiny: Tiny, liked):
    """On a policy that has moved up on all responses, or down: there the point is held at zero. One side of
    each pair, so that there are more of one kind than of the other."""
    every = write_pairs(tiny, tiny.home / "pairs", preferences=(1.0, 2.0))
    given = dict(inputs(tiny, every, unpaired=True))
    weights = {"desirable_weight": 100.0 if liked else 0.01, "undesirable_weight": 0.01 if liked else 100.0}
    start = moved(tiny, given, unpaired=True, **weights)
    how = spec(unpaired=True, beta=0.7, desirable_weight=1.2, optim=optim(lr=0.0, batch_size=48))
    (first, *_), _ = trained(tiny, "still", {**given, "init": start}, how)

    ctx = tiny.context("by hand")
    thumbs = kto.judged_responses(given, ctx.tokenizer(start), ctx, unpaired=True)
    others = mismatched(thumbs.rows, ctx.seed)
    policy = ctx.frozen(start)

    def ratios(rows: list, measured: Artifact) -> list[float]:
        found = response_logprobs(policy, rows, ctx)
        return [a - b for a, b in zip(found, read_logprobs(measured, rows), strict=True)]

    own, other = ratios(thumbs.rows, given["reference"]), ratios(others, given["mismatched_reference"])
    point = sum(other) / 24
    assert (point > 0.1) if liked else (point < -0.1)
    point = max(0.0, point)
    losses = [
        1.2 / (1 + math.exp(0.7 * (x - point))) if good else 1 / (1 + math.exp(0.7 * (point - x)))
        for x, good in zip(own, thumbs.is_desirable, strict=True)
    ]
    up, down = (
        [x for x, good in zip(own, thumbs.is_desirable, strict=True) if good is kind]
        for kind in (True, False)
    )
    right = [(x > point) is good for x, good in zip(own, thumbs.is_desirable, strict=True)]
    assert len(up) != len(down)
    assert first["reference_point"] == pytest.approx(point, abs=1e-4)
    assert first["loss"] == pytest.approx(sum(losses) / 24, abs=1e-5)
    assert first["logratio/desirable"] == pytest.approx(sum(up) / len(up), abs=1e-4)
    assert first["logratio/undesirable"] == pytest.approx(sum(down) / len(down), abs=1e-4)
    assert first["margin"] == pytest.approx(0.7 * (sum(up) / len(up) - sum(down) / len(down)), abs=1e-4)
    assert first["accuracy"] == pytest.approx(sum(right) / 24)


def test_micro_batches_and_order_change_nothing(tiny: Tiny, pairs):
    from alpacafarm.types import Preference

    write_rows(tiny.home / "turned" / "pairs.jsonl", read_rows(pairs.path / "pairs.jsonl", Preference)[::-1])
    turned = Artifact(tiny.home / "turned", Kind.PAIRS, "turned")
    straight, back = inputs(tiny, pairs), inputs(tiny, turned)
    start = moved(tiny, straight, desirable_weight=10.0)
    logs = [
        trained(
            tiny,
            f"run{n}",
            {**given, "init": start},
            spec(epochs=2),
            cluster=CLUSTER.model_copy(update={"micro_batch": n}),
        )[0]
        for given, n in ((straight, 48), (straight, 5), (back, 1))
    ]
    assert logs[0][0]["reference_point"] > 0.1
    for log in logs[1:]:
        for one, two in zip(logs[0], log, strict=True):
            # The second step follows Adam's first, which makes steps of full size out of rounding.
            assert two == pytest.approx(one, rel=1e-3, abs=1e-4)


def test_a_step_without_one_kind_has_no_margin_of_it(tiny: Tiny):
    pairs = write_pairs(tiny, tiny.home / "pairs", preferences=(2.0, 1.0))
    how = spec(unpaired=True, optim=optim(lr=1e-2, batch_size=1))
    log, _ = trained(tiny, "run", inputs(tiny, pairs, unpaired=True), how)
    assert len(log) == 24
    assert all(0.0 in (row["logratio/desirable"], row["logratio/undesirable"]) for row in log)
    assert all(math.isfinite(value) for row in log for value in row.values())


def test_responses_that_were_not_measured_are_refused(tiny: Tiny, pairs):
    given = dict(inputs(tiny, pairs))
    given["mismatched_reference"] = given["reference"]
    with pytest.raises(ArtifactError, match=r"36 of 36 responses are not in it"):
        kto.train(spec(), given, tiny.context("run"))
