"""What a command line may ask for that nothing could carry out: refused in a line, never with a traceback."""

import os
import subprocess
import sys

import pytest

from alpacafarm import run
from alpacafarm.errors import SpecError


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["method.optim.lr=inf"],
            r"^method\.optim\.lr=Infinity: must be a number; set method\.optim\.lr=0\.1",
        ),
        (["method.optim.eps=nan"], r"^method\.optim\.eps=NaN: must be a number"),
        (["method.optim.betas=[2,0.9]"], r"^method\.optim\.betas\.0=2: must be less than 1"),
        (
            ["method.optim.betas=[0.9]"],
            r"^method\.optim\.betas=\[0\.9\]: must be a list of 2 entries",
        ),
        (["name=null"], r"^name=null: must be a text; set name=TEXT"),
        (["name='a/b'"], r"^name=a/b: must be good for a folder's name: no slash"),
        (["name=.."], r"^name=\.\.: must be good for a folder's name"),
        ([f"name={'a' * 201}"], r"must be good for a folder's name"),
        (["eval=null"], r"^eval=null: must name one of conf/eval; .*known: none, winrate"),
        (["model=null"], r"^model=null: must name one of conf/model; set model="),
    ],
)
def test_values_that_no_run_could_use(overrides, message):
    with pytest.raises(SpecError, match=message):
        run.check(["method=sft", *overrides])


@pytest.mark.parametrize("action", ["run", "plan", "status"])
@pytest.mark.parametrize("below", ["", "/below"])
def test_a_store_that_is_a_file(tmp_path, action, below):
    file = tmp_path / "file"
    file.touch()
    done = command(tmp_path, f"store='{file}{below}'", f"action={action}")
    assert done.returncode == 2
    assert done.stderr == f"store={file}{below}: {file} is a file; set store to a folder\n"


def test_a_disk_that_refuses_is_told_without_a_traceback(tmp_path):
    (tmp_path / "file").touch()
    done = command(tmp_path, "hydra.run.dir=file")
    assert done.returncode == 1
    assert done.stderr.startswith("the disk refuses: [Errno 17] File exists: ")
    assert "Traceback" not in done.stderr
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / ".locks").touch()
    done = command(tmp_path)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("the disk refuses: ")
    assert "store=store and hydra.run.dir=" in last
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_enough_is_no_failure_of_the_disk(tmp_path):
    reads, writes = os.pipe()
    os.close(reads)
    asked = [sys.executable, "-m", "alpacafarm.run", "--help"]
    done = subprocess.run(asked, cwd=tmp_path, stdout=writes, stderr=subprocess.PIPE, text=True)
    os.close(writes)
    assert done.stderr == ""


def command(home, *overrides):
    asked = [sys.executable, "-m", "alpacafarm.run", "method=sft", "data=tiny", *overrides]
    return subprocess.run(asked, cwd=home, capture_output=True, text=True)
