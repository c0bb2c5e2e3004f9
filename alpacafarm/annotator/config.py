"""Which judge and which endpoints Python code asks for: presets of `conf/`, YAML files, mappings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from alpacafarm import compose
from alpacafarm.errors import SpecError
from alpacafarm.lookup import choices
from alpacafarm.spec.base import Strict
from alpacafarm.spec.judge import JudgeSpec

Config = str | Path | Mapping[str, Any] | Strict


def judge_spec(config: Config, *, seed: int) -> JudgeSpec:
    """The judge that `annotators_config` names. SpecError says what is wrong with it."""
    raw = keys_of(config, "feedback/judge", "annotators_config", {"seed": seed})
    adapter: TypeAdapter[JudgeSpec] = TypeAdapter(JudgeSpec)
    try:
        return adapter.validate_python(raw)
    except ValidationError as error:
        told = compose.described(
            [{**e, "loc": ("annotators_config", *e["loc"])} for e in error.errors()],
            {"annotators_config": raw},
        )
        raise SpecError("\n".join(told)) from None


def keys_of(config: Config, group: str, argument: str, around: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a preset of `conf/<group>`, of a YAML file, or of a mapping.

    `around` are keys of a run that a preset may refer to.
    """
    if isinstance(config, Strict):
        return config.canonical()
    if isinstance(config, Mapping):
        return dict(config)
    folder = compose.conf_dir() / group
    path = folder / f"{config}.yaml"
    if not path.is_file():
        path = Path(config).expanduser()
    if not path.is_file():
        known = choices(str(config), [preset.stem for preset in folder.glob("*.yaml")])
        raise SpecError(
            f"{argument}={config}: there is no such preset and no such file; name a YAML file or a preset; "
            f"{known}"
        )
    return compose.standalone(path, around)
