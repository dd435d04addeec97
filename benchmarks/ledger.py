"""The ledger's throughput: recorded appearances folded into the journal, and payouts planned, packed and signed.

Runs in databases of its own on the deployment's PostgreSQL, with fsync on, and on a chain inside this process. The baseline
of the fold is the least that any design must do: the same bytes in bare batched INSERTs, in the same run.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import numpy as np
from psycopg import Connection, sql
from solders.pubkey import Pubkey

from benchmarks.run import Figure
from cluster import roles, runtime
from cluster.database import database, migrations
from cluster.settings import Settings
from ledger.accrual.fold import Fold
from ledger.appearances import spool
from ledger.appearances.appearances import RECORDED, parameters
from ledger.journal import book
from ledger.payouts import batches, planning, settling, signing
from ledger.payouts.batches import BatchLine
from ledger.settings import Economics, LedgerSettings
from ledger.solana import packing, treasury
from ledger.solana.chain import Chain
from ledger.solana.localnet import blocks, inside
from ledger.solana.treasury import Treasury
from ledger.solana_rail import trials
from ledger.solana_rail.solana_rail import SolanaRail

APPEARANCES = 6_000_000
BARE_RUNS = 3  # of which the median counts
BATCH_SEARCHES, SEARCH_APPEARANCES = 100, 20
SEGMENTS, CREATORS, VIEWERS = 200_000, 20_000, 50_000
PAYEES = 10_000
PAYOUT_PIX = 1000
POOL, GAS = 10**15, 10**13
BLOCKS = blocks.FINALITY_BLOCKS + 1
LAMPORTS_MAX = {"one signer": 90, "a separate gas payer": 175}  # wanted, for each recipient


def run(settings: Settings) -> Iterator[Figure]:
    """Measure the fold, then payouts."""
    url = runtime.role_url(settings, roles.OWNER)
    with _database(url) as connection:
        yield from _fold(connection)
    for payer in LAMPORTS_MAX:
        with _database(url) as connection:
            yield from _pay(connection, payer)


@contextmanager
def _database(url: str) -> Iterator[Connection[Any]]:
    """Yield a connection to a new ledger database whose epoch this process has taken; drop it afterwards."""
    name = f"bench_{secrets.token_hex(4)}"
    with database.connect(url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            own = url.rsplit("/", 1)[0] + f"/{name}"
            migrations.migrate(own)
            with database.connect(own) as connection:
                book.take_epoch(connection, "bench")
                _deposit(connection)
                yield connection
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _deposit(connection: Connection[Any]) -> None:
    for asset, kind in (("PIX", "reward_pool"), ("SOL", "platform")):
        lines = [(book.account(connection, "chain", asset), -POOL), (book.account(connection, kind, asset), POOL)]
        book.post(connection, book.Entry("deposit", f"deposit:{asset}", lines))
    book.commit(connection)


# ── The fold ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _fold(connection: Connection[Any]) -> Iterator[Figure]:
    payloads = list(_batches())
    bare_s = statistics.median(_bare(connection, payloads) for _ in range(BARE_RUNS))
    _settle(connection)
    began = time.perf_counter()
    incarnation = uuid4()
    connection.execute("INSERT INTO ledger.incarnations (id, spool) VALUES (%s, 'bench')", (incarnation,))
    for number, batch in enumerate(payloads):
        connection.execute(RECORDED, parameters(incarnation, number * BATCH_SEARCHES, batch))
        connection.commit()
    record_s = time.perf_counter() - began
    _settle(connection)
    accountant = Fold(connection, Economics(maturity_s=0), LedgerSettings())
    began, funded, ends = time.perf_counter(), 0, [0.0]
    while (done := accountant.run_once()) is not None:
        funded += done.funded
        ends.append(time.perf_counter() - began)
    fold_s = ends[-1]
    bare = f"{APPEARANCES / bare_s:,.0f}/s bare batched INSERT of the same bytes"
    yield Figure("appearances recorded", f"{APPEARANCES / record_s:,.0f}/s", bare, bare_s / record_s)
    yield Figure(
        "recorded batches to folded journal",
        f"{APPEARANCES / fold_s:,.0f} accruals/s ({funded:,} funded; folds took "
        f"{', '.join(f'{after - before:.1f}' for before, after in itertools.pairwise(ends))} s, the first opens the accounts)",
        bare,
        bare_s / fold_s,
    )
    yield _stages(accountant, fold_s)


def _stages(accountant: Fold, fold_s: float) -> Figure:
    """Make a figure of the fold's milliseconds by stage, per 100,000 accruals.

    The stages of the thread that talks to the database come first, then those of the thread that computes beside it.
    """
    each = {stage: f"{spent_s * 1e8 / APPEARANCES:.1f} {stage}" for stage, spent_s in accountant.stages.spent_s.items()}
    writing = [text for stage, text in each.items() if stage.startswith("write") or stage in ("read", "commit")]
    computing = [text for text in each.values() if text not in writing]
    value = f"{fold_s * 1e8 / APPEARANCES:.1f}; database: {', '.join(writing)}; beside it: {', '.join(computing)}"
    return Figure("fold, ms per 100,000 accruals", value)


def _batches() -> Iterator[spool.AppearanceBatch]:
    """Yield batches of searches with twenty Zipf-distributed moments each, as replicas record them."""
    rng = np.random.default_rng(1)
    at_ms = int(time.time() * 1000)
    per_batch = BATCH_SEARCHES * SEARCH_APPEARANCES
    for _ in range(APPEARANCES // per_batch):
        heads = np.zeros(BATCH_SEARCHES, spool.SEARCH)
        viewers = rng.integers(0, VIEWERS, BATCH_SEARCHES)
        heads["viewer"] = [np.void(hashlib.sha256(viewer.tobytes()).digest()[:16]) for viewer in viewers]
        heads["at_ms"], heads["count"] = at_ms, SEARCH_APPEARANCES
        rows = np.zeros(per_batch, spool.SHOWN)
        rows["segment_id"] = rng.zipf(1.2, per_batch) % SEGMENTS + 1
        rows["creator_id"] = rows["segment_id"] % CREATORS + 1
        rows["relevance_ppm"] = rng.integers(0, 1_000_000, per_batch)
        rows["amount_pix"] = rows["relevance_ppm"] // 1000
        payload = spool.HEAD.pack(BATCH_SEARCHES, per_batch) + heads.tobytes() + rows.tobytes()
        yield spool.AppearanceBatch(BATCH_SEARCHES, per_batch, payload)


def _bare(connection: Connection[Any], payloads: list[spool.AppearanceBatch]) -> float:
    connection.execute("CREATE TABLE bare (id bigint PRIMARY KEY, payload bytea)")
    connection.execute("ALTER TABLE bare ALTER payload SET STORAGE EXTERNAL")
    connection.commit()
    _settle(connection)
    began = time.perf_counter()
    for number, batch in enumerate(payloads):
        connection.execute("INSERT INTO bare VALUES (%s, %s)", (number, batch.payload))
        connection.commit()
    spent_s = time.perf_counter() - began
    connection.execute("DROP TABLE bare")
    connection.commit()
    return spent_s


# ── Payouts ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _pay(connection: Connection[Any], payer: str) -> Iterator[Figure]:
    """Measure payouts step by step, from what the ledger owes creators until they have it on chain."""
    chain = inside.new_chain(b"bench")
    settled = inside.put_treasury(chain, "bench", POOL, GAS, separate_gas=payer != "one signer")
    treasury.bind(connection, "bench", settled.payer, "bench")
    payees = _payees(connection, chain, settled.payer.mint)
    inside.advance(chain, BLOCKS)
    rpc = Chain([inside.LocalNode("bench", chain)])
    own = LedgerSettings(batches_live_max=100_000, payouts_per_plan_max=100_000)
    economics = Economics(maturity_s=0, payout_min_pix=1, payout_day_max_pix=POOL)
    rail = SolanaRail(connection, rpc, settled, economics, own)
    yield _packing(settled, payees, payer)
    began = time.perf_counter()
    planned = planning.plan(rail)
    planned_s = time.perf_counter() - began
    paused = time.perf_counter()
    simulated_s = _simulation(rail)
    began += time.perf_counter() - paused
    signatures = signing.sign(rail, planned)
    signed_s = time.perf_counter() - began
    ours_s = signed_s - simulated_s
    yield Figure(
        f"payouts planned, packed, signed and committed, {payer}",
        f"{PAYEES / ours_s:,.0f}/s ({PAYEES:,} in {len(planned)} transactions; planning {planned_s:.2f} s, packing and signing"
        f" {ours_s - planned_s:.2f} s; with the chain's simulation of each before it is signed, another"
        f" {simulated_s:.2f} s, {PAYEES / signed_s:,.0f}/s)",
        "20,000/s wanted",
        PAYEES / ours_s / 20_000,
    )
    while batches.live_count(connection):
        signing.send(rail, signatures)
        inside.advance(chain, BLOCKS)
        settling.settle(rail)
    paid_s = time.perf_counter() - began
    row = connection.execute("SELECT sum(lamports) FROM ledger.attempts WHERE state = 'landed'").fetchone()
    assert row is not None
    lamports = float(row[0]) / PAYEES
    yield Figure(
        f"{PAYEES:,} creators paid on the localnet, {payer}",
        f"{paid_s:.1f} s, {PAYEES / paid_s:,.0f}/s; {lamports:.1f} lamports of fees a recipient; apart from that rent:"
        f" {settled.marker_rent * len(signatures) / PAYEES:,.0f} in markers until reclaimed,"
        f" {settled.account_rent:,} once for a creator who has no token account",
        f"{LAMPORTS_MAX[payer]} lamports at most",
        lamports / LAMPORTS_MAX[payer],
    )
    rpc.close()


def _simulation(rail: SolanaRail) -> float:
    """Return the seconds that simulating all planned batches takes; signing them includes one more simulation."""
    planned = batches.planned(rail.connection, PAYEES)
    built = [[*trials.guards_of(rail, batch, []), *trials.instructions_of(rail, batch)] for batch in planned]
    raws = [rail.treasury.unsigned(each) for each in built]
    began = time.perf_counter()
    assert all(each.error is None for each in rail.chain.simulate_all(raws))
    return time.perf_counter() - began


def _payees(connection: Connection[Any], chain: blocks.LocalChain, mint: Pubkey) -> list[BatchLine]:
    """Make creators with a wallet, a token account and a balance to be paid."""
    numbers = range(1, PAYEES + 1)
    accounts = book.accounts_of(connection, "payable", "creator", list(numbers))
    pool = book.account(connection, "reward_pool")
    lines = [(pool, -PAYOUT_PIX * PAYEES), *((accounts[number], PAYOUT_PIX) for number in numbers)]
    book.post(connection, book.Entry("accrual", "bench:payees", lines))
    found = []
    for number in numbers:
        wallet = inside.Key(f"creator {number}").pubkey
        address = packing.token_account(wallet, mint)
        chain.svm.set_account(address, inside.token_account(mint, wallet))
        found.append(BatchLine(number, str(wallet), str(address), PAYOUT_PIX))
    with connection.cursor() as cursor:
        cursor.executemany(
            "WITH w AS (INSERT INTO ledger.wallets (creator_id, wallet, set_by) VALUES (%s, %s, 'manifest')"
            " RETURNING creator_id, wallet) INSERT INTO ledger.checked_wallets (creator_id, wallet) SELECT * FROM w",
            [(each.creator_id, each.wallet) for each in found],
        )
    for each in found:
        batches.know_account(connection, str(mint), each, None)
    book.commit(connection)
    connection.execute("ANALYZE")  # as PostgreSQL does by itself a minute after so many rows
    connection.commit()
    _settle(connection)
    return found


def _settle(connection: Connection[Any]) -> None:
    """Make PostgreSQL write its dirty pages (CHECKPOINT), so that this is not done while the next part is timed."""
    connection.execute("CHECKPOINT")
    connection.commit()


def _packing(settled: Treasury, payees: list[BatchLine], payer: str) -> Figure:
    """Measure only the computation for payouts, without database and chain: markers, instructions, bytes, signatures."""
    size = settled.capacity("payout")
    began = time.perf_counter()
    made = 0
    for start in range(0, len(payees), size):
        chunk = payees[start : start + size]
        mark = settled.marker(hashlib.sha256(str(start).encode()).hexdigest()[:32])
        pays = [packing.pay(settled.payer, Pubkey.from_string(each.address), each.amount) for each in chunk]
        raw = settled.signed([packing.create_marker(settled.payer, mark), *pays], str(Pubkey.default()), 100_000)
        made += len(chunk) if packing.signature_of(raw) else 0
    spent_s = time.perf_counter() - began
    return Figure(
        f"payouts packed and signed, {payer}", f"{made / spent_s:,.0f}/s", "20,000/s wanted", made / spent_s / 20_000
    )
