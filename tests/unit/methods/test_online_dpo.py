"""Online DPO as a stage: who is labelled the better one, what gives no pair, and the loss written out."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from alpacafarm.methods import online_dpo
from alpacafarm.rollout.onpolicy import Responses
from alpacafarm.spec.model import Sampling
from alpacafarm.text.collate import Tokens
from tests.unit.methods.conftest import CLUSTER, Tiny, optim

WORLD = {"kind": "world", "pool": "sim", "pool_seed": 0}
JUDGED = {"annotator": "judge", "judge": WORLD, "missing_eos_penalty": 0.0}


def spec(**changes: object) -> online_dpo.Spec:
    values = {
        "name": "online_dpo",
        "annotator": "reward",
        "judge": None,
        "loss": "dpo",
        "beta": 0.3,
        "missing_eos_penalty": 1.0,
        "steps": 2,
        "rollouts_per_step": 16,
        "epochs_per_rollout": 1,
        "snapshot_every": None,
        "pick": None,
        "kl_budget": None,
        "sampling": Sampling(temperature=0.9, top_p=1.0, top_k=0, max_new_tokens=16),
        "optim": optim(lr=1e-3, batch_size=8),
    }
    return online_dpo.Spec.model_validate({**values, **changes})


def inputs(tiny: Tiny) -> dict:
    return {"init": tiny.policy, "reward": tiny.reward, "rows": tiny.rows}


def collector(tiny: Tiny, name: str, asked: online_dpo.Spec, **context: object) -> online_dpo.Collector:
    ctx = tiny.context(name, **context)
    policy = ctx.trainable(tiny.policy, asked.optim)
    return online_dpo.Collector(asked, inputs(tiny), ctx, policy)


def trained(tiny: Tiny, name: str, asked: online_dpo.Spec, **context: object):
    ctx = tiny.context(name, **context)
    online_dpo.train(asked, inputs(tiny), ctx)
    ctx.track.close()
    return ctx, [json.loads(line) for line in (ctx.out / "log.jsonl").read_text().splitlines()]


def test_learning_rate_zero_leaves_everything(tiny: Tiny):
    ctx, rows = trained(tiny, "still", spec(optim=optim(lr=0.0, batch_size=8)))
    for row in rows:
        assert row["loss"] == pytest.approx(math.log(2), abs=1e-7)
        assert row["margin"] == row["kl"] == 0.0
        assert row["pairs"] == 8
    before = load_file(tiny.policy.path / "model.safetensors")
    after = load_file(ctx.out / "model" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_update_does_not_depend_on_the_micro_batch(tiny: Tiny):
    logs = []
    for size in (1, 3, 8):
        cluster = CLUSTER.model_copy(update={"micro_batch": size})
        logs.append(trained(tiny, f"m{size}", spec(), cluster=cluster)[1])
    for other in logs[1:]:
        for one, two in zip(logs[0], other, strict=True):
            assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)
            assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)


def test_training_makes_the_better_response_likelier(tiny: Tiny):
    _, rows = trained(tiny, "learning", spec(epochs_per_rollout=8, steps=1, optim=optim(1e-2, 16)))
    assert rows[0]["margin"] > 0.01  # the mean over the eight updates on one batch
    assert rows[0]["accuracy"] > 0.6


def drawn(*pairs: tuple[str, str], tokenizer, ended: bool = True) -> Responses:
    texts = [text for pair in pairs for text in pair]
    rows = [Tokens((1, 5), tuple(tokenizer(t, add_special_tokens=False)["input_ids"])) for t in texts]
    return Responses([0] * len(rows), rows, [ended] * len(rows))


def test_the_higher_score_wins_and_equal_texts_give_no_pair(tiny: Tiny):
    found = collector(tiny, "labels", spec())
    responses = drawn(("a b", "c d e"), ("f", "f"), ("g", "h i"), tokenizer=found.tokenizer)
    raw, labels, cost = found.labels(responses)
    assert labels[1] is None
    for pair in (0, 2):
        assert labels[pair] == float(raw[2 * pair + 1] > raw[2 * pair])
    assert cost == {"equal_pairs": 1}


def test_a_response_that_did_not_end_loses_to_one_that_did(tiny: Tiny):
    found = collector(tiny, "ends", spec(missing_eos_penalty=1e3))
    responses = drawn(("a b", "c d e"), ("c d e", "a b"), tokenizer=found.tokenizer)
    for ended in ([True, False, True, False], [False, True, False, True]):
        _, labels, _ = found.labels(Responses(responses.places, responses.rows, ended))
        assert labels == [float(ended[1])] * 2


def test_a_judge_labels_the_pairs_and_is_paid(tiny: Tiny):
    ctx, rows = trained(tiny, "judged", spec(**JUDGED))
    assert 0 < ctx.cost["judge_calls"] <= 16
    assert ctx.facts["failed_verdicts"] == 0
    assert ctx.facts["equal_pairs"] == sum(row["equal_pairs"] for row in rows)
    assert rows[0]["reward/mean"] == pytest.approx(0.0)  # one wins what the other loses


def test_a_minibatch_without_a_pair_is_no_update(tiny: Tiny, monkeypatch):
    found = collector(tiny, "none", spec())
    label = found.labels

    def none_in_the_first(responses):
        raw, labels, cost = label(responses)
        return raw, [None] * 4 + labels[4:], cost

    monkeypatch.setattr(found, "labels", none_in_the_first)
    collected = found.collect(0, {})
    (update,) = collected.updates
    assert sum(batch.weight for batch in update) == collected.metrics["pairs"] == 4


def test_pairs_without_a_label_change_neither_loss_nor_gradient(tiny: Tiny, monkeypatch):
    """The loss of a minibatch is the mean over the pairs that it has."""
    asked, losses = spec(optim=optim(1e-3, 16)), {}
    for name, cluster in (("whole", 8), ("cut", 1)):
        found = collector(tiny, name, asked, cluster=CLUSTER.model_copy(update={"micro_batch": cluster}))
        label = found.labels
        monkeypatch.setattr(
            found, "labels", lambda r, label=label: (label(r)[0], [None, 1.0, 0.0, None] * 2, label(r)[2])
        )
        (update,) = found.collect(0, {}).updates
        done = found.policy.update(update, online_dpo.pair_loss(found.policy, asked), lr=1e-3)
        assert done.weight == 4
        losses[name] = (done.loss, done.grad_norm)
    assert losses["whole"][0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses["cut"] == pytest.approx(losses["whole"], rel=1e-4)


@pytest.mark.parametrize("loss", ["dpo", "ipo", "hinge"])
def test_the_loss_is_the_formula(tiny: Tiny, loss: str):
    """In float64, from log-probabilities of the whole responses, for a policy that has moved."""
    asked = spec(loss=loss, optim=optim(1e-2, 16))
    found = collector(tiny, "formula", asked)
    (update,) = found.collect(0, {}).updates
    function = online_dpo.pair_loss(found.policy, asked)
    found.policy.update(update, function, lr=1e-2)
    expected = 0.0
    for batch in update:
        rows = [
            Tokens(tuple(ids[:start].tolist()), tuple(response[mask].tolist()))
            for ids, start, response, mask in zip(
                batch.sequences.input_ids_BL,
                batch.sequences.start_B,
                batch.sequences.response_BT,
                batch.sequences.mask_BT,
                strict=True,
            )
        ]
        policy, reference = (
            found.ctx.logprobs(model, rows, 0.9).double().sum(1) for model in (found.policy, found.reference)
        )
        first, second = (policy - reference).chunk(2)
        for one, two, label in zip(first.tolist(), second.tolist(), batch.probability_2_B, strict=True):
            lead = two - one if label == 1 else one - two
            expected += {
                "dpo": math.log1p(math.exp(-0.3 * lead)),
                "ipo": (lead - 1 / 0.6) ** 2,
                "hinge": max(0.0, 1 - 0.3 * lead),
            }[loss]
    total = sum(function(batch)[0].item() for batch in update)
    assert total == pytest.approx(expected, rel=1e-4)
    assert expected != pytest.approx({"dpo": math.log(2), "ipo": 1 / 0.36, "hinge": 1.0}[loss] * 8, rel=1e-3)
