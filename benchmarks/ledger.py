"""What the ledger does in a second: recorded appearances into the journal, and payouts planned, packed and signed.

Runs in a database of its own on the deployment's PostgreSQL, fsync on, and on a chain inside this process. The baseline
of the fold is the least that any design must do: the same bytes in bare batched INSERTs, in the same run.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import numpy as np
from psycopg import Connection, sql
from solders.account import Account
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.token.state import Mint, TokenAccount, TokenAccountState

from benchmarks.run import Figure
from cluster import database, migrations, runtime
from cluster.settings import Settings
from ledger import batches, book, packing, spool, treasury
from ledger.appearances import RECORDED, _parameters
from ledger.batches import Recipient
from ledger.chain import Chain, RpcRefusal
from ledger.fold import Fold
from ledger.localnet import blocks
from ledger.localnet.methods import RpcError, answer
from ledger.localnet.store import Store
from ledger.payouts import Payouts
from ledger.settings import Economics, LedgerSettings
from ledger.treasury import Treasury

APPEARANCES = 1_000_000
BATCH_SEARCHES, SEARCH_APPEARANCES = 100, 20
SEGMENTS, CREATORS, VIEWERS = 200_000, 20_000, 50_000
PAYEES = 10_000
POOL = 10**15
RENT = 1_488_440
BLOCKS = 33


def run(settings: Settings) -> Iterator[Figure]:
    """The fold, then payouts."""
    url, name = runtime.endpoints(settings).postgres_url, f"bench_{secrets.token_hex(4)}"
    with database.connect(url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            own = url.rsplit("/", 1)[0] + f"/{name}"
            migrations.migrate(own)
            with database.connect(own) as connection:
                book.take_epoch(connection, "bench")
                yield from _fold(connection)
                yield from _pay(connection)
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


# ── The fold ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _fold(connection: Connection[Any]) -> Iterator[Figure]:
    payloads = list(_batches())
    bare_s = _bare(connection, payloads)
    began = time.perf_counter()
    incarnation = uuid4()
    connection.execute("INSERT INTO ledger.incarnations (id, spool) VALUES (%s, 'bench')", (incarnation,))
    for number, batch in enumerate(payloads):
        connection.execute(RECORDED, _parameters(incarnation, number * BATCH_SEARCHES, batch))
        connection.commit()
    record_s = time.perf_counter() - began
    _deposit(connection)
    economics = Economics(maturity_s=0)
    accountant = Fold(connection, economics, LedgerSettings())
    began, funded, folds = time.perf_counter(), 0, 0
    while (done := accountant.run_once()) is not None:
        funded, folds = funded + done.funded, folds + 1
    fold_s = time.perf_counter() - began
    bare = f"{APPEARANCES / bare_s:,.0f}/s bare batched INSERT of the same bytes"
    yield Figure("appearances recorded", f"{APPEARANCES / record_s:,.0f}/s", bare, bare_s / record_s)
    yield Figure(
        "recorded batches to folded journal",
        f"{APPEARANCES / fold_s:,.0f} accruals/s ({funded:,} funded, {folds} folds)",
        bare,
        bare_s / fold_s,
    )


def _batches() -> Iterator[spool.Batch]:
    """Zipf-distributed moments in searches of twenty, as replicas record them."""
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
        yield spool.Batch(BATCH_SEARCHES, per_batch, payload)


def _bare(connection: Connection[Any], payloads: list[spool.Batch]) -> float:
    connection.execute("CREATE TABLE bare (id bigint PRIMARY KEY, payload bytea)")
    connection.execute("ALTER TABLE bare ALTER payload SET STORAGE EXTERNAL")
    connection.commit()
    began = time.perf_counter()
    for number, batch in enumerate(payloads):
        connection.execute("INSERT INTO bare VALUES (%s, %s)", (number, batch.payload))
        connection.commit()
    return time.perf_counter() - began


def _deposit(connection: Connection[Any]) -> None:
    for asset, kind in (("PIX", "reward_pool"), ("SOL", "platform")):
        lines = [(book.account(connection, "chain", asset), -POOL), (book.account(connection, kind, asset), POOL)]
        book.post(connection, book.Entry("deposit", f"deposit:{asset}", lines))
    book.commit(connection)


# ── Payouts ────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Node:
    """The chain, without HTTP between."""

    name = "bench"

    def __init__(self, chain: blocks.Chain) -> None:
        self.chain = chain

    async def call(self, method: str, params: list[Any]) -> Any:
        try:
            return answer(self.chain, method, params)
        except RpcError as error:
            raise RpcRefusal(error.code, error.message, error.data) from error


class _Key:
    def __init__(self, word: str) -> None:
        self._keypair = Keypair.from_seed(hashlib.sha256(word.encode()).digest())

    @property
    def pubkey(self) -> Pubkey:
        return self._keypair.pubkey()

    def sign(self, message: bytes) -> bytes:
        return bytes(self._keypair.sign_message(message))


def _pay(connection: Connection[Any]) -> Iterator[Figure]:
    chain = blocks.Chain(Store(":memory:"), seed=b"bench")
    owner, mint = _Key("treasury"), _Key("mint").pubkey
    account = packing.token_account(owner.pubkey, mint)
    payer = packing.Payer(owner.pubkey, owner.pubkey, account, mint, 6)
    rents = chain.svm.minimum_balance_for_rent_exemption(0), RENT
    chain.svm.set_account(mint, Account(RENT, bytes(Mint(None, POOL, 6, True, mint)), packing.TOKEN_PROGRAM))
    chain.svm.set_account(account, _token_account(mint, owner.pubkey, POOL))
    chain.svm.set_account(owner.pubkey, Account(10**13, b"", packing.SYSTEM_PROGRAM))
    rpc = Chain([_Node(chain)])
    own = LedgerSettings(batches_live_max=100_000, payouts_per_plan_max=100_000)
    settled = Treasury(payer, (owner,), "v1", *rents, "bench")
    treasury.bind(connection, "bench", payer)
    payees = _payees(connection, chain, mint)
    for _ in range(BLOCKS):
        chain.produce(chain.height)
    payouts = Payouts(connection, rpc, settled, Economics(maturity_s=0, payout_min_pix=1, payout_day_max_pix=POOL), own)
    yield _packing(settled, payees)
    began = time.perf_counter()
    payouts.plan()
    planned_s = time.perf_counter() - began
    signatures = payouts.sign()
    signed_s = time.perf_counter() - began
    count = _count(connection)
    yield Figure(
        "payouts planned, packed, simulated, signed and committed",
        f"{count / signed_s:,.0f}/s ({count:,} in {len(signatures)} transactions; planning {count / planned_s:,.0f}/s)",
    )
    while batches.live_count(connection):
        payouts.send()
        for _ in range(BLOCKS):
            chain.produce(chain.height)
        payouts.settle()
    paid_s = time.perf_counter() - began
    row = connection.execute("SELECT sum(lamports) FROM ledger.attempts WHERE state = 'landed'").fetchone()
    assert row is not None
    yield Figure(
        f"{count:,} creators paid on the localnet",
        f"{paid_s:.1f} s, {count / paid_s:,.0f}/s; {float(row[0]) / count:.1f} lamports of fees a recipient"
        f" (markers lock {settled.marker_rent * len(signatures) / count:,.0f} more until reclaimed)",
        "90 lamports at most with one signer",
        float(row[0]) / count / 90,
    )
    rpc.close()


def _token_account(mint: Pubkey, owner: Pubkey, amount: int) -> Account:
    data = bytes(TokenAccount(mint, owner, amount, None, TokenAccountState.Initialized, None, 0))
    return Account(RENT, data, packing.TOKEN_PROGRAM)


def _payees(connection: Connection[Any], chain: blocks.Chain, mint: Pubkey) -> list[Recipient]:
    """Creators with a wallet, a token account and something to be paid; those of the fold are left out."""
    first = CREATORS + 1
    numbers = range(first, first + PAYEES)
    accounts = book.accounts_of(connection, "payable", "creator", list(numbers))
    pool = book.account(connection, "reward_pool")
    lines = [(pool, -1000 * PAYEES), *((accounts[number], 1000) for number in numbers)]
    book.post(connection, book.Entry("accrual", "bench:payees", lines))
    found = []
    for number in numbers:
        wallet = _Key(f"creator {number}").pubkey
        address = packing.token_account(wallet, mint)
        chain.svm.set_account(address, _token_account(mint, wallet, 0))
        found.append(Recipient(number, str(wallet), str(address), 1000))
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO ledger.wallets (creator_id, wallet, set_by) VALUES (%s, %s, 'manifest')",
            [(each.creator_id, each.wallet) for each in found],
        )
    for each in found:
        batches.know_account(connection, str(mint), each, None)
    book.commit(connection)
    return found


def _packing(settled: Treasury, payees: list[Recipient]) -> Figure:
    """Only the arithmetic: batch ids, markers, instructions, bytes, signatures."""
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
    return Figure("payouts packed and signed", f"{made / spent_s:,.0f}/s", "20,000/s wanted", made / spent_s / 20_000)


def _count(connection: Connection[Any]) -> int:
    row = connection.execute("SELECT count(*) FROM ledger.payouts").fetchone()
    assert row is not None
    return int(row[0])
