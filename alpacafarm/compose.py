"""Hydra's config to a RunSpec, and every problem found to one message each."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from alpacafarm import lookup
from alpacafarm.errors import SpecError
from alpacafarm.spec.run import RunSpec


def parse(raw: Mapping[str, Any]) -> RunSpec:
    """Validates a composed config. SpecError lists all problems, one line each."""
    raw = with_kl_coef(dict(raw))
    try:
        return RunSpec.model_validate(raw, context={"lookup": lookup.module})
    except ValidationError as error:
        lines = [describe(details, raw) for details in error.errors()]
        raise SpecError(
            "\n".join(dict.fromkeys(line for text in lines for line in text.split("\n")))
        ) from None


def with_kl_coef(raw: dict[str, Any]) -> dict[str, Any]:
    """The root key `kl_coef` is the method's: set from either side, refused where there is no KL penalty."""
    method = raw.get("method")
    if not isinstance(method, Mapping) or not isinstance(method.get("name"), str):
        return raw
    try:
        fields = lookup.module("methods", method["name"]).Spec.model_fields
    except ValueError:
        return raw  # reported with its path by the validation
    asked = raw.get("kl_coef")
    if "kl_coef" in fields:
        value = method.get("kl_coef") if asked is None else asked
        return {**raw, "kl_coef": value, "method": {**method, "kl_coef": value}}
    if asked is not None:
        having = [
            n for n in lookup.names("methods") if "kl_coef" in lookup.module("methods", n).Spec.model_fields
        ]
        raise SpecError(
            f"kl_coef={asked}: method={method['name']} has no KL penalty; leave kl_coef out or choose a method that has "
            f"one: {', '.join(having)}"
        )
    return raw


def describe(details: ErrorDetails, raw: Mapping[str, Any]) -> str:
    """`path=value: what is required; a way out`."""
    path = config_path(details["loc"], raw)
    value = details["input"]
    context = details.get("ctx", {})
    kind = details["type"]
    if kind == "missing":
        return f"{path} is missing: a value is required; set {path}=..."
    if kind == "extra_forbidden":
        parent, _, key = path.rpartition(".")
        known = known_keys(parent, raw)
        return (
            f"{path}={shown(value)}: there is no such key{lookup.suggestion(key, known)} "
            f"Keys of {parent or 'the root'}: {', '.join(known)}"
        )
    if kind == "value_error":
        text = str(context.get("error", details["msg"]))
        return "\n".join(prefixed(path, line) for line in text.split("\n"))
    return (
        f"{path}={shown(value)}: {requirement(kind, details['msg'], context)}; {way_out(path, kind, context)}"
    )


def config_path(loc: tuple[int | str, ...], raw: Mapping[str, Any]) -> str:
    """Pydantic's location without the tags it adds for unions, which are no keys of the config."""
    parts: list[str] = []
    node: Any = raw
    for index, part in enumerate(loc):
        is_key = isinstance(node, Mapping) and part in node
        is_item = isinstance(node, list) and isinstance(part, int) and part < len(node)
        if is_key or is_item:
            node = node[part]  # type: ignore[index]
        elif index < len(loc) - 1 or not (isinstance(node, Mapping)):
            continue  # a union's tag
        parts.append(str(part))
    return ".".join(parts)


def prefixed(path: str, text: str) -> str:
    """Validators write keys relative to their spec; the message has the whole path once."""
    if not path or text.startswith(path):
        return text
    first = text.split("=", 1)[0]
    if "=" in text and first.replace("_", "").replace(".", "").isalnum():
        return (
            f"{path}.{text}"
            if first.split(".")[0] != path.split(".")[-1]
            else f"{path.rpartition('.')[0]}.{text}".lstrip(".")
        )
    return f"{path}: {text}"


def requirement(kind: str, message: str, context: Mapping[str, Any]) -> str:
    bounds = {
        "greater_than": ("gt", "must be greater than {}"),
        "greater_than_equal": ("ge", "must be at least {}"),
        "less_than": ("lt", "must be less than {}"),
        "less_than_equal": ("le", "must be at most {}"),
    }
    if kind in bounds:
        name, text = bounds[kind]
        return text.format(context[name])
    if kind in ("literal_error", "union_tag_invalid"):
        return f"must be one of {context.get('expected', context.get('expected_tags'))}"
    return message[0].lower() + message[1:].replace("Input should", "must").replace("input should", "must")


def way_out(path: str, kind: str, context: Mapping[str, Any]) -> str:
    """An example that would be accepted, as far as the error tells."""
    if kind in ("greater_than_equal", "less_than_equal"):
        return f"set {path}={context.get('ge', context.get('le'))} or {'more' if 'ge' in context else 'less'}"
    if kind == "greater_than":
        return f"set {path} above {context['gt']}"
    if kind == "less_than":
        return f"set {path} below {context['lt']}"
    if kind in ("int_type", "int_parsing", "int_from_float"):
        return f"set {path} to a whole number without quotes, e.g. {path}=1"
    if kind in ("float_type", "float_parsing", "finite_number"):
        return f"set {path} to a number without quotes, e.g. {path}=0.1"
    if kind.startswith("bool"):
        return f"set {path}=true or {path}=false"
    if kind == "none_required":
        return f"set {path}=null"
    return f"change {path}"


def shown(value: Any) -> str:
    if isinstance(value, BaseModel | Mapping):
        return "{...}"
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def known_keys(parent: str, raw: Mapping[str, Any]) -> list[str]:
    """The keys that the spec at `parent` has, as far as its model can be found."""
    if not parent:
        return sorted(RunSpec.model_fields)
    node: Any = raw
    model: Any = RunSpec
    for part in parent.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
        model = submodel(model, part, node)
    return sorted(model.model_fields) if model is not None else []


def submodel(model: Any, part: str, node: Any) -> Any:
    """The pydantic model under one key: by name for the open groups, by type otherwise."""
    packages = {
        "method": "methods",
        "base": "methods",
        "sft": "methods",
        "rm": "methods",
        "feedback": "feedback",
        "eval": "evals",
    }
    if part == "upstream":
        return RunSpec
    if model is RunSpec and part in packages and isinstance(node, Mapping):
        return lookup.module(packages[part], str(node.get("name"))).Spec
    if model is None or part not in model.model_fields:
        return None
    return model_in(model.model_fields[part].annotation, node)


def model_in(annotation: Any, node: Any) -> Any:
    """The first pydantic model in a type, or the one whose `kind` is the node's."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        kind = annotation.model_fields.get("kind")
        wanted = node.get("kind") if isinstance(node, Mapping) else None
        return annotation if kind is None or wanted in getattr(kind.annotation, "__args__", ()) else None
    for part in getattr(annotation, "__args__", ()):
        found = model_in(part, node)
        if found is not None:
            return found
    return None


def read_spec(path: Path) -> dict[str, Any]:
    """A `spec.json` of an earlier run as a raw config."""
    try:
        raw = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SpecError(
            f"spec={path}: cannot be read as JSON ({error}); name the spec.json of a run folder"
        ) from None
    if not isinstance(raw, dict):
        raise SpecError(f"spec={path}: must hold one JSON object; name the spec.json of a run folder")
    return raw
