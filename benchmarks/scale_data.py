"""Makes a ledger that looks as if it had worked for years: creators, payouts, and what viewers have seen, in one database.

Rows are written without the triggers that would compute them one by one, as when a dump is restored. Balances are carried
forward, as if their postings had been archived, so that the sums are right. What is not measured is left small: plans of
ended transactions name no recipients, and their signed bytes are a stub.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from psycopg import Connection

from ledger.accrual.seen import LATE_S

CREATORS, PAYOUTS, KEYS, PAIRS = 5_000_000, 20_000_000, 200_000_000, 50_000_000
PER_BATCH = 58  # payouts of a transaction
STEP_ROWS = 1_000_000
ROW_KEYS = 200_000  # of a fold
BALANCE_PIX = 1_000  # of everybody: far from a payout


@dataclass(frozen=True)
class Size:
    """The size of the data as a share of the full scale; 1 stands for five million creators."""

    share: float

    @property
    def creators(self) -> int:
        return max(1_000, round(CREATORS * self.share))

    @property
    def payouts(self) -> int:
        return max(1_000, round(PAYOUTS * self.share))

    @property
    def keys(self) -> int:
        return max(ROW_KEYS, round(KEYS * self.share))

    @property
    def pairs(self) -> int:
        return max(ROW_KEYS, round(PAIRS * self.share))

    def __str__(self) -> str:
        return f"{self.creators:,} creators, {self.payouts:,} payouts, {self.keys:,} repeat keys, {self.pairs:,} pairs"


def fill(connection: Connection[Any], size: Size) -> float:
    """Make all rows of that size; return the seconds that it took."""
    began = time.monotonic()
    with _past_triggers(connection):
        _creators(connection, size.creators)
        _payouts(connection, size)
        for keys in _pieces(size.keys):
            _seen(connection, keys)
        for count in _pieces(size.pairs):
            _pairs(connection, size.creators, count)
    connection.autocommit = True
    connection.execute("VACUUM (ANALYZE)")
    connection.execute("CHECKPOINT")
    connection.autocommit = False
    return time.monotonic() - began


@contextmanager
def _past_triggers(connection: Connection[Any]) -> Iterator[None]:
    connection.execute("SET session_replication_role = replica")
    connection.execute("SET synchronous_commit = off")
    yield
    connection.execute("RESET session_replication_role")
    connection.execute("RESET synchronous_commit")
    connection.commit()


def _pieces(count: int) -> Iterator[int]:
    for start in range(0, count, ROW_KEYS):
        yield min(ROW_KEYS, count - start)


def _stepped(connection: Connection[Any], count: int, *queries: str) -> None:
    """Run queries over the numbers from 1 to `count`, in transactions of `STEP_ROWS` numbers each."""
    for first in range(1, count + 1, STEP_ROWS):
        numbers = {"first": first, "last": min(first + STEP_ROWS - 1, count)}
        for query in queries:
            connection.execute(query, numbers)
        connection.commit()


def _creators(connection: Connection[Any], count: int) -> None:
    """Insert accounts, carried balances, wallets and their token accounts; addresses are made up, of 43 base-58 letters."""
    wallet = "left(translate(encode(sha256({}::text::bytea), 'hex'), '0', 'z'), 43)"
    numbers = "generate_series(%(first)s::bigint, %(last)s::bigint) n"
    mine, address = wallet.format("n"), wallet.format("-n")
    _stepped(
        connection,
        count,
        f"INSERT INTO ledger.accounts (kind, party, owner) SELECT 'maturing', 'creator', n FROM {numbers}",
        "WITH made AS (INSERT INTO ledger.accounts (kind, party, owner, balance)"
        f" SELECT 'payable', 'creator', n, {BALANCE_PIX} FROM {numbers} RETURNING id)"
        f" INSERT INTO ledger.carried (account_id, amount, earned, postings) SELECT id, {BALANCE_PIX}, {BALANCE_PIX}, 1"
        " FROM made",
        f"INSERT INTO ledger.wallets (creator_id, wallet, set_by) SELECT n, {mine}, 'creator' FROM {numbers}",
        "INSERT INTO ledger.wallet_changes (creator_id, new_wallet, set_by)"
        f" SELECT n, {mine}, 'creator' FROM {numbers}",
        f"INSERT INTO ledger.checked_wallets (creator_id, wallet) SELECT n, {mine} FROM {numbers}",
        "INSERT INTO ledger.token_accounts (wallet, mint, address, creator_id)"
        f" SELECT {mine}, '{'m' * 43}', {address}, n FROM {numbers}",
    )


def _payouts(connection: Connection[Any], size: Size) -> None:
    """Insert each creator's payouts, on different days, in transactions that have landed."""
    each = max(1, size.payouts // size.creators)
    batch = f"md5((n / {PER_BATCH})::text)"
    numbers = "generate_series(%(first)s::bigint, %(last)s::bigint) n"
    row = connection.execute("SELECT id FROM ledger.accounts WHERE kind = 'chain' AND asset = 'PIX'").fetchone()
    assert row is not None
    _stepped(
        connection,
        size.payouts,
        "INSERT INTO ledger.transfers (id, source, target, amount_pix, state, pending_entry, final_entry)"
        f" OVERRIDING SYSTEM VALUE SELECT n, 1 + n / {each}, {row[0]}, 5000000, 'posted', 1, 2 FROM {numbers}",
        "INSERT INTO ledger.payouts (id, creator_id, period, seq, wallet, amount_pix, transfer_id, batch_id, on_chain_pix)"
        f" OVERRIDING SYSTEM VALUE SELECT n, 1 + n / {each}, current_date - 1 - (n %% 300)::int, (n %% {each})::int,"
        f" '{'w' * 43}', 5000000, n, {batch}, 5000000 FROM {numbers}",
        "INSERT INTO ledger.batches (id, kind, state, count, amount_pix, epoch, ended_at)"
        f" SELECT {batch}, 'payout', 'posted', {PER_BATCH}, {PER_BATCH} * 5000000, 1, now() - interval '1 day'"
        f" FROM {numbers} WHERE n %% {PER_BATCH} = 0 ON CONFLICT DO NOTHING",
        "INSERT INTO ledger.attempts (batch_id, n, signature, raw, blockhash, last_valid_block_height, context_slot, epoch,"
        " state, ended_at, slot, lamports)"
        f" SELECT {batch}, 1, left(repeat({batch}, 3), 88), decode(repeat('00', 65), 'hex'), '', 1, 0, 1, 'landed',"
        f" now(), 1, 5000 FROM {numbers} WHERE n %% {PER_BATCH} = 0 ON CONFLICT DO NOTHING",
    )
    connection.execute(
        "SELECT setval(pg_get_serial_sequence('ledger.transfers', 'id'), %(n)s),"
        " setval(pg_get_serial_sequence('ledger.payouts', 'id'), %(n)s)",
        {"n": size.payouts + 1},
    )
    connection.execute(
        "INSERT INTO ledger.payout_days (period, planned_pix) SELECT period, sum(amount_pix) FROM ledger.payouts GROUP BY 1"
    )
    connection.commit()


def _seen(connection: Connection[Any], count: int) -> None:
    """Insert keys of what viewers have seen recently, as a fold stores them."""
    rng, now_s = np.random.default_rng(secrets.randbits(64)), int(time.time())
    keys = np.sort(rng.integers(0, 2**64, count, np.uint64))
    seconds = now_s - rng.integers(0, LATE_S // 4, count)
    connection.execute(
        "INSERT INTO ledger.seen_runs (keys, seconds, newest_at, mark) VALUES (%s, %s, now(), %s)",
        (keys.astype("<u8").tobytes(), seconds.astype("<u4").tobytes(), secrets.randbits(62)),
    )
    connection.commit()


def _pairs(connection: Connection[Any], creators: int, count: int) -> None:
    """Insert pairs of viewer and creator of today, ten of each viewer, as a fold stores them."""
    rng, today = np.random.default_rng(secrets.randbits(64)), int(time.time()) // 86_400
    viewers = np.repeat(rng.integers(0, 2**64, count // 10 + 1, np.uint64), 10)[:count]
    whose, amounts = rng.integers(1, creators + 1, count, np.int32), rng.integers(1, 1000, count, np.int32)
    connection.execute(
        "INSERT INTO ledger.pair_runs (viewers, creators, days, gross, net, mark, newest_day)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (viewers.astype("<u8").tobytes(), whose.astype("<i4").tobytes(), np.full(count, today, "<u2").tobytes(),
         amounts.astype("<i4").tobytes(), (amounts * 9 // 10).astype("<i4").tobytes(), secrets.randbits(62), today),
    )  # fmt: skip
    connection.commit()
