"""The rows of payouts: batches, payouts, transfers, attempts and markers, with all the SQL that touches them.

Every change of state is a transaction of the caller's that the database checks (see ledger/schema): a batch has at most
one live attempt, what has ended never changes, and only the holder of the epoch writes. Knows no RPC and no key.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from psycopg import Connection
from psycopg.types.json import Json, Jsonb

from ledger.journal import book
from ledger.payouts.owed import Due
from ledger.settings import Economics

Conn = Connection[Any]


class BatchLine(NamedTuple):
    """One line of a batch.

    Its amount is base units above 0 for a payout, 0 for an account to open, and lamports for a marker to empty.
    """

    creator_id: int
    wallet: str
    address: str
    amount: int = 0


@dataclass(frozen=True)
class Batch:
    """Payouts, openings or reclaims that go out in one transaction."""

    id: str
    kind: str
    state: str
    amount_pix: int
    recipients: tuple[BatchLine, ...]
    attempts: int = 0


@dataclass(frozen=True)
class Attempt:
    """One signed transaction of a batch. `raw` is its bytes, `n` counts the attempts of the batch from 1."""

    batch: Batch
    n: int
    signature: str
    raw: bytes
    last_valid_block_height: int
    context_slot: int = 0
    state: str = "live"
    age_s: float = 0.0  # since it was signed, by the database's clock


class Payout(NamedTuple):
    """One creator's payout in a batch, and the account that it was taken from."""

    id: int
    creator_id: int
    amount_pix: int
    source: int


DUE_COLUMNS = ("creator_id", "account_id", "amount_pix", "wallet", "seq")

# ── Planning ───────────────────────────────────────────────────────────────────────────────────────────────────────

# What keeps a batch from being signed or sent for the first time: a recipient who was stopped since it was planned.
STOPPED = """
    SELECT b.id, s.creator_id FROM ledger.batches b,
        LATERAL (SELECT (r->>0)::bigint AS creator_id, r->>1 AS wallet FROM jsonb_array_elements(b.plan->'recipients') r) s
        LEFT JOIN ledger.wallets w ON w.creator_id = s.creator_id
    WHERE b.id = ANY(%s) AND b.kind IN ('payout', 'accounts') AND (
        w.wallet IS DISTINCT FROM s.wallet OR w.hold_until > now()
        OR EXISTS (SELECT FROM ledger.holds h WHERE h.creator_id = s.creator_id AND h.released_at IS NULL AND NOT h.partial
                   AND (h.until IS NULL OR h.until > now()))
        OR CASE WHEN b.kind = 'payout'
                     AND EXISTS (SELECT FROM ledger.holds h
                                 WHERE h.creator_id = s.creator_id AND h.partial AND h.released_at IS NULL)
                THEN ledger.withheld(s.creator_id) > (
                    SELECT balance FROM ledger.accounts
                    WHERE (kind, party, owner, asset) = ('payable', 'creator', s.creator_id, 'PIX')) END)
    ORDER BY b.id, s.creator_id"""


def stopped(connection: Conn, batch_ids: Sequence[str]) -> dict[str, set[int]]:
    """Return which of these batches must not go out as planned, each with the creators who are the reason.

    A creator is the reason if they are held, have another wallet, changed their wallet recently, or if part of what
    they would be paid is doubtful.
    """
    creators_of: dict[str, set[int]] = {}
    for batch_id, creator_id in connection.execute(STOPPED, (list(batch_ids),)) if batch_ids else ():
        creators_of.setdefault(batch_id, set()).add(creator_id)
    return creators_of


def is_payday(connection: Conn, economics: Economics) -> bool:
    """Whether payouts may be planned at present, by the database's clock and the settings of paydays."""
    if not economics.payout_interval_s:
        return True
    return bool(
        (book.clock_s(connection) - economics.payout_offset_s) % economics.payout_interval_s < economics.payout_window_s
    )


def live_count(connection: Conn) -> int:
    """Return how many batches are planned or signed and have not ended."""
    row = connection.execute("SELECT count(*) FROM ledger.batches WHERE state IN ('planned', 'signed')").fetchone()
    return int(row[0]) if row else 0


def know_account(connection: Conn, mint: str, recipient: BatchLine, batch_id: str | None) -> None:
    """Remember that a token account exists on chain.

    Args:
        connection: of the ledger; nothing is committed.
        mint: the address of the token's mint.
        recipient: the owner of the account, with wallet and address.
        batch_id: the batch in which the platform opened it; None if it existed before.
    """
    connection.execute(
        "INSERT INTO ledger.token_accounts (wallet, mint, address, creator_id, batch_id) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (recipient.wallet, mint, recipient.address, recipient.creator_id if batch_id else None, batch_id),
    )


def not_opened_by_us(connection: Conn, addresses: Sequence[str]) -> list[str]:
    """Return which of these token accounts were opened by others than the platform."""
    rows = connection.execute(
        "SELECT address FROM ledger.token_accounts WHERE batch_id IS NULL AND address = ANY(%s) ORDER BY address",
        (list(addresses),),
    )
    return [row[0] for row in rows]


def forget_accounts(connection: Conn, addresses: Sequence[str]) -> None:
    """Forget token accounts that no longer exist on chain; those that the platform has opened stay noted."""
    connection.execute(
        "DELETE FROM ledger.token_accounts WHERE batch_id IS NULL AND address = ANY(%s)", (list(addresses),)
    )


def opened_for(connection: Conn, creator_ids: Sequence[int]) -> dict[int, str]:
    """Map each creator for whom the platform has opened a token account, or is about to, to the account's wallet."""
    rows = connection.execute(
        "SELECT creator_id, wallet FROM ledger.token_accounts WHERE creator_id = ANY(%(ids)s) UNION"
        " SELECT (r->>0)::bigint, r->>1 FROM ledger.batches b, jsonb_array_elements(b.plan->'recipients') r"
        " WHERE b.kind = 'accounts' AND b.state IN ('planned', 'signed') AND (r->>0)::bigint = ANY(%(ids)s)",
        {"ids": list(creator_ids)},
    )
    return {int(row[0]): str(row[1]) for row in rows}


def add(connection: Conn, added: Sequence[Batch], parent: str | None = None) -> None:
    """Insert planned batches in one statement; `parent` is the batch that they were split from."""
    rows = [
        {"id": each.id, "kind": each.kind, "count": len(each.recipients), "amount_pix": each.amount_pix,
         "plan": {"recipients": each.recipients}}
        for each in added
    ]  # fmt: skip
    with book.refusals():
        connection.execute(
            "INSERT INTO ledger.batches (id, kind, count, amount_pix, plan, parent, epoch)"
            " SELECT id, kind, count, amount_pix, plan, %s, current_setting('ledger.epoch')::bigint"
            " FROM jsonb_to_recordset(%s) AS t (id text, kind text, count int, amount_pix bigint, plan jsonb)",
            (parent, Jsonb(rows)),
        )


def pend(connection: Conn, planned: Sequence[tuple[Batch, Sequence[Due]]]) -> None:
    """Move the money of planned batches from `payable` to `in_flight`.

    Writes one entry for all, and a pending transfer and a payout for each line.
    """
    if not planned:
        return
    dues = [due for _, some in planned for due in some]
    in_flight, chain = book.account(connection, "in_flight"), book.account(connection, "chain")
    lines = [*((due.account_id, -due.amount_pix) for due in dues), (in_flight, sum(due.amount_pix for due in dues))]
    entry = book.post(
        connection,
        book.Entry(
            "payout_pending",
            f"payout:{planned[0][0].id}",
            np.array(lines, np.int64),
            {"batches": [batch.id for batch, _ in planned]},
        ),
    )
    with book.refusals():
        connection.execute(
            "WITH item AS (SELECT number::int, creator_id::bigint, account_id::bigint, amount::bigint, wallet, seq::int, place"
            "              FROM ROWS FROM (json_array_elements_text(%s), json_array_elements_text(%s),"
            "                              json_array_elements_text(%s), json_array_elements_text(%s),"
            "                              json_array_elements_text(%s), json_array_elements_text(%s))"
            "              WITH ORDINALITY AS t (number, creator_id, account_id, amount, wallet, seq, place)),"
            " moved AS (INSERT INTO ledger.transfers (source, target, amount_pix, pending_entry)"
            "           SELECT account_id, %s, amount, %s FROM item ORDER BY place RETURNING id, source)"
            " INSERT INTO ledger.payouts (creator_id, period, seq, wallet, amount_pix, transfer_id, batch_id)"
            " SELECT item.creator_id, %s, item.seq, item.wallet, item.amount, moved.id, (%s::text[])[item.number]"
            " FROM item JOIN moved ON moved.source = item.account_id",
            (
                Json([number for number, (_, some) in enumerate(planned, 1) for _ in some]),
                *(Json([getattr(due, name) for due in dues]) for name in DUE_COLUMNS),  # far quicker than arrays
                chain, entry.id, dues[0].period, [batch.id for batch, _ in planned],
            ),
        )  # fmt: skip


# ── States ─────────────────────────────────────────────────────────────────────────────────────────────────────────

BATCH = """SELECT b.id, b.kind, b.state, b.amount_pix, b.plan->'recipients',
                  (SELECT count(*) FROM ledger.attempts a WHERE a.batch_id = b.id)::int FROM ledger.batches b"""


ATTEMPT = """SELECT b.id, b.kind, b.state, b.amount_pix, b.plan->'recipients', 0, a.n, a.signature, a.raw,
                    a.last_valid_block_height, a.context_slot, a.state,
                    extract(epoch FROM clock_timestamp() - a.signed_at)::float
             FROM ledger.attempts a JOIN ledger.batches b ON b.id = a.batch_id"""


def planned(connection: Conn, limit: int) -> list[Batch]:
    """Return batches that wait for a signature, oldest first."""
    query = f"{BATCH} WHERE b.state = 'planned' ORDER BY b.planned_at, b.id LIMIT %s"
    rows = connection.execute(query, (limit,))
    return [_batch(row) for row in rows]


def signed_count(connection: Conn) -> int:
    """Return how many batches are signed and have not ended."""
    row = connection.execute("SELECT count(*) FROM ledger.batches WHERE state = 'signed'").fetchone()
    return int(row[0]) if row else 0


def one(connection: Conn, batch_id: str) -> Batch:
    """Return a batch. It must exist."""
    row = connection.execute(f"{BATCH} WHERE b.id = %s", (batch_id,)).fetchone()
    assert row is not None
    return _batch(row)


def is_known(connection: Conn, batch_id: str) -> bool:
    """Whether a batch with this id exists or has existed."""
    query = "SELECT FROM ledger.batches WHERE id = %(id)s UNION ALL SELECT FROM ledger.past_batches WHERE id = %(id)s LIMIT 1"
    return connection.execute(query, {"id": batch_id}).fetchone() is not None


def live_attempts(connection: Conn) -> list[Attempt]:
    """Return live attempts, which are signed and whose end is not known, oldest first."""
    rows = connection.execute(f"{ATTEMPT} WHERE a.state = 'live' ORDER BY a.signed_at, a.batch_id").fetchall()
    return [_attempt(row) for row in rows]


def expired_attempts(connection: Conn) -> list[Attempt]:
    """Return attempts that were given up, of batches that have not ended. Such an attempt may have landed."""
    rows = connection.execute(
        f"{ATTEMPT} WHERE a.state = 'expired' AND b.state IN ('planned', 'signed') ORDER BY a.signed_at, a.batch_id"
    ).fetchall()
    return [_attempt(row) for row in rows]


def open_attempts(connection: Conn, batch_id: str) -> list[Attempt]:
    """Return the attempts of a batch that are live or were given up, in their order."""
    rows = connection.execute(
        f"{ATTEMPT} WHERE a.state IN ('live', 'expired') AND b.id = %s ORDER BY a.n",
        (batch_id,),
    ).fetchall()
    return [_attempt(row) for row in rows]


# When a batch ended after one of its transactions was given up, its money went back to its creators. Should that transaction
# land all the same, no later payout to them may land after it: they would be paid twice. So the marker of the batch (its
# lineage, for later batches) guards every later payout of these creators, until as much as the batch was to pay them has
# landed, a person has found that the marker is a stranger's (see `resolving`), or the bytes are so old by the database's
# clock that no chain takes them. It guards in that one order, for a guarded payment leaves no marker of the earlier batch on
# chain. That the given-up bytes do not land after the later payout is ensured by the clock and by as many nodes as an end
# needs (see `solana_rail.evidence.may_give_back`).
LINEAGE = """
    SELECT {whose}, g.batch_id FROM (
        SELECT DISTINCT a.batch_id, b.ended_at FROM ledger.attempts a JOIN ledger.batches b ON b.id = a.batch_id
        WHERE a.state = 'expired' AND a.signed_at > now() - make_interval(days => %(days)s)
          AND b.kind = 'payout' AND b.state IN ('cancelled', 'failed')
          AND NOT EXISTS (SELECT FROM ledger.attempts l WHERE l.batch_id = b.id AND l.state = 'landed')
          AND NOT EXISTS (SELECT FROM ledger.resolutions r WHERE r.batch_id = b.id AND r.ended
                          AND (r.evidence #>> ARRAY['marker', 'stands'])::boolean)) g
    JOIN ledger.payouts q ON q.batch_id = g.batch_id {joined}
    WHERE q.amount_pix > (
        SELECT coalesce(sum(p.on_chain_pix), 0) FROM ledger.payouts p
        JOIN ledger.attempts l ON l.batch_id = p.batch_id AND l.state = 'landed'
        WHERE p.creator_id = q.creator_id AND p.id > q.id AND l.signed_at > g.ended_at)
    GROUP BY {whose}, g.batch_id ORDER BY {whose}, max(q.id) DESC"""
OF_CREATORS = LINEAGE.format(whose="q.creator_id", joined="AND q.creator_id = ANY(%(ids)s)")
OF_BATCHES = LINEAGE.format(
    whose="n.batch_id",
    joined="JOIN ledger.payouts n ON n.creator_id = q.creator_id AND n.id > q.id AND n.batch_id = ANY(%(ids)s)",
)
LINEAGE_DAYS = 7  # no chain has ever stood still for so long, and a blockhash lives for a minute


def lineage(connection: Conn, batch_ids: Sequence[str]) -> dict[str, list[str]]:
    """Map each batch to its lineage: the given-up batches whose payouts it may repeat, newest first.

    A batch must fail if one of its lineage has paid.
    """
    given_up_of: dict[str, list[str]] = {batch_id: [] for batch_id in batch_ids}
    for batch_id, given_up_id in connection.execute(OF_BATCHES, {"ids": list(batch_ids), "days": LINEAGE_DAYS}):
        given_up_of[batch_id].append(given_up_id)
    return given_up_of


def lineage_of(connection: Conn, creator_ids: Collection[int]) -> dict[int, list[str]]:
    """Map creators to the given-up batches that their next payout may repeat, newest first; most creators have none."""
    given_up_of: dict[int, list[str]] = {}
    for creator_id, given_up_id in connection.execute(OF_CREATORS, {"ids": list(creator_ids), "days": LINEAGE_DAYS}):
        given_up_of.setdefault(creator_id, []).append(given_up_id)
    return given_up_of


def count_young(connection: Conn) -> int:
    """Return how many live or expired attempts were signed so recently that they could still land."""
    row = connection.execute(
        "SELECT count(*) FROM ledger.attempts WHERE state IN ('live', 'expired')"
        " AND signed_at > now() - make_interval(days => %s)",
        (LINEAGE_DAYS,),
    ).fetchone()
    assert row is not None  # of a count
    return int(row[0])


def has_landed(connection: Conn, batch_id: str) -> bool:
    """Whether an attempt of the batch has landed."""
    query = "SELECT FROM ledger.attempts WHERE batch_id = %s AND state = 'landed'"
    return connection.execute(query, (batch_id,)).fetchone() is not None


def of_other_batches(connection: Conn, batch_id: str, signatures: Sequence[str]) -> set[str]:
    """Return which of these signatures belong to attempts of another batch."""
    rows = connection.execute(
        "SELECT signature FROM ledger.attempts WHERE signature = ANY(%s) AND batch_id <> %s",
        (list(signatures), batch_id),
    )
    return {row[0] for row in rows}


def guarded_by(connection: Conn, batch_id: str) -> list[str]:
    """Return the open payout batches that may repeat payouts of this given-up batch.

    They must fail if it has paid.
    """
    rows = connection.execute(
        "SELECT id FROM ledger.batches WHERE kind = 'payout' AND state IN ('planned', 'signed') ORDER BY id"
    ).fetchall()
    return [open_id for open_id, guards in lineage(connection, [row[0] for row in rows]).items() if batch_id in guards]


def open_of(connection: Conn, creator_ids: Collection[int]) -> list[str]:
    """Return open payout batches that pay any of these creators."""
    rows = connection.execute(
        "SELECT DISTINCT b.id FROM ledger.batches b JOIN ledger.payouts p ON p.batch_id = b.id"
        " WHERE b.kind = 'payout' AND b.state IN ('planned', 'signed') AND p.creator_id = ANY(%s) ORDER BY b.id",
        (list(creator_ids),),
    )
    return [row[0] for row in rows]


def marked(connection: Conn, addresses: Sequence[str]) -> set[str]:
    """Return those of these addresses at which a marker is or was on chain."""
    rows = connection.execute("SELECT address FROM ledger.markers WHERE address = ANY(%s)", (list(addresses),))
    return {row[0] for row in rows}


def opened_slot(connection: Conn, addresses: Sequence[str]) -> int:
    """Return the latest slot in which the platform opened any of these token accounts; 0 if it opened none.

    From this slot on, every account that it opened exists on chain.
    """
    row = connection.execute(
        "SELECT coalesce(max(a.slot), 0) FROM ledger.token_accounts t"
        " JOIN ledger.attempts a ON a.batch_id = t.batch_id AND a.state = 'landed' WHERE t.address = ANY(%s)",
        (list(addresses),),
    ).fetchone()
    assert row is not None  # of an aggregate
    return int(row[0])


def due_to_send(
    connection: Conn, resend_interval_s: float, signed_now: Collection[str] = ()
) -> list[tuple[str, bytes]]:
    """Return signature and bytes of the live attempts that were not sent within the interval.

    An attempt that was never sent, as far as is known, is left out if one of its recipients was stopped after it was
    signed. This is not checked for the signatures in `signed_now`, whose recipients were checked a moment ago.
    """
    rows = connection.execute(
        "SELECT signature, raw, batch_id, sends FROM ledger.attempts WHERE state = 'live'"
        " AND (sent_at IS NULL OR sent_at < now() - make_interval(secs => %s)) ORDER BY signed_at",
        (resend_interval_s,),
    ).fetchall()
    stopped_ids = stopped(connection, [batch_id for signature, _, batch_id, sends in rows
                                         if not sends and signature not in signed_now])  # fmt: skip
    return [(signature, bytes(raw)) for signature, raw, batch_id, _ in rows if batch_id not in stopped_ids]


def sent(connection: Conn, signatures: Sequence[str]) -> None:
    """Store that these attempts were sent once more, now."""
    with book.refusals():
        connection.execute(
            "UPDATE ledger.attempts SET sent_at = now(), sends = sends + 1 WHERE signature = ANY(%s) AND state = 'live'",
            (list(signatures),),
        )


def persist(connection: Conn, signed: Sequence[tuple[Batch, str, bytes]], blockhash: Any) -> None:
    """Store signed transactions with all their bytes. The caller must commit before any of these bytes are sent."""
    ids = [batch.id for batch, _, _ in signed]
    with book.refusals():
        connection.execute(
            "INSERT INTO ledger.attempts"
            " (batch_id, n, signature, raw, blockhash, last_valid_block_height, context_slot, epoch)"
            " SELECT t.id, (SELECT coalesce(max(n), 0) + 1 FROM ledger.attempts a WHERE a.batch_id = t.id), signature, raw,"
            "        %s, %s, %s, current_setting('ledger.epoch')::bigint"
            " FROM unnest(%s::text[], %s::text[], %s::bytea[]) AS t (id, signature, raw)",
            (
                blockhash.hash, blockhash.last_valid_block_height, blockhash.context_slot,
                ids, [signature for _, signature, _ in signed], [raw for _, _, raw in signed],
            ),
        )  # fmt: skip
        connection.execute("UPDATE ledger.batches SET state = 'signed' WHERE id = ANY(%s)", (ids,))


def known(connection: Conn, signatures: Sequence[str]) -> set[str]:
    """Return which of these signatures are those of our attempts."""
    rows = connection.execute("SELECT signature FROM ledger.attempts WHERE signature = ANY(%s)", (list(signatures),))
    return {row[0] for row in rows}


def land(connection: Conn, attempt: Attempt, slot: int, fee: int) -> None:
    """End a live attempt as landed, and its batch as posted.

    Args:
        connection: of the ledger; nothing is committed.
        attempt: the live attempt.
        slot: the slot of the finalized block that holds it.
        fee: its fee, in lamports.
    """
    _end_attempt(connection, attempt, "landed", slot, fee, None)
    _move(connection, attempt.batch.id, "posted")


def fail(connection: Conn, attempt: Attempt, slot: int, fee: int, error: object) -> None:
    """End a live attempt and its batch as failed.

    Args:
        connection: of the ledger; nothing is committed.
        attempt: the live attempt.
        slot: the slot of the finalized block that holds it.
        fee: its fee, in lamports.
        error: its error as the chain states it, in JSON.
    """
    _end_attempt(connection, attempt, "failed", slot, fee, error)
    _move(connection, attempt.batch.id, "failed")


def expire(connection: Conn, attempt: Attempt) -> None:
    """Give up a live attempt once it can no longer land; its batch may then be signed again."""
    _end_attempt(connection, attempt, "expired", None, None, "expired")
    _move(connection, attempt.batch.id, "planned")


def revive(connection: Conn, attempt: Attempt, slot: int, fee: int, error: object) -> None:
    """End an expired attempt that turned out to be final. If it has paid, no other attempt of its batch may be live.

    Args:
        connection: of the ledger; nothing is committed.
        attempt: the expired attempt.
        slot: the slot of the finalized block that holds it.
        fee: its fee, in lamports.
        error: its error as the chain states it, in JSON; None if it succeeded, which posts the batch.
    """
    _end_attempt(connection, attempt, "landed" if error is None else "failed", slot, fee, error, was="expired")
    if error is None:
        _move(connection, attempt.batch.id, "posted")


def find_landed(connection: Conn, attempt: Attempt, slot: int, fee: int) -> None:
    """End an expired attempt as landed although its batch has ended; the batch keeps its state.

    Args:
        connection: of the ledger; nothing is committed.
        attempt: the expired attempt.
        slot: the slot of the finalized block that holds it.
        fee: its fee, in lamports.
    """
    _end_attempt(connection, attempt, "landed", slot, fee, None, was="expired")


def fail_attempt(connection: Conn, attempt: Attempt, slot: int, fee: int, error: object) -> None:
    """End a live attempt as failed because an earlier attempt of its batch has landed; the batch keeps its state.

    Args:
        connection: of the ledger; nothing is committed.
        attempt: the live attempt.
        slot: the slot of the finalized block that holds it.
        fee: its fee, in lamports.
        error: its error as the chain states it, in JSON.
    """
    _end_attempt(connection, attempt, "failed", slot, fee, error)


def cancel(connection: Conn, batch: Batch) -> None:
    """End a planned batch as cancelled: it is not to go out."""
    _move(connection, batch.id, "cancelled")


def unsign(connection: Conn, batch: Batch) -> None:
    """Set a signed batch back to planned. None of its attempts may be live."""
    if one(connection, batch.id).state == "signed":
        _move(connection, batch.id, "planned")


def payouts_of(connection: Conn, batch: Batch) -> list[Payout]:
    """Return the payouts of a batch, in the order they were planned."""
    rows = connection.execute(
        "SELECT p.id, p.creator_id, p.amount_pix, t.source FROM ledger.payouts p"
        " JOIN ledger.transfers t ON t.id = p.transfer_id WHERE p.batch_id = %s ORDER BY p.id",
        (batch.id,),
    )
    return [Payout(*row) for row in rows]


def end_each(connection: Conn, received: Sequence[tuple[Payout, int]], entry_id: int) -> None:
    """End each payout: posted if its recipient got exactly its amount, else voided.

    `received` has the base units that each recipient got, and `entry_id` is the entry that moved the money.
    """
    values = {"ids": [each.id for each, _ in received], "got": [amount for _, amount in received], "entry": entry_id}
    with book.refusals():
        connection.execute(
            "UPDATE ledger.transfers t SET final_entry = %(entry)s,"
            "   state = CASE WHEN g.amount = p.amount_pix THEN 'posted' ELSE 'voided' END"
            " FROM ledger.payouts p JOIN unnest(%(ids)s::bigint[], %(got)s::bigint[]) AS g (id, amount) ON g.id = p.id"
            " WHERE t.id = p.transfer_id",
            values,
        )
        connection.execute(
            "UPDATE ledger.payouts p SET on_chain_pix = g.amount"
            " FROM unnest(%(ids)s::bigint[], %(got)s::bigint[]) AS g (id, amount) WHERE g.id = p.id",
            values,
        )


def receive_late(connection: Conn, received: Sequence[tuple[Payout, int]]) -> None:
    """Store what recipients of a voided batch have received nevertheless, in base units; its transfers stay voided."""
    with book.refusals():
        connection.execute(
            "UPDATE ledger.payouts p SET on_chain_pix = g.amount"
            " FROM unnest(%s::bigint[], %s::bigint[]) AS g (id, amount) WHERE g.id = p.id",
            ([each.id for each, _ in received], [amount for _, amount in received]),
        )


def end_transfers(connection: Conn, batch: Batch, state: str, entry_id: int) -> None:
    """Post or void the transfers of a batch.

    Args:
        connection: of the ledger; nothing is committed.
        batch: the batch of the transfers.
        state: "posted" or "voided".
        entry_id: the entry that moved the money.
    """
    with book.refusals():
        connection.execute(
            "UPDATE ledger.transfers t SET state = %s, final_entry = %s FROM ledger.payouts p"
            " WHERE p.transfer_id = t.id AND p.batch_id = %s",
            (state, entry_id, batch.id),
        )


def received(connection: Conn, batch: Batch) -> None:
    """Store that every recipient of a batch got exactly the planned amount, as its finalized transaction shows."""
    connection.execute("UPDATE ledger.payouts SET on_chain_pix = amount_pix WHERE batch_id = %s", (batch.id,))


def payable_lines(connection: Conn, batch: Batch) -> list[tuple[int, int]]:
    """Return the postings (account, base units) that give a voided batch's money back to the accounts it came from."""
    rows = connection.execute(
        "SELECT t.source, t.amount_pix FROM ledger.payouts p JOIN ledger.transfers t ON t.id = p.transfer_id"
        " WHERE p.batch_id = %s ORDER BY p.id",
        (batch.id,),
    )
    return [(row[0], row[1]) for row in rows]


def add_marker(connection: Conn, batch: Batch, address: str, lamports: int) -> None:
    """Remember a marker that is on chain.

    Args:
        connection: of the ledger; nothing is committed.
        batch: the batch that made it.
        address: its address.
        lamports: the lamports that it was made with.
    """
    connection.execute(
        "INSERT INTO ledger.markers (batch_id, address, lamports, since) VALUES (%s, %s, %s, now())"
        " ON CONFLICT DO NOTHING",
        (batch.id, address, lamports),
    )


def reclaimable(connection: Conn, retention_s: int, pause_s: float, limit: int) -> list[tuple[str, str]]:
    """Return markers that are old enough to be emptied, oldest first.

    Returns none while a reclaim (a batch that empties markers) is under way, nor for some time after one has failed.

    Args:
        connection: of the ledger.
        retention_s: seconds that a marker must have existed. By then nothing that it guards against can land any more.
        pause_s: seconds to wait after a failed reclaim.
        limit: markers at most.

    Returns:
        Batch id and address of each.
    """
    rows = connection.execute(
        "SELECT m.batch_id, m.address FROM ledger.markers m"
        " WHERE m.reclaimed_by IS NULL AND m.since <= now() - make_interval(secs => %s) AND NOT EXISTS"
        "   (SELECT FROM ledger.batches r WHERE r.kind = 'reclaim' AND (r.ended_at IS NULL"
        "    OR r.state IN ('failed', 'cancelled') AND r.ended_at > now() - make_interval(secs => %s)))"
        " ORDER BY m.since, m.batch_id LIMIT %s",
        (retention_s, pause_s, limit),
    )
    return [(row[0], row[1]) for row in rows]


def look_later(connection: Conn, batch_ids: Sequence[str], waited_s: float = 0.0) -> None:
    """Start the wait of these batches' markers again, as there is nothing to take back from them at present.

    `waited_s` seconds of the wait count as over already.
    """
    if batch_ids:
        connection.execute(
            "UPDATE ledger.markers SET since = now() - make_interval(secs => %s) WHERE batch_id = ANY(%s)",
            (waited_s, list(batch_ids)),
        )


def reclaims(connection: Conn) -> int:
    """Return how many reclaims there have been, archived ones included; the number never falls."""
    row = connection.execute(
        "SELECT (SELECT count(*) FROM ledger.batches WHERE kind = 'reclaim')"
        " + (SELECT count(*) FROM ledger.past_batches WHERE kind = 'reclaim')"
    ).fetchone()
    return int(row[0]) if row else 0


def reclaimed(connection: Conn, batch: Batch) -> None:
    """Store that a reclaim (`batch`) has emptied the markers that are its recipients."""
    connection.execute(
        "UPDATE ledger.markers SET reclaimed_by = %s WHERE batch_id = ANY(%s)",
        (batch.id, [each.wallet for each in batch.recipients]),
    )


def _end_attempt(
    connection: Conn,
    attempt: Attempt,
    state: str,
    slot: int | None,
    fee: int | None,
    error: object,
    was: str = "live",
) -> None:
    with book.refusals():
        done = connection.execute(
            "UPDATE ledger.attempts SET state = %s, ended_at = now(), slot = %s, lamports = %s, error = %s"
            " WHERE signature = %s AND state = %s",
            (state, slot, fee, None if error is None else json.dumps(error), attempt.signature, was),
        )
    assert done.rowcount == 1, f"attempt {attempt.signature} ended twice"


def _move(connection: Conn, batch_id: str, state: str) -> None:
    with book.refusals():
        connection.execute(
            "UPDATE ledger.batches SET state = %s, ended_at = CASE WHEN %s THEN now() END WHERE id = %s",
            (state, state in ("posted", "failed", "cancelled"), batch_id),
        )


def _attempt(row: Sequence[Any]) -> Attempt:
    return Attempt(_batch(row[:6]), row[6], row[7], bytes(row[8]), *row[9:])


def _batch(row: Sequence[Any]) -> Batch:
    recipients = tuple(BatchLine(*each) for each in row[4])
    return Batch(row[0], row[1], row[2], row[3], recipients, row[5])
