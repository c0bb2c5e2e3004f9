"""Stages in this process: tests, one CPU, one GPU, and stages that only move rows."""

import json
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from alpacafarm.errors import AlpacaFarmError, StageError
from alpacafarm.ports import Ticket
from alpacafarm.spec.cluster import ClusterSpec


@dataclass
class Here:
    """A stage to run on this machine, and whether it has been."""

    folder: Path
    after: Sequence[Ticket]
    done: bool = False


class Inline:
    at_once = 1
    room = 1

    def __init__(self, cluster: ClusterSpec, world: int = 1, *, worker: str = "alpacafarm.worker") -> None:
        self.cluster, self.world, self.worker = cluster, world, worker

    def submit(self, folder: Path, after: Sequence[Ticket]) -> Here:
        return Here(Path(folder), after)

    def wait(self, tickets: Sequence[Ticket]) -> None:
        """Runs what has not run, in order, what it comes after first."""
        for ticket in tickets:
            if isinstance(ticket, Here) and not ticket.done:
                self.wait(ticket.after)
                self.run(ticket.folder)
                ticket.done = True

    def cancel(self) -> None:
        """Nothing runs beside the caller."""

    def run(self, folder: Path) -> None:
        run_here(folder, self.worker)


def run_here(folder: Path, worker: str) -> None:
    """The stage's function in this process. The traceback of what it did not foresee goes to `rank0.log`."""
    try:
        import_module(worker).run_stage(folder)
    except AlpacaFarmError as error:
        raise located(error, folder) from error
    except Exception as error:
        path = folder / "rank0.log"
        with path.open("a", encoding="utf-8") as file:
            traceback.print_exc(file=file)
        raise StageError(
            f"stage {stage_name(folder)} failed: {type(error).__name__}: {error}\n"
            f"  folder: {folder}\n  log: {path}"
        ) from error


def located(error: AlpacaFarmError, folder: Path) -> AlpacaFarmError:
    """The same error with stage and folder, where a stage failed; a wrong spec speaks for itself."""
    if error.exit_code != StageError.exit_code:
        return error
    return type(error)(f"stage {stage_name(folder)} failed: {error}\n  folder: {folder}")


def stage_name(folder: Path) -> str:
    return str(_told(folder)["name"])


def uses_devices(folder: Path) -> bool:
    return bool(_told(folder)["uses_devices"])


def _told(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
    return told
