"""A training run without rows is refused: it would export its start as if it had been trained."""

from typing import Any, cast

import pytest

from alpacafarm.errors import SpecError
from alpacafarm.training.batches import Steps, step_rows
from alpacafarm.training.offline import fit


def test_no_rows_to_train_on_are_refused():
    nothing: Any = None
    steps = Steps(
        rows_of=step_rows(0, batch_size=4, epochs=2, seed=0),
        lengths=[],
        collate=cast("Any", None),
        micro_batch=4,
        rank=0,
        world=1,
    )
    with pytest.raises(SpecError, match=r"sft: no row is left .*raise model\.max_prompt_tokens"):
        fit(nothing, steps, nothing, optim=nothing, ctx=nothing, label="sft")
