"""What this deployment's settings resolve to: addresses, ports and secrets under one data folder.

An embedded service keeps its port from run to run (`run/ports.json`) and its password in `secrets/` (mode 0600), so
its address can be computed by any process that has the settings; nothing has to be handed over. Knows nothing of how
the services are started.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import secrets as random_secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster import folders, roles, urls
from cluster.errors import Rejected
from cluster.roles import Role
from cluster.settings import EMBEDDED, Settings

PORTS_TRIED_MAX = 200
PREFERRED = {
    "postgres": 5432,
    "redis": 6379,
    "s3": 9000,
    "solana": 8899,
    "ray": 6380,
    "ray-dashboard": 8265,
    "serve": 8000,
}
OWNERS = {"serve": "door"}  # the service of a port, where it is not the one that the port is named after
DATABASE = "pixr"


@dataclass(frozen=True)
class S3Endpoint:
    """Where objects live. `secret` never appears in a repr. `buckets` are those that may be touched; empty: any."""

    url: str
    key: str
    secret: str
    region: str = "us-east-1"
    buckets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"S3Endpoint({urls.shown(self.url)!r}, {self.key!r})"


@dataclass(frozen=True)
class Endpoints:
    """The address of every dependency but the database, whose URL depends on the role (`logins`).

    URLs may carry passwords, so the repr names none.
    """

    postgres_replica_urls: tuple[str, ...]
    redis_url: str
    s3: S3Endpoint
    solana_urls: tuple[str, ...]
    ray_address: str
    ray_dashboard_url: str
    serve_url: str

    def __repr__(self) -> str:
        return f"Endpoints(serve_url={self.serve_url!r})"


def endpoints(settings: Settings) -> Endpoints:
    """Resolve every address.

    Raises:
        Rejected: something is embedded and this data folder was never started.
    """
    s3 = settings.s3
    return Endpoints(
        postgres_replica_urls=settings.postgres.replica_urls,
        redis_url=_given(settings.redis.url)
        or f"redis://:{secret(settings, 'redis')}@127.0.0.1:{known_port(settings, 'redis')}/0",
        s3=S3Endpoint(s3.url, s3.key, s3.secret, s3.region)
        if _given(s3.url)
        else S3Endpoint(f"http://127.0.0.1:{known_port(settings, 's3')}", "pixr", secret(settings, "s3"), s3.region),
        solana_urls=tuple(
            _given(url) or f"http://127.0.0.1:{known_port(settings, 'solana')}" for url in settings.solana.urls
        ),
        ray_address=_given(settings.ray.address) or f"127.0.0.1:{known_port(settings, 'ray')}",
        ray_dashboard_url=settings.ray.dashboard_url or f"http://127.0.0.1:{known_port(settings, 'ray-dashboard')}",
        serve_url=serve_url(settings),
    )


def postgres_url(settings: Settings, database: str, role: Role = roles.OWNER) -> str:
    """The embedded PostgreSQL's URL for one of its databases; by default as the owner of everything in it."""
    password, port_number = secret(settings, role.secret), known_port(settings, "postgres")
    return f"postgresql://{role.name}:{password}@127.0.0.1:{port_number}/{database}"


def role_url(settings: Settings, role: Role) -> str:
    """The URL by which a role logs in: that of the settings, else the embedded PostgreSQL's; empty where it has none."""
    given: str = getattr(settings.postgres, role.setting)
    if given and given != EMBEDDED:
        return given
    return postgres_url(settings, DATABASE, role) if settings.postgres.url == EMBEDDED else ""


def serve_url(settings: Settings) -> str:
    host = "127.0.0.1" if settings.serve.host in ("0.0.0.0", "::") else settings.serve.host  # noqa: S104  a comparison
    named = f"[{host}]" if ":" in host else host
    scheme = "https" if settings.serve.certificate else "http"
    return f"{scheme}://{named}:{known_port(settings, 'serve')}"


def _given(url: str) -> str:
    return "" if url == EMBEDDED else url


def secret_path(settings: Settings, name: str) -> Path:
    return settings.data_dir / "secrets" / name


def secret(settings: Settings, name: str) -> str:
    """A random secret of this deployment, made the first time it is asked for (32 bytes, URL-safe)."""
    path = secret_path(settings, name)
    with _locked(settings):
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_private(path, random_secrets.token_urlsafe(32))
        return path.read_text(encoding="ascii")


def known_secret(settings: Settings, name: str) -> str:
    """A secret that was made before, where only that one will do.

    Raises:
        Rejected: it is not in this data folder, or may not be read.
    """
    path = secret_path(settings, name)
    try:
        return path.read_text(encoding="ascii")
    except OSError as error:
        hint = "do this where the ledger's data folder is, as its user"
        detail = f"secrets/{name} cannot be read: {error.strerror}"
        raise Rejected(detail, status=409, code="secret-missing", hint=hint) from error


def mark(settings: Settings) -> str:
    """What the names of a deployment begin with in a Redis that it may share with others: `pixr:…:`."""
    return f"pixr:{hashlib.sha256(secret(settings, 'cursor_key').encode()).hexdigest()[:12]}:"


def private_path(settings: Settings, name: str) -> Path:
    """A file of this deployment's own in `run/`."""
    return settings.data_dir / "run" / name


def port(settings: Settings, name: str, preferred: int) -> int:
    """The port of an embedded service: the one it had, else the first free one from `preferred` on."""
    with _locked(settings):
        ports = _ports(settings)
        if name not in ports:
            ports[name] = _free_port(preferred, taken=set(ports.values()))
            replace_private(_ports_path(settings), json.dumps(ports, indent=1))
        return ports[name]


def move_port(settings: Settings, name: str) -> int:
    """Give a service another free port, because a stranger has taken its own while Pixr was down."""
    with _locked(settings):
        ports = _ports(settings)
        ports[name] = _free_port(ports[name] + 1, taken=set(ports.values()))
        replace_private(_ports_path(settings), json.dumps(ports, indent=1))
        return ports[name]


def known_port(settings: Settings, name: str) -> int:
    """The port an embedded service was given, or will be.

    Raises:
        Rejected: this data folder was never started.
    """
    ports = _ports(settings)
    if not ports:
        hint = "start it with `pixr up`, or name another data folder with PIXR_DATA_DIR"
        raise Rejected(f"Pixr was never started in {settings.data_dir}", code="not-running", hint=hint)
    return ports[name] if name in ports else port(settings, name, preferred_ports(settings)[name])


def preferred_ports(settings: Settings) -> dict[str, int]:
    """By service the port that it has where nobody else has it: whoever asks first, it is the same."""
    return PREFERRED | {"serve": settings.serve.port}


def port_is_free(number: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            return False
        return True


def _ports_path(settings: Settings) -> Path:
    return settings.data_dir / "run" / "ports.json"


def _ports(settings: Settings) -> dict[str, int]:
    path = _ports_path(settings)
    return json.loads(path.read_text(encoding="ascii")) if path.exists() else {}


def _free_port(first: int, taken: set[int]) -> int:
    for number in range(first, first + PORTS_TRIED_MAX):
        if number not in taken and port_is_free(number):
            return number
    raise Rejected(f"no free port from {first} to {first + PORTS_TRIED_MAX}", hint="stop what uses them")


def replace_private(path: Path, text: str) -> None:
    """Write whole or not at all, readable by its owner alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.touch(mode=0o600)
    draft.write_text(text, encoding="ascii")
    draft.replace(path)


@contextmanager
def _locked(settings: Settings) -> Iterator[None]:
    """One process at a time hands out ports and secrets."""
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(settings.data_dir / ".lock", "w", encoding="ascii", opener=folders.opener) as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
    except PermissionError as error:
        raise folders.refusal(settings.data_dir) from error
