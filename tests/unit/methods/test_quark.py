"""Quark's step: which samples are learned after which token, by which loss, and what is kept of them."""

import json
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from alpacafarm.errors import ArtifactError, SpecError
from alpacafarm.methods import quark, sft
from alpacafarm.models.load import load_policy
from alpacafarm.models.lora import has_lora
from alpacafarm.pipeline.context import StageContext
from alpacafarm.ports import Artifact, Engine
from alpacafarm.rollout.decode import DecodeSpec, decode, prompt_prefix, read_tokens
from alpacafarm.rollout.onpolicy import draw, fitting_prompts
from alpacafarm.selection import pick
from alpacafarm.spec.method import PickStep
from alpacafarm.spec.model import LoraSpec, Sampling
from alpacafarm.stage import Kind
from alpacafarm.text.collate import SequenceBatch, Tokens
from alpacafarm.text.control import control_ids
from alpacafarm.training.pool import QuantileBatch, restored
from tests.unit.methods.conftest import CLUSTER, MODEL, Tiny, optim

WIDTH = 16
EOS = 1


def spec(**changes: object) -> quark.Spec:
    values = {
        "name": "quark",
        "fidelity": "corrected",
        "kl_coef": 0.3,
        "entropy_coef": 0.0,
        "quantiles": 4,
        "train_on": "best",
        "pool_steps": 1,
        "snapshot_every": None,
        "pick": None,
        "kl_budget": None,
        "steps": 3,
        "rollouts_per_step": 16,
        "epochs_per_rollout": 1,
        "sampling": Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=WIDTH),
        "optim": optim(lr=1e-2, batch_size=16),
    }
    return quark.Spec.model_validate({**values, **changes})


@pytest.fixture
def tiny(tiny: Tiny) -> Tiny:
    """With larger weights, so that prompts matter, and an end token that some responses reach."""
    policy = load_policy(tiny.policy.path)
    for parameter in policy.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(8)
    policy.save_pretrained(str(tiny.policy.path))
    return tiny


def inputs(tiny: Tiny) -> dict[str, Artifact]:
    return {"init": tiny.policy, "reward": tiny.reward, "rows": tiny.rows}


def prepared(
    tiny: Tiny, name: str, settings: quark.Spec, **changes: Any
) -> tuple[StageContext, Engine, quark.Collector]:
    ctx = tiny.context(name, **changes)
    policy = ctx.trainable(
        tiny.policy, settings.optim, head="anchored", control_tokens=settings.control_tokens
    )
    return ctx, policy, quark.Collector(settings, inputs(tiny), ctx, policy)


def trained(tiny: Tiny, name: str, settings: quark.Spec, **changes: Any) -> StageContext:
    ctx = tiny.context(name, **changes)
    quark.train(settings, inputs(tiny), ctx)
    ctx.track.close()
    return ctx


def logged(ctx: StageContext) -> list[dict[str, float]]:
    return [json.loads(line) for line in (ctx.out / "log.jsonl").read_text().splitlines()]


def tokens(batch: SequenceBatch) -> list[Tokens]:
    rows = []
    for b, start in enumerate(batch.start_B.tolist()):
        length = int(batch.attention_BL[b].sum())
        ids = batch.input_ids_BL[b, :length].tolist()
        rows.append(Tokens(tuple(ids[:start]), tuple(ids[start:])))
    return rows


def pairs_of_rows(update: list[QuantileBatch]) -> list[tuple[Tokens, Tokens]]:
    """(with, without control token) of every row of an update."""
    return [
        pair for batch in update for pair in zip(tokens(batch.sequences), tokens(batch.plain), strict=True)
    ]


def sampled(tiny: Tiny, settings: quark.Spec, step: int = 0) -> list[Tokens]:
    """What the untrained policy answers in a step, without a prefix."""
    ctx = tiny.context(f"sampled{step}")
    prompts = fitting_prompts(tiny.rows, tiny.policy, ctx)
    policy, count = ctx.frozen(tiny.policy), settings.rollouts_per_step
    return draw(policy, prompts, settings.sampling, ctx, step=step, rollouts=count).rows


def perturbed(policy: Engine) -> None:
    """Away from the reference, so that there is a KL."""
    torch.manual_seed(3)
    for parameter in policy.module.policy.parameters():  # type: ignore[attr-defined]
        parameter.data.add_(0.1 * parameter.std().nan_to_num() * torch.randn_like(parameter))


# Which rows are learned


def test_the_best_quantile_is_learned_and_no_other(tiny: Tiny):
    settings = spec()
    ctx, _, collector = prepared(tiny, "best", settings)
    (update,) = collector.collect(0, {}).updates
    rows = sampled(tiny, settings)
    scores = ctx.scorer(tiny.reward).score(rows)
    best = sorted(zip(scores, range(16), strict=True), reverse=True)[:4]
    assert sorted(pairs_of_rows(update), key=str) == sorted(((rows[i], rows[i]) for _, i in best), key=str)


def test_every_row_is_learned_after_the_token_of_its_quantile(tiny: Tiny):
    settings = spec(train_on="all")
    ctx, _, collector = prepared(tiny, "all", settings)
    (update,) = collector.collect(0, {}).updates
    rows = sampled(tiny, settings)
    ranking = sorted(ctx.scorer(tiny.reward).score(rows), reverse=True)
    control = control_ids(ctx.tokenizer(tiny.policy, settings.control_tokens))
    found = pairs_of_rows(update)
    assert len(found) == 16
    for asked, plain in found:
        (score,) = ctx.scorer(tiny.reward).score([plain])
        place = min(range(16), key=lambda i: abs(ranking[i] - score))
        assert plain in rows
        assert asked.prompt == (plain.prompt[0], control[place // 4], *plain.prompt[1:])
        assert asked.response == plain.response


def test_samples_are_drawn_after_the_best_token_from_the_second_step_on(tiny: Tiny, monkeypatch):
    settings = spec(train_on="all")
    ctx, _, collector = prepared(tiny, "asked", settings)
    asked: list[list[Any]] = []
    sample = ctx.sample
    monkeypatch.setattr(
        ctx, "sample", lambda m, prompts, *a, **k: asked.append(prompts) or sample(m, prompts, *a, **k)
    )
    for step in range(2):
        collector.collect(step, {})
    control = control_ids(ctx.tokenizer(tiny.policy, settings.control_tokens))
    first, second = asked
    assert not any(set(control) & set(prompt) for prompt in first)
    assert all(prompt[1] == control[0] for prompt in second)


def test_each_row_is_learned_once_an_epoch_in_batches(tiny: Tiny):
    settings = spec(train_on="all", epochs_per_rollout=2, optim=optim(1e-2, 8))
    _, _, collector = prepared(tiny, "epochs", settings)
    updates = collector.collect(0, {}).updates
    assert [sum(batch.rows for batch in update) for update in updates] == [8] * 4
    seen = [row for update in updates for row, _ in pairs_of_rows(update)]
    assert sorted(seen[:16], key=str) == sorted(seen[16:], key=str)
    assert seen[:16] != seen[16:]
    assert settings.updates == 3 * len(updates)


def test_published_targets_have_no_end_token_and_weigh_every_position(tiny: Tiny):
    settings = spec(fidelity="published", quantiles=1)
    _, _, collector = prepared(tiny, "published", settings)
    (update,) = collector.collect(0, {}).updates
    rows = sampled(tiny, settings)
    assert any(row.response[-1] == EOS for row in rows)
    expected = [Tokens(r.prompt, tuple(i for i in r.response if i != EOS)) for r in rows]
    assert sorted((row for row, _ in pairs_of_rows(update)), key=str) == sorted(expected, key=str)
    assert sum(batch.weight for batch in update) == 16 * WIDTH


def test_corrected_targets_are_whole_and_weigh_their_tokens(tiny: Tiny):
    settings = spec(quantiles=1)
    _, _, collector = prepared(tiny, "corrected", settings)
    (update,) = collector.collect(0, {}).updates
    rows = sampled(tiny, settings)
    assert sorted((row for row, _ in pairs_of_rows(update)), key=str) == sorted(rows, key=str)
    assert sum(batch.weight for batch in update) == sum(len(row.response) for row in rows)


# The loss


def test_one_quantile_without_kl_is_supervised_fine_tuning_on_all_samples(tiny: Tiny):
    settings = spec(quantiles=1, kl_coef=0.0)
    _, policy, collector = prepared(tiny, "one", settings)
    (update,) = collector.collect(0, {}).updates
    ours = policy.update(update, quark.quark_loss(policy, settings), lr=1e-2)

    ctx = tiny.context("sft")
    other = ctx.trainable(tiny.policy, settings.optim)
    pad = ctx.tokenizer(tiny.policy).pad_token_id
    steps = sft.token_steps(sampled(tiny, settings), 1, settings.optim, pad, ctx)
    theirs = other.update(steps[0], sft.negative_log_likelihood(other), lr=1e-2)
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-6)
    assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-5)
    for one, two in zip(*(e.module.policy.parameters() for e in (policy, other)), strict=True):  # type: ignore[attr-defined]
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def reference_loss(
    policy: Engine, found: list[tuple[Tokens, Tokens]], settings: quark.Spec, weight: float, never: list[int]
) -> tuple[Tensor, Tensor]:
    """Loss and KL sums over rows one at a time, from the models' own logits in float64."""
    module = policy.module.double()  # type: ignore[attr-defined]
    total = kl_total = torch.zeros((), dtype=torch.float64)
    for asked, plain in found:
        logprob_TV, anchor_TV = (
            model(torch.tensor([row.prompt + row.response])).logits[0, len(row.prompt) - 1 : -1]
            for model, row in ((module.policy, asked), (module.reference, plain))
        )
        spoken = [i for i in range(logprob_TV.size(1)) if i not in never]
        logprob_TV, anchor_TV = (
            (x[:, spoken] / settings.sampling.temperature).log_softmax(-1) for x in (logprob_TV, anchor_TV)
        )
        p_TV = logprob_TV.exp()
        for t, token in enumerate(asked.response):
            kl = (p_TV[t] * (logprob_TV[t] - anchor_TV[t])).sum()
            entropy = -(p_TV[t] * logprob_TV[t]).sum()
            nll = -logprob_TV[t, spoken.index(token)]
            total = total + nll + settings.kl_coef * kl - settings.entropy_coef * entropy
            kl_total = kl_total + kl
    return total / weight, kl_total


@pytest.mark.parametrize("fidelity", ["corrected", "published"])
@pytest.mark.parametrize("train_on", ["best", "all"])
def test_the_loss_is_that_of_a_plain_float64_implementation(tiny: Tiny, train_on: str, fidelity: str):
    sampling = Sampling(temperature=0.8, top_p=1.0, top_k=0, max_new_tokens=WIDTH)
    settings = spec(train_on=train_on, fidelity=fidelity, entropy_coef=0.1, sampling=sampling)
    ctx, policy, collector = prepared(tiny, "loss", settings)
    (update,) = collector.collect(0, {}).updates
    perturbed(policy)
    ours = policy.update(update, quark.quark_loss(policy, settings), lr=0.0)
    found = pairs_of_rows(update)
    weight = len(found) * WIDTH if fidelity == "published" else sum(len(r.response) for r, _ in found)
    never = control_ids(ctx.tokenizer(tiny.policy, settings.control_tokens))
    loss, kl = reference_loss(policy, found, settings, weight, never)
    assert ours.loss == pytest.approx(loss.item(), rel=1e-5)
    assert ours.metrics["kl/token"] == pytest.approx(kl.item() / weight, rel=1e-4)
    assert kl > 0.1
    gradients = torch.autograd.grad(loss, list(policy.module.policy.parameters()))  # type: ignore[attr-defined]
    norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
    assert ours.grad_norm == pytest.approx(norm.item(), rel=1e-4)


@pytest.mark.parametrize("train_on", ["best", "all"])
def test_the_kl_of_a_step_is_exact_where_its_samples_were_drawn(tiny: Tiny, train_on: str):
    settings = spec(train_on=train_on)
    ctx, policy, collector = prepared(tiny, "kl", settings)
    perturbed(policy)
    drawn = draw(
        policy, collector.prompts, settings.sampling, ctx, step=1, rollouts=16, prefix=collector.prefixes[0]
    )
    never = control_ids(ctx.tokenizer(tiny.policy, settings.control_tokens))
    asked = [(Tokens((row.prompt[0], *never[:1], *row.prompt[1:]), row.response), row) for row in drawn.rows]
    found = collector.collect(1, {}).metrics["kl"]
    _, kl = reference_loss(policy, asked, settings, 1.0, never)
    assert found == pytest.approx(kl.item() / 16, rel=1e-4)
    assert found > 0.1


def test_the_kl_is_zero_before_the_first_update(tiny: Tiny):
    first, *later = logged(trained(tiny, "start", spec()))
    assert first["kl"] == first["kl/token"] == pytest.approx(0.0, abs=1e-5)
    assert all(row["kl"] > 1e-3 for row in later)


def test_training_ends_at_the_kl_budget(tiny: Tiny):
    ctx = trained(tiny, "budget", spec(kl_budget=1e-3))
    assert ctx.facts["steps"] == len(logged(ctx)) == 1


def test_a_large_coefficient_keeps_the_policy_where_it_was(tiny: Tiny):
    ends = [
        logged(trained(tiny, f"coefficient {c}", spec(kl_coef=c, steps=8)))[-1]["kl"] for c in (0.0, 100.0)
    ]
    assert ends[1] < 0.2 * ends[0]


@pytest.mark.parametrize("train_on", ["best", "all"])
def test_logs_do_not_depend_on_micro_batches(tiny: Tiny, train_on: str):
    settings = spec(train_on=train_on, optim=optim(1e-3, 8))
    whole = logged(trained(tiny, "whole", settings))
    single = CLUSTER.model_copy(update={"micro_batch": 1, "generation_batch": 3})
    for one, two in zip(whole, logged(trained(tiny, "single", settings, cluster=single)), strict=True):
        assert two == pytest.approx(one, rel=1e-4, abs=1e-5)


# The pool


def test_a_pool_of_two_steps_is_sorted_anew_and_bounded(tiny: Tiny):
    settings = spec(pool_steps=2)
    ctx, _, collector = prepared(tiny, "pool", settings)
    state: dict[str, Any] = {}
    collector.collect(0, state)
    assert len(restored(state["pool"])) == 16
    state = json.loads(json.dumps(state))
    second = collector.collect(1, state)
    assert second.metrics["pool/rows"] == 32
    assert {sample.step for sample in restored(state["pool"])} == {1}
    rows = [*sampled(tiny, settings, 0), *sampled(tiny, settings, 1)]
    scores = ctx.scorer(tiny.reward).score(rows)
    best = sorted(zip(scores, range(32), strict=True), reverse=True)[:8]
    found = [plain for update in second.updates for _, plain in pairs_of_rows(update)]
    assert sorted(found, key=str) == sorted((rows[i] for _, i in best), key=str)


def test_a_cleared_pool_leaves_nothing_in_checkpoints(tiny: Tiny):
    _, _, collector = prepared(tiny, "cleared", spec())
    state: dict[str, Any] = {}
    collector.collect(0, state)
    assert state == {"pool": []}


def test_a_run_that_is_cut_off_goes_on_with_its_pool(tiny: Tiny, monkeypatch):
    settings = spec(pool_steps=3, train_on="all")
    undisturbed = logged(trained(tiny, "undisturbed", settings))
    always = CLUSTER.model_copy(update={"checkpoint_every_s": 0.0})
    collect = quark.Collector.collect

    def cut_off(self: Any, step: int, state: dict[str, Any]) -> Any:
        if step == 2:
            raise KeyboardInterrupt
        return collect(self, step, state)

    monkeypatch.setattr(quark.Collector, "collect", cut_off)
    with pytest.raises(KeyboardInterrupt):
        trained(tiny, "cut", settings, cluster=always)
    monkeypatch.setattr(quark.Collector, "collect", collect)
    ctx = tiny.context("again", cluster=always)
    ctx.scratch = tiny.home / "cut" / "scratch"
    quark.train(settings, inputs(tiny), ctx)
    ctx.track.close()
    assert undisturbed[2]["pool/rows"] == 48
    assert logged(ctx) == undisturbed[2:]


# What comes of it


def test_the_policy_says_how_it_is_asked(tiny: Tiny):
    made = {train_on: trained(tiny, train_on, spec(train_on=train_on)) for train_on in ("best", "all")}
    assert "prompt_prefix" not in made["best"].facts
    assert made["all"].facts["prompt_prefix"] == "<reward_0>"
    ctx = tiny.context("tokenizers")
    plain, told = (Artifact(made[name].out, Kind.POLICY, name, made[name].facts) for name in ("best", "all"))
    assert control_ids(ctx.tokenizer(plain)) == []
    assert len(control_ids(ctx.tokenizer(told))) == 4
    assert ctx.vocabulary(told) == ctx.vocabulary(plain) == ctx.vocabulary(tiny.policy)
    decoding = DecodeSpec(n=1, sampling=spec().sampling, stream="s", prompts=None)
    decode(decoding, {"policy": told, "rows": tiny.rows}, ctx)
    scores = ctx.scorer(tiny.reward, vocabulary=ctx.facts["vocabulary"]).score(read_tokens(ctx.out))
    assert len(scores) == 24


def test_a_snapshot_is_asked_as_the_policy_is(tiny: Tiny):
    ctx = trained(tiny, "snapshots", spec(train_on="all", snapshot_every=1))
    made = Artifact(ctx.out, Kind.POLICY, "made", ctx.facts)
    pick.by_step(PickStep(by="step", step=1), {"trained": made}, picking := tiny.context("picked"))
    picked = Artifact(picking.out, Kind.POLICY, "picked", picking.facts)
    assert prompt_prefix(picked) == "<reward_0>"
    tokenizer = picking.tokenizer(picked)
    assert len(control_ids(tokenizer)) == 4
    weights = [load_policy(a.path / "model").get_input_embeddings().weight for a in (picked, made)]
    assert weights[0].shape == weights[1].shape
    assert not torch.equal(*weights)


def test_imitating_the_best_raises_the_reward(tiny: Tiny):
    settings = spec(kl_coef=0.0, steps=10, rollouts_per_step=64, optim=optim(1e-2, 16), epochs_per_rollout=2)
    rows = logged(trained(tiny, "better", settings))
    spread = rows[0]["reward/best"] - rows[0]["reward/mean"]
    assert rows[-1]["reward/mean"] > rows[0]["reward/mean"] + spread


def test_adapters_are_trained_beside_an_anchor_without_any(tiny: Tiny):
    lora = LoraSpec(rank=2, alpha=8.0, dropout=0.0, targets="all-linear")
    model = MODEL.model_copy(update={"lora": lora})
    settings = spec(train_on="all")
    _, policy, _ = prepared(tiny, "adapters", settings, model=model)
    module = policy.module  # type: ignore[attr-defined]
    assert has_lora(module.policy)
    assert not has_lora(module.reference)
    ctx = trained(tiny, "lora", settings, model=model)
    assert logged(ctx)[-1]["kl"] > 1e-4
    merged = load_policy(ctx.out / "model")
    before = module.policy.get_input_embeddings().weight
    assert torch.equal(merged.get_input_embeddings().weight, before)


def test_another_vocabulary_is_refused(tiny: Tiny):
    from alpacafarm.models.load import load_tokenizer

    tokenizer = load_tokenizer(tiny.reward.path)
    tokenizer.add_tokens(["another"])
    tokenizer.save_pretrained(str(tiny.reward.path))
    with pytest.raises(ArtifactError, match="another vocabulary than the policy"):
        trained(tiny, "other", spec())


# Specs


def test_published_quantiles_need_samples_on_every_rank():
    quark.check_shares(spec(), world=8)
    message = r"^method\.quantiles=4: .*published .* there are 2 in a step; set method\.quantiles=2 or less"
    with pytest.raises(SpecError, match=message):
        quark.check_shares(spec(fidelity="published"), world=8)


def test_more_quantiles_than_responses_are_refused():
    with pytest.raises(ValidationError, match=r"must be at most \.rollouts_per_step=16, a response for each"):
        spec(quantiles=17)


def test_one_control_token_is_refused():
    with pytest.raises(
        ValidationError, match=r"must be at least 2 for \.train_on=all: .* or \.train_on=best"
    ):
        spec(quantiles=1, train_on="all")


@pytest.mark.parametrize(
    ("changes", "updates"),
    [
        ({}, 3),  # 4 of 16 rows
        ({"epochs_per_rollout": 2}, 6),
        ({"train_on": "all", "optim": optim(1e-2, 8)}, 6),
        ({"train_on": "all", "optim": optim(1e-2, 8), "pool_steps": 2}, 2 + 4 + 4),
        ({"pool_steps": 9, "optim": optim(1e-2, 4)}, 1 + 2 + 3),
    ],
)
def test_the_plan_counts_updates(changes: dict[str, Any], updates: int):
    assert spec(**changes).updates == updates
