import pytest

from alpacafarm.artifacts import ensemble
from alpacafarm.artifacts.ensemble import Ensemble
from alpacafarm.errors import ArtifactError


def test_an_ensemble_survives_its_file(tmp_path):
    told = Ensemble(combine="mean_minus_std", std_coef=0.1, shifts=[0.1 + 0.2, -1e-17])
    told.write(tmp_path)
    assert ensemble.read(tmp_path) == told


def test_a_single_reward_model_is_no_ensemble(tmp_path):
    assert ensemble.read(tmp_path) is None


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"combine": "median", "std_coef": null, "shifts": [0.0, 0.0]}',
        '{"combine": "min", "std_coef": null, "shifts": [0.0]}',
    ],
)
def test_another_file_is_refused_by_its_name(tmp_path, text):
    (tmp_path / ensemble.NAME).write_text(text)
    with pytest.raises(ArtifactError, match=r"ensemble\.json cannot be read: .*make the ensemble again"):
        ensemble.read(tmp_path)


def test_raw_scores_are_shifted_before_they_are_combined():
    """Members that only differ in their zero agree, wherever the zeros lie."""
    together = Ensemble(combine="min", std_coef=None, shifts=[-1.0, 1.0])
    assert together([[3.0, 5.0], [1.0, 3.0]]) == pytest.approx([2.0, 4.0])
