"""The embedded PostgreSQL 18 with pgvector: created once by initdb, run in the foreground, with one database of ours.

Its programs come from a Python package (`postgres_programs`); it runs as a user that PostgreSQL accepts
(`postgres_user`). Knows no table.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from cluster import runtime, urls
from cluster.database import database
from cluster.embedded import postgres_programs, postgres_user
from cluster.errors import Rejected
from cluster.observability import health
from cluster.runtime import LOOPBACK
from cluster.services import Command
from cluster.settings import ROOT, Settings

OWNERS_CONNECTIONS = 20  # besides those of the roles: for migrations, indexes, dumps, the server itself and people


@dataclass
class Postgres:
    """The service `postgres`."""

    settings: Settings
    name: str = "postgres"
    needs: tuple[str, ...] = ()
    start_timeout_s: float = 60.0

    @property
    def _folder(self) -> Path:
        return self.settings.data_dir / "postgres"

    def prepare(self) -> None:
        runtime.port(self.settings, "postgres", 5432)
        if (self._folder / "PG_VERSION").exists():
            postgres_user.wait_for_leaving(self._folder)
            postgres_user.give_away(self._folder, postgres_user.of_server())
            return
        shutil.rmtree(self._folder, ignore_errors=True)
        self._make(self._folder.with_name("postgres.new")).rename(self._folder)

    def _make(self, folder: Path) -> Path:
        """Run initdb in a temporary folder and return that folder; the caller renames it.

        In the final folder, an interrupted initdb would leave a PG_VERSION, so that it would look complete.
        """
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
        password_file = self.settings.data_dir / "run" / "postgres.initial"
        runtime.replace_private(password_file, runtime.secret(self.settings, "postgres"))
        user = postgres_user.of_programs()
        postgres_user.give_away(folder, user)
        arguments = ("-D", str(folder), "-U", "pixr", "--auth=scram-sha-256", f"--pwfile={password_file}")
        initdb = (str(self._program("initdb")), *arguments, "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions")
        _run(postgres_user.command(initdb, user, folder, reads=(password_file,)))
        password_file.unlink()
        postgres_user.give_away(folder, postgres_user.of_server())
        return folder

    def command(self) -> Command:
        options = {
            "listen_addresses": LOOPBACK,
            "port": str(runtime.known_port(self.settings, "postgres")),
            "unix_socket_directories": "",
            "max_connections": str(sum(self.settings.postgres.connections_max.values()) + OWNERS_CONNECTIONS),
            "shared_buffers": f"{self.settings.postgres.shared_buffers_mb}MB",
            "maintenance_work_mem": f"{self.settings.postgres.maintenance_mb}MB",
            "dynamic_shared_memory_type": "posix",
            "jit": "off",  # the queries are short; compiling them costs more than it saves
            "log_min_messages": "warning",
        }
        flags = tuple(f"--{key.replace('_', '-')}={value}" for key, value in options.items())
        postgres = (str(self._program("postgres")), "-D", str(self._folder), *flags)
        argv = postgres_user.command(postgres, postgres_user.of_server(), self._folder)
        return Command(argv, cwd=ROOT, stop_signal=signal.SIGINT)  # "fast" shutdown: does not wait for clients

    def check(self) -> None:
        """Check that the database answers; after the first start, create the database."""
        try:
            health.postgres(runtime.postgres_url(self.settings, runtime.DATABASE))
        except Rejected as error:
            if f'database "{runtime.DATABASE}" does not exist' not in str(error):
                raise
            self._create_database()

    def address(self) -> str:
        return urls.where(runtime.postgres_url(self.settings, runtime.DATABASE))

    def _program(self, name: str) -> Path:
        return postgres_programs.program(self.settings.postgres.package, name)

    def _create_database(self) -> None:
        with database.session(runtime.postgres_url(self.settings, "postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(runtime.DATABASE)))


def _run(argv: tuple[str, ...]) -> None:
    process = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False)
    if process.returncode:
        lines = (process.stderr or process.stdout).strip().splitlines()
        raise Rejected(f"initdb failed: {lines[-1] if lines else process.returncode}")
