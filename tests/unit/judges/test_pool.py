import math
import random

import pytest
from pydantic import ValidationError

from alpacafarm.errors import PlanError
from alpacafarm.judges.knows import bill, check_judge, judge_inputs
from alpacafarm.judges.pool import AnnotatorPool
from alpacafarm.judges.world import WorldAnnotators
from alpacafarm.pipeline.judges import members_of
from alpacafarm.spec.judge import NoiseSpec, PoolJudge, RewardJudge, WorldJudge, runs_a_model
from alpacafarm.types import Pair, Verdict
from alpacafarm.world.demonstrations import Quality, demonstrate
from alpacafarm.world.gold import preference
from alpacafarm.world.tasks import tasks

NOISE = {"flip": 0.0, "position": 0.0, "length": 0.0, "style": 0.0, "tie": 0.0, "abstain": 0.0, "drift": 0.0}
WORLD = {"kind": "world", "pool": "eval", "pool_seed": 0}
N = 4000
PAIRS = [Pair(f"row {i}", "instruction", "", f"answer {i}", f"other {i * 7}") for i in range(N)]
SWAPPED = [Pair(p.id, p.instruction, p.input, p.output_2, p.output_1) for p in PAIRS]


def spec(**members):
    """Members as (weight, noise)."""
    return PoolJudge.model_validate(
        {
            "kind": "pool",
            "members": {
                name: {"weight": weight, "judge": WORLD, "noise": None if noise is None else NOISE | noise}
                for name, (weight, noise) in members.items()
            },
        }
    )


class Longest:
    """Prefers the longer output, and with `soft` by a probability. Remembers what it was asked."""

    def __init__(self, name="longest", *, soft=False, fails=False):
        self.name, self.soft, self.fails = name, soft, fails
        self.asked: list[list[Pair]] = []

    def compare(self, pairs):
        self.asked.append(list(pairs))
        return [self._verdict(pair) for pair in pairs]

    def _verdict(self, pair):
        if self.fails:
            return Verdict(None, self.name, failure="refused", calls=1, price_usd=0.5)
        lead = (pair.output_2 > pair.output_1) - (pair.output_1 > pair.output_2)
        return Verdict(1.5 + lead * (0.25 if self.soft else 0.5), self.name, calls=1, price_usd=0.5)


def pool(members, judge=None, seed=0):
    judge = judge or Longest()
    return AnnotatorPool(members, dict.fromkeys(members.members, judge), seed)


def within_binomial_noise(count, n, p):
    return abs(count - n * p) < 4 * math.sqrt(n * p * (1 - p))


def test_without_noise_verdicts_are_the_judges_under_the_annotators_name():
    found = pool(spec(ann=(1, None), bee=(3, None)), Longest(soft=True)).compare(PAIRS)
    clean = Longest(soft=True).compare(PAIRS)
    assert [v.preference for v in found] == [v.preference for v in clean]
    assert all((v.calls, v.price_usd, v.failure) == (1, 0.5, None) for v in found)
    n_bee = sum(v.annotator == "bee" for v in found)
    assert {v.annotator for v in found} == {"ann", "bee"}
    assert within_binomial_noise(n_bee, N, 0.75)


@pytest.mark.parametrize("p", [0.1, 0.25])
def test_agreement_with_the_clean_judge_is_one_minus_flip(p):
    found = pool(spec(ann=(1, {"flip": p}))).compare(PAIRS)
    clean = Longest().compare(PAIRS)
    agreements = sum(a.preference == b.preference for a, b in zip(found, clean, strict=True))
    assert within_binomial_noise(agreements, N, 1 - p)


@pytest.mark.parametrize("soft", [False, True])
def test_a_swapped_pair_goes_to_the_same_annotator_and_gets_the_mirrored_verdict(soft):
    noise = {
        "flip": 0.2,
        "position": 0.5,
        "length": 1.0,
        "style": 0.3,
        "tie": 0.1,
        "abstain": 0.1,
        "drift": 0.2,
    }
    members = spec(ann=(1, noise), bee=(1, {"flip": 0.1}))
    one = pool(members, Longest(soft=soft)).compare(PAIRS)
    two = pool(members, Longest(soft=soft)).compare(SWAPPED)
    for a, b in zip(one, two, strict=True):
        assert a.annotator == b.annotator
        assert a.failure == b.failure
        assert a.preference == (None if b.preference is None else 3 - b.preference)


def test_verdicts_do_not_depend_on_what_else_is_asked_or_on_ids():
    members = spec(ann=(1, {"flip": 0.3, "position": 0.5}), bee=(1, {"tie": 0.3}))
    whole = pool(members).compare(PAIRS[:200])
    assert pool(members).compare(PAIRS[:200][::-1]) == whole[::-1]
    renamed = [Pair("x", p.instruction, p.input, p.output_1, p.output_2) for p in PAIRS[:200]]
    assert [pool(members).compare([pair])[0] for pair in renamed] == whole
    assert pool(members, seed=1).compare(PAIRS[:200]) != whole


def test_pairs_of_one_instruction_are_independent():
    """Neighbours share an annotator, and a flip, as often as chance says."""
    members = spec(ann=(1, {"flip": 0.3}), bee=(1, {"flip": 0.3}))
    found, clean = pool(members).compare(PAIRS), Longest().compare(PAIRS)
    flipped = [a.preference != b.preference for a, b in zip(found, clean, strict=True)]
    both = sum(a and b for a, b in zip(flipped[::2], flipped[1::2], strict=True))
    assert within_binomial_noise(both, N // 2, 0.09)
    same = sum(a.annotator == b.annotator for a, b in zip(found[::2], found[1::2], strict=True))
    assert within_binomial_noise(same, N // 2, 0.5)


def test_abstentions_and_ties_are_not_sent_to_the_judge_and_cost_nothing():
    judge = Longest()
    found = pool(spec(ann=(1, {"tie": 0.3, "abstain": 0.2})), judge).compare(PAIRS)
    abstained = [v for v in found if v.failure == "abstained"]
    tied = [v for v in found if v.preference == 1.5]
    assert within_binomial_noise(len(abstained), N, 0.2)
    assert within_binomial_noise(len(tied), N, 0.8 * 0.3)
    assert sum(v.calls for v in found) == len(judge.asked[0]) == N - len(abstained) - len(tied)
    assert all(v.preference is None and v.annotator == "ann" for v in abstained)


def test_drift_flips_more_of_the_later_pairs():
    found = pool(spec(ann=(1, {"drift": 0.6}))).compare(PAIRS)
    flipped = [a.preference != b.preference for a, b in zip(found, Longest().compare(PAIRS), strict=True)]
    assert not flipped[0]
    assert within_binomial_noise(sum(flipped[: N // 2]), N // 2, 0.15)
    assert within_binomial_noise(sum(flipped[N // 2 :]), N // 2, 0.45)


def test_equal_outputs_are_a_tie_that_no_judge_is_asked_about():
    judge = Longest()
    pair = Pair("a", "i", "", "same", "same")
    assert pool(spec(ann=(1, {"flip": 1.0})), judge).compare([pair]) == [Verdict(1.5, "ann")]
    assert judge.asked == [[]]


def test_a_failed_verdict_stays_a_failure_with_its_price():
    found = pool(spec(ann=(1, {"flip": 1.0})), Longest(fails=True)).compare(PAIRS[:3])
    assert found == [Verdict(None, "ann", failure="refused", calls=1, price_usd=0.5)] * 3


def test_annotators_with_one_judge_are_asked_in_one_go_and_others_apart():
    shared, own = Longest("shared"), Longest("own")
    members = spec(ann=(1, None), bee=(1, {"flip": 0.1}), cat=(1, None))
    AnnotatorPool(members, {"ann": shared, "bee": shared, "cat": own}, 0).compare(PAIRS)
    assert len(shared.asked) == len(own.asked) == 1
    assert len(shared.asked[0]) + len(own.asked[0]) == N


def test_every_judge_is_called_also_about_no_pairs():
    """The processes of a stage call a judge that they ask together the same number of times."""
    judges = {"ann": Longest(), "bee": Longest()}
    assert AnnotatorPool(spec(ann=(1, None), bee=(1, None)), judges, 0).compare([]) == []
    assert [judge.asked for judge in judges.values()] == [[[]], [[]]]


def test_other_annotators_or_noise_are_another_judge_and_another_order_of_them_is_not():
    names = {
        pool(members).name
        for members in [
            spec(ann=(1, None)),
            spec(ann=(1, {"flip": 0.1})),
            spec(ann=(2, None), bee=(1, None)),
            spec(bee=(1, None), ann=(2, None)),
        ]
    }
    assert len(names) == 3
    assert all(name.startswith("pool-of-") for name in names)


class Told:
    seed = 3


def test_members_with_equal_judges_share_one():
    members = members_of(Told(), spec(ann=(1, None), bee=(1, {"flip": 0.1})), {})
    assert members["ann"] is members["bee"]
    assert members["ann"].seed == 3


@pytest.mark.parametrize("flip", [0.1, 0.25])
def test_agreement_with_gold_is_the_judges_own_but_for_the_flips(flip):
    """a (1 - p) + (1 - a) p, where the judge itself agrees with gold in a share a of the pairs."""
    rng = random.Random(0)
    gold, pairs = [], []
    for i, task in enumerate(tasks("preference", N, 0)):
        one, two = (demonstrate(task, rng, Quality.SFT) for _ in range(2))
        truth = preference(task, one, two)
        if one != two and truth != 1.5:
            gold.append(truth)
            pairs.append(Pair(str(i), task.instruction, task.input, one, two))
    world = WorldAnnotators(WorldJudge(**WORLD), seed=0)

    def agreements(judge):
        verdicts = judge.compare(pairs)
        return sum(verdict.preference == truth for verdict, truth in zip(verdicts, gold, strict=True))

    a = agreements(world) / len(gold)
    assert 0.6 < a < 1
    noisy = agreements(pool(spec(ann=(1, {"flip": flip})), world))
    assert within_binomial_noise(noisy, len(gold), a * (1 - flip) + (1 - a) * flip)


class Up:
    """A plan's upstream without the world's gold."""

    has_gold = False

    def reward(self):
        return "the reward model"


def mixed(path):
    members = {
        "rm": {"weight": 1, "judge": {"kind": "reward", "soft": True}, "noise": None},
        "people": {"weight": 1, "judge": {"kind": "recorded", "path": str(path)}, "noise": None},
    }
    return PoolJudge.model_validate({"kind": "pool", "members": members})


def test_every_member_has_its_own_inputs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("{}\n")
    inputs = judge_inputs(mixed(path), "feedback", Up())
    assert set(inputs) == {"members.rm.judge.judge", "members.people.judge.verdicts"}
    assert inputs["members.rm.judge.judge"] == "the reward model"
    with pytest.raises(PlanError, match=r"^feedback\.judge\.members\.people\.judge\.path=.*no such file"):
        judge_inputs(mixed(tmp_path / "nothing"), "feedback", Up())
    assert runs_a_model(mixed(path))
    assert not runs_a_model(spec(ann=(1, None)))


def test_a_member_of_the_world_cannot_judge_other_instructions():
    with pytest.raises(
        PlanError, match=r"^eval\.judge\.members\.ann\.judge\.kind=world: .*; set eval/judge="
    ):
        check_judge(spec(ann=(1, None)), "eval", Up())


def test_the_bill_is_that_of_the_members_without_what_they_never_look_at():
    def billed(judge, rows, share=1.0):
        return bill(judge, Up(), rows=rows, share=share, split="eval")

    told = billed(spec(ann=(3, None), bee=(1, {"abstain": 0.2, "tie": 0.5})), 1000, 0.5)
    assert told.judge_calls == 375 + 50
    assert told.text == "about 425 judge calls, 0 USD"
    assert billed(spec(ann=(1, None)), None).judge_calls is None
    assert billed(spec(**{f"ann{i}": (1, None) for i in range(13)}), 6000).judge_calls == 6000  # 13 x 461.54
    world, reward = WorldJudge(**WORLD), RewardJudge(kind="reward", soft=False)
    assert billed(world, 100).judge_calls == 100
    assert billed(reward, 100).judge_calls == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"flip": 1.1}, "flip"),
        ({"tie": -0.1}, "tie"),
        ({"flip": 0.3, "drift": 0.8}, r"set \.drift between -0\.3 and 0\.7"),
        ({"flip": 0.3, "drift": -0.4}, r"with \.flip=0\.3 the last pair would be flipped .* -0\.1;"),
    ],
)
def test_noise_that_is_no_probability_is_refused(wrong, said):
    with pytest.raises(ValidationError, match=said):
        NoiseSpec.model_validate(NOISE | wrong)


class Slow(Longest):
    """Answers in steps, and logs who takes one."""

    def __init__(self, name, log):
        super().__init__(name)
        self.log = log

    def comparing(self, pairs):
        found = []
        for pair in pairs:
            self.log.append(self.name)
            yield
            found.append(self._verdict(pair))
        return found


def test_judges_that_wait_for_answers_wait_at_the_same_time():
    log: list[str] = []
    members = spec(ann=(1, None), bee=(1, None))
    judges = {"ann": Slow("ann", log), "bee": Slow("bee", log)}
    found = AnnotatorPool(members, judges, 0).compare(PAIRS[:40])
    assert [v.preference for v in found] == [v.preference for v in Longest().compare(PAIRS[:40])]
    assert log[:4] == ["ann", "bee", "ann", "bee"]
