"""The directory: a cache of which account belongs to which owner.

Accounts are never closed and never change their owner, so what a committed transaction has read stays true. `accept`
adds the accounts that a fold has read or opened to the cache, after the fold's commit. Knows one kind of accounts of
one party.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from ledger.journal import book

Ids = NDArray[np.int64]


class Directory:
    """Accounts of one kind and party, by owner: `_owners` ascends, `_accounts` has the account of each."""

    def __init__(self, kind: str, party: str) -> None:
        self._kind, self._party = kind, party
        self._owners, self._accounts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._new: tuple[Ids, Ids] | None = None  # owners and accounts of the transaction under way

    def accounts_of(self, connection: Connection[Any], owners: Ids) -> Ids:
        """Look up the accounts of some owners; open those that are missing.

        Args:
            connection: in the transaction of the fold.
            owners: int64, shape (owners,), ascending, each once.

        Returns:
            int64, shape (owners,): their accounts.
        """
        place = np.searchsorted(self._owners, owners)
        inside = place < len(self._owners)
        known = np.zeros(len(owners), np.bool_)
        known[inside] = self._owners[place[inside]] == owners[inside]
        accounts = np.zeros(len(owners), np.int64)
        accounts[known] = self._accounts[place[known]]
        if not known.all():
            opened = book.accounts_of(connection, self._kind, self._party, owners[~known].tolist())
            accounts[~known] = [opened[owner] for owner in owners[~known].tolist()]
        self._new = owners[~known], accounts[~known]
        return accounts

    def forget(self) -> None:
        """Drop the accounts that a transaction has read or opened without committing. Called before the next one."""
        self._new = None

    def accept(self) -> None:
        """Add the accounts that the transaction has read or opened. Call this after its commit."""
        if self._new is None:
            return
        owners, accounts = (np.append(old, new) for old, new in
                            zip((self._owners, self._accounts), self._new, strict=True))  # fmt: skip
        order = np.argsort(owners)
        self._owners, self._accounts, self._new = owners[order], accounts[order], None
