"""What stands for the content of something given: a file, a folder, or a name on the hub."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from alpacafarm.artifacts.files import sha256
from alpacafarm.artifacts.manifest import NAME
from alpacafarm.errors import ArtifactError

LARGE_BYTES = 64 * 2**20
EDGE_BYTES = 2**20
ABOUT_THE_MAKING = {NAME, "stage.json", "stage.log", "log.jsonl"}  # of our artifacts: times, not content
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def is_hub_id(location: str) -> bool:
    """Whether a location that does not exist here can be `owner/name` on the hub, and no mistyped path."""
    owner, slash, _ = location.partition("/")
    return bool(slash) and HUB_ID.fullmatch(location) is not None and not Path(owner).is_dir()


def fingerprint(path: str | Path, revision: str | None = None) -> str:
    """Equal for equal content, wherever it lies and whenever it was written.

    Files over 64 MiB count by their size, first and last MiB and (safetensors) header: a changed weight in
    the middle of a large file is not seen. Names with a leading dot do not count. What is no path is a hub id
    and stands for itself, at its revision.
    """
    place = Path(path)
    if place.is_file():
        return _of_file(place)
    if place.is_dir():
        listing = "\n".join(f"{name} {_of_file(place / name)}" for name in sorted(_names(place)))
        if not listing:
            raise ArtifactError(f"{path} is an empty folder; give one with a model or rows in it")
        return hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()
    if not HUB_ID.fullmatch(str(path)):
        raise ArtifactError(f"{path} does not exist and is no hub id such as owner/name; check the path")
    return f"{path}@{revision or 'main'}"


def _names(folder: Path) -> Iterator[str]:
    ours = (folder / NAME).is_file()
    for home, folders, files in os.walk(folder, followlinks=True):  # the hub's cache is made of links
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            top = Path(home) == folder
            if not name.startswith(".") and not (ours and top and name in ABOUT_THE_MAKING):
                yield Path(home, name).relative_to(folder).as_posix()


def _of_file(path: Path) -> str:
    size = path.stat().st_size
    if size <= LARGE_BYTES:
        return sha256(path)
    digest = hashlib.sha256(f"large {size} ".encode())
    with path.open("rb") as file:
        digest.update(file.read(EDGE_BYTES))
        if path.suffix == ".safetensors":
            file.seek(0)
            # eight bytes of length, then that much JSON; a length beyond the file belongs to no safetensors
            length = min(int.from_bytes(file.read(8), "little"), size - 8)
            digest.update(file.read(length))
        file.seek(size - EDGE_BYTES)
        digest.update(file.read(EDGE_BYTES))
    return digest.hexdigest()
