"""Fixtures on the real services: PostgreSQL, Valkey and the S3 gateway run once per test run, under the supervisor.

Nothing here stands in for anything: a test that needs a database gets a fresh, migrated one; a test that needs the
chain gets a localnet of its own. What needs Ray or the whole stack shares one a package, which ends with its tests.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from psycopg import sql

from cluster import folders, roles, runtime
from cluster import settings as settings_module
from cluster.database import database, grants, migrations
from cluster.embedded import leftovers, supervisor
from cluster.runtime import S3Endpoint
from cluster.settings import Settings
from cluster.storage import Storage
from pipelines.samples import samples
from pipelines.sandbox.scratch import Scratch
from pipelines.settings import IngestSettings

START_TIMEOUT_S = 120.0
TEMPLATE = "pixr_template"
RUNNING_GROUND = "PIXR_TEST_GROUND"  # a data folder whose servers run already, for tests that are run by the thousand
DEMO_SEED = 1  # the demo's own, of which the README speaks
MEMORY = Path("/dev/shm")
MEMORY_FREE_MIN_BYTES = 6 << 30  # 1 GB of WAL, the tests' uploads, and as much again for others


def pytest_configure() -> None:
    """Say how Ray authenticates before any test imports it: it reads this once, on import."""
    os.environ["RAY_AUTH_MODE"] = "token"


def pytest_collection_finish() -> None:
    """Keep the tests' own objects out of the garbage collector's full passes, which would stop the servers among them."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Remove what tests have left outside of their data folders without a stack that would, or with one that they killed."""
    for folder in (folders.short(Path("none"), "ray"), scratch_of(S3Endpoint("", "", ""), "none")):
        leftovers.remove_stale(folder.parent, f"{folder.name.rpartition('-')[0]}-")


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a data folder in which PostgreSQL, Valkey and the S3 gateway run."""
    if running := os.environ.get(RUNNING_GROUND):
        yield throwaway_settings(Path(running))
        return
    with (
        in_memory(otherwise=tmp_path_factory.mktemp("ground")) as folder,
        supervised(throwaway_settings(folder), "postgres", "redis", "s3") as settings,
    ):
        wait_for_no_disk(runtime.postgres_url(settings, "postgres"))
        yield settings
        remove_scratch(runtime.endpoints(settings).s3)


def remove_scratch(s3: S3Endpoint) -> None:
    """Remove the folders that stages have used in this process, without a stack that would: one for each bucket."""
    for bucket in Storage(s3).filesystem().ls(""):
        shutil.rmtree(scratch_of(s3, str(bucket)), ignore_errors=True)


def scratch_of(s3: S3Endpoint, bucket: str) -> Path:
    """Where the files of a bucket's jobs are decoded."""
    return Scratch.of(throwaway_settings(Path("none")).section(IngestSettings), s3.url, bucket, 1).folder


@contextmanager
def in_memory(otherwise: Path) -> Iterator[Path]:
    """A folder in memory, where there is room: a database is 500 files, which a disk takes 300 ms to make and to remove."""
    for left in MEMORY.glob("pixr-tests-*"):
        if not psutil.pid_exists(int(left.name.rpartition("-")[2])):  # of tests that were killed
            shutil.rmtree(left, ignore_errors=True)
    free = min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available) if MEMORY.is_dir() else 0
    if free < MEMORY_FREE_MIN_BYTES:
        yield otherwise
        return
    folder = MEMORY / f"pixr-tests-{os.getpid()}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def wait_for_no_disk(postgres_url: str) -> None:
    """Have a PostgreSQL of tests write without waiting for the disk, which making and dropping databases does most.

    Only a machine that loses its power would lose anything by it.
    """
    with database.connect(postgres_url, autocommit=True) as connection:
        for name in ("fsync", "full_page_writes", "synchronous_commit"):
            connection.execute(sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(name)))
        connection.execute("SELECT pg_reload_conf()")


@contextmanager
def supervised(settings: Settings, *services: str) -> Iterator[Settings]:
    """The settings while the services that are named run."""
    process = supervisor.start(settings, only=services)
    try:
        wait_up(settings, process)
        yield settings
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def throwaway_settings(folder: Path) -> Settings:
    """The local settings over an empty data folder."""
    return settings_module.load(environ={"PIXR_DATA_DIR": str(folder)})


def until(condition: Callable[[], object], timeout_s: float = 30.0, what: str = "what is waited for") -> float:
    """Wait until something is true; how long it took, in seconds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - began


def wait_up(settings: Settings, process: subprocess.Popen[bytes], timeout_s: float = START_TIMEOUT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while (status := supervisor.read_status(settings))["phase"] != "up":
        assert process.poll() is None, f"start failed: {json.dumps(status, indent=1)}"
        assert time.monotonic() < deadline, f"not up in time: {json.dumps(status, indent=1)}"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's videos, good and bad, filmed once a test run. Tests change nothing in it."""
    folder = tmp_path_factory.mktemp("demo")
    samples.demo(folder, DEMO_SEED)
    return folder


@pytest.fixture(scope="session")
def _template(ground: Settings) -> str:
    """The name of a migrated database that others are copied from.

    Not `pixr`: the supervisor asks that one how it is, and PostgreSQL copies no database that has a client.
    """
    with database.connect(runtime.postgres_url(ground, "postgres"), autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (TEMPLATE,)).fetchone():
            return TEMPLATE  # of a run before this one on the same servers
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
    url = runtime.postgres_url(ground, TEMPLATE)
    migrations.migrate(url)
    grants.allow_login(url, dict.fromkeys(roles.PARTS, runtime.secret(ground, "postgres")))
    return TEMPLATE


@pytest.fixture
def postgres_url(ground: Settings, _template: str) -> Iterator[str]:
    """A fresh, migrated database of the test's own."""
    with fresh_database(ground, _template) as url:
        yield url


@contextmanager
def fresh_database(ground: Settings, template: str) -> Iterator[str]:
    """A database copied from a migrated one, and dropped in the end."""
    name = f"test_{secrets.token_hex(6)}"
    with database.connect(runtime.postgres_url(ground, "postgres"), autocommit=True) as connection:
        identifiers = sql.Identifier(name), sql.Identifier(template)
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(*identifiers))
        try:
            yield runtime.postgres_url(ground, name)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def redis_url(ground: Settings) -> str:
    return runtime.endpoints(ground).redis_url


@pytest.fixture
def s3(ground: Settings) -> S3Endpoint:
    return runtime.endpoints(ground).s3


@pytest.fixture
def settings(ground: Settings, postgres_url: str, s3: S3Endpoint, redis_url: str, tmp_path: Path) -> Settings:
    """Settings of a deployment with a database and a data folder of its own, on the shared servers."""
    return on_ground(tmp_path, postgres_url, s3, redis_url)


def on_ground(folder: Path, postgres_url: str, s3: S3Endpoint, redis_url: str) -> Settings:
    """Settings over an empty data folder, with the servers that are named; replicas come by their own role."""
    made = throwaway_settings(folder)
    runtime.port(made, "serve", 8000)
    s3_settings = dataclasses.replace(made.s3, url=s3.url, key=s3.key, secret=s3.secret)
    redis_settings = dataclasses.replace(made.redis, url=redis_url)
    serve_url = postgres_url.replace("//pixr:", f"//{roles.SERVE.name}:")
    postgres_settings = dataclasses.replace(made.postgres, url=postgres_url, serve_url=serve_url)
    for section in (postgres_settings, s3_settings, redis_settings):
        made = made.with_section(section)
    return made


@pytest.fixture
def localnet_url(tmp_path: Path) -> Iterator[str]:
    """A chain of the test's own."""
    port = free_port()
    with localnet(port, tmp_path / "localnet"):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def localnet(port: int, folder: Path, slot_ms: int = 100) -> Iterator[subprocess.Popen[bytes]]:
    """A localnet process, from what the folder has of an earlier one."""
    argv = [sys.executable, "-m", "ledger.solana.localnet", "--port", str(port), "--data", str(folder)]
    process = subprocess.Popen([*argv, "--slot-ms", str(slot_ms)])
    try:
        _wait_listening(port, process)
        yield process
    finally:
        process.terminate()
        process.wait(20)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        assert process.poll() is None, "the localnet ended while starting"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, "the localnet does not listen"
        time.sleep(0.05)
