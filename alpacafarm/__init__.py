"""AlpacaFarm: a declarative framework for research on learning from human feedback."""

import importlib
from typing import Any

__version__ = "0.3.0"

PYTHON_API = {  # imported at their first use
    "PairwiseAutoAnnotator": "alpacafarm.annotator.pairwise",
    "alpaca_leaderboard": "alpacafarm.leaderboard.outputs",
}


def __getattr__(name: str) -> Any:
    if name in PYTHON_API:
        return getattr(importlib.import_module(PYTHON_API[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
