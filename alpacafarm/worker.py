"""Runs one stage on one rank: `python -m alpacafarm.worker FOLDER`, the folder of a stage.json."""

import json
import logging
import os
import signal
import sys
import time
import traceback
import typing
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from alpacafarm import lookup
from alpacafarm.api.client import ApiClient
from alpacafarm.api.store import Spent
from alpacafarm.artifacts.manifest import Outcome, now
from alpacafarm.engine.single import SingleProcess
from alpacafarm.errors import AlpacaFarmError
from alpacafarm.ports import Artifact, Dist, Tracker
from alpacafarm.preemption import PEER_LOST, Preempted
from alpacafarm.spec.api import ApiSpec, BudgetSpec
from alpacafarm.spec.base import Strict
from alpacafarm.spec.cluster import ClusterSpec
from alpacafarm.spec.model import ModelSpec
from alpacafarm.spec.run import TrackingSpec
from alpacafarm.stage import Kind
from alpacafarm.tracking.tracker import Fanout, JsonLines, WandbTracker


class Settings(Strict):
    """`settings.json`: what the run decides and no key contains."""

    cluster: ClusterSpec
    tracking: TrackingSpec
    run_name: str
    run_folder: str  # where Weights & Biases keeps its files
    store: str
    api: ApiSpec
    budget: BudgetSpec
    stages: list[str]  # of the plan, which share the budget


def run_stage(folder: Path) -> None:
    """Runs the stage in `folder`; leaves what it made in `out/` and `outcome.json` beside it."""
    from alpacafarm.pipeline.context import StageContext

    stage = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
    settings = Settings.model_validate_json((folder / "settings.json").read_text(encoding="utf-8"))
    dist = connected(stage, settings.cluster)
    if dist.rank == 0:
        Outcome.forget(folder)
    tracker = tracker_for(stage, folder, settings, dist)
    client = client_for(stage, settings)
    ctx = StageContext(
        name=stage["name"],
        seed=stage["seed"],
        out=folder / "out",
        scratch=folder / "scratch",
        labels=folder.parents[1] / "labels",
        model=model_spec(stage["model"]),
        cluster=settings.cluster,
        dist=dist,
        track=tracker,
        client=client,
    )
    function = lookup.resolve(stage["run"])
    spec_type = typing.get_type_hints(function)["spec"]
    inputs = {role: artifact(told) for role, told in stage["inputs"].items()}
    started, clock = now(), time.perf_counter()
    try:
        function(spec_type.model_validate(stage["params"]), inputs, ctx)
        cost = with_ledger(ctx.cost, client.spent())
    finally:
        client.close()
        tracker.close()
    throughput = ctx.meter.summary(dist)
    if dist.rank == 0:
        used = throughput if throughput["tokens"] else None
        Outcome(started, time.perf_counter() - clock, used, cost, ctx.facts).write(folder)


def connected(stage: Mapping[str, Any], cluster: ClusterSpec) -> Dist:
    """The other ranks of this stage. A stage that only moves rows has none and needs no torch."""
    if not stage["uses_devices"]:
        return SingleProcess()
    import torch
    from transformers.utils import logging as transformers_logging

    from alpacafarm.engine.dist import connect, seed_everything

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # it reports each fresh head as a missing weight

    if cluster.threads is not None:
        torch.set_num_threads(cluster.threads)
    dist = connect(cluster.rendezvous_timeout_s)
    seed_everything(
        int(stage["seed"]) + dist.rank
    )  # libraries' own draws; ours are seeded where they are made
    return dist


def client_for(stage: Mapping[str, Any], settings: Settings) -> ApiClient:
    return ApiClient(
        settings.api,
        Path(settings.store),
        budget=settings.budget,
        run=settings.run_name,
        stage=stage["key"],
        stage_name=stage["name"],
        shared=settings.stages,
    )


def with_ledger(cost: Mapping[str, float], spent: Spent | None) -> dict[str, float]:
    """The cost that a stage tells, and what was paid for it before it was killed and went on."""
    if spent is None:
        return dict(cost)
    calls, price_usd = cost.get("judge_calls", 0), cost.get("price_usd", 0.0)
    return {**cost, "judge_calls": max(calls, spent.calls), "price_usd": max(price_usd, spent.usd)}


def tracker_for(stage: Mapping[str, Any], folder: Path, settings: Settings, dist: Dist) -> Fanout:
    lines = JsonLines(folder / "out" / "log.jsonl", dist.rank)
    trackers: list[Tracker] = [lines]
    if settings.tracking.wandb != "off" and stage["uses_devices"]:
        trackers.append(
            WandbTracker(
                Path(settings.run_folder),
                project=settings.tracking.project,
                group=settings.tracking.group or settings.run_name,
                name=f"{settings.run_name}/{stage['name']}",
                config={**stage["params"], "seed": stage["seed"]},
                mode=settings.tracking.wandb,
                rank=dist.rank,
            )
        )
    return Fanout(*trackers)


def model_spec(params: Mapping[str, Any] | None) -> ModelSpec | None:
    """The model's settings back from a stage. Where its weights lie is among the stage's inputs."""
    if params is None:
        return None
    return ModelSpec.model_validate(
        {
            **params,
            "name": "",
            "revision": None,
            "path": None if params["architecture"] else "among the inputs",
        }
    )


def artifact(told: Mapping[str, Any]) -> Artifact:
    facts = {**told["facts"], "revision": told.get("revision")}
    return Artifact(Path(told["path"]), Kind(told["kind"]), told["key"], facts)


def peer_lost(error: RuntimeError) -> bool:
    if "torch" not in sys.modules:
        return False
    from alpacafarm.engine.dist import is_peer_lost

    return is_peer_lost(error)


def main() -> int:
    from launchers.inline import uses_devices
    from launchers.orphans import die_with_parent

    die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    folder = Path(sys.argv[1])
    if not uses_devices(folder):  # it may be asking a judge, and is in no collective where it would hang
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, interrupt)
    try:
        run_stage(folder)
        leave()
    except KeyboardInterrupt:
        return 130  # what a shell says of SIGINT
    except Preempted as stopped:  # no error: one in error.json would be told of a later try
        print(stopped, file=sys.stderr)
        return stopped.exit_code
    except AlpacaFarmError as error:
        if os.environ.get("RANK", "0") == "0":
            told = {"type": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
            (folder / "error.json").write_text(json.dumps(told))
        print(error, file=sys.stderr)
        return error.exit_code
    except RuntimeError as error:
        if not peer_lost(error):
            raise
        traceback.print_exc()
        return PEER_LOST
    return 0


def interrupt(number: int, frame: FrameType | None) -> None:
    """As Ctrl-C does. At a terminal that reaches this process as well as the launcher, whose SIGTERM comes
    behind it and must not look like a second, impatient one."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def leave() -> None:
    """Waits for the other ranks, where there are any."""
    if "torch" in sys.modules:
        from alpacafarm.engine.dist import disconnect

        disconnect()


if __name__ == "__main__":
    sys.exit(main())
