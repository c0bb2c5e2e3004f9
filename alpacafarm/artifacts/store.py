"""The store: one folder for each key, made once whoever asks, and never used when damaged.

    <store>/policy/8a43dd02bf228626/             finished: artifact.json is there and names every file
    <store>/policy/b4b03364cb3cfc66.partial/     being made: stage.json, out/, scratch/, logs
    <store>/policy/b4b03364cb3cfc66.damaged-1/   found damaged and set aside
    <store>/labels/5f0c4a61e2b7d938/             what people said, see alpacafarm.label.folder
    <store>/.locks/b4b03364cb3cfc66              held by its maker; the kernel frees it on any death

Any number of processes may share a store. What is assumed of the file system: rename is atomic and flock
works between its users. On NFS that means version 4, or 3 with lockd; there the lock of a *machine* that died
stays until its lease runs out (90 s by default), and a machine may see a finished artifact up to `acdirmax`
seconds late. That can cost making it twice, never two copies: the first to be renamed stays.
"""

import json
import logging
import os
import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from alpacafarm.artifacts import manifest
from alpacafarm.artifacts.difference import differences, nearest
from alpacafarm.artifacts.files import cut_off, sha256, sync, tree, write_aside
from alpacafarm.artifacts.manifest import Outcome, Record
from alpacafarm.errors import ArtifactError, StageError
from alpacafarm.ports import Artifact, Manifest
from alpacafarm.stage import Given, Kind, Node, Stage

log = logging.getLogger(__name__)

State = Literal["done", "partial", "to do"]
HASHED_BYTES = 64 * 2**20  # files below this are hashed again when a process first reads the artifact


@dataclass(frozen=True)
class Claim:
    """The right to make a stage, or the artifact that another process has made meanwhile."""

    artifact: Artifact | None  # use this if it is there, else make `folder / "out"`
    folder: Path  # the partial folder: stage.json, out/, scratch/
    resumed: bool  # somebody has begun before


class Store:
    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()
        self._verified: set[Path] = set()
        self._given_up = threading.Event()

    def folder(self, stage: Stage) -> Path:
        return self.root / stage.makes / stage.key

    def partial(self, stage: Stage) -> Path:
        return self.root / stage.makes / f"{stage.key}.partial"

    def state(self, stage: Stage) -> State:
        """Cheap, for plans: looks at names and sizes only, changes nothing."""
        if self.is_done(stage):
            return "done"
        return "partial" if self.partial(stage).exists() else "to do"

    def is_done(self, stage: Stage) -> bool:
        """As cheap as `state`."""
        return self.folder(stage).exists() and self._problem(self.folder(stage), hashes=False) is None

    def find(self, stage: Stage) -> Artifact | None:
        """The finished artifact, checked against its manifest. A damaged one is set aside: None."""
        if not self.folder(stage).exists():
            return None
        if self._problem(self.folder(stage)) is None:
            return manifest.read(self.folder(stage)).artifact
        lock = self._lock(stage)
        try:
            lock.acquire(blocking=False)
        except Timeout:  # somebody makes it again already
            return None
        try:
            return self._checked(stage)
        finally:
            lock.release()

    @contextmanager
    def claim(self, stage: Stage) -> Iterator[Claim]:
        """One process makes, the others wait. A dead maker's claim is free at once and its scratch kept."""
        lock = self._acquired(stage)
        try:
            artifact = self._checked(stage)
            folder = self.partial(stage)
            if artifact is None:
                yield Claim(None, folder, resumed=self._prepare(stage))
                return
            shutil.rmtree(folder, ignore_errors=True)  # left by a maker that died between rename and clean-up
        finally:
            lock.release()
        yield Claim(artifact, folder, resumed=False)

    def give_up(self) -> None:
        """Threads that wait in `claim` for another maker get a StageError, from here on."""
        self._given_up.set()

    def publish(self, stage: Stage, partial: Path, outcome: Outcome | None = None) -> Artifact:
        """Turns `partial/out` into the finished artifact; call it inside the claim.

        The outcome is the worker's `outcome.json` unless given. The manifest is written last, everything is
        on the disk before the rename, and the rename is the moment from which the artifact exists.
        """
        out, target = partial / "out", self.folder(stage)
        outcome = outcome or Outcome.read(partial)
        for name, kept in (
            ("stage.json", "stage.json"),
            ("rank0.log", "stage.log"),
            ("stage.log", "stage.log"),
        ):
            if (partial / name).exists():
                shutil.copyfile(partial / name, out / kept)
        (out / manifest.NAME).unlink(missing_ok=True)
        for name in cut_off(out):
            (out / name).unlink()
        names = tree(out)
        for name in names:
            sync(out / name)
        manifest.write(_record(stage, out, names, outcome))
        for home, _, _ in os.walk(out):
            sync(Path(home))
        try:
            out.rename(target)
        except OSError:  # there is one already, where locks or names lag: see the top
            if self._checked(stage) is None:
                out.rename(target)
        sync(target.parent)
        self._verified.add(target)
        shutil.rmtree(partial, ignore_errors=True)
        return manifest.read(target).artifact

    def explain(self, stage: Stage) -> str | None:
        """Why a stage is to do: where it differs from the stored one of its name that is most like it."""
        if self.state(stage) == "done":
            return None
        old = nearest(stage, self.list())
        return differences(old.identity, stage) if old else None

    def lineage(self, key: str) -> Sequence[Record]:
        """The artifact and everything it was made from, as far as it is stored; parents first."""
        by_key = {record.manifest.key: record for record in self.list()}
        found: dict[str, Record] = {}

        def visit(key: str) -> None:
            if key in by_key and key not in found:
                for parent in by_key[key].manifest.inputs.values():
                    visit(parent)
                found[key] = by_key[key]

        visit(key)
        return tuple(found.values())

    def list(self) -> Sequence[Record]:
        """Every finished artifact, oldest first."""
        found = []
        for path in sorted(self.root.glob(f"*/*/{manifest.NAME}")):
            if path.parts[-3] in set(Kind) and "." not in path.parts[-2]:
                try:
                    found.append(manifest.read(path.parent))
                except ArtifactError as error:
                    log.warning("not listed: %s", error)
        return tuple(sorted(found, key=lambda record: record.manifest.started))

    def _checked(self, stage: Stage) -> Artifact | None:
        """`find` for the holder of the lock."""
        folder = self.folder(stage)
        if not folder.exists():
            return None
        problem = self._problem(folder)
        if problem is None:
            return manifest.read(folder).artifact
        number = 1
        while (aside := folder.with_name(f"{folder.name}.damaged-{number}")).exists():
            number += 1
        folder.rename(aside)
        self._verified.discard(folder)
        log.warning("artifact of stage %s is damaged: %s; moved to %s", stage.name, problem, aside)
        return None

    def _problem(self, folder: Path, *, hashes: bool = True) -> str | None:
        """What is wrong with a finished artifact. Hashes are checked once in a process, sizes always."""
        try:
            record = manifest.read(folder)
        except ArtifactError as error:
            return str(error)
        if record.manifest.key != folder.name:
            return f"{folder / manifest.NAME} belongs to key {record.manifest.key}"
        for name, size in record.sizes.items():
            path = folder / name
            if not path.is_file():
                return f"{path} is missing"
            if path.stat().st_size != size:
                return f"{path} has {path.stat().st_size} bytes instead of {size}"
        if hashes and folder not in self._verified:
            for name, size in record.sizes.items():
                if size < HASHED_BYTES and sha256(folder / name) != record.manifest.files[name]:
                    return f"{folder / name} has changed: its sha256 is not the one in {manifest.NAME}"
            self._verified.add(folder)
        return None

    def _lock(self, stage: Stage) -> FileLock:
        path = self.root / ".locks" / stage.key
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path)

    def _acquired(self, stage: Stage) -> FileLock:
        lock = self._lock(stage)
        owner = self.root / ".locks" / f"{stage.key}.json"
        try:
            lock.acquire(blocking=False)
        except Timeout:
            log.info("waiting for stage %s made by %s", stage.name, _owner(owner))
            while not lock.is_locked:
                if self._given_up.is_set():
                    raise StageError(
                        f"stage {stage.name} was not waited for: the command was ended, its maker goes on"
                    ) from None
                with suppress(Timeout):
                    lock.acquire(timeout=1, poll_interval=0.2)
        write_aside(owner, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        return lock

    def _prepare(self, stage: Stage) -> bool:
        """Makes the partial folder ready; true if there was one."""
        folder = self.partial(stage)
        resumed = (folder / "stage.json").exists()
        for name in ("out", "scratch"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        # Not outcome.json: it may be of a job that has just ended well, of a command that was killed.
        for stale in (folder / "out" / manifest.NAME, folder / "error.json"):
            stale.unlink(missing_ok=True)
        write_aside(folder / "stage.json", manifest.to_json(self._description(stage)))
        return resumed

    def _description(self, stage: Stage) -> dict[str, Any]:
        """`stage.json`: all that a worker needs to run the stage."""
        inputs = {role: self._input(stage, role, node) for role, node in sorted(stage.inputs.items())}
        told = {"name": stage.name, "key": stage.key, "uses_devices": stage.uses_devices}
        return told | stage.identity | {"inputs": inputs}

    def _input(self, stage: Stage, role: str, node: Node) -> dict[str, Any]:
        told: dict[str, Any] = {"name": node.name, "key": node.key}
        if isinstance(node, Given):
            path = Path(node.location).absolute() if Path(node.location).exists() else None
            facts = manifest.read(path).manifest.facts if path and (path / manifest.NAME).exists() else {}
            place = {"path": str(path or node.location), "kind": node.kind, "revision": node.revision}
            return told | place | {"facts": facts}
        if not (self.folder(node) / manifest.NAME).exists():
            raise ArtifactError(
                f"stage {stage.name} needs {role}={node.name} ({node.key}), which is not in {self.root}; "
                "make it first"
            )
        facts = manifest.read(self.folder(node)).manifest.facts
        return told | {"path": str(self.folder(node)), "kind": node.makes, "facts": facts}


def _record(stage: Stage, out: Path, names: Sequence[str], outcome: Outcome) -> Record:
    made = Manifest(
        kind=stage.makes,
        key=stage.key,
        stage=stage.name,
        params=stage.params,
        inputs=stage.identity["inputs"],
        seed=stage.seed,
        versions=manifest.versions(),
        started=outcome.started,
        seconds=outcome.seconds,
        files={name: sha256(out / name) for name in names},
        throughput=outcome.throughput,
        cost=outcome.cost,
        facts=outcome.facts,
    )
    sizes = {name: (out / name).stat().st_size for name in names}
    return Record(made, sizes, stage.identity, manifest.commit(), out)


def _owner(path: Path) -> str:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return f"pid {told['pid']} on host {told['host']}"
    except (OSError, ValueError, KeyError):  # between its lock and its note
        return "another process"
