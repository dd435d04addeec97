"""The directory: which account belongs to which owner, asked of the database once.

Accounts are never closed and never change their owner, so what a committed transaction has seen stays true. Like the
other things that a fold remembers, what is new counts once `accept` says that its transaction has committed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from ledger.journal import book

Ids = NDArray[np.int64]


class Directory:
    """Accounts of one kind and party, by owner."""

    def __init__(self, kind: str, party: str) -> None:
        self._kind, self._party = kind, party
        self._owners, self._accounts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._new: tuple[Ids, Ids] | None = None

    def accounts_of(self, connection: Connection[Any], owners: Ids) -> Ids:
        """The account of each owner (in ascending order, each once), opened where it is missing."""
        place = np.searchsorted(self._owners, owners)
        inside = place < len(self._owners)
        known = np.zeros(len(owners), np.bool_)
        known[inside] = self._owners[place[inside]] == owners[inside]
        found = np.zeros(len(owners), np.int64)
        found[known] = self._accounts[place[known]]
        if not known.all():
            opened = book.accounts_of(connection, self._kind, self._party, owners[~known].tolist())
            found[~known] = [opened[owner] for owner in owners[~known].tolist()]
        self._new = owners[~known], found[~known]
        return found

    def forget(self) -> None:
        """A transaction begins: what an earlier one has opened and not committed is not there."""
        self._new = None

    def accept(self) -> None:
        """The transaction that saw the new ones has committed."""
        if self._new is None:
            return
        owners, accounts = (np.append(old, new) for old, new in
                            zip((self._owners, self._accounts), self._new, strict=True))  # fmt: skip
        order = np.argsort(owners)
        self._owners, self._accounts, self._new = owners[order], accounts[order], None
