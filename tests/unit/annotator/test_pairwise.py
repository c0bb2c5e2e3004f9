import math
import subprocess
import sys
import warnings

import numpy as np
import pytest

from alpacafarm import PairwiseAutoAnnotator
from alpacafarm.errors import SpecError
from alpacafarm.types import Verdict
from alpacafarm.world.tasks import tasks

N = 2000
ROWS = [
    {"instruction": f"do {i // 2}", "input": "", "output_1": f"a{i}", "output_2": f"b{i * 3}", "tag": i}
    for i in range(N)
]


class Later:
    """Prefers what sorts later; has no verdict on a first output of `bad`."""

    name = "later"

    def __init__(self):
        self.asked = []

    def compare(self, pairs):
        self.asked += pairs
        return [
            Verdict(None, "later", failure="refused: no", calls=1)
            if pair.output_1 == "bad"
            else Verdict(1.0 + (pair.output_2 > pair.output_1), "later", price_usd=0.25, calls=1)
            for pair in pairs
        ]


@pytest.fixture
def annotator():
    made = PairwiseAutoAnnotator("world")
    made.judge = Later()
    return made


def within_binomial_noise(count, n, p):
    return abs(count - n * p) < 4 * math.sqrt(n * p * (1 - p))


def preferences(rows):
    return [row["preference"] for row in rows]


# Pairs


def test_rows_come_back_in_order_with_all_their_columns(annotator):
    found = annotator.annotate_pairs(ROWS[:5])
    added = {"annotator": "later", "preference": 2.0, "price_per_example": 0.25}
    assert found == [row | added for row in ROWS[:5]]
    assert annotator.failures == []
    assert "preference" not in ROWS[0]


def test_data_frames_and_datasets_are_read_like_lists(annotator):
    import datasets
    import pandas

    frame = pandas.DataFrame(ROWS[:4])
    frame["input"] = frame["input"].where(frame.index > 1)  # NaN in the first two
    wanted = preferences(annotator.annotate_pairs(ROWS[:4]))
    found = annotator.annotate_pairs(frame)
    assert preferences(found) == wanted
    assert [row["tag"] for row in found] == [0, 1, 2, 3]
    assert preferences(annotator.annotate_pairs(datasets.Dataset.from_list(ROWS[:4]))) == wanted
    assert [pair.input for pair in annotator.judge.asked] == [""] * 12


def test_pandas_is_not_loaded_for_lists():
    program = (
        "import sys; from alpacafarm import PairwiseAutoAnnotator as P; a = P('recorded.yaml');"
        "a.annotate_pairs([dict(instruction='i', output_1='x', output_2='x')]);"
        "print({'pandas', 'torch', 'datasets', 'openai', 'alpaca_eval'} & set(sys.modules))"
    )
    program = program.replace("'recorded.yaml'", "{'kind': 'world', 'pool': 'eval', 'pool_seed': 0}")
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_equal_outputs_are_a_tie_that_costs_nothing_whatever_the_noise(annotator):
    annotator.set_noise(0.5)
    (row,) = annotator.annotate_pairs([ROWS[0] | {"output_1": "same", "output_2": "same"}])
    assert (row["preference"], row["price_per_example"]) == (1.5, 0.0)
    assert annotator.judge.asked == []


def test_failed_rows_are_reported_and_not_returned_unless_asked_for(annotator):
    rows = [ROWS[0], ROWS[1] | {"output_1": "bad"}]
    with pytest.warns(UserWarning, match=r"^1 rows without a preference \(1 refused\); see annotator\.fail"):
        found = annotator.annotate_pairs(rows)
    assert [row["tag"] for row in found] == [0]
    (failed,) = annotator.failures
    assert (failed.row, failed.reason) == (rows[1], "refused: no")
    annotator.keep_failures = True
    with pytest.warns(UserWarning, match="1 refused"):
        assert preferences(annotator.annotate_pairs(rows)) == [2.0, None]
    annotator.annotate_pairs(ROWS[:1])
    assert annotator.failures == []


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"instruction": "i", "output_1": "x"}, r"row 1: output_2=None must be text; the row has instr"),
        ({"instruction": 3, "output_1": "x", "output_2": "y"}, r"row 1: instruction=3 must be text"),
    ],
)
def test_a_malformed_row_is_named(annotator, row, said):
    with pytest.raises(ValueError, match=said):
        annotator.annotate_pairs([ROWS[0], row])
    assert annotator.judge.asked == []


@pytest.mark.parametrize("table", ["text", {"instruction": "i"}, 3, [1, 2]])
def test_what_is_no_table_is_refused(annotator, table):
    with pytest.raises(TypeError, match=r"is no (table; pass a list|row; a dictionary)"):
        annotator.annotate_pairs(table)


# Noise


def test_noise_draws_coins_first_and_flips_with_its_probability(annotator):
    annotator.set_noise(0.25)
    found = annotator.annotate_pairs(ROWS)
    coins = [row for row in found if row["annotator"] == "coin"]
    assert within_binomial_noise(len(coins), N, 0.5)
    assert len(annotator.judge.asked) == N - len(coins)
    assert all(row["price_per_example"] == 0 for row in coins)
    assert within_binomial_noise(preferences(found).count(2.0), N, 0.75)
    annotator.set_noise(None)
    assert set(preferences(annotator.annotate_pairs(ROWS[:200]))) == {2.0}


def test_noise_mirrors_under_an_order_swap_and_pairs_of_one_instruction_are_independent(annotator):
    annotator.set_noise(0.4)
    swapped = [row | {"output_1": row["output_2"], "output_2": row["output_1"]} for row in ROWS]
    found = preferences(annotator.annotate_pairs(ROWS))
    assert found == [3 - p for p in preferences(annotator.annotate_pairs(swapped))]
    wrong = [p == 1.0 for p in found]
    both = sum(a and b for a, b in zip(wrong[::2], wrong[1::2], strict=True))
    assert within_binomial_noise(both, N // 2, 0.16)


def test_noise_of_the_constructor_and_seeds(annotator):
    def labels(**arguments):
        made = PairwiseAutoAnnotator("world", p_label_flip=0.5, **arguments)
        return preferences(made.annotate_pairs(ROWS[:100]))

    assert labels() == labels(seed=0) == labels(seed=None)
    assert labels(seed=1) != labels()


@pytest.mark.parametrize("p", [-0.1, 0.6])
def test_a_flip_probability_out_of_range_is_refused(annotator, p):
    with pytest.raises(ValueError, match=r"label flip probability is .*, must be between 0 and 0\.5"):
        annotator.set_noise(p)


# Samples

SAMPLES = [
    {"instruction": "one", "input": "", "output": ["x", "y", "x", "z"], "model": "sft"},
    {"instruction": "two", "input": "", "output": ["u", "v"], "model": "sft"},
]


def test_samples_give_one_pair_for_each_instruction(annotator):
    found = annotator.annotate_samples(SAMPLES)
    assert [row["instruction"] for row in found] == ["one", "two"]
    for row, asked in zip(found, SAMPLES, strict=True):
        assert row["output_1"] != row["output_2"]
        assert row["output_1"] == asked["output"][row["sample_id"]]
        assert row["output_2"] in asked["output"]
        assert row["model"] == "sft"
        assert "output" not in row


def test_samples_give_a_pair_for_each_distinct_output_where_instructions_may_repeat(annotator):
    found = annotator.annotate_samples(SAMPLES, is_unique_instructions=False)
    assert [row["output_1"] for row in found] == ["x", "y", "z", "u", "v"]
    assert sorted(row["output_2"] for row in found) == ["u", "v", "x", "y", "z"]
    assert all(row["output_1"] != row["output_2"] for row in found)


def test_one_row_for_each_sample_gives_the_same_pairs(annotator):
    flat = [row | {"output": output} for row in SAMPLES for output in row["output"]]
    assert annotator.annotate_samples(flat, is_multisample_list=False) == annotator.annotate_samples(SAMPLES)


def test_samples_are_grouped_by_the_columns_that_are_named(annotator):
    rows = [
        {"instruction": i, "output": o, "group": g}
        for i, o, g in [("a", "x", 1), ("b", "y", 1), ("c", "z", 2)]
    ]
    with pytest.warns(UserWarning, match="1 no pair"):
        found = annotator.annotate_samples(rows, ["group"], is_multisample_list=False)
    assert [(row["output_1"], row["output_2"]) for row in found] in ([("x", "y")], [("y", "x")])


def test_an_instruction_whose_samples_are_equal_is_reported(annotator):
    rows = [SAMPLES[0], {"instruction": "two", "output": ["u", "u"]}]
    with pytest.warns(UserWarning, match=r"^1 rows without a preference \(1 no pair\)"):
        assert len(annotator.annotate_samples(rows)) == 1
    assert annotator.failures[0].row["instruction"] == "two"


def test_noise_for_one_call_ends_with_it_also_when_it_fails(annotator):
    annotator.set_noise(0.1)
    many = [{"instruction": f"i{i}", "output": ["x", "y"]} for i in range(50)]
    assert {row["annotator"] for row in annotator.annotate_samples(many, p_label_flip=0.5)} == {"coin"}
    assert annotator.p_label_flip == 0.1
    with pytest.raises(ValueError, match=r"between 0 and 0\.5"):
        annotator.annotate_samples(SAMPLES, p_label_flip=2)
    assert annotator.p_label_flip == 0.1


def test_a_text_is_no_list_of_samples(annotator):
    with pytest.raises(ValueError, match=r"must be a list of samples; pass is_multisample_list=False"):
        annotator.annotate_samples([{"instruction": "i", "output": "text"}])


# Head to head

ONE = [
    {"instruction": f"i{i}", "input": "", "output": f"a{i}", "generator": "A", "set": "s"} for i in range(4)
]
TWO = [
    {"instruction": f"i{i}", "input": "", "output": f"b{i}", "generator": "B", "set": "s"} for i in range(4)
]


@pytest.mark.parametrize("is_ordered", [False, True])
def test_two_models_are_compared_row_by_row(annotator, is_ordered):
    found = annotator.annotate_head2head(ONE, TWO if is_ordered else TWO[::-1], is_ordered=is_ordered)
    assert [(r["instruction"], r["output_1"], r["output_2"]) for r in found] == [
        (f"i{i}", f"a{i}", f"b{i}") for i in range(4)
    ]
    assert {(r["generator_1"], r["generator_2"], r["set"]) for r in found} == {("A", "B", "s")}
    assert not {"output", "generator", "set_1"} & set(found[0])
    assert list(found[0]).index("output_1") < list(found[0]).index("output_2")


def test_a_column_that_differs_is_kept_of_both(annotator):
    found = annotator.annotate_head2head(ONE, [row | {"set": "t"} for row in TWO])
    assert {(r["set_1"], r["set_2"]) for r in found} == {("s", "t")}


def test_columns_of_lists_are_compared_whole(annotator):
    tags = [np.array(["a", "b"]), np.array(["a", "b"]), np.array(["c"]), np.array([])]
    nested = np.array([{"role": "user", "parts": np.array(["a", "b"])}, np.array([1, 2])], dtype=object)
    more = {"nested": nested}
    one = [row | more | {"tags": tag, "n": np.array([1, 2])} for row, tag in zip(ONE, tags, strict=True)]
    two = [row | more | {"tags": tag, "n": np.array([1, 3])} for row, tag in zip(TWO, tags, strict=True)]
    found = annotator.annotate_head2head(one, two)
    assert list(found[2]["tags"]) == ["c"]
    assert found[0]["nested"] is nested
    assert (list(found[0]["n_1"]), list(found[0]["n_2"])) == ([1, 2], [1, 3])


def test_rows_without_a_partner_are_reported_with_counts(annotator):
    other = [{"instruction": "other", "output": "x"}]
    with pytest.warns(UserWarning, match=r"^3 rows without a preference \(3 unmatched\)"):
        found = annotator.annotate_head2head(ONE, TWO[:2] + other)
    assert len(found) == 2
    assert [failed.reason for failed in annotator.failures] == [
        "unmatched: only in outputs_1",
        "unmatched: only in outputs_1",
        "unmatched: only in outputs_2",
    ]


def test_rows_are_joined_by_id_where_all_have_one(annotator):
    """Two instructions of one text: joined by it, they would be ambiguous."""
    one = [{"id": i, "instruction": "same", "output": f"a{i}"} for i in "pq"]
    two = [{"id": i, "instruction": "same", "output": f"b{i}"} for i in "qp"]
    found = annotator.annotate_head2head(one, two)
    assert [(row["id"], row["output_1"], row["output_2"]) for row in found] == [
        ("p", "ap", "bp"),
        ("q", "aq", "bq"),
    ]
    with pytest.raises(ValueError, match=r"differ in instruction or input, .*; compare outputs of the same"):
        annotator.annotate_head2head(one, [row | {"instruction": "other"} for row in two])


def test_duplicates_and_other_lengths_are_refused(annotator):
    with pytest.raises(ValueError, match=r"outputs_2: row 4 has the instruction and input of an earlier row"):
        annotator.annotate_head2head(ONE, [*TWO, TWO[0]])
    with pytest.raises(ValueError, match=r"4 and 3 rows are not in the same order; pass the same instr"):
        annotator.annotate_head2head(ONE, TWO[:3], is_ordered=True)
    with pytest.raises(ValueError, match=r"pair 0: the two rows differ in instruction or input"):
        annotator.annotate_head2head(ONE, TWO[::-1], is_ordered=True)
    assert annotator.judge.asked == []


# Judges


@pytest.mark.parametrize("config", ["noisy", "pool", {"kind": "world", "pool": "human", "pool_seed": 3}])
def test_presets_and_mappings_judge_offline(config):
    rows = [
        {"instruction": task.instruction, "input": task.input, "output_1": "No.", "output_2": "Yes, a list."}
        for task in tasks("eval", 20, seed=0)
    ]
    made = PairwiseAutoAnnotator(config, keep_failures=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = made.annotate_pairs(rows)
    assert {row["preference"] for row in found} <= {1.0, 1.5, 2.0, None}
    assert len({row["annotator"] for row in found}) >= (1 if config == "noisy" else 2)


def test_a_file_of_verdicts_judges(tmp_path):
    (tmp_path / "pairs.jsonl").write_text(
        '{"instruction": "i", "input": "", "output_1": "x", "output_2": "y", "preference": 2}\n'
    )
    (tmp_path / "judge.yaml").write_text(f"kind: recorded\npath: {tmp_path / 'pairs.jsonl'}\n")
    made = PairwiseAutoAnnotator(tmp_path / "judge.yaml")
    rows = [
        {"instruction": "i", "output_1": a, "output_2": b} for a, b in [("x", "y"), ("y", "x"), ("x", "z")]
    ]
    with pytest.warns(UserWarning, match=r"1 not recorded"):
        assert preferences(made.annotate_pairs(rows)) == [2.0, 1.0]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("worlds", r"annotators_config=worlds: there is no such preset .*; did you mean world\?"),
        ("reward", r"annotators_config\.kind=reward: that is the reward model of a run"),
        ("recorded", r"path is missing"),
        ({"kind": "world", "pool": "sim"}, r"annotators_config\.pool_seed is missing"),
        ({"kind": "wurld"}, r"annotators_config\.kind=wurld: must be .*; set annotators_config\.kind=world"),
    ],
)
def test_a_wrong_judge_is_refused(config, said):
    with pytest.raises(SpecError, match=said):
        PairwiseAutoAnnotator(config).annotate_pairs(ROWS[:1])


# What it is given


def test_an_instruction_without_samples_is_a_failure(annotator):
    rows = [{"instruction": "none", "output": []}, {"instruction": "two", "output": ["a", "b"]}]
    with pytest.warns(UserWarning, match="1 rows without a preference"):
        found = annotator.annotate_samples(rows)
    assert [row["instruction"] for row in found] == ["two"]
    assert [(failed.row, failed.reason) for failed in annotator.failures] == [
        (rows[0], "no pair: there are no samples")
    ]


def test_rows_are_joined_by_their_keys_where_not_all_have_an_id(annotator):
    first = [{"id": None, "instruction": f"do {i}", "output": "a"} for i in range(2)]
    second = [{"id": i, "instruction": f"do {1 - i}", "output": "b"} for i in range(2)]
    assert len(annotator.annotate_head2head(first, second)) == 2


def test_columns_that_cannot_tell_rows_apart_are_refused(annotator):
    with pytest.raises(ValueError, match=r"instruction=\['x'\] must be text or a number"):
        annotator.annotate_samples([{"instruction": ["x"], "output": ["a", "b"]}])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"max_usd": -1.0}, r"^budget\.max_usd=-1\.0: must be at least 0; set budget\.max_usd=0 or more"),
        ({"max_usd": 1e300}, r"^budget\.max_usd=1e\+300: must be at most 1"),
        ({"max_calls": 1.5}, r"^budget\.max_calls=1\.5: must be a whole number"),
        ({"input_keys": ()}, r"^input_keys=\(\) must be a list of names of columns"),
        ({"input_keys": "instruction"}, r"^input_keys='instruction' must be a list of names of columns"),
        ({"output_keys": ("a",)}, r"^output_keys=\('a',\) must be a list of 2 names of columns"),
        ({"annotators_config": "x" * 5000}, r"^annotators_config=x+: there is no such preset and no such"),
        ({"annotators_config": None}, r"^annotators_config=None: there is no such preset and no such file"),
    ],
)
def test_arguments_are_checked_at_once(arguments, said):
    with pytest.raises((ValueError, SpecError), match=said):
        PairwiseAutoAnnotator(**{"annotators_config": "world", **arguments})


def test_every_preset_that_names_its_models_can_be_named():
    for name in ("p_sim_ann", "p_sim_gpt4", "pool", "noisy", "human"):
        assert PairwiseAutoAnnotator(name).spec.kind in ("pool", "alpaca_eval", "world")
