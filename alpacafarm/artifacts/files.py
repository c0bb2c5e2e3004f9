"""Files that are written whole or not at all, and their hashes."""

import hashlib
import os
import re
from pathlib import Path


def sha256(path: Path) -> str:
    """Of the whole content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree(folder: Path) -> list[str]:
    """Every file below `folder`, relative, with forward slashes, ordered by name."""
    found = [Path(home, name) for home, _, names in os.walk(folder) for name in names]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def cut_off(folder: Path) -> list[str]:
    """What `write_aside` left below `folder` in processes that were killed, relative."""
    return [name for name in tree(folder) if re.search(r"\.\d+\.tmp$", name)]


def sync(path: Path) -> None:
    """Returns when the file's content, or the folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_below(folder: Path) -> None:
    """Returns when all files and folders below, and `folder` itself, are on the disk."""
    for home, _, names in os.walk(folder):
        for name in names:
            sync(Path(home, name))
        sync(Path(home))


def write_aside(path: Path, text: str) -> None:
    """Writes beside `path` and renames: a reader sees the old text or the new one, also after a power cut.

    Half surrogates, which UTF-8 lacks and JSON can hold, are written as JSON escapes them.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")
        sync(aside)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync(path.parent)
