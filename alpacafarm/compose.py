"""A composed config to a RunSpec, and every problem found to one line each."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from alpacafarm import lookup
from alpacafarm.errors import SpecError
from alpacafarm.judges.api import packaged
from alpacafarm.spec.run import RunSpec


def parse(raw: Mapping[str, Any], folders: Sequence[Path] = ()) -> RunSpec:
    """Validates a composed config. SpecError lists all problems, one line each.

    `folders` hold the user's own groups, see `own_folders`.
    """
    raw, problems = with_kl_coef(raw, folders)
    try:
        spec = RunSpec.model_validate(raw, context={"lookup": lookup.module})
    except ValidationError as error:
        problems += described(error.errors(), raw, folders)
    if problems:
        raise SpecError("\n".join(problems))
    return spec


def own_folders(overrides: Sequence[str]) -> list[Path]:
    """The folders of `hydra.searchpath`, as which `--config-dir` arrives; not those inside of packages."""
    told = [o.partition("=")[2] for o in overrides if o.lstrip("+").startswith("hydra.searchpath=")]
    return [Path(place) for text in told for place in re.findall(r"file://([^',\"\]]+)", text)]


def methods(folders: Sequence[Path]) -> dict[str, tuple[Any, Any]]:
    """What `method=NAME` may be, with the `name` and the `_module` of each.

    These are the YAML files of conf/method and of the same in `folders`, and what packages announce.
    """
    found: dict[str, tuple[Any, Any]] = {name: (name, None) for name in lookup.entry_points("methods")}
    for path in (path for place in (conf_dir(), *folders) for path in (place / "method").glob("*.yaml")):
        try:
            file = OmegaConf.load(path)
        except Exception:  # whatever the parser of YAML raises; a file that is chosen is refused elsewhere
            continue
        if isinstance(file, DictConfig):
            found[path.stem] = file.get("name", path.stem), file.get("_module")
    return found


def with_kl_coef(raw: Mapping[str, Any], folders: Sequence[Path] = ()) -> tuple[dict[str, Any], list[str]]:
    """The config with the root key `kl_coef` and the method's own one equal, and what speaks against it."""
    method, asked = raw.get("method"), raw.get("kl_coef")
    if not isinstance(method, Mapping) or not isinstance(method.get("_module"), str | None):
        return dict(raw), []  # reported by the validation
    try:
        having = has_kl_coef(method.get("name"), method.get("_module"))
    except ValueError:
        return dict(raw), []  # the same
    if having:
        value = method.get("kl_coef") if asked is None else asked
        return {**raw, "kl_coef": value, "method": {**method, "kl_coef": value}}, []
    if asked is None:
        return dict(raw), []
    others = ", ".join(sorted(name for name, told in methods(folders).items() if may_have_kl_coef(*told)))
    problem = (
        f"kl_coef={shown(asked)}: method={method['name']} has no KL penalty; "
        f"leave kl_coef out or choose a method that has one: {others}"
    )
    return {**raw, "kl_coef": None}, [problem]


def has_kl_coef(method: object, dotted: str | None = None) -> bool:
    """Whether the method has a KL penalty; ValueError where there is no such method."""
    return "kl_coef" in lookup.module("methods", method, dotted).Spec.model_fields


def may_have_kl_coef(method: object, dotted: str | None) -> bool:
    """`has_kl_coef`, false where the module cannot be imported."""
    try:
        return has_kl_coef(method, dotted)
    except (ValueError, ImportError):
        return False


def described(
    errors: Sequence[ErrorDetails], raw: Mapping[str, Any], folders: Sequence[Path] = ()
) -> list[str]:
    """`path=value: what is required; a way out` for every key that is wrong, once each."""
    by_path: dict[str, list[ErrorDetails]] = {}
    for details in errors:
        path = config_path(details["loc"], raw)
        if details["type"] == "union_tag_invalid":  # pydantic names the group, what is wrong is its kind
            key = str(details["ctx"]["discriminator"]).strip("'")
            path, details = f"{path}.{key}", {**details, "input": details["ctx"]["tag"]}
        if details["type"] == "union_tag_not_found":
            key = str(details["ctx"]["discriminator"]).strip("'")
            path, details = f"{path}.{key}", {**details, "type": "missing"}
        by_path.setdefault(path, []).append(details)
    if "kl_coef" in by_path:
        by_path.pop("method.kl_coef", None)  # the same value, see `with_kl_coef`
    missing = [path for path, found in by_path.items() if found[0]["type"] == "missing"]
    if "method" in missing:
        known = lookup.choices("", methods(folders))
        told = f"method is missing: every run has one; set method=NAME, {known}"
        return [told, *(describe(path, by_path[path], raw, missing) for path in by_path if path != "method")]
    return [describe(path, found, raw, missing) for path, found in by_path.items()]


def describe(path: str, found: Sequence[ErrorDetails], raw: Mapping[str, Any], missing: Sequence[str]) -> str:
    """One line about one key. `found` has several entries where the key may be of several types."""
    details = found[0]
    shown_key = f"{path}={shown(details['input'])}"
    if details["type"] == "missing":
        return f"{path} is missing: a value is required; set {path}=VALUE"
    if details["type"] == "extra_forbidden":
        parent, _, key = path.rpartition(".")
        keys = siblings(parent, raw, missing) - {key}
        way = lookup.choices(key, keys) if keys else "`--cfg job` prints those that there are"
        return f"{shown_key}: there is no such key; {way}"
    if details["type"] == "problem":
        context = details["ctx"]
        owner = path.removesuffix(context["key"])
        text = re.sub(r"(?<![^\s(])\.(?=[a-z])", owner, context["text"])  # see spec.base.Problem
        return f"{shown_key}: {text}"
    required, ways = zip(*(requirement(entry, path) for entry in found), strict=True)
    either = " or ".join(text.removeprefix("must be ") for text in required)
    return f"{shown_key}: must be {either}; {ways[0]}"


def requirement(details: ErrorDetails, path: str) -> tuple[str, str]:
    """What pydantic's error asks for, and a value that would be accepted as far as the error tells."""
    context: Mapping[str, Any] = details.get("ctx", {})
    match details["type"]:
        case "greater_than_equal":
            return (
                f"must be at least {plainly(context['ge'])}",
                f"set {path}={plainly(context['ge'])} or more",
            )
        case "greater_than":
            return (
                f"must be greater than {plainly(context['gt'])}",
                f"set {path} above {plainly(context['gt'])}",
            )
        case "less_than_equal":
            return f"must be at most {plainly(context['le'])}", f"set {path}={plainly(context['le'])} or less"
        case "less_than":
            return f"must be less than {plainly(context['lt'])}", f"set {path} below {plainly(context['lt'])}"
        case "literal_error":
            return one_of(str(context["expected"]), str(details["input"]), path)
        case "union_tag_invalid":
            return one_of(str(context["expected_tags"]), str(context["tag"]), path)
        case "int_type" | "int_from_float":
            return "must be a whole number", f"set {path}=1, for example"
        case "float_type" | "finite_number":
            return "must be a number", f"set {path}=0.1, for example"
        case "bool_type":
            return "must be true or false", f"set {path}=true or {path}=false"
        case "string_type" if details["input"] is None:
            return "must be a text", f"set {path}=TEXT, for example"
        case "too_short" | "too_long":
            count = context.get("min_length", context.get("max_length"))
            return f"must be a list of {count} entries", f"change {path}"
        case "string_type":
            return "must be a text", f"put it in quotes: '{path}=\"{details['input']}\"'"
        case "string_too_short":
            return "must be a text that is not empty", f"set {path}=NAME, for example"
        case "model_type" | "dict_type" | "model_attributes_type":
            return "must be a group of keys", f"set its keys one by one, {path}.KEY=VALUE"
    message = details["msg"]
    return message[0].lower() + message[1:].replace("Input should be", "must be"), f"change {path}"


def one_of(expected: str, value: str, path: str) -> tuple[str, str]:
    """The values that pydantic lists, and the one that is closest to what was written."""
    values = [word or digits for word, digits in re.findall(r"'([^']*)'|(\d+)", expected)]
    close = difflib.get_close_matches(value, values, n=1) or values
    listed = " or ".join([", ".join(values[:-1]), values[-1]]) if len(values) > 1 else values[0]
    return f"must be {listed}", f"set {path}={close[0]}"


def config_path(loc: Sequence[int | str], raw: Mapping[str, Any]) -> str:
    """Pydantic's location without the tags that it adds for unions, which are no keys of the config."""
    parts: list[str] = []
    node: Any = raw
    for index, part in enumerate(loc):
        is_last_key = index == len(loc) - 1 and isinstance(node, Mapping) and part != "[key]"
        if stands_in(node, part):
            node = node[part]
        elif not is_last_key:  # one that is missing, or that only a validator knows
            continue
        parts.append(str(part))
    return ".".join(parts)


def stands_in(node: Any, part: int | str) -> bool:
    if isinstance(node, Mapping):
        return part in node
    return isinstance(node, list) and isinstance(part, int) and part < len(node)


def siblings(parent: str, raw: Mapping[str, Any], missing: Sequence[str]) -> set[str]:
    """The keys at `parent`, and those that should be there: all of the spec, besides what is wrong."""
    node: Any = raw
    parts = parent.split(".") if parent else []
    while parts:
        ends = range(len(parts), 0, -1)  # a name may have dots
        end = next((end for end in ends if stands_in(node, ".".join(parts[:end]))), None)
        if end is None:
            return set()
        node, parts = node[".".join(parts[:end])], parts[end:]
    absent = (path.rpartition(".") for path in missing)
    return {str(key) for key in node} | {key for place, _, key in absent if place == parent}


def shown(value: Any) -> str:
    """A value as one writes it on the command line; a group of keys only as such."""
    if isinstance(value, str):
        return value or "''"
    text = "{...}" if isinstance(value, Mapping) else json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def conf_dir() -> Path:
    """`conf/` of the checkout, or the copy that an installed wheel carries inside the package."""
    package = Path(__file__).parent
    beside = package.parent / "conf"
    return beside if (beside / "config.yaml").is_file() else package / "conf"


def plainly(bound: float) -> str:
    """A number as it can be given back: whole ones in digits."""
    return str(int(bound)) if float(bound).is_integer() and abs(bound) < 1e15 else f"{bound:g}"


def standalone(path: Path, around: Mapping[str, Any]) -> dict[str, Any]:
    """One YAML file of a group without a run around it, but for the root keys `around` that it refers to."""
    try:
        file = OmegaConf.load(path)
    except Exception as error:  # whatever the parser of YAML raises, the user needs the file's name
        reason = " ".join(str(error).split())
        raise SpecError(
            f"{path}: cannot be read as YAML ({reason}); name a file with the keys of a group"
        ) from None
    if not isinstance(file, DictConfig):
        raise SpecError(f"{path}: must hold keys with values; name a file with the keys of a group")
    found = plain(OmegaConf.create({**around, path.stem: file}))[path.stem]
    assert isinstance(found, dict)
    return found


def raw_config(cfg: DictConfig, overrides: Mapping[str, Any], groups: Sequence[str]) -> dict[str, Any]:
    """The composed config as plain values; with `spec=FILE` the file's, under the other overrides: keys and
    values."""
    if cfg.get("spec") is None:
        return plain(cfg)
    asked = {k: v for k, v in overrides.items() if k != "spec" and not k.startswith(("hydra.", "hydra/"))}
    grouped = [f"{key}={shown(value)}" for key, value in asked.items() if key in groups]
    if grouped:
        raise SpecError(
            f"spec={cfg.spec}: a saved spec has its groups already; leave {', '.join(grouped)} out, "
            "single keys may be overridden"
        )
    saved = OmegaConf.create(read_spec(Path(cfg.spec)))
    for key, value in asked.items():
        OmegaConf.update(saved, key, value, force_add=True)
    return plain(saved)


def plain(cfg: Any) -> dict[str, Any]:
    """Interpolations resolved. SpecError names one that cannot be, or all values that are missing."""
    try:
        missing = sorted(OmegaConf.missing_keys(cfg))
        raw = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        told = str(error).splitlines()[0]
        raise SpecError(f"{error.full_key}: {told}; `--cfg job` prints the config as it stands") from None
    if missing:
        lines = [f"{key} is missing: a value is required; set {key}=VALUE" for key in missing]
        raise SpecError("\n".join(lines))
    assert isinstance(raw, dict)
    return {str(key): value for key, value in raw.items() if key != "spec"}


def unknown_key(message: str) -> str | None:
    """The key that Hydra's message says it cannot override."""
    found = re.search(r"Could not (?:override|delete from config\.) '([^']+)'", message)
    return found.group(1) if found else None


def dotted(node: Any, prefix: str = "") -> list[str]:
    """Every key of a config, with its path."""
    keys: list[str] = []
    for key, value in node.items() if isinstance(node, Mapping) else ():
        keys += [f"{prefix}{key}", *dotted(value, f"{prefix}{key}.")]
    return keys


WITH_A_PATH = ("recorded", "local")  # kinds of judges
WITH_A_PROMPT = ("api", "local")


def anywhere(spec: RunSpec) -> dict[str, Any]:
    """The spec with its paths absolute, so that it gives the same run from any working directory."""

    def absolute(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: part if key == "kind" else absolute(part) for key, part in value.items()}
        is_path = isinstance(value, str) and Path(value).expanduser().exists()
        return str(Path(value).expanduser().resolve()) if is_path else value

    def with_judges(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        found = {key: with_judges(part) for key, part in value.items()}
        if value.get("kind") in WITH_A_PATH:
            found["path"] = absolute(value["path"])
        if value.get("kind") in WITH_A_PROMPT and value["prompt"] not in packaged():
            found["prompt"] = absolute(value["prompt"])
        return found

    told = with_judges(spec.canonical())
    groups = {name: absolute(told[name]) for name in ("data", "given")}
    model = {**told["model"], "path": absolute(told["model"]["path"])}
    api = {**told["api"], "prices": absolute(told["api"]["prices"])}
    return {
        **told,
        **groups,
        "model": model,
        "api": api,
        "store": str(Path(spec.store).expanduser().resolve()),
    }


def read_spec(path: Path) -> dict[str, Any]:
    """The `spec.json` of an earlier run as a raw config."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(
            f"spec={path}: cannot be read as JSON ({error}); name the spec.json of a run folder"
        ) from None
    if not isinstance(raw, dict):
        raise SpecError(f"spec={path}: must hold one JSON object; name the spec.json of a run folder")
    if isinstance(raw.get("method"), dict) and "kl_coef" in raw["method"]:
        raw["kl_coef"] = None  # the method's value stands for both, so that an override of either is heard
    told: dict[str, Any] = literal(raw)
    return told


def literal(value: Any) -> Any:
    """A value in which `${...}` is text, as in a line of shell: a saved spec has no interpolations."""
    if isinstance(value, Mapping):
        return {key: literal(part) for key, part in value.items()}
    if isinstance(value, list):
        return [literal(part) for part in value]
    return value.replace("${", r"\${") if isinstance(value, str) else value
