"""What a plan may build on. Here specs become stages, with the model's settings and the run's seed."""

from collections.abc import Mapping
from pathlib import Path

from alpacafarm import lookup
from alpacafarm.artifacts.fingerprint import fingerprint
from alpacafarm.data import plan as data_plan
from alpacafarm.errors import PlanError
from alpacafarm.spec.base import Strict
from alpacafarm.spec.run import RunSpec
from alpacafarm.stage import Given, Kind, Node, Stage


class SpecUpstream:
    """Satisfies `ports.Upstream` for one RunSpec."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        # Where the weights lie is the base node's business; the model's other settings change every stage.
        self.model_params = spec.model.canonical(exclude={"name", "path", "revision"})

    @property
    def has_gold(self) -> bool:
        return self.spec.data.kind == "world"

    def base(self) -> Node:
        if self.spec.given.base:
            return self._given("base", Kind.POLICY, self.spec.given.base)
        if self.spec.model.path:
            return self._given_at("model.path", Kind.POLICY, self.spec.model.path, self.spec.model.revision)
        return self._made("base")

    def sft(self) -> Node:
        return (
            self._given("sft", Kind.POLICY, self.spec.given.sft) if self.spec.given.sft else self._made("sft")
        )

    def reward(self) -> Node:
        return self._given("rm", Kind.REWARD, self.spec.given.rm) if self.spec.given.rm else self._made("rm")

    def preferences(self) -> Node:
        if self.spec.given.pairs:
            return data_plan.pairs_from_file(self, "given.pairs", self.spec.given.pairs)
        source = lookup.module("feedback", self.spec.feedback.name)
        node: Node = source.plan(self.spec.feedback, self)
        return node

    def rows(self, split: str) -> Node:
        return data_plan.rows(self, self.spec.data, split)

    def stage(
        self,
        name: str,
        run: str,
        spec: Strict,
        *,
        makes: Kind,
        inputs: Mapping[str, Node],
        version: int = 1,
        uses_model: bool = True,
        needs: str = "",
    ) -> Stage:
        return Stage(
            name=name,
            run=run,
            makes=makes,
            params=spec.canonical(),
            inputs=dict(inputs),
            seed=self.spec.seed,
            model=self.model_params if uses_model else None,
            version=version,
            needs=needs,
            uses_devices=uses_model,
        )

    def _made(self, role: str) -> Node:
        if role not in self.spec.upstream:
            raise PlanError(
                f"upstream.{role} is missing: the plan needs it; set upstream.{role} or given.{role}"
            )
        spec = self.spec.upstream[role]  # type: ignore[index]
        node: Node = lookup.module("methods", spec.name).plan(spec, self)
        return node

    def _given(self, role: str, kind: Kind, location: str) -> Given:
        return self._given_at(f"given.{role}", kind, location, None)

    def _given_at(self, key: str, kind: Kind, location: str, revision: str | None) -> Given:
        """An artifact folder, a Hugging Face folder, or else a hub id (which is not looked up here)."""
        path = Path(location).expanduser()
        if not path.exists():
            if location.startswith(("/", ".", "~")) or location.count("/") != 1:
                raise PlanError(
                    f"{key}={location}: there is no such folder and this is no hub id (owner/name); "
                    f"set {key} to a folder that transformers can load"
                )
            return Given(kind, location, f"hub:{location}@{revision or 'main'}", revision)
        folder = path.resolve()
        if not any((candidate / "config.json").is_file() for candidate in (folder, folder / "model")):
            if not (folder / "adapter_config.json").is_file():
                raise PlanError(
                    f"{key}={location}: the folder has neither config.json nor model/config.json; "
                    "name a Hugging Face folder or an artifact folder of the store"
                )
        return Given(kind, str(folder), fingerprint(folder), revision)
