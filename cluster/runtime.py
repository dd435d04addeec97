"""What this deployment's settings resolve to: addresses, ports and secrets under one data folder.

An embedded service keeps its port from run to run (`run/ports.json`) and its password in `secrets/` (mode 0600). Every
process that has the settings can therefore compute its address; processes hand nothing over to each other. Does not
know how the services are started.
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

LOOPBACK = "127.0.0.1"
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
OWNERS = {"serve": "door"}  # the service that listens on a port, where it is not the one that the port is named after
DATABASE = "pixr"


@dataclass(frozen=True)
class S3Endpoint:
    """The address and credentials of an S3 store.

    `buckets` are those that may be used; empty means all. The repr leaves out the secret.
    """

    url: str
    key: str
    secret: str
    region: str = "us-east-1"
    buckets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"S3Endpoint({urls.shown(self.url)!r}, {self.key!r})"


@dataclass(frozen=True)
class Endpoints:
    """The addresses of all dependencies except the database, whose URL depends on the role (`cluster.database.logins`).

    URLs may carry passwords, so the repr leaves them out.
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
    """Return the addresses of all dependencies but the database.

    Raises:
        Rejected: a dependency is embedded, and Pixr was never started with this data folder.
    """
    s3 = settings.s3
    return Endpoints(
        postgres_replica_urls=settings.postgres.replica_urls,
        redis_url=_external(settings.redis.url)
        or f"redis://:{secret(settings, 'redis')}@127.0.0.1:{known_port(settings, 'redis')}/0",
        s3=S3Endpoint(s3.url, s3.key, s3.secret, s3.region)
        if _external(s3.url)
        else S3Endpoint(f"http://127.0.0.1:{known_port(settings, 's3')}", "pixr", secret(settings, "s3"), s3.region),
        solana_urls=tuple(
            _external(url) or f"http://127.0.0.1:{known_port(settings, 'solana')}" for url in settings.solana.urls
        ),
        ray_address=_external(settings.ray.address) or f"127.0.0.1:{known_port(settings, 'ray')}",
        ray_dashboard_url=settings.ray.dashboard_url or f"http://127.0.0.1:{known_port(settings, 'ray-dashboard')}",
        serve_url=serve_url(settings),
    )


def postgres_url(settings: Settings, database: str, role: Role = roles.OWNER) -> str:
    """Return the embedded PostgreSQL's URL for one of its databases and a role (default: the owner of all its tables)."""
    password, port_number = secret(settings, role.secret), known_port(settings, "postgres")
    return f"postgresql://{role.name}:{password}@127.0.0.1:{port_number}/{database}"


def role_url(settings: Settings, role: Role) -> str:
    """Return the URL that a role logs in with, from the settings or the embedded PostgreSQL; empty if there is none."""
    url: str = getattr(settings.postgres, role.setting)
    if url and url != EMBEDDED:
        return url
    return postgres_url(settings, DATABASE, role) if settings.postgres.url == EMBEDDED else ""


def serve_url(settings: Settings) -> str:
    """Return the URL of the HTTP interface, as a program on this machine reaches it."""
    host = "127.0.0.1" if settings.serve.host in ("0.0.0.0", "::") else settings.serve.host  # noqa: S104  a comparison
    quoted_host = f"[{host}]" if ":" in host else host
    scheme = "https" if settings.serve.certificate else "http"
    return f"{scheme}://{quoted_host}:{known_port(settings, 'serve')}"


def _external(url: str) -> str:
    """Return a setting's URL, or the empty text if it says that the service is embedded."""
    return "" if url == EMBEDDED else url


def secret_path(settings: Settings, name: str) -> Path:
    """Return the path of a secret's file."""
    return settings.data_dir / "secrets" / name


def secret(settings: Settings, name: str) -> str:
    """Return a random secret of this deployment (32 bytes, URL-safe base64), created by the first call with this name."""
    path = secret_path(settings, name)
    with _locked(settings):
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_private(path, random_secrets.token_urlsafe(32))
        return path.read_text(encoding="ascii")


def redis_prefix(settings: Settings) -> str:
    """Return the prefix of this deployment's keys in Redis, which it may share with other deployments: `pixr:…:`."""
    return f"pixr:{hashlib.sha256(secret(settings, 'cursor_key').encode()).hexdigest()[:12]}:"


def private_path(settings: Settings, name: str) -> Path:
    """Return the path of a file in `run/`, for the state of this machine's processes."""
    return settings.data_dir / "run" / name


def port(settings: Settings, name: str, preferred: int) -> int:
    """Return the port of an embedded service: the one it had before, else the first free one from `preferred` on."""
    with _locked(settings):
        ports = _ports(settings)
        if name not in ports:
            ports[name] = _free_port(preferred, taken=set(ports.values()))
            replace_private(_ports_path(settings), json.dumps(ports, indent=1))
        return ports[name]


def move_port(settings: Settings, name: str) -> int:
    """Give a service another free port; called if another program has taken its port while Pixr was down."""
    with _locked(settings):
        ports = _ports(settings)
        ports[name] = _free_port(ports[name] + 1, taken=set(ports.values()))
        replace_private(_ports_path(settings), json.dumps(ports, indent=1))
        return ports[name]


def known_port(settings: Settings, name: str) -> int:
    """Return the port that an embedded service has, or will have when it starts.

    Raises:
        Rejected: Pixr was never started with this data folder.
    """
    ports = _ports(settings)
    if not ports:
        hint = "start it with `pixr up`, or name another data folder with PIXR_DATA_DIR"
        raise Rejected(f"Pixr was never started in {settings.data_dir}", code="not-running", hint=hint)
    return ports[name] if name in ports else port(settings, name, preferred_ports(settings)[name])


def preferred_ports(settings: Settings) -> dict[str, int]:
    """Map each service to the port that it takes if that is free; the result does not depend on the order of calls."""
    return PREFERRED | {"serve": settings.serve.port}


def port_is_free(number: int) -> bool:
    """Return whether a TCP port of the loopback address can be bound."""
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
    """Return the first port from `first` on that is free and not in `taken`."""
    for number in range(first, first + PORTS_TRIED_MAX):
        if number not in taken and port_is_free(number):
            return number
    raise Rejected(f"no free port from {first} to {first + PORTS_TRIED_MAX}", hint="stop what uses them")


def replace_private(path: Path, text: str) -> None:
    """Write a file with mode 0600 atomically: readers see the old text or the new one, never a part."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.touch(mode=0o600)
    draft.write_text(text, encoding="ascii")
    draft.replace(path)


@contextmanager
def _locked(settings: Settings) -> Iterator[None]:
    """Hold the lock under which ports and secrets are created, one process at a time."""
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(settings.data_dir / ".lock", "w", encoding="ascii", opener=folders.opener) as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
    except PermissionError as error:
        raise folders.refusal(settings.data_dir) from error
