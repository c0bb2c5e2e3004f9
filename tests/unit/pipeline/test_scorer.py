"""What a reward model reads of a row that is longer than its positions."""

import pytest

from alpacafarm.pipeline.scorer import fitted
from alpacafarm.text.collate import Tokens

POSITIONS = 64


def row(prompt: int, response: int) -> Tokens:
    return Tokens(tuple(range(prompt)), tuple(range(1000, 1000 + response)))


@pytest.mark.parametrize(("prompt", "response"), [(4, 60), (60, 4), (32, 32), (1, 63)])
def test_what_fits_is_read_whole(prompt, response):
    assert fitted(row(prompt, response), POSITIONS) == row(prompt, response)


@pytest.mark.parametrize(
    ("prompt", "response", "kept"),
    [
        (100, 10, (54, 10)),  # a long prompt gives way
        (100, 32, (32, 32)),
        (100, 40, (32, 32)),
        (40, 40, (32, 32)),
        (4, 100, (4, 60)),  # a short one is kept
        (100, 100, (32, 32)),
    ],
)
def test_both_get_half_and_what_the_other_leaves(prompt, response, kept):
    whole, read = row(prompt, response), fitted(row(prompt, response), POSITIONS)
    assert (len(read.prompt), len(read.response)) == kept
    assert read.response == whole.response[-kept[1] :]
    assert (read.prompt[0], read.prompt[-1]) == (whole.prompt[0], whole.prompt[-1])
