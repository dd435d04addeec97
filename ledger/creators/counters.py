"""Live counters: what each creator has earned, in Redis, for pages that read it every second.

The counters follow the folds of the journal; only PostgreSQL counts money. They advance in steps, from one fold to a
later one. A Lua script takes a step only if the counters stand at the fold where the step begins. So a step that is
sent twice, or by two processes, counts once. Counters that are missing or belong to another ledger are computed again
from the journal.
"""

from __future__ import annotations

import logging
from typing import Any

import redis
from psycopg import Connection

log = logging.getLogger(__name__)

# Keys follow the deployment's prefix. EARNED is a hash, by creator: base units of PIX from appearances, before reversals.
EARNED = "live:earned"
PLACE = "live:place"  # "NAME:FOLD": the ledger they belong to, and the last fold that they contain
PIECE = 10_000  # creators a call of the script
# KEYS: place, earned. ARGV: the place where the counters must stand, the place after the step, then creator and amount in turn.
STEP = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
for i = 3, #ARGV, 2 do redis.call('HINCRBY', KEYS[2], ARGV[i], ARGV[i + 1]) end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


def earned(connection: Connection[Any], creator_id: int) -> int:
    """Return the value that a creator's counter should have, computed from the journal, in base units of PIX."""
    row = connection.execute(
        "SELECT coalesce(sum(earned), 0)::bigint FROM ("
        "   SELECT p.amount AS earned FROM ledger.accounts a JOIN ledger.postings p ON p.account_id = a.id"
        "   JOIN ledger.entries e ON e.id = p.entry_id WHERE (a.party, a.owner) = ('creator', %(id)s) AND e.kind = 'accrual'"
        "   UNION ALL SELECT c.earned FROM ledger.carried c JOIN ledger.accounts a ON a.id = c.account_id"
        "   WHERE (a.party, a.owner) = ('creator', %(id)s)) parts",
        {"id": creator_id},
    ).fetchone()
    assert row is not None  # of an aggregate
    return int(row[0])


class Counters:
    """The counters of a deployment, as one writer keeps them."""

    def __init__(self, client: redis.Redis, name: str, mark: str) -> None:
        """Prepare the script.

        Args:
            client: a client of Redis.
            name: identifies this ledger; counters that were stored under another name are computed again.
            mark: the prefix of this deployment's keys, since several deployments may share a Redis.
        """
        self._client, self._name = client, name
        self._keys = [mark + PLACE, mark + EARNED]
        self._step = client.register_script(STEP)

    def follow(self, connection: Connection[Any]) -> int:
        """Add what was earned since the last call; return how many creators' counters changed.

        Raises:
            redis.RedisError: Redis does not answer. Nothing is lost: the next call adds it.
        """
        place = self._place()
        last = self._fold_of(place)
        newest = self._newest(connection)
        if last is None or last > newest:
            return self._recount(connection, newest)
        if last == newest:
            return 0
        earned = self._earned(connection, last, newest)
        if last < self._forgotten(connection):  # asked last: folds may have gone while the rest was added up
            return self._recount(connection, newest)
        return len(earned) if self._take(place, newest, earned) else 0

    def _recount(self, connection: Connection[Any], newest: int) -> int:
        """Delete all counters and compute them from the journal up to fold `newest`."""
        earned = self._all_earned(connection, newest)
        self._client.delete(*self._keys)
        taken = self._take("", newest, earned)
        log.info("live counters are counted anew", extra={"creators": len(earned), "fold": newest, "taken": taken})
        return len(earned) if taken else 0

    def _take(self, place: str, newest: int, earned: list[tuple[int, int]]) -> bool:
        """Take one step, in pieces, from `place` to fold `newest`; return whether it counted.

        Between pieces the counters stand at a place that names no fold. If the process ends there, the next call of
        `follow` computes all counters again.
        """
        pieces = [earned[start : start + PIECE] for start in range(0, len(earned), PIECE)] or [[]]
        for number, piece in enumerate(pieces, 1):
            after = f"{self._name}:{newest}" if number == len(pieces) else f"{self._name}:{newest}:{number}"
            flat = [value for pair in piece for value in pair]
            if not self._step(keys=self._keys, args=[place, after, *flat]):
                return False
            place = after
        return True

    def _place(self) -> str:
        found = self._client.get(self._keys[0])
        return found.decode() if isinstance(found, bytes) else ""

    def _fold_of(self, place: str) -> int | None:
        name, _, fold = place.partition(":")
        return int(fold) if name == self._name and fold.isdecimal() else None

    def _newest(self, connection: Connection[Any]) -> int:
        row = connection.execute("SELECT coalesce(max(id), 0) FROM ledger.folds").fetchone()
        assert row is not None  # of an aggregate
        return max(int(row[0]), self._forgotten(connection))

    def _forgotten(self, connection: Connection[Any]) -> int:
        """Return the last fold that is archived and gone from the table; 0 for none."""
        row = connection.execute("SELECT upto FROM ledger.forgotten WHERE kind = 'folds'").fetchone()
        return int(row[0]) if row else 0

    def _earned(self, connection: Connection[Any], after: int, until: int) -> list[tuple[int, int]]:
        rows = connection.execute(
            "SELECT a.owner, sum(p.amount)::bigint FROM ledger.folds f JOIN ledger.postings p ON p.entry_id = f.entry_id"
            " JOIN ledger.accounts a ON a.id = p.account_id WHERE f.id > %s AND f.id <= %s AND a.party = 'creator'"
            " GROUP BY a.owner ORDER BY a.owner",
            (after, until),
        ).fetchall()
        return [(int(owner), int(amount)) for owner, amount in rows]

    def _all_earned(self, connection: Connection[Any], until: int) -> list[tuple[int, int]]:
        """Return what each creator has earned by all folds up to `until`, including folds whose entries are archived."""
        rows = connection.execute(
            "SELECT a.owner, sum(e.earned)::bigint FROM ("
            "   SELECT p.account_id, p.amount AS earned FROM ledger.entries e JOIN ledger.postings p ON p.entry_id = e.id"
            "   WHERE e.kind = 'accrual' AND e.id > coalesce((SELECT upto FROM ledger.forgotten WHERE kind = 'journal'), 0)"
            "     AND e.id < coalesce("  # folds after `until` are never archived yet
            "     (SELECT entry_id FROM ledger.folds WHERE id > %s AND entry_id IS NOT NULL ORDER BY id LIMIT 1),"
            "     (SELECT entry_id + 1 FROM ledger.chain_head))"
            "   UNION ALL SELECT account_id, earned FROM ledger.carried WHERE earned <> 0) e"
            " JOIN ledger.accounts a ON a.id = e.account_id WHERE a.party = 'creator' GROUP BY a.owner ORDER BY a.owner",
            (until,),
        ).fetchall()
        return [(int(owner), int(amount)) for owner, amount in rows]
