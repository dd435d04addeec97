"""The treasury's side of the truth: what each transaction has changed on it, and which of them the journal has booked.

By this every difference between the chain and the journal has its parts: transactions that are not booked, each with a reason,
and lamports that no transaction has brought.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from solders.transaction import VersionedTransaction

from tests.ledger.chains import GAS, POOL
from tests.ledger.simulator.lies import changes

if TYPE_CHECKING:
    from tests.ledger.simulator.world import World

PARTS_MAX = 12  # of a difference, of which every sum is tried
READ_MAX = 1_000_000
Change = tuple[int, int]  # of the treasury's tokens, and of the lamports of who pays its fees

BOOKED = """
    SELECT signature FROM ledger.attempts WHERE state IN ('landed', 'failed')
    UNION SELECT signature FROM ledger.chain_transactions WHERE kind <> 'unknown'"""
HELD = """
    SELECT coalesce(-sum(balance) FILTER (WHERE asset = 'PIX'), 0)::bigint,
           coalesce(-sum(balance) FILTER (WHERE asset = 'SOL'), 0)::bigint
    FROM ledger.accounts WHERE kind = 'chain' AND party = '' AND owner = 0"""
CORRECTED = """
    SELECT coalesce(-sum(p.amount) FILTER (WHERE a.asset = 'PIX'), 0)::bigint,
           coalesce(-sum(p.amount) FILTER (WHERE a.asset = 'SOL'), 0)::bigint
    FROM ledger.entries e JOIN ledger.postings p ON p.entry_id = e.id JOIN ledger.accounts a ON a.id = p.account_id
    WHERE e.kind = 'correction' AND a.kind = 'chain' AND a.party = ''"""


def effects(world: World) -> dict[str, Change]:
    """Return what each final transaction has changed on the treasury, if anything; the oldest first."""
    found: dict[str, Change] = {}
    payer, chain = world.treasury.payer, world.chain
    for address in {bytes(payer.token_account), bytes(payer.gas)}:
        for each in reversed(chain.store.mentions(address, before=None, until=None, height_max=chain.height_at("finalized"),
                                                  limit=READ_MAX)):  # fmt: skip
            if each.signature not in found:
                keys = VersionedTransaction.from_bytes(each.raw).message.account_keys
                change = changes(payer, [str(key) for key in keys], json.loads(each.meta))
                if any(change):
                    found[each.signature] = change
    return found


def unbooked(world: World) -> dict[str, Change]:
    """Return those that the journal has not booked."""
    booked = {row[0] for row in world.ground.rows(BOOKED)}
    return {signature: change for signature, change in effects(world).items() if signature not in booked}


def corrected(world: World) -> Change:
    """Return by how much corrections have changed what the journal says that the chain holds."""
    pix, lamports = world.ground.rows(CORRECTED)[0]
    return pix, lamports


def check_booked(world: World) -> None:
    """Check that the journal's view of the chain is the first balance, booked transactions and corrections."""
    booked = {row[0] for row in world.ground.rows(BOOKED)}
    done = [change for signature, change in effects(world).items() if signature in booked]
    held, corrections = world.ground.rows(HELD)[0], corrected(world)
    wanted = tuple(first + sum(each[n] for each in done) + corrections[n] for n, first in enumerate((POOL, GAS)))
    if tuple(held) != wanted:
        world.truth.found("booked", f"the journal has {held} on chain, transactions that are booked come to {wanted}")


def is_sum_of(difference: Change, parts: Sequence[Change], others: Iterable[Change]) -> bool:
    """Return whether a difference is one of `others` plus some of these parts; True if there are too many to try."""
    if len(parts) > PARTS_MAX:
        return True
    for other in others:
        for count in range(len(parts) + 1):
            for some in combinations(parts, count):
                if all(other[n] + sum(each[n] for each in some) == difference[n] for n in (0, 1)):
                    return True
    return False
