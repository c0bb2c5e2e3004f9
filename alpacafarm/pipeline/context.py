"""The composition root of a stage: here specs become engines, judges and samplers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alpacafarm.errors import ArtifactError
from alpacafarm.pipeline.asking import RankZeroAsker
from alpacafarm.pipeline.judges import judge_of
from alpacafarm.pipeline.scorer import scorer_of
from alpacafarm.ports import (
    Artifact,
    Asker,
    Dist,
    Engine,
    Head,
    Inputs,
    Judge,
    Progress,
    Sampled,
    Scorer,
    Tracker,
)
from alpacafarm.spec.cluster import ClusterSpec
from alpacafarm.spec.method import OptimSpec
from alpacafarm.spec.model import ModelSpec, Sampling
from alpacafarm.stage import content_key
from alpacafarm.tracking.meter import Meter
from alpacafarm.tracking.progress import progress

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from alpacafarm.api.client import ApiClient
    from alpacafarm.spec.judge import JudgeSpec
    from alpacafarm.text.collate import Tokens

log = logging.getLogger(__name__)

FILLER = 0  # any id does where the attention mask says what is padding


class StageContext:
    """Satisfies `ports.Context` for one stage on one rank."""

    def __init__(
        self,
        *,
        name: str,
        seed: int,
        out: Path,
        scratch: Path,
        labels: Path,
        model: ModelSpec | None,
        cluster: ClusterSpec,
        dist: Dist,
        track: Tracker,
        client: ApiClient | None = None,
    ) -> None:
        self.name, self.seed, self.out, self.scratch, self.labels = name, seed, out, scratch, labels
        self._model, self.cluster, self.dist, self.track = model, cluster, dist, track
        self.client = client
        self.meter = Meter()
        self.micro_batch = cluster.micro_batch
        self.generation_batch = cluster.generation_batch
        self.checkpoint_every_s = cluster.checkpoint_every_s
        self.facts: dict[str, Any] = {}
        self.cost: dict[str, float] = {}

    @property
    def model(self) -> ModelSpec:
        assert self._model is not None, f"stage {self.name} was planned without a model"
        return self._model

    # Engines

    def trainable(
        self,
        weights: Artifact,
        optim: OptimSpec,
        *,
        head: Head = "language",
        critic: Artifact | None = None,
        value_lr_scale: float = 1.0,
        control_tokens: Sequence[str] = (),
        seed: int | None = None,
    ) -> Engine:
        from alpacafarm.models import heads, load

        assert head in ("language", "anchored") or not control_tokens, f"{head} reads no control tokens"
        path, dtype = model_path(weights), self.model.dtype
        tokenizer = self.tokenizer(weights, control_tokens)
        seed = self.seed if seed is None else seed
        module: nn.Module
        if head == "reward":
            module = heads.RewardModel(load.reward_from_policy(path, seed, **revision(weights), dtype=dtype))
        elif head == "actor_critic":
            assert critic is not None
            self._check_vocabulary(critic, self.vocabulary(weights))
            policy = load.load_policy(path, **revision(weights), dtype=dtype)
            value = load.load_reward(model_path(critic), **revision(critic), dtype=dtype)
            module = heads.ActorCritic(policy, value, value_lr_scale=value_lr_scale)
        else:
            module = heads.LanguageModel(self._policy(weights, tokenizer, seed))
        if self.model.lora is not None:
            from alpacafarm.models.lora import apply_lora

            apply_lora(module, self.model.lora, seed=seed)
        if head == "anchored":  # after the adapters, which the anchor has none of
            assert isinstance(module, heads.LanguageModel)
            module = heads.AnchoredModel(module.policy, self._policy(weights, tokenizer, seed))
        return self._engine(module, optim, tokenizer)

    def _policy(self, weights: Artifact, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
        """With embeddings for what `tokenizer` has on top of the weights' own one."""
        from alpacafarm.models.control import give_rows
        from alpacafarm.models.load import load_policy

        policy = load_policy(model_path(weights), **revision(weights), dtype=self.model.dtype)
        give_rows(policy, tokenizer, known=len(self.tokenizer(weights)), seed=seed)
        return policy

    def from_nothing(self, tokenizer: PreTrainedTokenizerBase, optim: OptimSpec) -> Engine:
        from alpacafarm.models import heads, load

        assert self.model.architecture is not None
        return self._engine(
            heads.LanguageModel(load.build_policy(self.model.architecture, tokenizer, self.seed)),
            optim,
            tokenizer,
        )

    def frozen(self, weights: Artifact, *, head: Head = "language") -> Engine:
        from alpacafarm.models import heads, load

        make = load.load_reward if head == "reward" else load.load_policy
        wrap = heads.RewardModel if head == "reward" else heads.LanguageModel
        module = wrap(make(model_path(weights), **revision(weights), dtype=self.model.dtype))
        return self._engine(module, None, self.tokenizer(weights))

    def _engine(
        self, module: nn.Module, optim: OptimSpec | None, tokenizer: PreTrainedTokenizerBase
    ) -> Engine:
        from alpacafarm.engine.build import build_engine
        from alpacafarm.models.export import exporter

        lora = "merged" if self.model.lora is None else self.model.lora.export
        return build_engine(
            self.cluster.engine,
            module,
            optim,
            cluster=self.cluster,
            dtype=self.model.dtype,
            dist=self.dist,
            export=exporter(tokenizer, lora=lora),
        )

    def tokenizer(self, weights: Artifact, control_tokens: Sequence[str] = ()) -> PreTrainedTokenizerBase:
        from alpacafarm.models.load import load_tokenizer
        from alpacafarm.text.control import add_control_tokens

        tokenizer = load_tokenizer(model_path(weights), **revision(weights))
        if control_tokens:
            add_control_tokens(tokenizer, control_tokens)
        return tokenizer

    def positions(self, weights: Artifact) -> int | None:
        from alpacafarm.models.load import load_config

        config = load_config(model_path(weights), **revision(weights))
        limit = getattr(config.get_text_config(), "max_position_embeddings", None)
        return None if limit is None else int(limit)

    def vocabulary(self, weights: Artifact) -> str:
        from alpacafarm.text.control import spoken_vocabulary

        return content_key(spoken_vocabulary(self.tokenizer(weights)))

    def _check_vocabulary(self, reward: Artifact, vocabulary: str) -> None:
        """Responses go to the reward model as tokens, so both must read them alike."""
        if self.vocabulary(reward) != vocabulary:
            raise ArtifactError(
                f"the reward model at {reward.path} has another vocabulary than the policy; train it from "
                "this policy's family, or leave given.rm out to have it made"
            )

    # What models say

    def sample(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
    ) -> Sampled:
        from alpacafarm.models.control import unspoken_ids
        from alpacafarm.rollout.hf import sample

        return sample(
            model,
            prompts,
            sampling,
            seeds=seeds,
            pad_id=model.config.pad_token_id,
            eos_ids=eos_ids(model),
            unspoken_ids=unspoken_ids(model),
            batch_size=self.generation_batch,
        )

    def scorer(self, weights: Artifact, *, vocabulary: str | None = None) -> Scorer:
        if vocabulary is not None:
            self._check_vocabulary(weights, vocabulary)
        return scorer_of(self, weights)

    def score(self, reward: Engine, rows: Sequence[Tokens]) -> list[float]:
        from alpacafarm.rollout.score import score

        return score(reward, rows, pad_id=FILLER, batch_size=self.micro_batch, device=reward.device)

    def logprobs(self, policy: Engine, rows: Sequence[Tokens], temperature: float) -> Tensor:
        from alpacafarm.rollout.likelihood import logprobs

        return logprobs(
            policy,
            rows,
            pad_id=FILLER,
            batch_size=self.micro_batch,
            device=policy.device,
            temperature=temperature,
        )

    def judge(self, spec: JudgeSpec, inputs: Inputs) -> Judge:
        return judge_of(self, spec, inputs)

    def asker(self, label: str) -> Asker:
        assert self.client is not None, f"stage {self.name} has no endpoints"
        return RankZeroAsker(self.client.asker(label), self.dist)

    # Bookkeeping

    def progress(self, total: int, label: str) -> Progress:
        return progress(total, label, rank=self.dist.rank)

    def record(self, **facts: Any) -> None:
        self.facts.update(facts)

    def went_on(self, how: str) -> None:
        if self.dist.rank == 0:
            log.info("%s: went on from %s", self.name, how)
        self.facts.setdefault("went_on", []).append(how)

    def spend(self, *, judge_calls: int = 0, price_usd: float = 0.0) -> None:
        self.cost["judge_calls"] = self.cost.get("judge_calls", 0) + judge_calls
        self.cost["price_usd"] = self.cost.get("price_usd", 0.0) + price_usd


def model_path(weights: Artifact) -> str:
    """The Hugging Face folder inside an artifact, a folder the user gave, or a hub id."""
    inside = weights.path / "model"
    return str(inside if inside.is_dir() else weights.path)


def revision(weights: Artifact) -> dict[str, str | None]:
    return {"revision": weights.facts.get("revision")}


def eos_ids(model: PreTrainedModel) -> list[int]:
    """The end tokens of the model's config: one or several."""
    value = model.config.eos_token_id
    return list(value) if isinstance(value, list | tuple) else [int(value)]
