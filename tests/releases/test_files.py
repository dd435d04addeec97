"""No migration that an earlier release has applied was moved, renamed or edited since."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cluster.database import migrations
from tests.releases import folders


@pytest.mark.parametrize("packed", folders.PACKED, ids=lambda path: str(path.name).split(".", 1)[0])
def test_no_applied_file_was_moved_renamed_or_edited(packed: Path) -> None:
    before = folders.before(packed)
    here = {f"{each.package}/{each.name}": each.sha256 for each in migrations.registered()}
    assert before.migrations
    assert {name: here.get(name) for name in before.migrations} == before.migrations


@pytest.mark.parametrize("packed", folders.PACKED, ids=lambda path: str(path.name).split(".", 1)[0])
def test_a_folder_of_the_future_is_not_started(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in it would be due, and what is made now would be older than what was there.

    However this machine's clock stands.
    """
    monkeypatch.setattr(time, "time", lambda: 4_000_000_000.0)
    assert not folders.is_future(packed)
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    with pytest.raises(pytest.skip.Exception, match="the clock stands before"):
        folders.unpack(packed, tmp_path / "folder")
