import json
import os
import shutil

import pytest

from alpacafarm.artifacts import fingerprint as module
from alpacafarm.artifacts.fingerprint import fingerprint
from alpacafarm.errors import ArtifactError
from tests.unit.artifacts.stored import make, stage


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "weights").write_bytes(bytes(range(256)))
    return folder


def test_place_time_and_hidden_files_do_not_count(model, tmp_path):
    before = fingerprint(model)
    moved = shutil.copytree(model, tmp_path / "els e where é")
    os.utime(moved / "config.json", (0, 0))
    (moved / ".cache").mkdir()
    (moved / ".cache" / "etag").write_text("x")
    assert fingerprint(moved) == before
    assert fingerprint(str(moved)) == before


@pytest.mark.parametrize("change", ["content", "name", "more", "less"])
def test_content_and_names_count(model, change):
    before = fingerprint(model)
    match change:
        case "content":
            (model / "config.json").write_text("[]")
        case "name":
            (model / "config.json").rename(model / "other.json")
        case "more":
            (model / "more").write_text("")
        case "less":
            (model / "config.json").unlink()
    assert fingerprint(model) != before


def test_links_count_as_what_they_point_to(model, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("config.json", "sub"):
        (linked / name).symlink_to(model / name)
    assert fingerprint(linked) == fingerprint(model)


def safetensors(path, header, data):
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)


def test_large_files_count_by_size_edges_and_header(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGE_BYTES", 1000)
    monkeypatch.setattr(module, "EDGE_BYTES", 100)
    path, data = tmp_path / "model.safetensors", bytearray(2000)
    header = {f"layer.{i}": i for i in range(40)}  # longer than an edge

    def told(header=header, data=data):
        safetensors(path, header, data)
        return fingerprint(path)

    before = told()
    assert told() == before
    assert told(header | {"layer.39": 40}) != before
    assert told(data=data[:-1] + b"x") != before
    assert told(data=data + b"\0") != before
    middle = bytearray(data)
    middle[1000] = 1
    assert told(data=middle) == before  # the price of not reading 13 GB, as documented


def test_a_large_file_with_a_nonsense_header_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGE_BYTES", 1000)
    monkeypatch.setattr(module, "EDGE_BYTES", 100)
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\xff" * 2000)
    assert fingerprint(path) == fingerprint(path)


def test_our_artifact_made_twice_has_one_fingerprint(store):
    first = fingerprint(make(store, stage(), {"model/w": "1", "log.jsonl": "fast"}).path)
    shutil.rmtree(store.folder(stage()))
    second = fingerprint(make(store, stage(), {"model/w": "1", "log.jsonl": "slow"}).path)
    assert first == second


def test_a_hub_id_stands_for_itself_at_its_revision(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where nothing has such a name
    assert fingerprint("tatsu-lab/alpaca_farm") == "tatsu-lab/alpaca_farm@main"
    assert fingerprint("gpt2", revision="abc") == "gpt2@abc"


@pytest.mark.parametrize("path", ["/nowhere/at/all", "./missing", "a/b/c", "~/x", "../x"])
def test_a_path_that_is_not_there_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError, match=r"does not exist and is no hub id .*; check the path"):
        fingerprint(path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="is an empty folder"):
        fingerprint(tmp_path)
