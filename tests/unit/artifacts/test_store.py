import json
import logging
import re
import shutil

import pytest

from alpacafarm.artifacts import files
from alpacafarm.artifacts.files import write_aside
from alpacafarm.artifacts.manifest import Outcome, read
from alpacafarm.artifacts.store import Store
from alpacafarm.errors import ArtifactError
from alpacafarm.stage import Given, Kind
from tests.unit.artifacts.stored import BASE, make, stage


def test_a_stage_is_to_do_then_partial_then_done(store):
    sft = stage()
    assert store.state(sft) == "to do"
    with store.claim(sft) as claim:
        assert store.state(sft) == "partial"
        store.publish(sft, claim.folder)
    assert store.state(sft) == "done"


def test_what_was_made_is_found_with_its_facts_and_never_made_again(store):
    with store.claim(stage()) as claim:
        (claim.folder / "out" / "a.txt").write_text("content")
        made = store.publish(stage(), claim.folder, Outcome(facts={"prefix": "x"}))
    assert store.find(stage()) == made
    assert (made.path / "a.txt").read_text() == "content"
    assert made.facts == {"prefix": "x"}
    with Store(store.root).claim(stage()) as claim:
        assert claim.artifact == made


@pytest.mark.parametrize("log", ["stage.log", "rank0.log"])
def test_the_partial_folder_is_gone_after_publishing_and_stage_json_and_log_are_kept(store, log):
    with store.claim(stage()) as claim:
        (claim.folder / log).write_text("spoke")
        (claim.folder / "scratch" / "checkpoint").write_text("large")
        made = store.publish(stage(), claim.folder)
    assert not claim.folder.exists()
    assert sorted(path.name for path in made.path.iterdir()) == ["artifact.json", "stage.json", "stage.log"]
    assert set(read(made.path).manifest.files) == {"stage.json", "stage.log"}


def test_a_failed_maker_leaves_scratch_and_out_to_the_next(store):
    def fail():
        with store.claim(stage()) as claim:
            assert not claim.resumed
            (claim.folder / "scratch" / "checkpoint").write_text("step 7")
            (claim.folder / "out" / "log.jsonl").write_text("{}\n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with store.claim(stage()) as claim:
        assert claim.resumed
        assert (claim.folder / "scratch" / "checkpoint").read_text() == "step 7"
        assert (claim.folder / "out" / "log.jsonl").exists()


def test_what_a_killed_maker_had_half_written_is_no_part_of_the_artifact(store):
    with store.claim(stage()) as claim:
        for name in ("outputs.json.4711.tmp", "model/config.json.12.tmp", "of the user.tmp"):
            (claim.folder / "out" / name).parent.mkdir(exist_ok=True)
            (claim.folder / "out" / name).write_text("half")
        made = store.publish(stage(), claim.folder)
    assert set(read(made.path).manifest.files) == {"stage.json", "of the user.tmp"}


def test_a_write_that_fails_leaves_the_old_text_and_nothing_beside_it(tmp_path, monkeypatch):
    write_aside(tmp_path / "told.json", "old")

    def full(path):
        raise OSError("no space left on device")

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(OSError, match="no space left"):
        write_aside(tmp_path / "told.json", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["told.json"]
    assert (tmp_path / "told.json").read_text() == "old"


def test_an_artifact_exists_only_with_all_of_its_files(store, monkeypatch):
    """A kill at any point of publishing leaves either nothing or everything."""
    calls = ["manifest.write", "_record", "sync", "tree"]
    for call in calls:
        with monkeypatch.context() as patched, store.claim(stage()) as claim:
            (claim.folder / "out" / "a.txt").write_text("content")
            patched.setattr(f"alpacafarm.artifacts.store.{call}", _killed)
            with pytest.raises(KeyboardInterrupt):
                store.publish(stage(), claim.folder)
        assert store.find(stage()) is None
        assert store.state(stage()) == "partial"
    make(store, stage())
    assert store.find(stage()) is not None


def _killed(*_):
    raise KeyboardInterrupt


def _truncate(path):
    (path / "model" / "weights.txt").write_text("1 2")


def _change_one_byte(path):
    (path / "model" / "weights.txt").write_text("1 2 4")


def _lose_a_file(path):
    (path / "log.jsonl").unlink()


def _break_the_manifest(path):
    text = (path / "artifact.json").read_text()
    (path / "artifact.json").write_text(text[: len(text) // 2])


def _lose_the_manifest(path):
    (path / "artifact.json").unlink()


def _garble_the_manifest(path):
    (path / "artifact.json").write_text('{"kind": "policy", "files": 3}')


DAMAGES = {
    _truncate: r"weights\.txt has 3 bytes instead of 5",
    _change_one_byte: r"weights\.txt has changed",
    _lose_a_file: r"log\.jsonl is missing",
    _break_the_manifest: r"artifact\.json cannot be read",
    _lose_the_manifest: r"artifact\.json is missing",
    _garble_the_manifest: r"artifact\.json cannot be read",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_artifact_is_named_set_aside_and_made_again(store, damage, caplog):
    made = make(store, stage())
    damage(made.path)
    later = Store(store.root)  # another process, which has not read the artifact yet
    assert later.find(stage()) is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert re.search(DAMAGES[damage], caplog.text)
    aside = made.path.with_name(f"{made.path.name}.damaged-1")
    assert aside.exists()
    assert not made.path.exists()
    assert make(later, stage()) == made
    assert later.find(stage()) == made


def test_a_claim_never_hands_out_a_damaged_artifact_and_numbers_go_up(store):
    for number in (1, 2):
        made = make(store, stage())
        _change_one_byte(made.path)
        with Store(store.root).claim(stage()) as claim:
            assert claim.artifact is None
        assert made.path.with_name(f"{made.path.name}.damaged-{number}").exists()


def test_a_copied_folder_is_not_taken_for_another_stage(store):
    made = make(store, stage(beta=0.1))
    shutil.copytree(made.path, store.folder(stage(beta=0.2)))
    assert store.find(stage(beta=0.2)) is None


def test_hashes_are_checked_once_and_sizes_always(store):
    made = make(store, stage())
    later = Store(store.root)
    assert later.find(stage()) == made
    _change_one_byte(made.path)
    assert later.find(stage()) == made
    _truncate(made.path)
    assert later.state(stage()) == "to do"
    assert later.find(stage()) is None


def test_stage_json_holds_the_whole_stage_with_places_and_facts_of_its_inputs(store):
    sft = stage()
    with store.claim(sft) as claim:
        store.publish(sft, claim.folder, Outcome(facts={"prefix": "x"}))
    ppo = stage("ppo", inputs={"init": sft, "base": BASE}, beta=0.1)
    with store.claim(ppo) as claim:
        told = json.loads((claim.folder / "stage.json").read_text())
    assert told == {
        "name": "ppo",
        "key": ppo.key,
        "run": "somewhere:ppo",
        "makes": "policy",
        "params": {"beta": 0.1},
        "model": None,
        "seed": 1,
        "version": 1,
        "uses_devices": True,
        "inputs": {
            "base": {
                "name": "given policy",
                "key": BASE.key,
                "path": "gpt2",
                "kind": "policy",
                "revision": None,
                "facts": {},
            },
            "init": {
                "name": "sft",
                "key": sft.key,
                "path": str(store.folder(sft)),
                "kind": "policy",
                "facts": {"prefix": "x"},
            },
        },
    }


def test_a_given_artifact_of_ours_brings_its_facts(store):
    with store.claim(stage()) as claim:
        made = store.publish(stage(), claim.folder, Outcome(facts={"scale": 2.0}))
    given = Given(Kind.POLICY, str(made.path), "f")
    with store.claim(stage("ppo", inputs={"init": given})) as claim:
        told = json.loads((claim.folder / "stage.json").read_text())
    assert told["inputs"]["init"]["facts"] == {"scale": 2.0}


def test_a_stage_without_its_inputs_is_refused(store):
    ppo = stage("ppo", inputs={"init": stage()})
    message = r"stage ppo needs init=sft .* not in .*; make it first"
    with pytest.raises(ArtifactError, match=message), store.claim(ppo):
        pass


def test_who_takes_over_sees_no_error_but_the_outcome_of_who_has_just_ended_well(store):
    with store.claim(stage()) as claim:
        Outcome(facts={"prefix": "x"}).write(claim.folder)
        (claim.folder / "error.json").write_text("{}")
    with store.claim(stage()) as claim:
        assert not (claim.folder / "error.json").exists()
        assert store.publish(stage(), claim.folder).facts == {"prefix": "x"}


def test_the_list_has_finished_artifacts_only_with_their_sizes(store):
    make(store, stage(beta=0.1), {"a": "12345"})
    _truncate(make(store, stage(beta=0.2)).path)
    Store(store.root).find(stage(beta=0.2))
    with store.claim(stage(beta=0.3)):
        pass
    (record,) = store.list()
    assert record.manifest.params == {"beta": 0.1}
    assert record.sizes["a"] == 5
    assert record.size_bytes == sum(record.sizes.values())


def test_lineage_is_everything_below_parents_first(store):
    sft, other = stage(), stage("other")
    reward = stage("reward", inputs={"init": sft})
    ppo = stage("ppo", inputs={"reward": reward, "init": sft})
    for each in (sft, other, reward, ppo):
        make(store, each)
    assert [record.manifest.stage for record in store.lineage(ppo.key)] == ["sft", "reward", "ppo"]
