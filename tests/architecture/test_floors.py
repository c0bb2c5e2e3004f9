"""Packages stand on floors: a file may import its own package and what is below, nothing above or beside."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "alpacafarm").glob("**/*.py"), *(ROOT / "launchers").glob("**/*.py")])
FLOORS = [
    {"errors", "types"},
    {"preemption"},
    {"spec", "lookup"},
    {"stage"},
    {"ops", "stats", "text", "world", "request"},
    {"ports"},
    {"artifacts", "engine", "models", "tracking", "launchers", "api"},
    {"cost", "data", "training"},
    {"rollout", "judges", "label"},
    {"selection"},
    {"methods", "feedback", "evals"},
    {"pipeline"},
    {"compose", "report", "worker"},
    {"job", "annotator", "commandline"},
    {"sweep"},
    {"run", "compare", "leaderboard"},
    {"table2"},
]
FLOOR = {name: level for level, names in enumerate(FLOORS) for name in names}

AT_HOME = {  # each of these is visible in one place
    "aiohttp": {"alpacafarm/api/http.py"},
    "alpaca_eval": {"alpacafarm/judges/alpaca_eval.py"},
    "datasets": {"alpacafarm/data/files.py"},
    "deepspeed": {"alpacafarm/engine/deepspeed.py"},
    "hydra": {"alpacafarm/run.py", "alpacafarm/commandline.py", "alpacafarm/sweep.py"},
    "matplotlib": {"alpacafarm/report/plots.py"},
    "omegaconf": {
        "alpacafarm/run.py",
        "alpacafarm/commandline.py",
        "alpacafarm/compose.py",
        "alpacafarm/sweep.py",
    },
    "openai": {"alpacafarm/api/http.py"},
    "peft": {"alpacafarm/models/load.py", "alpacafarm/models/lora.py"},
    "starlette": {"alpacafarm/label/app.py"},
    "uvicorn": {"alpacafarm/label/__main__.py"},
    "wandb": {"alpacafarm/tracking/tracker.py"},
    "yaml": {"alpacafarm/commandline.py", "alpacafarm/api/prices.py", "alpacafarm/judges/alpaca_eval.py"},
}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def package_of(path: Path) -> str:
    top, *below = path.relative_to(ROOT).with_suffix("").parts
    return top if top == "launchers" else below[0]


def imported(path: Path) -> set[str]:
    """Every module that a file imports, at the top or inside a function or block."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}: imports are absolute"
            modules |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def packages_imported_by(path: Path) -> set[str]:
    parts = [module.split(".") for module in imported(path)]
    ours = {p[1] for p in parts if p[0] == "alpacafarm" and len(p) > 1 and p[1] != "__version__"}
    return ours | ({"launchers"} if any(p[0] == "launchers" for p in parts) else set())


def test_there_are_files():
    assert len(FILES) > 80


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_only_go_down(path):
    home = package_of(path)
    if home == "__init__":
        assert not packages_imported_by(path)
        return
    assert home in FLOOR, f"{home} stands on no floor: add it to FLOORS"
    for other in packages_imported_by(path) - {home}:
        assert other in FLOOR, f"{other} stands on no floor: add it to FLOORS"
        assert FLOOR[other] < FLOOR[home], (
            f"{home} (floor {FLOOR[home]}) imports {other} (floor {FLOOR[other]})"
        )


def test_every_floor_is_inhabited():
    assert set(FLOOR) == {package_of(path) for path in FILES} - {"__init__"}


@pytest.mark.parametrize("library", AT_HOME)
def test_library_is_imported_only_where_it_is_at_home(library):
    users = {relative(path) for path in FILES if library in {m.split(".")[0] for m in imported(path)}}
    assert users == AT_HOME[library]
