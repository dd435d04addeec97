"""The localnet's store: accounts, accepted transactions and their history, in one SQLite file.

A block is written in one transaction, with the accounts that it changed and their values before it, so that reads at
`finalized` stay true after a restart. With `synchronous=FULL` everything is on disk before a request is answered. Knows
rows, not Solana.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS accounts (pubkey BLOB PRIMARY KEY, account BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS undo (height INTEGER, pubkey BLOB, account BLOB, PRIMARY KEY (height, pubkey)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS accepted (signature TEXT PRIMARY KEY, raw BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS transactions (
    signature TEXT PRIMARY KEY, height INTEGER NOT NULL, place INTEGER NOT NULL, time INTEGER NOT NULL,
    raw BLOB NOT NULL, error TEXT, meta TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS transactions_height ON transactions (height);
CREATE TABLE IF NOT EXISTS mentions (
    pubkey BLOB, height INTEGER, place INTEGER, signature TEXT NOT NULL,
    PRIMARY KEY (pubkey, height, place)) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Landed:
    """A transaction in a block; `error` and `meta` are JSON."""

    signature: str
    height: int
    place: int
    time: int
    raw: bytes
    error: str | None
    meta: str


@dataclass(frozen=True)
class Change:
    """An account's bytes before and after a block; None if it does not exist at that time."""

    pubkey: bytes
    before: bytes | None
    after: bytes | None


class LocalnetStore:
    """The tables of one localnet, in a file or in `:memory:`."""

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(TABLES)

    def close(self) -> None:
        self._db.close()

    def meta(self, key: str) -> bytes | None:
        """Return a value by its name."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def set_meta(self, key: str, value: bytes) -> None:
        """Set a value by its name."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def accounts(self) -> Iterable[tuple[bytes, bytes]]:
        """Return every account: address and bytes."""
        return self._db.execute("SELECT pubkey, account FROM accounts")

    def undo(self) -> Iterable[tuple[int, bytes, bytes | None]]:
        """Return the values with which to undo recent blocks, the oldest block first.

        Each is the height of a block, an address, and the account before that block.
        """
        return self._db.execute("SELECT height, pubkey, account FROM undo ORDER BY height")

    def accept(self, rows: Sequence[tuple[str, bytes]]) -> None:
        """Store transactions that wait for a block: signature and bytes. They are on disk when this returns."""
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR IGNORE INTO accepted VALUES (?, ?)", rows)
        self._db.execute("COMMIT")

    def accepted(self) -> list[tuple[str, bytes]]:
        """Return transactions that wait for a block, in the order they arrived."""
        return self._db.execute("SELECT signature, raw FROM accepted ORDER BY rowid").fetchall()

    def add_block(
        self,
        height: int,
        landed: Sequence[tuple[Landed, Sequence[bytes]]],
        changes: Sequence[Change],
        done: Sequence[str],
        undo_from: int,
    ) -> None:
        """Write one block.

        Args:
            height: the height of the block.
            landed: its transactions, each with the addresses that it names.
            changes: the accounts that it has changed.
            done: signatures of transactions that have left the queue, landed or not.
            undo_from: the lowest height that can still be undone.
        """
        db = self._db
        db.execute("BEGIN")
        db.execute("INSERT OR REPLACE INTO meta VALUES ('height', ?)", (str(height).encode(),))
        for each, keys in landed:
            row = (each.signature, each.height, each.place, each.time, each.raw, each.error, each.meta)
            db.execute("INSERT INTO transactions VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            db.executemany(
                "INSERT OR IGNORE INTO mentions VALUES (?, ?, ?, ?)",
                [(key, height, each.place, each.signature) for key in keys],
            )
        for change in changes:
            db.execute("INSERT INTO undo VALUES (?, ?, ?)", (height, change.pubkey, change.before))
            if change.after is None:
                db.execute("DELETE FROM accounts WHERE pubkey = ?", (change.pubkey,))
            else:
                db.execute("INSERT OR REPLACE INTO accounts VALUES (?, ?)", (change.pubkey, change.after))
        db.executemany("DELETE FROM accepted WHERE signature = ?", [(signature,) for signature in done])
        db.execute("DELETE FROM undo WHERE height < ?", (undo_from,))
        db.execute("COMMIT")

    def drop_block(self, height: int, restored: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Delete a block that a fork has abandoned; set its accounts back to `restored`."""
        db = self._db
        db.execute("BEGIN")
        for table in ("transactions", "mentions", "undo"):
            db.execute(f"DELETE FROM {table} WHERE height = ?", (height,))
        for pubkey, account in restored:
            if account is None:
                db.execute("DELETE FROM accounts WHERE pubkey = ?", (pubkey,))
            else:
                db.execute("INSERT OR REPLACE INTO accounts VALUES (?, ?)", (pubkey, account))
        db.execute("COMMIT")

    def transaction(self, signature: str) -> Landed | None:
        """Return a transaction that is in a block."""
        row = self._db.execute("SELECT * FROM transactions WHERE signature = ?", (signature,)).fetchone()
        return Landed(*row) if row else None

    def mentions(
        self, pubkey: bytes, *, before: Landed | None, until: Landed | None, height_max: int, limit: int
    ) -> list[Landed]:
        """Return transactions that name an account, newest first.

        Args:
            pubkey: the account's address.
            before: only transactions older than this one; None for all.
            until: only transactions newer than this one; None for all.
            height_max: only transactions in blocks up to this height.
            limit: transactions at most.

        Returns:
            The transactions, without `until` and `before` themselves.
        """
        upper = (before.height, before.place) if before else (height_max + 1, 0)
        lower = (until.height, until.place) if until else (-1, 0)
        rows = self._db.execute(
            "SELECT t.* FROM mentions m JOIN transactions t USING (signature) WHERE m.pubkey = ? AND m.height <= ?"
            " AND (m.height, m.place) < (?, ?) AND (m.height, m.place) > (?, ?)"
            " ORDER BY m.height DESC, m.place DESC LIMIT ?",
            (pubkey, height_max, *upper, *lower, limit),
        )
        return [Landed(*row) for row in rows]
