"""The site of all tests here. Where it cannot start they skip; with ALPACAFARM_SLURM=1 they fail."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm import site, whole


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a running site, to which SLURM_CONF points."""
    absent = site.missing()
    if absent:
        told = f"no SLURM here ({', '.join(absent)} missing): python -m tests.slurm.site install, as root"
        if os.environ.get("ALPACAFARM_SLURM") == "1":
            pytest.fail(told)
        pytest.skip(told)
    place = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin")
        try:
            patch.setenv("SLURM_CONF", str(site.start(place)))
            yield place
        finally:
            site.stop(place)


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that every PPO run here starts from a copy of."""
    return whole.upstream(tmp_path_factory.mktemp("upstream"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--times", type=int, help="how often a training is disturbed in each way; default: in some"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "disturb" in metafunc.fixturenames:
        times = metafunc.config.getoption("--times", default=None)
        ways = metafunc.module.DISTURBANCES if times else metafunc.module.IN_SUITE
        metafunc.parametrize("disturb", ways, ids=lambda disturb: disturb.__name__)
        metafunc.parametrize("number", range(times or 1))
