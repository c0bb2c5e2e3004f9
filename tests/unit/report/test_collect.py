"""Recorded facts in words."""

from alpacafarm.report.collect import fact_notes

REWARD = {"held_out": 500, "accuracy": 71.25, "ece": 4.04, "length_correlation": -0.314, "reward_mean": 0.1}


def test_a_reward_model_tells_accuracy_calibration_and_length_correlation():
    (note,) = fact_notes(REWARD, None)
    assert note == (
        "accuracy on 500 held-out pairs 71.2%, calibration error 4.0%, "
        "rank correlation of score and response length -0.31"
    )


def test_what_was_not_measured_is_left_out():
    assert fact_notes({**REWARD, "accuracy": None, "ece": None}, None) == [
        "rank correlation of score and response length -0.31"
    ]
    assert fact_notes({**REWARD, "length_correlation": 0.0}, None)[0].endswith("response length +0.00")
    assert fact_notes({"reward_mean": 0.5}, None) == []


def test_losses_are_told_where_there_were_some():
    facts = {"dropped_prompts": 3, "truncated_responses": 0, "failed": 12}
    assert fact_notes(facts, None) == ["3 dropped prompts", "12 failed"]


def test_other_ranks_that_went_on_are_told():
    how = "step 6, saved on 2 ranks with ZeRO-2, on 4 ranks with ZeRO-2"
    assert fact_notes({"went_on": [how]}, None) == [f"went on from {how}"]


def test_a_kl_coefficient_is_told_with_its_estimator():
    assert fact_notes({"kl_estimator": "k1"}, 0.0067) == [
        "kl_coef=0.0067 multiplies the estimator k1 per token"
    ]
