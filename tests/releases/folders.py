"""Data folders that releases before this one have left behind: unpacking one, and reading what was in it.

How they are made stands in README.md beside this file.
"""

from __future__ import annotations

import json
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PACKED = sorted(HERE.glob("*.tar.xz"))
CLOCK = "the clock stands before the day on which this folder was left: its rows would lie in the future"


@dataclass(frozen=True)
class Before:
    """What a release says of the folder that it left (`before.json` in it)."""

    commit: str
    seed: int  # of the videos
    migrations: dict[str, str]  # SHA-256 of each applied file, by package/name
    counts: dict[str, int]  # rows, by table
    recorded: int  # searches that the database knows
    spooled: int  # searches that were answered and stand in the spool alone
    incarnations: list[str]  # ids of the replicas that answered searches
    jobs: dict[str, str]  # status, by id
    open_batches: dict[str, str]  # state of payouts under way, by id
    keys: dict[str, str]  # an API key of each scope
    cookie: str  # of a viewer
    links: list[str]  # to pictures and videos that are public, signed then
    captions: list[str]  # what the shots of the first videos show
    titles: list[str]  # of the video that a caption was found in first
    unlisted: str  # id of a video


def before(packed: Path) -> Before:
    """What is said of a packed folder, without unpacking the rest of it."""
    with tarfile.open(packed) as archive:
        for entry in archive:
            if entry.name == "before.json":
                content = archive.extractfile(entry)
                assert content is not None
                told: dict[str, Any] = json.loads(content.read())
                return Before(**told)
    raise AssertionError(f"{packed} does not say what is in it")


def is_future(packed: Path) -> bool:
    """Whether a packed folder was left later than the clock of this machine says that it is now."""
    with tarfile.open(packed) as archive:
        for entry in archive:
            if entry.name == "before.json":
                return entry.mtime > time.time()
    raise AssertionError(f"{packed} does not say what is in it")


def unpack(packed: Path, folder: Path) -> Path:
    """Lay a data folder out, closed to other users as Pixr keeps it; skip the test where that would be of no use."""
    if is_future(packed):
        pytest.skip(CLOCK)
    folder.mkdir(mode=0o700)
    filtered: dict[str, Any] = {"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}  # from Python 3.11.4
    with tarfile.open(packed) as archive:
        archive.extractall(folder, **filtered)  # noqa: S202  our own file, whose modes PostgreSQL looks at
    return folder
