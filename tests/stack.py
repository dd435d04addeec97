"""A whole Pixr that runs in a folder of its own, used through the command line and HTTP as a stranger would.

Shared by the tiers that need one: `tests/flow` and `tests/hostile`. Also finds the processes of a stack, and says
whether it is whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from cluster import database, folders, roles, runtime, services
from cluster import settings as settings_module
from cluster.settings import ROOT, Settings
from cluster.stack import _check_of, _reason
from pipelines.relevance import SAME
from pipelines.scratch import Scratch
from pipelines.settings import IngestSettings
from tests.conftest import free_port
from tests.replica import at_port

CONFIG = ROOT / "configs" / "demo.toml"
FRESH = 3  # searches in a row that lack nothing


@dataclass(frozen=True)
class Stack:
    """A running Pixr in a data folder of its own."""

    settings: Settings
    environ: dict[str, str]

    def pixr(self, *arguments: str, code: int = 0) -> str:
        """Run a command; its standard output. The exit code must be `code`."""
        done = self.run(*arguments)
        assert done.returncode == code, f"pixr {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = (str(Path(sys.executable).with_name("pixr")), *arguments)
        return subprocess.run(
            argv, env=self.environ, capture_output=True, text=True, timeout=280, cwd=ROOT, check=False
        )

    def json(self, *arguments: str) -> Any:
        return json.loads(self.pixr(*arguments, "--json"))

    def json_of(self, code: int, *arguments: str) -> Any:
        """As `json`, of a command that ends with this code."""
        return json.loads(self.pixr(*arguments, "--json", code=code))

    @property
    def services(self) -> dict[str, Any]:
        """`pixr status --json`, also when something is not well."""
        services: dict[str, Any] = json.loads(self.run("status", "--json").stdout)["services"]
        return services

    @property
    def admin(self) -> httpx.Client:
        key = runtime.secret(self.settings, "api_admin_key")
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=runtime.serve_url(self.settings), headers=headers, timeout=30)

    @property
    def anonymous(self) -> httpx.Client:
        return httpx.Client(base_url=runtime.serve_url(self.settings), timeout=30)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with database.connect(runtime.role_url(self.settings, roles.OWNER)) as connection:
            return connection.execute(query).fetchall()  # type: ignore[arg-type]

    def counts(self) -> dict[str, int]:
        """What a second run must not change."""
        tables = ("media.videos", "media.segments", "media.embeddings", "ledger.entries", "ledger.payouts")
        return {table: self.rows(f"SELECT count(*) FROM {table}")[0][0] for table in tables}

    def supervisor(self) -> psutil.Process:
        return psutil.Process(self._status["pid"])

    @property
    def pids(self) -> dict[str, int]:
        """The process of each service, as the supervisor last wrote it: costs no command."""
        return {name: row["pid"] for name, row in self._status["services"].items() if row["pid"]}

    @property
    def _status(self) -> dict[str, Any]:
        path = self.settings.data_dir / "run" / "status.json"
        status: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return status


@contextmanager
def running(folder: Path, **said: str) -> Iterator[Stack]:
    """A stack in a folder of its own, with what the settings are said to be; it leaves nothing behind."""
    places = {"PIXR_CONFIG": str(CONFIG), "PIXR_DATA_DIR": str(folder), **said}
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PIXR_")}
    settings = settings_module.load(environ=places)
    runtime.port(settings, "postgres", 5432)
    primary = runtime.postgres_url(settings, runtime.DATABASE, roles.SERVE)
    replica = at_port(primary, settings, free_port())  # where one runs only for some tests
    places.setdefault("PIXR_POSTGRES_REPLICA_URLS", replica)
    made = Stack(settings_module.load(environ=places), clean | places)
    made.pixr("up")
    family = [made.supervisor(), *made.supervisor().children(recursive=True)]
    try:
        yield made
    finally:
        family = [*family, *made.supervisor().children(recursive=True)]
        made.pixr("down")
        assert psutil.wait_procs(family, timeout=10)[1] == [], "processes were left behind"
        assert [each for each in outside(made.settings) if each.exists()] == [], "folders were left behind"


def outside(settings: Settings) -> list[Path]:
    """The folders that a stack may have outside of its data folder."""
    ingest, s3_url = settings.section(IngestSettings), runtime.endpoints(settings).s3.url
    scratch = Scratch.of(ingest, s3_url, settings.s3.bucket, 1)
    return [folders.short(settings.data_dir, "ray"), scratch.folder]


def all_healthy(stack: Stack) -> bool:
    """Every service answers what `pixr status` asks it. The command itself takes seconds of CPU, most of it for more."""
    ours = [each for each in services.all_services(stack.settings) if each.name != "schema"]
    return not any(_reason(_check_of(each)) for each in ours)


def near_enough(stack: Stack, text: str) -> set[int]:
    """The moments that the model alone shows for a text: those that earn."""
    asked = {"q": text, "text_weight": 0, "limit": 100, "intent": "typing"}
    with stack.anonymous as client:
        answer = client.get("/v1/search", params=asked)
    assert answer.status_code == 200, answer.text
    return {int(each["segment_id"]) for each in answer.json()["moments"]}


@dataclass(frozen=True)
class Copies:
    """Which moments of the catalogue show the same pictures as moments of other videos, and in which order they came."""

    ages: dict[int, int]  # the place of each moment, the first to come having the least
    alike: dict[int, set[int]]

    @classmethod
    def of(cls, stack: Stack) -> Copies:
        since = "coalesce(s.shown_since, v.content_at, v.created_at), s.video_id, s.id"
        ages = stack.rows(
            f"SELECT s.id FROM media.segments s JOIN media.videos v ON v.id = s.video_id ORDER BY {since}"
        )
        pairs = stack.rows(
            "SELECT a.segment_id, b.segment_id FROM media.embeddings a JOIN media.embeddings b ON a.model_id = b.model_id"
            f" AND a.video_id <> b.video_id AND -(a.embedding <#> b.embedding) >= {SAME}"
        )
        alike: dict[int, set[int]] = {}
        for one, other in pairs:
            alike.setdefault(one, set()).add(other)
        return cls({segment_id: place for place, (segment_id,) in enumerate(ages)}, alike)

    def first(self, shown: Iterable[int]) -> set[int]:
        """Of the moments of one answer those that are copies of no other one."""
        kept: set[int] = set()
        for each in sorted(shown, key=self.ages.__getitem__):
            if kept.isdisjoint(self.alike.get(each, ())):
                kept.add(each)
        return kept


def finds(stack: Stack, query: str) -> bool:
    try:
        asked = {"q": query, "intent": "typing", "relevance_min_ppm": 0}  # also where nothing is near it
        answer = stack.anonymous.get("/v1/search", params=asked)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200 and bool(answer.json()["moments"]) and not answer.json()["degraded"]


def family(stack: Stack, word: str) -> list[psutil.Process]:
    """The stack's processes whose command line has a word in it."""
    found = []
    for process in stack.supervisor().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended since the list was made, or waits to be reaped
            if word in " ".join(process.cmdline()):
                found.append(process)
    return found


def named(stack: Stack, name: str) -> list[psutil.Process]:
    """The stack's processes of a program, by the program's name."""
    found = []
    for process in stack.supervisor().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() == name:
                found.append(process)
    return found


def any_title(stack: Stack) -> str:
    return str(stack.rows("SELECT title FROM media.videos WHERE status = 'ready' ORDER BY id LIMIT 1")[0][0])


def whole(stack: Stack) -> bool:
    """Nothing is away any more: what nobody asked before is answered, again and again."""
    fresh = (f"{any_title(stack)} {secrets.token_hex(4)}" for _ in range(3))
    return all_healthy(stack) and all(finds(stack, text) for text in fresh)


def is_whole(stack: Stack, text: str) -> bool:
    """Is it ready, and do searches that nobody made before lack nothing, one after another? Asks only at the door."""
    try:
        with stack.admin as client:  # to others readiness tells no dependency
            ready = client.get("/readyz").json()
        green = ready["ready"] and all(each["ok"] for each in ready["dependencies"].values())
    except (httpx.HTTPError, ValueError, KeyError):
        return False
    return green and all(finds(stack, f"{text} {secrets.token_hex(4)}") for _ in range(FRESH))


def is_ledger_actor(process: psutil.Process) -> bool:
    try:
        return re.fullmatch(r"ray::Actor(\.\w+)?( .*)?", " ".join(process.cmdline())) is not None
    except psutil.NoSuchProcess:
        return False
