"""A second model beside the first: the catalogue is filled in, new videos follow, and going back finds all there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from psycopg import Connection

from cluster.errors import Rejected
from cluster.settings import Settings
from pipelines.index import admin as index_admin
from pipelines.jobs import jobs
from pipelines.models.encoder import MODELS
from tests.conftest import until
from tests.pipelines.test_ingest import copied, submit, wait

BUNDLED = MODELS / "pixr-emoji"


def test_a_model_is_filled_in_followed_switched_to_and_back(
    deployment: Settings, connection: Connection, clips: Path, tmp_path: Path
) -> None:
    first = wait(connection, submit(deployment, connection, copied(tmp_path / "first", clips / "cuts.mp4")))
    assert first["status"] == "succeeded", first
    used = index_admin.model(connection, "").name
    other, moments = str(shutil.copytree(BUNDLED, tmp_path / "next")), ids(connection)
    job = jobs.backfill(deployment, connection, other)
    assert job is not None
    assert wait(connection, job["id"])["status"] == "succeeded"
    assert ids(connection) == moments
    filled = index_admin.model(connection, other)
    assert (filled.active, filled.followed, filled.missing, filled.rows) == (False, True, 0, len(moments))
    assert jobs.backfill(deployment, connection, other) is None  # nothing is missing
    with pytest.raises(Rejected, match="is a back-fill"):
        jobs.retry(deployment, connection, job["id"])

    assert index_admin.switch(connection, other).active
    before = index_admin.model(connection, used)
    assert (before.active, before.followed) == (False, True)
    # By the model of the settings, which is followed now; a job for the one that searches use comes after it.
    second = wait(connection, submit(deployment, connection, copied(tmp_path / "second", clips / "portrait.mp4")))
    assert second["status"] == "succeeded"
    until(lambda: covered(connection), 120, "both models have every moment")
    assert index_admin.model(connection, other).rows > len(moments)
    assert index_admin.switch(connection, used).active

    index_admin.follow(connection, other, on=False)
    count = len(jobs.listing(connection))
    connection.execute(
        "DELETE FROM media.embeddings e USING media.models m WHERE m.id = e.model_id AND m.name = %s", (other,)
    )
    jobs.fill_followed(deployment, connection, used)  # as at the end of each job by this model
    assert len(jobs.listing(connection)) == count
    assert index_admin.model(connection, other).missing > 0


def ids(connection: Connection) -> list[tuple[int, int]]:
    return connection.execute("SELECT id, start_ms FROM media.segments ORDER BY 1").fetchall()


def covered(connection: Connection) -> bool:
    return all(each.missing == 0 and each.rows for each in index_admin.models(connection)) and not jobs.unfinished(
        connection
    )
