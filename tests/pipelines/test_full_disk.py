"""A disk that is full stops nothing for good, and is said in a line: on a small disk of the test's own."""

from __future__ import annotations

import dataclasses
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from cluster import folders, runtime
from cluster.cli.context import Context
from cluster.errors import Rejected, Temporary
from cluster.settings import Settings
from cluster.storage import Storage
from pipelines.cli import ingest
from tests.conftest import supervised, throwaway_settings

DISK_MB, KEPT_MB = 96, 8


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that is a disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = ("mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=0700", "tmpfs", str(folder))
    if os.geteuid() != 0 or subprocess.run(mounted, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a disk, and not in every container")
    yield folder
    subprocess.run(("umount", str(folder)), check=True)


@pytest.fixture
def small(disk: Path, postgres_url: str) -> Iterator[Settings]:
    """A deployment whose objects lie on that disk; its database lies elsewhere."""
    made = throwaway_settings(disk / "data")
    made = made.with_section(dataclasses.replace(made.s3, free_space_min_mb=KEPT_MB))
    with supervised(made, "s3"):
        yield made.with_section(dataclasses.replace(made.postgres, url=postgres_url))


def test_a_folder_that_would_fill_the_disk_is_refused_before_it_does(small: Settings, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    for name, megabytes in (("a.mp4", 1), ("b.mp4", DISK_MB)):
        with (films / name).open("wb") as file:
            file.truncate(megabytes << 20)
    context = Context(None)
    context.__dict__["settings"] = small
    refused = CliRunner().invoke(ingest, [str(films), "--json"], obj=context).exception
    assert isinstance(refused, Rejected)
    assert f"no space left in {small.data_dir}" in refused.detail
    sent = Storage(runtime.endpoints(small).s3).list(f"s3://{small.s3.bucket}/uploads/")
    assert [found.uri.rpartition("/")[2] for found in sent] == ["a.mp4"]  # and is not sent again, once there is room


def test_a_store_whose_disk_is_full_says_so_in_time_and_goes_on_when_there_is_room(small: Settings) -> None:
    storage, bucket = Storage(runtime.endpoints(small).s3), small.s3.bucket
    uris = [f"s3://{bucket}/{number}" for number in range(2 * DISK_MB // 16)]
    content = secrets.token_bytes(16 << 20)

    def fill() -> None:
        for uri in uris:
            storage.put_bytes(content, uri)

    with pytest.raises(Temporary) as caught:
        fill()
    assert len(str(caught.value).splitlines()) == 1
    for uri in uris:
        storage.delete(uri)
    storage.put_bytes(b"after", f"s3://{bucket}/after")
    assert storage.read(f"s3://{bucket}/after") == b"after"
    folders.require_space(small.data_dir, KEPT_MB)
