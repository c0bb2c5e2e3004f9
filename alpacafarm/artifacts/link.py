"""Folders of an artifact that are also part of another."""

import os
import shutil
from pathlib import Path


def link_tree(source: Path, target: Path) -> None:
    """`source` as `target`, which it replaces: the same files where the file system can, else copies.

    Artifacts never change once they are finished, so two of them may share a file.
    """
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
