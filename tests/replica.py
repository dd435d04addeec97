"""A second PostgreSQL that streams from an embedded one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster import roles, runtime
from cluster.database import database
from cluster.embedded import postgres_programs, postgres_user
from cluster.errors import Temporary
from cluster.observability import health
from cluster.settings import Settings

WITHIN_S = 30.0


@dataclass
class Replica:
    """A streaming replica in a folder of its own."""

    folder: Path
    port: int
    url: str
    package: str
    connections_max: int  # no fewer than the primary's
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        flags = (
            "--listen-addresses=127.0.0.1",
            "--unix-socket-directories=",
            f"--port={self.port}",
            "--shared-buffers=16MB",
            "--fsync=off",
            f"--max-connections={self.connections_max}",
        )
        postgres = str(postgres_programs.program(self.package, "postgres"))
        self.process = subprocess.Popen(
            postgres_user.unprivileged((postgres, "-D", str(self.folder), *flags), postgres_user.of_server())
        )
        deadline = time.monotonic() + WITHIN_S
        while True:
            try:
                health.postgres(self.url)
                return
            except Temporary:
                assert self.process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(20)

    def say(self, statement: str) -> None:
        with database.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[arg-type]


@contextmanager
def streaming(settings: Settings, folder: Path, url: str) -> Iterator[Replica]:
    """A replica at a URL's port of the server of these settings, copied from it into an empty folder."""
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        user = postgres_user.of_server()
        os.chown(folder, user.uid, user.gid)
    basebackup = postgres_programs.program(settings.postgres.package, "pg_basebackup")
    argv = (str(basebackup), "--dbname", runtime.postgres_url(settings, "postgres"))
    argv += ("--pgdata", str(folder), "--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync")
    argv = postgres_user.unprivileged(argv, postgres_user.of_server())
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with database.connect(runtime.role_url(settings, roles.OWNER)) as connection:
        most = connection.execute("SELECT current_setting('max_connections')::int").fetchone()
    assert most is not None
    made = Replica(folder, int(url.rsplit(":", 1)[1].split("/")[0]), url, settings.postgres.package, most[0])
    made.start()
    try:
        yield made
    finally:
        made.kill()
        shutil.rmtree(folder)


def at_port(postgres_url: str, settings: Settings, port: int) -> str:
    """The same database at another port."""
    return postgres_url.replace(f":{runtime.known_port(settings, 'postgres')}/", f":{port}/")
