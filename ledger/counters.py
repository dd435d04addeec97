"""Live counters: what each creator has earned, in Redis, for pages that look every second.

They follow the folds of the journal and never lead: money is counted in PostgreSQL alone. A script takes a step only
if the counters stand where the step begins, so that a step that is sent twice, or by two, counts once; counters that
were dropped, or that belong to another ledger, are counted anew from the journal.
"""

from __future__ import annotations

import logging
from typing import Any

import redis
from psycopg import Connection

log = logging.getLogger(__name__)

# After the deployment's mark. By creator: base units from appearances so far, before what was taken back.
EARNED = "live:earned"
PLACE = "live:place"  # whose they are, and the last fold that they contain
PIECE = 10_000  # creators a call
# KEYS: place, earned. ARGV: where the counters must stand, where they then stand, then creator and amount in turn.
STEP = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
for i = 3, #ARGV, 2 do redis.call('HINCRBY', KEYS[2], ARGV[i], ARGV[i + 1]) end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


def earned(connection: Connection[Any], creator_id: int) -> int:
    """What a counter would say of a creator, from the journal."""
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
    """The counters of a deployment as one writer keeps them; `name` tells it from every other, before and after it.

    `mark` is the deployment's own (`runtime.mark`): another one on the same Redis has creators of the same numbers.
    """

    def __init__(self, client: redis.Redis, name: str, mark: str) -> None:
        self._client, self._name = client, name
        self._keys = [mark + PLACE, mark + EARNED]
        self._step = client.register_script(STEP)

    def follow(self, connection: Connection[Any]) -> int:
        """Count the folds since the last look; returns how many creators moved.

        Raises:
            redis.RedisError: Redis does not answer. Nothing is lost: the next look takes it in.
        """
        place = self._place()
        last = self._fold_of(place)
        newest = self._newest(connection)
        if last is None or last > newest:
            return self._anew(connection, newest)
        if last == newest:
            return 0
        earned = self._earned(connection, last, newest)
        if last < self._forgotten(connection):  # asked last: folds may have gone while the rest was added up
            return self._anew(connection, newest)
        return len(earned) if self._take(place, newest, earned) else 0

    def _anew(self, connection: Connection[Any], newest: int) -> int:
        """All of it, after whatever stood there is gone."""
        earned = self._all_earned(connection, newest)
        self._client.delete(*self._keys)
        taken = self._take("", newest, earned)
        log.info("live counters are counted anew", extra={"creators": len(earned), "fold": newest, "taken": taken})
        return len(earned) if taken else 0

    def _take(self, place: str, newest: int, earned: list[tuple[int, int]]) -> bool:
        """One step in pieces; each but the last leaves the counters at a place of its own, which `follow` counts anew."""
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
        """Up to which fold the table has none any more: they are archived, as while Redis was away for weeks."""
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
        """Of all folds up to one, also of those that are archived: carried forward, or postings of entries of their kind."""
        rows = connection.execute(
            "SELECT a.owner, sum(e.earned)::bigint FROM ("
            "   SELECT p.account_id, p.amount AS earned FROM ledger.entries e JOIN ledger.postings p ON p.entry_id = e.id"
            "   WHERE e.kind = 'accrual' AND e.id > coalesce((SELECT upto FROM ledger.forgotten WHERE kind = 'journal'), 0)"
            "     AND e.id < coalesce("  # folds of after `until` are there whatever has gone before them
            "     (SELECT entry_id FROM ledger.folds WHERE id > %s AND entry_id IS NOT NULL ORDER BY id LIMIT 1),"
            "     (SELECT entry_id + 1 FROM ledger.chain_head))"
            "   UNION ALL SELECT account_id, earned FROM ledger.carried WHERE earned <> 0) e"
            " JOIN ledger.accounts a ON a.id = e.account_id WHERE a.party = 'creator' GROUP BY a.owner ORDER BY a.owner",
            (until,),
        ).fetchall()
        return [(int(owner), int(amount)) for owner, amount in rows]
