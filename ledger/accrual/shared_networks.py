"""Shared networks: how many people an operator knows to be behind one source (`[economics] shared_networks`).

The ledger has hashes of networks, never an address: so the listed ones are hashed as replicas hash them. Knows no money.
"""

from __future__ import annotations

import hashlib

import numpy as np

from cluster.settings import Settings
from ledger.accrual import pairs
from ledger.accrual.caps import Days
from ledger.accrual.runfiles import Keys
from ledger.appearances.appearances import DAY_S, Hashes
from ledger.money import Amounts
from ledger.settings import Economics


class SharedNetworks:
    """The networks of many people. Without any every source is one person."""

    def __init__(self, economics: Economics, hashes: Hashes | None = None) -> None:
        self._people = economics.people_by_network if hashes else {}
        self._hashes = hashes

    @classmethod
    def of(cls, settings: Settings) -> SharedNetworks:
        """Those of this deployment, whose secret is asked for only where there are any."""
        economics = settings.section(Economics)
        return cls(economics, Hashes(settings) if economics.shared_networks else None)

    @property
    def name(self) -> str:
        """Another one for other networks."""
        return hashlib.sha256(repr(sorted(self._people.items())).encode()).hexdigest()[:16]

    def people(self, sources: Keys, days: Days) -> Amounts:
        """How many people each of these sources' days (see `pairs.keys_of`) are of: one, where nobody knows more."""
        found = np.ones(len(sources), np.int64)
        for day in np.unique(days).tolist() if self._people else []:
            keys = self._keys(day)
            order = np.argsort(keys)
            place = order[np.minimum(np.searchsorted(keys, sources, sorter=order), len(keys) - 1)]
            known = keys[place] == sources
            found[known] = np.array(list(self._people.values()), np.int64)[place[known]]
        return found

    def _keys(self, day: int) -> Keys:
        assert self._hashes is not None
        words = [int.from_bytes(self._hashes.origin(network, day * DAY_S)[:8], "little") for network in self._people]
        return pairs.keys_of(np.array(words, np.uint64), np.full(len(words), day, np.uint16))
