import hashlib
import subprocess
import sys

import pytest

from alpacafarm.stats.seeds import stable_seed


def test_seed_is_the_head_of_the_hash_of_the_canonical_json():
    digest = hashlib.sha256(b'["noise",3,{"a":1,"b":null}]').hexdigest()
    assert stable_seed("noise", 3, {"b": None, "a": 1}) == int(digest[:16], 16) // 2


def test_seed_is_the_same_in_a_process_with_another_hash_salt():
    program = "from alpacafarm.stats.seeds import stable_seed; print(stable_seed('row', 7, 'a b'))"
    for salt in "0", "1":
        run = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": salt},
            capture_output=True,
            text=True,
            check=True,
        )
        assert int(run.stdout) == stable_seed("row", 7, "a b")


@pytest.mark.parametrize(
    "other", [("1", "ab"), (1, "a", "b"), ("ab", 1), (1, ["ab"]), (1.5, "ab"), (True, "ab"), (1, "ab", None)]
)
def test_parts_are_told_apart_by_type_and_place(other):
    assert stable_seed(*other) != stable_seed(1, "ab")


def test_seeds_of_many_rows_are_distinct_and_within_63_bits():
    seeds = {stable_seed("row", i) for i in range(10_000)}
    assert len(seeds) == 10_000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62


@pytest.mark.parametrize("part", [object(), b"bytes", {1, 2}])
def test_a_part_that_is_not_json_is_refused(part):
    with pytest.raises(TypeError, match="not JSON serializable"):
        stable_seed("row", part)


def test_nan_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        stable_seed(float("nan"))
