"""A machine with secrets of its own is told so, and does not start."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from cluster import runtime
from cluster.database import database, fingerprints
from cluster.errors import Rejected
from cluster.settings import Settings
from tests.cluster.cli.test_main import pixr


def on_another_machine(known: Settings, folder: Path) -> Settings:
    """The same deployment over another data folder."""
    return dataclasses.replace(known, data_dir=folder)


def test_the_first_secrets_are_noted_and_others_are_refused(settings: Settings, tmp_path: Path) -> None:
    with database.connect(settings.postgres.serve_url, autocommit=True) as connection:
        fingerprints.note(connection, settings)
        fingerprints.note(connection, settings)
        other = on_another_machine(settings, tmp_path / "other")
        with pytest.raises(
            Rejected, match="secrets/appearances, secrets/cursor_key, secrets/link_key, secrets/viewer_key"
        ):
            fingerprints.note(connection, other)
        for name in fingerprints.SHARED:
            runtime.replace_private(runtime.secret_path(other, name), runtime.secret(settings, name))
        fingerprints.note(connection, other)
        noted = connection.execute("SELECT string_agg(fingerprint, ' ') FROM pixr.fingerprints").fetchone()
        assert noted is not None
        assert not any(runtime.secret(settings, name) in noted[0] for name in fingerprints.SHARED)


def test_a_secret_that_was_replaced_on_purpose_is_noted_anew(settings: Settings) -> None:
    with database.connect(settings.postgres.serve_url, autocommit=True) as connection:
        fingerprints.note(connection, settings)
    runtime.replace_private(runtime.secret_path(settings, "link_key"), "another")
    environ = {"PIXR_POSTGRES_URL": settings.postgres.url}
    said = pixr(settings.data_dir, "config", "secrets", "--json", **environ)
    assert (said.returncode, json.loads(said.stdout)["secrets"]["link_key"]) == (1, False)
    said = pixr(settings.data_dir, "config", "secrets", "--forget", "link_key", "--json", **environ)
    assert (said.returncode, json.loads(said.stdout)["secrets"]["link_key"]) == (0, None)
    with database.connect(settings.postgres.serve_url, autocommit=True) as connection:
        fingerprints.note(connection, settings)
