"""`artifact.json`: a Manifest, and beside it what only the store asks for (sizes, identity, commit)."""

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import alpacafarm
from alpacafarm.artifacts.files import write_aside
from alpacafarm.errors import ArtifactError
from alpacafarm.ports import Artifact, Manifest
from alpacafarm.stage import Kind

NAME = "artifact.json"
OUTCOME = "outcome.json"
LIBRARIES = ("torch", "transformers", "deepspeed")


@dataclass(frozen=True)
class Record:
    """One artifact of the store, without its content."""

    manifest: Manifest
    sizes: Mapping[str, int]  # bytes, by relative path: the same files as `manifest.files`
    identity: Mapping[str, Any]  # what the key was made of
    commit: str | None  # of the checkout that made it; ends in -dirty where there were local changes
    path: Path

    @property
    def size_bytes(self) -> int:
        return sum(self.sizes.values())

    @property
    def artifact(self) -> Artifact:
        return Artifact(self.path, self.manifest.kind, self.manifest.key, self.manifest.facts)


@dataclass(frozen=True)
class Outcome:
    """What the worker knows of a stage when its function has returned: `<folder>/outcome.json`."""

    started: str = field(default_factory=lambda: now())
    seconds: float = 0.0
    throughput: Mapping[str, Any] | None = None
    cost: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        write_aside(folder / OUTCOME, to_json(vars(self)))

    @staticmethod
    def forget(folder: Path) -> None:
        """An attempt begins, which may end without one."""
        (folder / OUTCOME).unlink(missing_ok=True)

    @classmethod
    def read(cls, folder: Path) -> "Outcome":
        path = folder / OUTCOME
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else cls()


def to_json(value: Any) -> str:
    """Indented JSON. Infinities and NaN, which JSON lacks, become null."""
    return json.dumps(_finite(value), indent=1, allow_nan=False) + "\n"


def write(record: Record) -> None:
    """Writes `artifact.json` into the record's folder."""
    extra = {"commit": record.commit, "sizes": dict(record.sizes), "identity": dict(record.identity)}
    write_aside(record.path / NAME, to_json(vars(record.manifest) | extra))


def read(folder: Path) -> Record:
    """The record of a folder; ArtifactError where `artifact.json` is missing or not what `write` writes."""
    path = folder / NAME
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        names = {part.name for part in fields(Manifest)}
        manifest = Manifest(**{name: raw[name] for name in names} | {"kind": Kind(raw["kind"])})
        sizes = {name: raw["sizes"][name] for name in manifest.files}
        return Record(manifest, sizes, raw["identity"], raw["commit"], folder)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactError(f"{path} is missing") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def now() -> str:
    """The time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def versions() -> dict[str, str]:
    """Of ours, Python and the libraries that do the arithmetic; read from their metadata, not imported."""
    found = {"alpacafarm": alpacafarm.__version__, "python": sys.version.split()[0]}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def commit() -> str | None:
    """The commit of the checkout this code runs from; None from an installed wheel or without git."""
    root = Path(alpacafarm.__file__).parents[1]
    if not (root / ".git").exists():  # else git would answer for whatever checkout an environment lies in
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value
