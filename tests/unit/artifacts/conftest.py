from pathlib import Path

import pytest

from alpacafarm.artifacts.store import Store


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(Path(tmp_path, "with space", "ünï côdé 店"))
