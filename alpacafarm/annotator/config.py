"""Which judge and which endpoints Python code asks for: presets of `conf/`, YAML files, mappings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from alpacafarm import compose, lookup
from alpacafarm.errors import SpecError
from alpacafarm.judges import alpaca_eval
from alpacafarm.spec.api import ApiSpec
from alpacafarm.spec.base import Strict
from alpacafarm.spec.judge import JudgeSpec

T = TypeVar("T")
Config = str | Path | Mapping[str, Any] | Strict
ASKING = ("api", "alpaca_eval")  # the kinds of judges that name a model


def judge_spec(config: Config, *, seed: int, model: str | None) -> JudgeSpec:
    """The judge that `annotators_config` names, asking `model` if given. SpecError says what is wrong."""
    argument = "annotators_config"
    raw = of_alpaca_eval(config, seed) or keys_of(config, "feedback/judge", argument, {"seed": seed})
    if model is not None:
        if raw.get("kind") not in ASKING:
            raise SpecError(
                f"model={model}: a judge of kind {raw.get('kind')} has no such key; leave model out, or "
                f"choose {argument} of kind {' or '.join(ASKING)}"
            )
        raw["model"] = model
    adapter: TypeAdapter[JudgeSpec] = TypeAdapter(JudgeSpec)
    return checked(adapter, raw, argument)


def api_spec(config: Config) -> ApiSpec:
    return checked(TypeAdapter(ApiSpec), keys_of(config, "api", "api", {}), "api")


def checked(adapter: TypeAdapter[T], raw: Mapping[str, Any], argument: str) -> T:
    """The spec of raw keys. SpecError has a line for each that is wrong, below the name of the argument."""
    try:
        return adapter.validate_python(raw, context={"lookup": lookup.module})
    except ValidationError as error:
        errors = error.errors()
        for details in errors:
            details["loc"] = (argument, *details["loc"])
        raise SpecError("\n".join(compose.described(errors, {argument: raw}))) from None


def of_alpaca_eval(config: Config, seed: int) -> dict[str, Any] | None:
    """The judge of one of alpaca-eval's annotators, if that is what the name names."""
    if not isinstance(config, str) or is_file(preset("feedback/judge", config)) or is_file(Path(config)):
        return None
    if not is_file(alpaca_eval.configs() / config.partition("/")[0] / "configs.yaml"):
        return None
    return {
        "kind": "alpaca_eval",
        "name": config,
        "model": None,
        "seed": seed,
        "both_orders": False,
        "one_per_prompt": False,
    }


def keys_of(config: Config, group: str, argument: str, around: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a preset of `conf/<group>`, of a YAML file, or of a mapping.

    `around` are keys of a run that a preset may refer to.
    """
    if isinstance(config, Strict):
        return config.canonical()
    if isinstance(config, Mapping):
        return dict(config)
    path = preset(group, str(config))
    if not is_file(path):
        path = Path(str(config)).expanduser()
    if not is_file(path):
        known = lookup.choices(str(config), [file.stem for file in preset(group, "").parent.glob("*.yaml")])
        more = ", one of alpaca-eval's annotators" if group == "feedback/judge" else ""
        raise SpecError(
            f"{argument}={config}: there is no such preset and no such file; name a YAML file{more} or a "
            f"preset; {known}"
        )
    return compose.standalone(path, around)


def is_file(path: Path) -> bool:
    """False also for what no file system takes as a name."""
    try:
        return path.is_file()
    except OSError:
        return False


def preset(group: str, name: str) -> Path:
    return compose.conf_dir() / group / f"{name}.yaml"
