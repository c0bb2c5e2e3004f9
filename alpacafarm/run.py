"""The entry point: `python -m alpacafarm.run method=ppo feedback=sim kl_coef=0.0067`.

Composes the config (Hydra), validates it (pydantic), plans the stages, executes what is missing and reports.
Nothing here imports torch: a wrong key, `action=plan` and `--help` answer at once.
"""

import logging
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from alpacafarm import compose, lookup
from alpacafarm.errors import AlpacaFarmError, PlanError, SpecError
from alpacafarm.spec.run import RunSpec

log = logging.getLogger(__name__)


def conf_dir() -> Path:
    """`conf/` of the checkout, or the copy that an installed wheel carries inside the package."""
    package = Path(__file__).parent
    beside = package.parent / "conf"
    return beside if (beside / "config.yaml").is_file() else package / "conf"


def main() -> None:
    """Runs and exits with the code of the contract: 0, 1, 2, 3 or 130."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors, and we word them
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(task)()
    except AlpacaFarmError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted; what was made is kept, the same command goes on", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        message = hydra_message(error)
        if message is None:
            raise
        print(message, file=sys.stderr)
        sys.exit(SpecError.exit_code)


def task(cfg: DictConfig) -> None:
    """One run, called by Hydra in each job."""
    raw = raw_config(cfg)
    spec = compose.parse(raw)
    folder = Path(HydraConfig.get().runtime.output_dir)
    if spec.action == "status":
        from alpacafarm.report.status import show_status

        show_status(Path(spec.store).expanduser())
    elif spec.action == "plan":
        from alpacafarm.report.status import show_plan

        show_plan(spec, make_plan(spec))
    else:
        run(spec, folder)


def raw_config(cfg: DictConfig) -> dict[str, Any]:
    """The composed config as plain values; with `spec=FILE` the file's, under the other overrides."""
    try:
        raw = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except Exception as error:
        raise SpecError(str(error)) from None
    assert isinstance(raw, dict)
    path = raw.pop("spec", None)
    if path is None:
        return {str(key): value for key, value in raw.items()}
    overrides = [o for o in HydraConfig.get().overrides.task if not o.startswith("spec=")]
    chosen = set(HydraConfig.get().runtime.choices)
    groups = [o for o in overrides if o.lstrip("+~").split("=")[0] in chosen]
    if groups:
        raise SpecError(
            f"spec={path} with {', '.join(groups)}: a saved spec already has its groups; override single keys only"
        )
    merged = OmegaConf.merge(compose.read_spec(Path(path)), OmegaConf.from_dotlist(overrides))
    return dict(OmegaConf.to_container(merged, resolve=True))  # type: ignore[arg-type]


def make_plan(spec: RunSpec) -> Any:
    """The plan; where a method makes no outputs and nobody asked for an evaluation, there is none."""
    from alpacafarm.pipeline.plan import make_plan

    try:
        return make_plan(spec)
    except PlanError:
        if spec.eval is None or "eval" in {o.split("=")[0] for o in HydraConfig.get().overrides.task}:
            raise
        return make_plan(spec.model_copy(update={"eval": None}))


def run(spec: RunSpec, folder: Path) -> None:
    """Executes the plan and writes spec.json, result.json and report.html into the run folder."""
    from alpacafarm.artifacts.store import Store
    from alpacafarm.data.rows import write_text
    from alpacafarm.pipeline.devices import process_count
    from alpacafarm.pipeline.execute import execute
    from alpacafarm.report.collect import run_report
    from alpacafarm.report.render import write_report
    from alpacafarm.report.table import show
    from alpacafarm.worker import Settings
    from launchers import load

    started = time.perf_counter()
    plan = make_plan(spec)
    world = process_count(spec)
    write_text(folder / "spec.json", spec.model_dump_json(indent=1) + "\n")
    settings = Settings(cluster=spec.cluster, tracking=spec.tracking, run_name=spec.name)
    launcher = load(spec.cluster.launcher)(spec.cluster, world)  # type: ignore[call-arg]
    store = Store(Path(spec.store).expanduser())
    done = execute(plan, store, launcher, settings.model_dump_json(indent=1))
    report = run_report(spec, plan, done, time.perf_counter() - started)
    write_text(folder / "result.json", report.result.to_json() + "\n")
    write_report(folder / "report.html", report)
    show(report.result, report.samples, reading=report.reading, report=str(folder / "report.html"))


def hydra_message(error: Exception) -> str | None:
    """What is wrong with the command line, in one message, or None when the error is no such thing."""
    from hydra.errors import HydraException

    cause: BaseException = error
    text = str(error)
    if isinstance(error, HydraException):
        return with_suggestion(text)
    if type(cause).__module__.startswith("omegaconf"):
        return with_suggestion(text)
    return None


def with_suggestion(text: str) -> str:
    """Hydra's message with a close name where it names an unknown key."""
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(
        r"Key '([^']+)' (?:is )?not in", text
    )
    if unknown is None:
        return text
    key = unknown.group(1)
    known = all_keys()
    return (
        f"{key}: there is no such key{lookup.suggestion(key, known)} `--cfg job` prints every key of this run"
    )


def all_keys() -> list[str]:
    """Dotted keys of the config that the group choices on the command line give."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    groups = {p.name for p in conf_dir().iterdir() if p.is_dir()}
    choices = [a for a in sys.argv[1:] if a.split("=")[0] in groups and "," not in a]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = hydra_compose("config", overrides=choices)
    except Exception:  # a second problem on the command line must not hide the first
        return []
    return list(dotted(OmegaConf.to_container(cfg, resolve=False)))


def dotted(node: Any, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key, value in node.items() if isinstance(node, dict) else ():
        keys.append(f"{prefix}{key}")
        keys += dotted(value, f"{prefix}{key}.")
    return keys


if __name__ == "__main__":
    main()
