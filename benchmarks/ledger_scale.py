"""The ledger beside millions of creators, payouts and remembered repeats: does the work of every round stay as quick?

`pixr bench ledger-scale` makes a hundredth of the full scale, which takes minutes. With `--share 1`, `python -m
benchmarks.ledger_scale` makes all: 5 M creators, 20 M payouts, 200 M repeat keys and 50 M pairs of viewer and creator, which
takes about 30 GB of disk and an hour or two; a tenth takes a tenth of both. It needs a running PostgreSQL, Redis and S3; the
chain, the database and the folder are its own and are removed at the end.

The ledger works in a separate process, so that its memory can be measured: what it allocates itself, and beside that the pages
of its files, which the system caches and can take back.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import numpy as np
from psycopg import Connection, sql
from solders.keypair import Keypair

from benchmarks.ledger import SEARCH_APPEARANCES
from benchmarks.run import Figure, append, row
from benchmarks.scale_data import Size, fill
from cluster import roles, runtime
from cluster import settings as settings_module
from cluster.database import database, migrations
from cluster.errors import Temporary
from cluster.settings import Settings
from ledger.actor import Ledger, Loop
from ledger.appearances import spool
from ledger.appearances.appearances import RECORDED, parameters
from ledger.journal import book
from ledger.payouts import planning
from ledger.risk import review
from ledger.settings import Economics, LedgerSettings
from ledger.solana.treasury import Treasury

SHARE = 0.01
SLOT_MS = 50
TICKS, TICK_SEARCHES = 100, 100
DUE, DUST, PAID = 10_000, 20_000, 5
FOLDED = 1_000_000  # appearances with the chain there, and as many with it away
BATCH_SEARCHES = 100
PLANS = 5
DUE_PIX, PAID_PIX = 6_000_000, 7_000_000
WAIT_S = 300.0
TICK_MAX_S, IDLE_MAX_S, DUE_MAX_S, MEMORY_MAX_MB, START_MAX_S = 1.0, 0.05, 0.5, 2000, 30.0  # wanted


def run(settings: Settings, share: float = SHARE) -> Iterator[Figure]:
    """Make the data, and measure in another process."""
    size = Size(share)
    url = runtime.role_url(settings, roles.OWNER)
    with _database(url) as own, tempfile.TemporaryDirectory(prefix="pixr-scale-") as folder:
        with database.connect(own) as connection:
            made_s = fill(connection, size)
            held = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        assert held is not None
        yield Figure(f"made: {size}", f"{made_s:.0f} s, {held[0] / 2**30:.1f} GiB in the database")
        made = _settings(settings, own, Path(folder))
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            yield from process.submit(measure, made).result()


@contextmanager
def _database(url: str) -> Iterator[str]:
    """Yield the URL of an empty, migrated database; drop it afterwards."""
    name = f"bench_{secrets.token_hex(4)}"
    with database.connect(url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            own = url.rsplit("/", 1)[0] + f"/{name}"
            migrations.migrate(own)
            yield own
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _settings(settings: Settings, url: str, folder: Path) -> Settings:
    """Return the settings of a deployment in a folder of its own that uses the running servers and an embedded chain."""
    ends = runtime.endpoints(settings)
    made = dataclasses.replace(settings, data_dir=folder)
    s3 = dataclasses.replace(settings.s3, url=ends.s3.url, key=ends.s3.key, secret=ends.s3.secret)
    postgres = dataclasses.replace(settings.postgres, url=url, serve_url="", jobs_url="", ledger_url="", reader_url="")
    for section in (
        postgres,
        s3,
        dataclasses.replace(settings.redis, url=ends.redis_url),
        dataclasses.replace(settings.solana, urls=("embedded",)),
        LedgerSettings(
            localnet_pool_pix=10**15, tick_interval_s=0.05, reconcile_interval_s=1.0, payouts_per_plan_max=DUE
        ),
        Economics(maturity_s=0, payout_day_max_pix=10**15),
    ):
        made = made.with_section(section)
    runtime.port(made, "solana", 8899)
    return made


# ── Measuring ──────────────────────────────────────────────────────────────────────────────────────────────────────


def measure(settings: Settings) -> list[Figure]:
    """Measure everything in this process, in an order in which no part disturbs the next."""
    figures: list[Figure] = []
    with _localnet(settings) as chain, database.connect(settings.postgres.url) as connection:
        figures += _starts(settings)
        ledger = Ledger(settings)
        _until(lambda: ledger.tick() or _is_ready(ledger, connection))
        book.hold_epoch(connection, ledger.epoch)
        figures += _ticks(ledger, connection)
        figures += _review(ledger, connection)
        figures.append(_memory())
        figures += _plans(ledger, connection)
        ledger.close()
        figures += _away(settings, connection, chain)
        figures += _settling(settings, connection)
    return figures


@contextmanager
def _localnet(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    port = runtime.port(settings, "solana", 8899)
    argv = [
        sys.executable,
        "-m",
        "ledger.solana.localnet",
        "--port",
        str(port),
        "--data",
        str(settings.data_dir / "localnet"),
    ]
    process = subprocess.Popen([*argv, "--slot-ms", str(SLOT_MS)], stderr=subprocess.DEVNULL)
    try:
        _until(lambda: _answers(port))
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(20)


def _answers(port: int) -> bool:
    with suppress(httpx.HTTPError):
        return "result" in _rpc(port, "getSlot", [])
    return False


def _rpc(port: int, method: str, params: list[Any], client: httpx.Client | None = None) -> dict[str, Any]:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    post = (client or httpx).post
    found: dict[str, Any] = post(f"http://127.0.0.1:{port}", json=body, timeout=30).json()
    return found


def _until(condition: Callable[[], object], timeout_s: float = WAIT_S) -> float:
    """Wait until a condition holds; return the seconds that this took.

    Raises:
        Temporary: it does not hold within `timeout_s`.
    """
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > timeout_s:
            raise Temporary(f"the benchmark waits for something for more than {timeout_s:.0f} s")
        time.sleep(0.02)
    return time.monotonic() - began


def _is_ready(ledger: Ledger, connection: Connection[Any]) -> bool:
    """Return whether the treasury is open, its deposit is booked, and the ledger has been found to agree with the chain."""
    row = connection.execute("SELECT balance > 0 FROM ledger.accounts WHERE kind = 'reward_pool'").fetchone()
    connection.commit()
    finding = ledger.reconciling.finding
    return row == (True,) and finding is not None and finding.conclusive and finding.ok


def _starts(settings: Settings) -> Iterator[Figure]:
    """Measure a start that has to make its files from rows of the database, and one that finds them."""
    for what in ("its files to be made of rows", "its files there"):
        began = time.monotonic()
        ledger = Ledger(settings)
        ledger.folding.round()
        started_s = time.monotonic() - began
        ledger.close()
        yield Figure(f"start, {what}", f"{started_s:.1f} s", f"{START_MAX_S:.0f} s wanted", started_s / START_MAX_S)
    files = [path for path in (settings.data_dir / "seen").iterdir() if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    yield Figure("files beside the ledger", f"{size / 2**30:.2f} GiB in {len(files)}")


def _ticks(ledger: Ledger, connection: Connection[Any]) -> Iterator[Figure]:
    """Measure rounds in which all parts of the ledger work, each round with new searches to fold."""
    writer, taken = _Replica(connection), []
    for _ in range(TICKS):
        writer.record(TICK_SEARCHES)
        began = time.perf_counter()
        ledger.tick()
        taken.append(time.perf_counter() - began)
    p99 = float(np.quantile(taken, 0.99))
    value = f"p99 {p99 * 1000:.0f} ms, p50 {statistics.median(taken) * 1000:.0f} ms, longest {max(taken) * 1000:.0f} ms"
    about = f"a round of every part with {TICK_SEARCHES * SEARCH_APPEARANCES:,} appearances"
    yield Figure(about, value, f"p99 {TICK_MAX_S:.0f} s wanted", p99 / TICK_MAX_S)


def _review(ledger: Ledger, connection: Connection[Any]) -> Iterator[Figure]:
    """Measure the review of a few new appearances when all earlier ones have been judged."""
    folding = ledger.folding
    own, fold = folding._connection, folding._fold
    assert own is not None
    assert fold is not None
    began = time.perf_counter()
    review.review(own, fold.audience, folding.economics)
    first_s = time.perf_counter() - began
    _Replica(connection).record(TICK_SEARCHES)
    fold.run_once()
    began = time.perf_counter()
    review.review(own, fold.audience, folding.economics)
    next_s = time.perf_counter() - began
    yield Figure("the review of a fold", f"{next_s * 1000:.0f} ms; that of what came before {first_s:.2f} s")


def _memory() -> Figure:
    """Make the figure of the ledger's memory, which is that of this process."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    own_mb, all_mb = (int(status[name].split()[0]) / 1024 for name in ("RssAnon", "VmRSS"))
    peak_mb = int(status["VmHWM"].split()[0]) / 1024
    value = f"{own_mb:.0f} MB of its own; {all_mb:.0f} MB with pages of files, {peak_mb:.0f} MB at most"
    return Figure("memory of the ledger", value, f"{MEMORY_MAX_MB} MB wanted", own_mb / MEMORY_MAX_MB)


def _plans(ledger: Ledger, connection: Connection[Any]) -> Iterator[Figure]:
    """Measure planning when nobody is due and when many are; undo the plans."""
    rail = ledger.paying._rail
    assert rail is not None
    idle = []
    for _ in range(PLANS):
        began = time.perf_counter()
        assert planning.plan(rail) == []
        idle.append(time.perf_counter() - began)
    idle_s = max(idle)
    yield Figure("a plan with nothing due", f"{idle_s * 1000:.1f} ms at most of {PLANS}",
                 f"{IDLE_MAX_S * 1000:.0f} ms wanted", idle_s / IDLE_MAX_S)  # fmt: skip
    _owe(connection, range(1, DUE + 1), rail.treasury)
    began = time.perf_counter()
    made = planning.plan(rail)
    due_s = time.perf_counter() - began
    planned = sum(len(each.recipients) for each in made)
    yield Figure(f"a plan with {DUE:,} due", f"{due_s * 1000:.0f} ms ({planned:,} planned, as many as may be open)",
                 f"{DUE_MAX_S * 1000:.0f} ms wanted", due_s / DUE_MAX_S)  # fmt: skip
    for batch in made:
        planning.give_back(rail, batch, f"void:{batch.id}", [], {"batch": batch.id})
        rail.connection.execute(
            "UPDATE ledger.batches SET state = 'cancelled', ended_at = now() WHERE id = %s", (batch.id,)
        )
        book.commit(rail.connection)
    connection.execute("UPDATE ledger.owed SET parked_until = 'infinity'")
    connection.commit()


def _owe(connection: Connection[Any], creators: Sequence[int], treasury: Treasury) -> None:
    """Book earnings for creators, so that each is owed a payout and has a known token account."""
    connection.execute(
        "UPDATE ledger.token_accounts SET mint = %s WHERE creator_id = ANY(%s)", (treasury.mint, list(creators))
    )
    accounts = book.accounts_of(connection, "payable", "creator", list(creators))
    lines = [(book.account(connection, "reward_pool"), -DUE_PIX * len(creators)),
             *((accounts[creator], DUE_PIX) for creator in creators)]  # fmt: skip
    book.post(connection, book.Entry("accrual", f"bench:{secrets.token_hex(4)}", np.array(lines, np.int64)))
    book.commit(connection)
    connection.execute("ANALYZE ledger.owed")
    connection.commit()


def _away(settings: Settings, connection: Connection[Any], chain: subprocess.Popen[bytes]) -> Iterator[Figure]:
    """Measure folding while the chain runs, and while its process is stopped."""
    rates = []
    for is_away in (False, True):
        writer = _Replica(connection)
        for _ in range(FOLDED // (BATCH_SEARCHES * SEARCH_APPEARANCES)):
            writer.record(BATCH_SEARCHES)
        if is_away:
            chain.send_signal(signal.SIGSTOP)
        loop = Loop(settings)
        try:
            spent_s = _until(lambda: _is_folded(connection))
        finally:
            loop.stop()
            chain.send_signal(signal.SIGCONT)
        rates.append(FOLDED / spent_s)
    there, away = rates
    value = f"{away:,.0f} appearances/s, from the start of the process to the last"
    yield Figure("folding while the chain stands still", value, f"{there:,.0f}/s with it", away / there)


def _is_folded(connection: Connection[Any]) -> bool:
    row = connection.execute("SELECT coalesce(sum(recorded - folded), 0) FROM ledger.unfolded").fetchone()
    connection.commit()
    return row is not None and row[0] == 0


def _settling(settings: Settings, connection: Connection[Any]) -> Iterator[Figure]:
    """Measure the seconds from owed to settled: first undisturbed, then after strangers have sent many small deposits."""
    loop = Loop(settings)
    try:
        _until(lambda: loop.status()["state"] == "running")
        epoch = loop.status()["epoch"]
        book.hold_epoch(connection, epoch)
        creators = _with_wallets(connection)
        _pay(connection, creators)  # opens their token accounts
        quiet = [_pay(connection, creators) for _ in range(PLANS)]
        began = time.monotonic()
        _dust(settings, connection)
        sent_s = time.monotonic() - began
        busy = [_pay(connection, creators) for _ in range(PLANS)]
        left = connection.execute("SELECT count(*) FROM ledger.chain_transactions WHERE kind = 'deposit'").fetchone()
        connection.commit()
        assert left is not None
    finally:
        loop.stop()
    calm_s, under_s = statistics.median(quiet), statistics.median(busy)
    value = (f"{under_s:.1f} s beside {DUST:,} deposits of a lamport ({left[0]:,} booked meanwhile; sent in {sent_s:.0f} s);"
             f" longest {max(busy):.1f} s")  # fmt: skip
    yield Figure("from owed to settled", value, f"{calm_s:.1f} s without", under_s / calm_s)


def _with_wallets(connection: Connection[Any]) -> list[int]:
    """Make creators with wallets that exist on chain."""
    creators = [10**12 + number for number in range(PAID)]
    for creator in creators:
        connection.execute(
            "INSERT INTO ledger.wallets (creator_id, wallet, set_by) VALUES (%s, %s, 'creator')",
            (creator, str(Keypair().pubkey())),
        )
    connection.commit()
    return creators


def _pay(connection: Connection[Any], creators: Sequence[int]) -> float:
    """Book earnings for creators; return the seconds until all of these are paid."""
    accounts = book.accounts_of(connection, "payable", "creator", list(creators))
    lines = [(book.account(connection, "reward_pool"), -PAID_PIX * len(creators)),
             *((accounts[creator], PAID_PIX) for creator in creators)]  # fmt: skip
    book.post(connection, book.Entry("accrual", f"bench:{secrets.token_hex(4)}", lines))
    book.commit(connection)

    def is_paid() -> bool:
        owed = connection.execute(
            "SELECT sum(balance) FROM ledger.accounts WHERE id = ANY(%s)", (list(accounts.values()),)
        ).fetchone()
        flying = connection.execute("SELECT count(*) FROM ledger.transfers WHERE state = 'pending'").fetchone()
        connection.commit()
        return owed == (0,) and flying == (0,)

    return _until(is_paid)


def _dust(settings: Settings, connection: Connection[Any]) -> None:
    """Send lamports to the payer of fees as strangers could, as quickly as the chain takes them."""
    found = connection.execute("SELECT treasury FROM ledger.chain").fetchone()
    connection.commit()
    assert found is not None
    port = runtime.port(settings, "solana", 8899)
    with httpx.Client() as client:
        for number in range(DUST):
            _rpc(port, "requestAirdrop", [found[0], 1 + number % 1000], client)


class _Replica:
    """Records searches as a replica does, each of a different viewer."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection, self._number, self._seq = connection, uuid4(), 0
        connection.execute("INSERT INTO ledger.incarnations (id, spool) VALUES (%s, 'bench')", (self._number,))
        connection.commit()
        self._rng = np.random.default_rng(1)

    @property
    def number(self) -> UUID:
        return self._number

    def record(self, searches: int) -> None:
        """Record one batch of searches."""
        count = searches * SEARCH_APPEARANCES
        heads, rows_shown = np.zeros(searches, spool.SEARCH), np.zeros(count, spool.SHOWN)
        heads["viewer"] = [np.void(secrets.token_bytes(16)) for _ in range(searches)]
        heads["at_ms"], heads["count"] = int(time.time() * 1000), SEARCH_APPEARANCES
        rows_shown["segment_id"] = self._rng.integers(1, 10**7, count)
        rows_shown["creator_id"] = rows_shown["segment_id"] % 1_000 + 1
        rows_shown["relevance_ppm"], rows_shown["amount_pix"] = 1_000, 1
        batch = spool.AppearanceBatch(
            searches, count, spool.HEAD.pack(searches, count) + heads.tobytes() + rows_shown.tobytes()
        )
        self._connection.execute(RECORDED, parameters(self._number, self._seq, batch))
        self._connection.commit()
        self._seq += searches


def main() -> None:
    """Run the benchmark at a share of the full scale: `python -m benchmarks.ledger_scale --share 0.1`."""
    import click

    @click.command()
    @click.option("--share", type=float, default=SHARE, show_default=True, help="Of the whole.")
    @click.option("--write", is_flag=True, help="Append the figures to benchmarks/LOG.md.")
    def command(share: float, write: bool) -> None:
        for figure in run(settings_module.load(), share):
            line = row(figure, f"ledger_scale --share {share:g}")
            click.echo(line)
            if write:
                append(line)

    command()


if __name__ == "__main__":
    main()
