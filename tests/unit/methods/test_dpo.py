"""Training on judged pairs: where it starts, what it does not depend on, what it logs, what it refuses."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from alpacafarm.data.rows import read_rows, write_rows
from alpacafarm.errors import ArtifactError
from alpacafarm.methods import dpo
from alpacafarm.ports import Artifact
from alpacafarm.stage import Kind
from alpacafarm.text.collate import Tokens, collate_pairs
from alpacafarm.training.pairs import with_reference
from alpacafarm.types import Preference
from tests.unit.methods.conftest import CLUSTER, Tiny, optim
from tests.unit.methods.judged import measured, write_pairs

SETTINGS: dict[str, dict[str, Any]] = {
    "dpo": {},
    "cdpo": {"correction": "smooth", "flip_probability": 0.25},
    "robust": {"correction": "robust", "flip_probability": 0.25},
    "ipo": {"loss": "ipo"},
    "hinge": {"loss": "hinge"},
    "simpo": {"loss": "simpo", "beta": 2.0, "target_margin": 1.0, "length_normalised": True},
    "orpo": {"loss": "orpo", "nll_coef": 1.0, "length_normalised": True},
    "dpo_nll": {"nll_coef": 0.5},
    "dpo_norm": {"beta": 5.0, "length_normalised": True},
}


def spec(**changes: object) -> dpo.Spec:
    values = {
        "name": "dpo",
        "fidelity": "corrected",
        "loss": "dpo",
        "beta": 0.1,
        "target_margin": 0.0,
        "nll_coef": 0.0,
        "length_normalised": False,
        "correction": "none",
        "flip_probability": 0.0,
        "epochs": 1,
        "snapshot_every": None,
        "pick": None,
        "optim": optim(lr=1e-2, batch_size=24),
    }
    return dpo.Spec.model_validate({**values, **changes})


def inputs(tiny: Tiny, pairs: Artifact) -> Mapping[str, Artifact]:
    return {"init": tiny.policy, "pairs": pairs, "reference": measured(tiny, pairs)}


def trained(
    tiny: Tiny, name: str, given: Mapping[str, Artifact], how: dpo.Spec, **context: Any
) -> list[dict]:
    """The log of a run."""
    if how.loss in dpo.WITHOUT_REFERENCE:
        given = {role: node for role, node in given.items() if role != "reference"}
    ctx = tiny.context(name, **context)
    dpo.train(how, given, ctx)
    ctx.track.close()
    return [json.loads(line) for line in (ctx.out / "log.jsonl").read_text().splitlines()]


def moved(tiny: Tiny) -> Artifact:
    """The policy after some training on other labels: no lead is zero up to rounding."""
    decided = write_pairs(tiny, tiny.home / "decided", preferences=(2.0, 1.0))
    trained(tiny, "moved", inputs(tiny, decided), spec(epochs=3))
    return Artifact(tiny.home / "moved" / "out", Kind.POLICY, "moved")


@pytest.fixture
def pairs(tiny: Tiny) -> Artifact:
    return write_pairs(tiny, tiny.home / "pairs")


@pytest.mark.parametrize(
    ("name", "loss"), [("dpo", math.log(2)), ("robust", math.log(2)), ("ipo", 25.0), ("hinge", 1.0)]
)
def test_it_starts_where_policy_and_reference_are_one(tiny: Tiny, pairs, name, loss):
    first = trained(tiny, "run", inputs(tiny, pairs), spec(**SETTINGS[name]))[0]
    assert first["loss"] == pytest.approx(loss, abs=1e-4)
    for metric in ("margin", "logratio/chosen", "logratio/rejected"):
        assert first[metric] == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("name", SETTINGS)
def test_training_moves_the_chosen_responses_ahead(tiny: Tiny, name):
    pairs = write_pairs(tiny, tiny.home / "decided", preferences=(2.0, 1.0))
    log = trained(tiny, "run", inputs(tiny, pairs), spec(**SETTINGS[name], epochs=6))
    assert log[-1]["margin"] > log[0]["margin"] + 0.01
    assert log[-1]["accuracy"] > 0.6


@pytest.mark.parametrize("name", SETTINGS)
def test_micro_batches_order_and_sides_change_nothing(tiny: Tiny, pairs, name):
    """One step over all pairs, each time cut, ordered or turned round in another way."""
    rows = read_rows(pairs.path / "pairs.jsonl", Preference)
    turned = [
        Preference(p.id, p.instruction, p.input, p.output_2, p.output_1, 3 - p.preference, p.annotator)
        for p in rows[::-1]
    ]
    write_rows(tiny.home / "turned" / "pairs.jsonl", turned)
    other = Artifact(tiny.home / "turned", Kind.PAIRS, "turned")
    how, start = spec(**SETTINGS[name], epochs=2), moved(tiny)
    straight, back = ({**inputs(tiny, source), "init": start} for source in (pairs, other))
    logs = [
        trained(tiny, f"run{n}", given, how, cluster=CLUSTER.model_copy(update={"micro_batch": n}))
        for given, n in ((straight, 24), (straight, 5), (back, 1))
    ]
    for log in logs[1:]:
        for one, two in zip(logs[0], log, strict=True):
            # The second step follows Adam's first, which makes steps of full size out of rounding.
            assert two == pytest.approx(one, rel=1e-3, abs=1e-4)
        assert log[0]["grad_norm"] == pytest.approx(logs[0][0]["grad_norm"], rel=1e-4)


def test_corrections_of_labels_that_never_flip_train_the_same_policy(tiny: Tiny, pairs):
    given = inputs(tiny, pairs)
    plain, *corrected = (
        trained(tiny, name, given, spec(correction=name, epochs=3)) for name in ("none", "smooth", "robust")
    )
    assert corrected == [plain, plain]


def test_metrics_are_of_the_chosen_and_the_rejected_response(tiny: Tiny):
    """After training, measured again by hand: log-ratios are differences of what the reference stage says."""
    pairs = write_pairs(tiny, tiny.home / "others", preferences=(2.0, 1.0))
    given, start = inputs(tiny, pairs), moved(tiny)
    log = trained(tiny, "still", {**given, "init": start}, spec(optim=optim(lr=0.0, batch_size=24)))
    again = Tiny(tiny.home / "again", start, tiny.reward, tiny.rows)
    before, after = (logprobs(artifact) for artifact in (given["reference"], measured(again, pairs)))
    ratios = [b - a for a, b in zip(before, after, strict=True)]
    first, second = ratios[:24], ratios[24:]
    chosen = [second[i] if i % 2 == 0 else first[i] for i in range(24)]
    rejected = [first[i] if i % 2 == 0 else second[i] for i in range(24)]
    assert log[0]["logratio/chosen"] == pytest.approx(sum(chosen) / 24, abs=1e-4)
    assert log[0]["logratio/rejected"] == pytest.approx(sum(rejected) / 24, abs=1e-4)
    leads = [0.1 * (c - r) for c, r in zip(chosen, rejected, strict=True)]
    assert log[0]["margin"] == pytest.approx(sum(leads) / 24, abs=1e-4)
    assert log[0]["accuracy"] == sum(lead > 0 for lead in leads) / 24
    assert log[0]["loss"] == pytest.approx(sum(math.log1p(math.exp(-x)) for x in leads) / 24, abs=1e-5)


def logprobs(artifact: Artifact) -> list[float]:
    return [
        json.loads(line)["logprob"] for line in (artifact.path / "logprobs.jsonl").read_text().splitlines()
    ]


def test_a_published_tie_has_no_gradient_and_counts_in_the_mean(tiny: Tiny):
    """Away from the reference, where a tie that is one half pulls both responses together."""
    start, still = moved(tiny), optim(lr=0.0, batch_size=24)

    def first(name: str, preferences: tuple[float, ...], fidelity: str) -> dict[str, float]:
        pairs = write_pairs(tiny, tiny.home / f"pairs-{name}", preferences=preferences)
        given = {**inputs(tiny, pairs), "init": start}
        return trained(tiny, name, given, spec(fidelity=fidelity, optim=still))[0]

    for name, preferences in (("ties", (1.5,)), ("soft", (1.3,))):
        published = first(name, preferences, "published")
        assert published["loss"] == pytest.approx(math.log(2), abs=1e-6)
        assert published["grad_norm"] == 0.0
    assert first("halves", (1.5,), "corrected")["grad_norm"] > 1e-3


def test_published_and_corrected_differ_on_ties_alone():
    """Three pairs with leads of output 2 of 3, 3 and -1 nats: chosen, a tie, and output 1 chosen."""
    rows = [Tokens((5,), (6,)), Tokens((5,), (7,))]
    batch = collate_pairs([rows[0]] * 3, [rows[1]] * 3, [1.0, 0.5, 0.0], 0)
    referenced = with_reference([-1.0] * 3, [-2.0] * 3)(batch, range(3))
    policy: Any = lambda _, temperature: SimpleNamespace(  # noqa: E731
        logprob_BT=torch.tensor([[-3.0], [-3.0], [-1.0], [-1.0], [-1.0], [-3.0]])
    )
    losses = {
        fidelity: dpo.preference_loss(policy, spec(fidelity=fidelity, beta=1.0))(referenced)[0].item()
        for fidelity in ("published", "corrected")
    }
    decided = math.log1p(math.exp(-3.0)) + math.log1p(math.exp(-1.0))
    assert losses["published"] == pytest.approx(decided + math.log(2), rel=1e-6)
    tie = (math.log1p(math.exp(-3.0)) + math.log1p(math.exp(3.0))) / 2
    assert losses["corrected"] == pytest.approx(decided + tie, rel=1e-6)


def test_pairs_that_were_not_measured_are_refused(tiny: Tiny, pairs):
    given = dict(inputs(tiny, pairs))
    rows = read_rows(pairs.path / "pairs.jsonl", Preference)
    write_rows(
        tiny.home / "other" / "pairs.jsonl",
        [Preference(p.id, p.instruction, p.input, "!" + p.output_1, p.output_2, 2.0) for p in rows],
    )
    given["pairs"] = Artifact(tiny.home / "other", Kind.PAIRS, "other")
    with pytest.raises(ArtifactError, match=r"24 of 24 responses are not in it"):
        dpo.train(spec(), given, tiny.context("run"))


def test_without_a_reference_log_probabilities_are_logged_in_its_place(tiny: Tiny, pairs):
    log = trained(tiny, "run", inputs(tiny, pairs), spec(**SETTINGS["simpo"]))
    assert {"logprob/chosen", "logprob/rejected"} <= set(log[0])
    assert log[0]["logprob/chosen"] < 0


def test_the_loss_of_a_pair_adds_the_likelihood_per_token():
    from alpacafarm.ops.preference import Side

    chosen = Side(torch.tensor([-6.0]), torch.tensor([-6.0]), torch.tensor([3]))
    rejected = Side(torch.tensor([-8.0]), torch.tensor([-8.0]), torch.tensor([2]))
    for normalised in (False, True):
        loss = dpo.chosen_loss(spec(nll_coef=0.5, length_normalised=normalised))
        torch.testing.assert_close(loss(chosen, rejected), torch.tensor([math.log(2) + 0.5 * 2.0]))


def test_length_normalised_log_ratios_are_per_token():
    """4 nats over 2 tokens against 2 nats over 4."""
    from alpacafarm.ops.preference import Side

    chosen = Side(torch.tensor([-2.0]), torch.tensor([-6.0]), torch.tensor([2]))
    rejected = Side(torch.tensor([-5.0]), torch.tensor([-7.0]), torch.tensor([4]))
    for normalised, lead in ((False, 4.0 - 2.0), (True, 2.0 - 0.5)):
        loss = dpo.chosen_loss(spec(beta=3.0, length_normalised=normalised))(chosen, rejected)
        torch.testing.assert_close(loss, torch.tensor([math.log1p(math.exp(-3.0 * lead))]))


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        ({"target_margin": 1.0}, "target_margin", "loss=dpo has no target margin"),
        ({"loss": "simpo"}, "length_normalised", "must be true for .loss=simpo"),
        ({"loss": "orpo", "length_normalised": True}, "nll_coef", "must be greater than 0 for .loss=orpo"),
        ({"flip_probability": 0.1}, "flip_probability", "correction=none would not look at it"),
        (
            {"correction": "robust", "flip_probability": 0.5},
            "flip_probability",
            "must be below 0.5 for .correction=robust",
        ),
        ({"fidelity": "published", "nll_coef": 1.0}, "fidelity", "the original has DPO alone"),
    ],
)
def test_options_that_do_not_go_together_are_refused(changes, key, message):
    with pytest.raises(ValidationError) as caught:
        spec(**changes)
    (error,) = caught.value.errors()
    assert error["loc"] == (key,)
    assert message in error["msg"]


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(ValidationError) as caught:
        spec(loss="orpo", target_margin=1.0, flip_probability=0.1, fidelity="published")
    assert [error["loc"][0] for error in caught.value.errors()] == [
        "target_margin",
        "length_normalised",
        "nll_coef",
        "flip_probability",
        "fidelity",
    ]


def test_folder_of_the_reference_holds_each_response_once(tiny: Tiny, pairs):
    artifact = measured(tiny, pairs)
    keys = [
        json.loads(line)["row"] for line in Path(artifact.path, "logprobs.jsonl").read_text().splitlines()
    ]
    assert len(set(keys)) == len(keys) == artifact.facts["responses"] == 48
