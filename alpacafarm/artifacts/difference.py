"""Why two stages are not the same: the parts of their identities that differ."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from alpacafarm.artifacts.manifest import Record
from alpacafarm.stage import Stage, canonical_json

SHOWN = 3
ABSENT = object()


def nearest(stage: Stage, records: Iterable[Record]) -> Record | None:
    """The stored artifact of the stage's name with the fewest differences, the newest of equals."""
    same = [record for record in records if record.manifest.stage == stage.name]
    return min(reversed(same), key=lambda old: len(_changes(old.identity, stage)), default=None)


def differences(old: Mapping[str, Any], stage: Stage) -> str:
    """The first differences from an older identity, such as `params.beta: 0.1 -> 0.2`."""
    changes = _changes(old, stage)
    told = [_told(path, before, after, stage) for path, before, after in changes[:SHOWN]]
    more = [f"and {len(changes) - SHOWN} more"] if len(changes) > SHOWN else []
    return "; ".join(told + more)


def _changes(old: Mapping[str, Any], stage: Stage) -> list[tuple[str, Any, Any]]:
    new = json.loads(canonical_json(stage.identity))  # as the old one was read: tuples are lists there
    before, after = dict(_leaves(old)), dict(_leaves(new))
    paths = sorted(before | after)
    pairs = [(path, before.get(path, ABSENT), after.get(path, ABSENT)) for path in paths]
    return [(path, a, b) for path, a, b in pairs if a is ABSENT or b is ABSENT or a != b]


def _leaves(value: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted path and value of everything that is not a mapping with something in it."""
    if not isinstance(value, Mapping) or not value:
        yield path, value
        return
    for name, part in value.items():
        yield from _leaves(part, f"{path}.{name}" if path else str(name))


def _told(path: str, before: Any, after: Any, stage: Stage) -> str:
    group, _, role = path.partition(".")
    if group == "inputs" and role:
        maker = f" ({stage.inputs[role].name})" if role in stage.inputs else ""
        return f"input {role}: {_shown(before)[:8]} -> {_shown(after)[:8]}{maker}"
    return f"{path}: {_shown(before)} -> {_shown(after)}"


def _shown(value: Any) -> str:
    return "absent" if value is ABSENT else str(value)
