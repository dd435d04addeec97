"""No migration that an earlier release has applied was moved, renamed or edited since."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import migrations
from tests.releases import folders


@pytest.mark.parametrize("packed", folders.PACKED, ids=lambda path: str(path.name).split(".", 1)[0])
def test_no_applied_file_was_moved_renamed_or_edited(packed: Path) -> None:
    before = folders.before(packed)
    here = {f"{each.package}/{each.name}": each.sha256 for each in migrations.registered()}
    assert before.migrations
    assert {name: here.get(name) for name in before.migrations} == before.migrations
