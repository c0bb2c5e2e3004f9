import os

import pytest

from alpacafarm.artifacts.link import link_tree


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    (folder / "inner").mkdir(parents=True)
    (folder / "weights").write_bytes(b"\0" * 5000)
    (folder / "inner" / "text").write_text("words")
    return folder


def test_a_linked_tree_takes_no_space(source, tmp_path):
    link_tree(source, tmp_path / "a" / "target")
    assert os.path.samefile(source / "weights", tmp_path / "a" / "target" / "weights")
    assert (tmp_path / "a" / "target" / "inner" / "text").read_text() == "words"


def test_files_are_copied_where_there_are_no_links(source, tmp_path, monkeypatch):
    def refused(*_):
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refused)
    link_tree(source, tmp_path / "target")
    assert not os.path.samefile(source / "weights", tmp_path / "target" / "weights")
    assert (tmp_path / "target" / "weights").read_bytes() == b"\0" * 5000


def test_what_a_killed_process_has_left_is_replaced(source, tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "weights").write_bytes(b"half")
    (tmp_path / "target" / "other").write_bytes(b"")
    link_tree(source, tmp_path / "target")
    assert not (tmp_path / "target" / "other").exists()
    assert (tmp_path / "target" / "weights").read_bytes() == b"\0" * 5000
    assert (source / "weights").stat().st_size == 5000
