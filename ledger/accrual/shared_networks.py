"""Shared networks: how many people the operator knows to be behind one network (`[economics] shared_networks`).

The ledger stores keyed hashes of networks, never an address. So the configured networks are hashed in the same way as
replicas hash viewers' networks, and the hashes are compared. Knows no money.
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
    """The configured networks with their numbers of people; a source that is not among them is one person."""

    def __init__(self, economics: Economics, hashes: Hashes | None = None) -> None:
        self._people = economics.people_by_network if hashes else {}
        self._hashes = hashes

    @classmethod
    def of(cls, settings: Settings) -> SharedNetworks:
        """Return a deployment's shared networks; the secret of the hashes is read only if any network is configured."""
        economics = settings.section(Economics)
        return cls(economics, Hashes(settings) if economics.shared_networks else None)

    @property
    def name(self) -> str:
        """A fingerprint of the configured networks and their numbers of people: 16 hex digits."""
        return hashlib.sha256(repr(sorted(self._people.items())).encode()).hexdigest()[:16]

    def people(self, sources: Keys, days: Days) -> Amounts:
        """Return how many people are behind each source on its day.

        Args:
            sources: uint64, shape (source days,). The keys of sources' days, as `pairs.keys_of` makes them.
            days: uint16, shape (source days,). The UTC day of each, in days since 1970.

        Returns:
            int64, shape (source days,): as configured, else 1.
        """
        people = np.ones(len(sources), np.int64)
        for day in np.unique(days).tolist() if self._people else []:
            keys = self._keys(day)  # (networks,)
            order = np.argsort(keys)
            network = order[np.minimum(np.searchsorted(keys, sources, sorter=order), len(keys) - 1)]  # (source days,)
            known = keys[network] == sources
            people[known] = np.array(list(self._people.values()), np.int64)[network[known]]
        return people

    def _keys(self, day: int) -> Keys:
        """Return the keys of all configured networks on a UTC day, in the order of the configuration."""
        assert self._hashes is not None
        words = [int.from_bytes(self._hashes.origin(network, day * DAY_S)[:8], "little") for network in self._people]
        return pairs.keys_of(np.array(words, np.uint64), np.full(len(words), day, np.uint16))
