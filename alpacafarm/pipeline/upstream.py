"""What a plan may build on. Here specs become stages, with the model's settings and the run's seed."""

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

from alpacafarm import lookup
from alpacafarm.api.prices import Prices
from alpacafarm.artifacts import manifest
from alpacafarm.artifacts.fingerprint import fingerprint, is_hub_id
from alpacafarm.data import plan as data_plan
from alpacafarm.errors import PlanError
from alpacafarm.judges.settle import settled
from alpacafarm.request import Price
from alpacafarm.spec.base import Strict
from alpacafarm.spec.run import RunSpec
from alpacafarm.stage import NOTHING_TO_PAY, Bill, Given, Kind, Node, Stage


class SpecUpstream:
    """Satisfies `ports.Upstream` for one RunSpec."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        # Where the weights lie is the base node's business; the model's other settings change every stage.
        self.model_params = spec.model.canonical(exclude={"name", "path", "revision", "shape"})
        self.problems: dict[str, None] = {}  # what could not be found, in the order in which it was asked for
        self.used: set[str] = set()  # the keys of what was given and asked for
        self.making: list[str] = []  # the roles whose stages are being planned, the outer ones first

    @property
    def has_gold(self) -> bool:
        return self.spec.data.kind == "world"

    def row_count(self, split: str) -> int | None:
        if self.spec.data.kind == "world":
            return int(getattr(self.spec.data, split))
        least, most = self.expected_rows(split) or (None, None)
        return least if least == most else None

    @property
    def released(self) -> Mapping[str, str]:
        return {} if self.spec.data.kind == "world" else self.spec.data.released

    def expected_rows(self, split: str) -> tuple[int, int] | None:
        expect = None if self.spec.data.kind == "world" else self.spec.data.expect
        return expect.bounds(split) if expect else None

    @property
    def prompt_tokens(self) -> int:
        return self.spec.model.max_prompt_tokens

    @property
    def pair_tokens(self) -> int:
        return self.prompt_tokens + 2 * self.spec.model.max_response_tokens

    def price(self, model: str) -> Price:
        return self._prices.of(model)

    @cached_property
    def _prices(self) -> Prices:
        return Prices(self.spec.api)

    def base(self) -> Node:
        given, model = self.spec.given.base, self.spec.model
        if given:
            return self._given("given.base", Kind.POLICY, given)
        if model.path:
            return self._given("model.path", Kind.POLICY, model.path, model.revision)
        return self._made("base")

    def sft(self) -> Node:
        given = self.spec.given.sft
        return self._given("given.sft", Kind.POLICY, given) if given else self._made("sft")

    def reward(self) -> Node:
        given = self.spec.given.rm
        return self._given("given.rm", Kind.REWARD, given) if given else self._made("rm")

    def model(self, key: str, location: str, revision: str | None) -> Node:
        return self._given(key, Kind.POLICY, location, revision)

    def preferences(self) -> Node:
        given = self.spec.given.pairs
        if given:
            return self._found(Kind.PAIRS, lambda: data_plan.pairs_from_file(self, "given.pairs", given))
        spec = self.spec.feedback
        node: Node = lookup.module("feedback", spec.name, spec.module).plan(spec, self)
        return node

    def rows(self, split: str) -> Node:
        return self._found(Kind.ROWS, lambda: data_plan.rows(self, self.spec.data, split))

    def thumbs(self) -> Node | None:
        location = None if self.spec.data.kind == "world" else self.spec.data.thumbs
        return self._found(Kind.ROWS, lambda: data_plan.thumbs(self, location)) if location else None

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
        bill: Bill = NOTHING_TO_PAY,
    ) -> Stage:
        return Stage(
            name=name,
            run=run,
            makes=makes,
            params=settled(spec).canonical(),
            inputs=dict(inputs),
            seed=self.spec.seed,
            model=self.model_params if uses_model else None,
            version=version,
            needs=needs,
            bill=bill,
            uses_devices=uses_model,
        )

    def _made(self, role: str) -> Node:
        if role not in self.spec.upstream:
            raise PlanError(
                f"upstream.{role} is missing: the plan needs it; set upstream.{role} or given.{role}"
            )
        spec = self.spec.upstream[role]
        if role in self.making:
            raise PlanError(
                f"upstream.{role}.name={spec.name}: it builds on the {role} stage itself, which it would "
                f"have to make; set method@upstream.{role} to a method that does not, or give given.{role}"
            )
        self.making.append(role)
        try:
            node: Node = lookup.module("methods", spec.name, spec.module).plan(spec, self)
        finally:
            self.making.pop()
        return node

    def _given(self, key: str, kind: Kind, location: str, revision: str | None = None) -> Node:
        self.used.add(key)
        return self._found(kind, lambda: given(key, kind, location, revision))

    def _found(self, kind: Kind, find: Callable[[], Node]) -> Node:
        """What `find` finds; else its complaint is noted, so that a plan reports all that it lacks."""
        try:
            return find()
        except PlanError as error:
            self.problems[str(error)] = None
            return Given(kind, "", str(error))


CONFIGS = ("config.json", "adapter_config.json")  # of a model, and of adapters for one


def given(key: str, kind: Kind, location: str, revision: str | None) -> Given:
    """An artifact folder, a Hugging Face folder, or else a hub id (which is not looked up here).

    The `model/` of an artifact stands for the artifact: what it recorded of its model, such as whether
    responses are scored with their end token, holds for both.
    """
    path = Path(location).expanduser()
    if not path.exists():
        if not is_hub_id(location):
            raise PlanError(
                f"{key}={location}: there is no such folder and this is no hub id (owner/name); "
                f"set {key} to a folder that transformers can load"
            )
        return Given(kind, location, f"hub:{location}@{revision or 'main'}", revision)
    folder = path.resolve()
    if folder.name == "model" and (folder.parent / manifest.NAME).is_file():
        folder = folder.parent
    places = [place / name for place in (folder, folder / "model") for name in CONFIGS]
    if not any(file.is_file() for file in places):
        raise PlanError(
            f"{key}={location}: the folder has neither config.json nor model/config.json; "
            f"set {key} to a Hugging Face folder or an artifact folder of the store"
        )
    try:
        check_kind(key, kind, folder)
        return Given(kind, str(folder), fingerprint(folder), revision)
    except (OSError, ValueError) as error:
        raise PlanError(f"{key}={location}: cannot be read: {error}; set {key} to another folder") from None


def check_kind(key: str, kind: Kind, folder: Path) -> None:
    """PlanError for a reward model in a policy's place, or the reverse.

    With tied embeddings transformers would load the one as the other and miss no weight. A folder that does
    not say what it is passes.
    """
    files = (place / name for name in CONFIGS for place in (folder, folder / "model"))
    told = json.loads(next(f for f in files if f.is_file()).read_text(encoding="utf-8"))
    told = told if isinstance(told, Mapping) else {}
    made_for = told.get("architectures") or list(filter(None, [told.get("task_type")]))  # of an adapter
    if not made_for:
        return
    scores = any(str(name).endswith(("ForSequenceClassification", "SEQ_CLS")) for name in made_for)
    if scores != (kind is Kind.REWARD):
        wanted = "a reward model (a sequence classifier)" if kind is Kind.REWARD else "a policy"
        raise PlanError(
            f"{key}={folder}: it holds a {made_for[0]}, and {wanted} is required; "
            f"set {key} to a folder with one"
        )
