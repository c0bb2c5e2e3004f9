"""A given folder is refused where it says that it is something else than what is asked for."""

import json

import pytest

from alpacafarm.artifacts.ensemble import Ensemble
from alpacafarm.errors import PlanError
from alpacafarm.pipeline.upstream import given
from alpacafarm.stage import Kind

POLICY, REWARD = "LlamaForCausalLM", "LlamaForSequenceClassification"


def folder(home, text, inside=""):
    (home / inside).mkdir(exist_ok=True)
    (home / inside / "config.json").write_text(text)
    return str(home)


@pytest.mark.parametrize("inside", ["", "model"])
@pytest.mark.parametrize(
    ("kind", "architecture", "message"),
    [
        (Kind.POLICY, REWARD, rf"^given\.x=/.*: it holds a {REWARD}, and a policy is required; set given\.x"),
        (Kind.REWARD, POLICY, rf"^given\.x=/.*: it holds a {POLICY}, and a reward model .* is required"),
    ],
)
def test_a_model_of_the_other_kind_is_refused(tmp_path, inside, kind, architecture, message):
    path = folder(tmp_path, json.dumps({"architectures": [architecture]}), inside)
    with pytest.raises(PlanError, match=message):
        given("given.x", kind, path, None)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (Kind.POLICY, {"architectures": [POLICY]}),
        (Kind.REWARD, {"architectures": [REWARD]}),
        (Kind.REWARD, {"architectures": None}),
        (Kind.POLICY, {}),
    ],
)
def test_what_fits_or_does_not_say_passes(tmp_path, kind, config):
    assert given("given.x", kind, folder(tmp_path, json.dumps(config)), None).kind is kind


@pytest.mark.parametrize("inside", ["", "model"])
@pytest.mark.parametrize(
    ("task", "kinds"),
    [("SEQ_CLS", {Kind.REWARD}), ("CAUSAL_LM", {Kind.POLICY}), (None, {Kind.REWARD, Kind.POLICY})],
)
def test_an_adapter_says_what_it_is_for(tmp_path, inside, task, kinds):
    (tmp_path / inside).mkdir(exist_ok=True)
    (tmp_path / inside / "adapter_config.json").write_text(json.dumps({"task_type": task}))
    for kind in (Kind.REWARD, Kind.POLICY):
        if kind in kinds:
            assert given("given.x", kind, str(tmp_path), None).kind is kind
        else:
            with pytest.raises(PlanError, match=f"it holds a {task}, and a "):
                given("given.x", kind, str(tmp_path), None)


def test_a_config_that_is_no_json_is_refused_by_its_key(tmp_path):
    with pytest.raises(PlanError, match=r"^given\.x=/.*: cannot be read: .*; set given\.x to another folder"):
        given("given.x", Kind.POLICY, folder(tmp_path, "{"), None)


def test_the_model_of_an_artifact_stands_for_the_artifact(tmp_path):
    """Else a reward model would lose what its manifest says of it, and an ensemble all members but one."""
    path = folder(tmp_path, json.dumps({"architectures": [REWARD]}), "model")
    (tmp_path / "artifact.json").write_text("{}")
    assert given("given.rm", Kind.REWARD, f"{path}/model", None) == given("given.rm", Kind.REWARD, path, None)
    assert given("given.rm", Kind.REWARD, f"{path}/model", None).location == path


def test_a_folder_that_is_called_model_and_is_no_artifact_s_is_itself(tmp_path):
    path = folder(tmp_path, "{}", "model")
    assert given("given.sft", Kind.POLICY, f"{path}/model", None).location == f"{path}/model"


def test_the_same_members_combined_in_another_way_are_another_reward_model(tmp_path):
    path = folder(tmp_path, "{}", "model")
    (tmp_path / "artifact.json").write_text("{}")
    keys = set()
    for combine, std_coef in (
        ("mean", None),
        ("min", None),
        ("mean_minus_std", 0.5),
        ("mean_minus_std", 1.0),
    ):
        Ensemble(combine=combine, std_coef=std_coef, shifts=[0.0, 0.0]).write(tmp_path)
        keys.add(given("given.rm", Kind.REWARD, path, None).key)
    assert len(keys) == 4


@pytest.mark.parametrize("asked", ["", "model"])
def test_an_artifact_of_adapters_is_found_by_its_folder_and_by_its_model(tmp_path, asked):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "adapter_config.json").write_text("{}")
    (tmp_path / "artifact.json").write_text("{}")
    found = given("given.x", Kind.POLICY, str(tmp_path / asked), None)
    assert found.location == str(tmp_path)
