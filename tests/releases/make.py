"""Makes the data folder of a release, packed, for `test_releases`: run by hand, once a release.

    git worktree add --detach ../release COMMIT && ln -s $PWD/.venv ../release/.venv
    .venv/bin/python tests/releases/make.py ../release tests/releases/COMMIT.tar.xz

Runs the release's own code, through its command line and HTTP, and imports none of ours: what is packed is what that
release writes. The folder is left as a machine leaves it that loses its power while everything is under way: a job that
has begun, a payout that is signed, searches in the spool that are in no table yet. Only PostgreSQL is stopped politely,
which makes the folder small. `before.json` in it says what was there. See README.md beside this file.
"""

from __future__ import annotations

import contextlib
import json
import lzma
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg

SEED = 7
WITHIN_S = 180.0
FILM = """
import sys
from pathlib import Path
from pipelines import film, samples
out, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
form = film.Form(width=256, height=144, fps=12, sound=False)
samples.write(out, count, seed, forms=(form,), creators=2, shots=(2, 2), seconds=(2.0, 2.5), concepts=(1, 1))
"""
# An editable install of another checkout would serve the modules that this release does not have.
ALONE = """
import sys
sys.meta_path[:] = [each for each in sys.meta_path if "Editable" not in getattr(each, "__name__", "")]
"""
SCOPES = ("search", "ingest", "creator", "admin")
LEFT_OUT = ("logs", "ray", "s3/cache", "run/haproxy")  # made again at every start
LINKS_LAST_S = 20 * 365 * 86_400
COUNTED = (
    "media.videos", "media.segments", "media.embeddings", "media.jobs", "media.creators", "ledger.entries",
    "ledger.payouts", "ledger.appearance_batches", "app.api_keys", "app.watch_events",
)  # fmt: skip


@dataclass
class Release:
    """A release that runs in a data folder, and what is told of it."""

    checkout: Path
    folder: Path
    alone: Path  # holds a `sitecustomize` that keeps other checkouts out
    before: dict[str, Any] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PIXR_")}
        return clean | {
            "PYTHONPATH": f"{self.checkout}:{self.alone}",
            "PIXR_CONFIG": str(self.checkout / "configs" / "demo.toml"),
            "PIXR_DATA_DIR": str(self.folder),
            "PIXR_SEARCH_LINK_EXPIRES_S": str(LINKS_LAST_S),  # the links that are kept outlive the release
        }

    def run(self, *argv: str) -> str:
        """Run a program of the release's; its output."""
        done = subprocess.run(
            (sys.executable, *argv), env=self.environ, cwd=self.checkout, stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout

    def pixr(self, *arguments: str) -> str:
        return self.run("-m", "cluster.cli", *arguments)

    def secret(self, name: str) -> str:
        return (self.folder / "secrets" / name).read_text(encoding="ascii")

    def port(self, name: str) -> int:
        ports: dict[str, int] = json.loads((self.folder / "run" / "ports.json").read_text(encoding="ascii"))
        return ports[name]

    def pid(self, name: str) -> int:
        status = json.loads((self.folder / "run" / "status.json").read_text(encoding="utf-8"))
        return int(status["pid"] if name == "supervisor" else status["services"][name]["pid"])

    def http(self, key: str = "", cookie: str = "") -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        cookies = {"pixr_viewer": cookie} if cookie else {}
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port('serve')}", headers=headers, cookies=cookies, timeout=30
        )

    def database(self) -> psycopg.Connection[Any]:
        url = f"postgresql://pixr:{self.secret('postgres')}@127.0.0.1:{self.port('postgres')}/pixr"
        return psycopg.connect(url, autocommit=True)

    def value(self, query: str) -> Any:
        with self.database() as connection:
            row = connection.execute(query).fetchone()  # type: ignore[arg-type]
        return row[0] if row else None


def until(condition: Callable[[], Any], what: str, pause_s: float = 0.5) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {WITHIN_S:.0f} s: {what}")
        time.sleep(pause_s)


def search(client: httpx.Client, text: str, key: str = "") -> dict[str, Any]:
    """A committed search; what it showed. A text that names nothing of the catalogue is a mistake of this script."""
    answer = client.get("/v1/search", params={"q": text}, headers={"Idempotency-Key": key} if key else {})
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    assert found["moments"], text
    assert found["degraded"] == [], found["degraded"]
    return found


def fill(release: Release, films: Path) -> list[str]:
    """Ingest, make a key of each scope, take a cookie, search, watch, and be paid; what each shot shows."""
    release.run("-c", FILM, str(films), "3", str(SEED))
    release.pixr("ingest", str(films))
    truth = [json.loads(line) for line in (films / "truth.jsonl").read_text(encoding="utf-8").splitlines()]
    captions = [shot["caption"] for each in truth for shot in each["shots"]]
    creator = release.value("SELECT min(id) FROM media.creators")
    keys = {}
    for scope in SCOPES:
        own = ("--creator", str(creator)) if scope == "creator" else ()
        if scope == "ingest" and "--for-any" in release.pixr("keys", "create", "--help"):
            own = ("--for-any",)
        keys[scope] = json.loads(release.pixr("keys", "create", f"old-{scope}", "--scope", scope, *own, "--json"))[
            "key"
        ]
    with release.http() as page:
        cookie = page.get("/").cookies["pixr_viewer"]
    with release.http(cookie=cookie) as browser, release.http(keys["search"]) as program:
        shown = [
            search(browser, captions[0], "old-0"),
            search(program, captions[1], "old-1"),
            search(program, captions[2]),
        ]
        moments = [each["moments"][0] for each in shown]
        browser.post("/v1/events", json={"segment_id": moments[0]["segment_id"]}).raise_for_status()
    with release.http(release.secret("api_admin_key")) as admin:
        found = ", ".join({str(int(each["video_id"])) for each in moments})  # what is searched for later is not hidden
        last = release.value(f"SELECT max(id) FROM media.videos WHERE id NOT IN ({found})")
        admin.patch(f"/v1/videos/{last}", json={"visibility": "unlisted"}).raise_for_status()
    until(lambda: all_paid(release), "what was earned is paid")
    links = [each[name].partition("#")[0] for each in moments for name in ("thumbnail_url", "play_url")]
    release.before |= {"keys": keys, "cookie": cookie, "links": links, "captions": captions[:4],
                       "titles": [each["title"] for each in moments], "unlisted": str(last)}  # fmt: skip
    return captions


def all_paid(release: Release) -> bool:
    open_batches = release.value("SELECT count(*) FROM ledger.batches WHERE state IN ('planned', 'held', 'signed')")
    paid = release.value("SELECT count(*) FROM ledger.payouts p JOIN ledger.transfers t ON t.id = p.transfer_id"
                         " WHERE t.state = 'posted'")  # fmt: skip
    owed = release.value("SELECT count(*) FROM ledger.accounts WHERE kind IN ('maturing', 'payable') AND balance > 0")
    return bool(paid) and not open_batches and not owed


def leave_open(release: Release, films: Path, captions: list[str]) -> None:
    """Sign a payout that does not settle, begin a job, and have searches answered that reach no table; then the end."""
    with release.http() as stranger, release.http(cookie=release.before["cookie"]) as browser:
        search(stranger, captions[2])
        signed = "SELECT count(*) FROM ledger.batches WHERE kind = 'payout' AND state = 'signed'"
        until(lambda: release.value(signed), "a payout is signed", 0.02)
        os.kill(release.pid("supervisor"), signal.SIGSTOP)  # nothing is started again
        os.kill(release.pid("solana"), signal.SIGSTOP)  # the chain stands still: it settles no more
        release.run("-c", FILM, str(films), "1", str(SEED + 1))
        release.pixr("ingest", str(films), "--detach")
        with recording_held_up(release):
            for text in captions[2:4]:
                search(browser, text)
            release.before["spooled"] = 2
            end(release)


@contextlib.contextmanager
def recording_held_up(release: Release) -> Iterator[None]:
    """Searches are answered and stay in the spool; who waits to record them is sent away in the end."""
    with release.database() as connection, connection.transaction():
        connection.execute("LOCK TABLE ledger.appearance_batches IN EXCLUSIVE MODE")
        yield
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        time.sleep(1)  # until they have gone


def end(release: Release) -> None:
    """Kill everything but PostgreSQL and the supervisor, with which PostgreSQL would end."""
    postgres = psutil.Process(release.pid("postgres"))
    kept = {postgres.pid, *(each.pid for each in postgres.children(recursive=True))}
    family = psutil.Process(release.pid("supervisor")).children(recursive=True)
    doomed = [each for each in family if each.pid not in kept]
    for each in doomed:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(doomed, timeout=20)


def put_away(release: Release) -> None:
    """Note what is there, make the database small and stop it, then the supervisor, which has been standing still."""
    with release.database() as connection:
        release.before |= noted(release, connection)
        connection.execute("VACUUM FULL")
        connection.execute("CHECKPOINT")
    postgres = psutil.Process(release.pid("postgres"))
    postgres.send_signal(signal.SIGINT)
    until(lambda: postgres.status() == psutil.STATUS_ZOMBIE, "PostgreSQL has stopped", 0.1)
    os.kill(release.pid("supervisor"), signal.SIGKILL)


def noted(release: Release, connection: psycopg.Connection[Any]) -> dict[str, Any]:
    """What the tables say: see `Before` in folders.py."""

    def rows(query: str) -> list[Any]:
        return connection.execute(query).fetchall()  # type: ignore[arg-type]

    spools = {path.stem for path in (release.folder / "spool").glob("*.spool")}
    known = {str(number) for (number,) in rows("SELECT id FROM ledger.incarnations")}
    return {
        "migrations": dict(rows("SELECT package || '/' || name, sha256 FROM pixr.migrations ORDER BY 1")),
        "counts": {table: rows(f"SELECT count(*) FROM {table}")[0][0] for table in COUNTED},
        "recorded": rows("SELECT coalesce(sum(recorded), 0)::int FROM ledger.incarnations")[0][0],
        "incarnations": sorted(spools | known),
        "jobs": dict(rows("SELECT id::text, status FROM media.jobs")),
        "open_batches": dict(rows("SELECT id, state FROM ledger.batches WHERE state IN ('planned', 'held', 'signed')")),
    }


def pack(release: Release, target: Path) -> None:
    """Everything but what each start makes again, as root's, with no times."""
    (release.folder / "before.json").write_text(json.dumps(release.before, indent=1), encoding="utf-8")

    def kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        left_out = entry.name in LEFT_OUT or entry.name.startswith(tuple(f"{name}/" for name in LEFT_OUT))
        return None if left_out else entry

    strong = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 64 << 20}]
    with lzma.open(target, "wb", filters=strong) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for entry in sorted(release.folder.iterdir()):
            archive.add(entry, entry.name, filter=kept)


def main(checkout: Path, target: Path) -> None:
    """Make `target` with the release in `checkout`."""
    commit = subprocess.run(
        ("git", "rev-parse", "HEAD"), cwd=checkout, capture_output=True, text=True, check=True
    ).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="pixr-release-") as scratch:
        alone = Path(scratch) / "alone"
        alone.mkdir()
        (alone / "sitecustomize.py").write_text(ALONE, encoding="utf-8")
        release = Release(checkout, Path(scratch) / "data", alone, {"commit": commit, "seed": SEED})
        release.pixr("up")
        captions = fill(release, Path(scratch) / "films")
        leave_open(release, Path(scratch) / "more", captions)
        put_away(release)
        pack(release, target)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
