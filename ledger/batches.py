"""The rows of payouts: batches, payouts, transfers, attempts and markers, with all the SQL that touches them.

Every change of state is one transaction of the caller's, checked by the database (see ledger/schema): a batch has at
most one live attempt, ended things never change, and only the holder of the epoch writes. Knows no RPC and no key.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from psycopg import Connection
from psycopg.types.json import Json, Jsonb

from ledger import batch_ids, book
from ledger.owed import Due
from ledger.settings import Economics

Conn = Connection[Any]


class Recipient(NamedTuple):
    """One line of a batch: a payout (amount above 0), an account to open (0), or a marker to empty (lamports)."""

    creator_id: int
    wallet: str
    address: str
    amount: int = 0


@dataclass(frozen=True)
class Batch:
    """One transaction to be."""

    id: str
    kind: str
    state: str
    amount_pix: int
    recipients: tuple[Recipient, ...]
    attempts: int = 0


@dataclass(frozen=True)
class Attempt:
    """One signed transaction."""

    batch: Batch
    n: int
    signature: str
    raw: bytes
    last_valid_block_height: int
    context_slot: int = 0
    state: str = "live"
    age_s: float = 0.0  # since it was signed, by the database's clock


class Failed(NamedTuple):
    """A transaction that has failed on chain, and its batch with it."""

    batch_id: str
    kind: str
    recipients: int
    raw: bytes
    error: Any
    signed_at: str  # one instant for all that were signed together


class Payout(NamedTuple):
    """What a batch pays a creator, and the account it was taken from."""

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
    """Which of these batches must not go out as planned, and the recipients that are the reason.

    They are held, have another wallet or changed it a moment ago, or their share of it has become doubtful.
    """
    found: dict[str, set[int]] = {}
    for batch_id, creator_id in connection.execute(STOPPED, (list(batch_ids),)) if batch_ids else ():
        found.setdefault(batch_id, set()).add(creator_id)
    return found


def is_payday(connection: Conn, economics: Economics) -> bool:
    """Whether payouts are planned now, by the database's clock."""
    if not economics.payout_interval_s:
        return True
    return bool(
        (book.clock_s(connection) - economics.payout_offset_s) % economics.payout_interval_s < economics.payout_window_s
    )


def live_count(connection: Conn, kind: str | None = None) -> int:
    """How many batches have not ended, of a kind or of all."""
    row = connection.execute(
        "SELECT count(*) FROM ledger.batches WHERE state IN ('planned', 'signed')"
        " AND (%(kind)s::text IS NULL OR kind = %(kind)s)",
        {"kind": kind},
    ).fetchone()
    return int(row[0]) if row else 0


def know_account(connection: Conn, mint: str, recipient: Recipient, batch_id: str | None) -> None:
    """A token account exists on chain; `batch_id` is the batch in which the platform opened it."""
    connection.execute(
        "INSERT INTO ledger.token_accounts (wallet, mint, address, creator_id, batch_id) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (recipient.wallet, mint, recipient.address, recipient.creator_id if batch_id else None, batch_id),
    )


def not_opened_by_us(connection: Conn, addresses: Sequence[str]) -> list[str]:
    """Of these token accounts those that were there before."""
    rows = connection.execute(
        "SELECT address FROM ledger.token_accounts WHERE batch_id IS NULL AND address = ANY(%s) ORDER BY address",
        (list(addresses),),
    )
    return [row[0] for row in rows]


def forget_accounts(connection: Conn, addresses: Sequence[str]) -> None:
    """Token accounts that the platform has not opened are on chain no more."""
    connection.execute(
        "DELETE FROM ledger.token_accounts WHERE batch_id IS NULL AND address = ANY(%s)", (list(addresses),)
    )


def opened_for(connection: Conn, creator_ids: Sequence[int]) -> dict[int, str]:
    """Creators for whom the platform has opened a token account, or is about to; and the wallet it belongs to."""
    rows = connection.execute(
        "SELECT creator_id, wallet FROM ledger.token_accounts WHERE creator_id = ANY(%(ids)s) UNION"
        " SELECT (r->>0)::bigint, r->>1 FROM ledger.batches b, jsonb_array_elements(b.plan->'recipients') r"
        " WHERE b.kind = 'accounts' AND b.state IN ('planned', 'signed') AND (r->>0)::bigint = ANY(%(ids)s)",
        {"ids": list(creator_ids)},
    )
    return {int(row[0]): str(row[1]) for row in rows}


def being_opened(connection: Conn, creator_ids: Collection[int]) -> set[int]:
    """Of these creators those for whom a token account is about to be opened."""
    rows = connection.execute(
        "SELECT (r->>0)::bigint FROM ledger.batches b, jsonb_array_elements(b.plan->'recipients') r"
        " WHERE b.kind = 'accounts' AND b.state IN ('planned', 'signed') AND (r->>0)::bigint = ANY(%s)",
        (list(creator_ids),),
    )
    return {int(creator_id) for (creator_id,) in rows}


def add(connection: Conn, added: Sequence[Batch], parent: str | None = None) -> None:
    """Planned batches, all in one statement."""
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
    """Take the money of planned batches out of `payable`: one entry, a pending transfer and a payout for each due."""
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


# Of each kind apart: what cannot go on for want of lamports or of PIX keeps no other kind waiting.
WAITING = f"""{BATCH} JOIN (
        SELECT p.id, row_number() OVER (PARTITION BY p.kind ORDER BY p.planned_at, p.id)
                     + (SELECT count(*) FROM ledger.batches s WHERE s.state = 'signed' AND s.kind = p.kind) AS place
        FROM ledger.batches p WHERE p.state = 'planned') w ON w.id = b.id
    WHERE w.place <= %s ORDER BY b.planned_at, b.id"""


def planned(connection: Conn, limit: int) -> list[Batch]:
    """Batches that wait for a signature, oldest first; with those that are signed no more than `limit` of a kind."""
    return [_batch(row) for row in connection.execute(WAITING, (limit,))]


def one(connection: Conn, batch_id: str) -> Batch:
    row = connection.execute(f"{BATCH} WHERE b.id = %s", (batch_id,)).fetchone()
    assert row is not None
    return _batch(row)


def is_known(connection: Conn, batch_id: str) -> bool:
    """Whether there is or was such a batch."""
    query = "SELECT FROM ledger.batches WHERE id = %(id)s UNION ALL SELECT FROM ledger.past_batches WHERE id = %(id)s LIMIT 1"
    return connection.execute(query, {"id": batch_id}).fetchone() is not None


def knows_sealed(connection: Conn) -> bool:
    """Whether there is or was a batch whose id says whom it pays."""
    query = "SELECT FROM ledger.{} WHERE starts_with(id, %(begins)s)"
    both = " UNION ALL ".join(query.format(table) for table in ("batches", "past_batches")) + " LIMIT 1"
    return connection.execute(both, {"begins": batch_ids.SEALED}).fetchone() is not None


def gone_back(connection: Conn, batch_id: str) -> tuple[Recipient, ...] | None:
    """Whom a batch was to pay whose money went back; None where it did not."""
    row = connection.execute(f"{BATCH} WHERE b.id = %s AND b.state IN ('cancelled', 'failed')", (batch_id,)).fetchone()
    return _batch(row).recipients if row is not None else None


def live_attempts(connection: Conn) -> list[Attempt]:
    """Everything signed whose end is not known."""
    rows = connection.execute(f"{ATTEMPT} WHERE a.state = 'live' ORDER BY a.signed_at, a.batch_id").fetchall()
    return [_attempt(row) for row in rows]


def given_up(connection: Conn) -> list[Attempt]:
    """Expired attempts of batches that have not ended: the chain may still know better."""
    rows = connection.execute(
        f"{ATTEMPT} WHERE a.state = 'expired' AND b.state IN ('planned', 'signed') ORDER BY a.signed_at, a.batch_id"
    ).fetchall()
    return [_attempt(row) for row in rows]


def open_attempts(connection: Conn, batch_id: str) -> list[Attempt]:
    """Attempts of a batch that are live or were given up, in their order."""
    rows = connection.execute(
        f"{ATTEMPT} WHERE a.state IN ('live', 'expired') AND b.id = %s ORDER BY a.n",
        (batch_id,),
    ).fetchall()
    return [_attempt(row) for row in rows]


# What a creator was to get by a transaction that was given up went back to them when its batch ended. Should it land all
# the same, nothing that they are paid since may land after it: the batch's marker guards every payout of theirs, whichever
# way its money came back, until as much as it was to pay them has landed, a person has found that the marker is a stranger's
# (see `resolving`), or the bytes are so old by the database's clock that no chain takes them. The marker guards in that one
# order: a guarded payment leaves none of it on chain. That the bytes do not land after one is the clock's work, and that of
# as many nodes as an end needs (see `Rail._never_paid`).
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
FAILED_READ_MAX = 1000  # transactions
LINEAGE_DAYS = 7  # no chain has ever stood still for so long, and a blockhash lives for a minute


def lineage(connection: Conn, batch_ids: Sequence[str]) -> dict[str, list[str]]:
    """For each batch those whose payouts it may repeat, since a transaction of theirs was given up; the newest first."""
    found: dict[str, list[str]] = {batch_id: [] for batch_id in batch_ids}
    for number, above in connection.execute(OF_BATCHES, {"ids": list(batch_ids), "days": LINEAGE_DAYS}):
        found[number].append(above)
    return found


def lineage_of(connection: Conn, creator_ids: Collection[int]) -> dict[int, list[str]]:
    """The same for what these creators are paid next; who has none is left out."""
    found: dict[int, list[str]] = {}
    for creator_id, above in connection.execute(OF_CREATORS, {"ids": list(creator_ids), "days": LINEAGE_DAYS}):
        found.setdefault(creator_id, []).append(above)
    return found


def failed_since(connection: Conn, reason: str, within_s: float) -> list[Failed]:
    """Transactions that have failed on chain within the time, and since a freeze for the reason was last released; the newest
    first. None while one is in force, and none that empties markers.
    """
    rows = connection.execute(
        "SELECT b.id, b.kind, jsonb_array_length(b.plan->'recipients'), a.raw, a.error, a.signed_at::text"
        " FROM ledger.batches b JOIN ledger.attempts a ON a.batch_id = b.id AND a.state = 'failed'"
        " WHERE b.state = 'failed' AND b.kind <> 'reclaim' AND b.ended_at > greatest(now() - make_interval(secs => %s),"
        "   (SELECT max(coalesce(released_at, 'infinity')) FROM ledger.freezes WHERE reason = %s))"
        " ORDER BY b.ended_at DESC, a.signed_at DESC LIMIT %s",
        (within_s, reason, FAILED_READ_MAX),
    ).fetchall()
    return [
        Failed(number, kind, count, bytes(raw), json.loads(error), at) for number, kind, count, raw, error, at in rows
    ]


def young(connection: Conn) -> int:
    """How many transactions that have no end on chain were signed so lately that one could still have it."""
    row = connection.execute(
        "SELECT count(*) FROM ledger.attempts WHERE state IN ('live', 'expired')"
        " AND signed_at > now() - make_interval(days => %s)",
        (LINEAGE_DAYS,),
    ).fetchone()
    assert row is not None  # of a count
    return int(row[0])


def has_landed(connection: Conn, batch_id: str) -> bool:
    query = "SELECT FROM ledger.attempts WHERE batch_id = %s AND state = 'landed'"
    return connection.execute(query, (batch_id,)).fetchone() is not None


def of_others(connection: Conn, batch_id: str, signatures: Sequence[str]) -> set[str]:
    """Of these signatures those that are of another batch's transactions."""
    rows = connection.execute(
        "SELECT signature FROM ledger.attempts WHERE signature = ANY(%s) AND batch_id <> %s",
        (list(signatures), batch_id),
    )
    return {row[0] for row in rows}


def guarded_by(connection: Conn, batch_id: str) -> list[str]:
    """Payout batches without an end that may repeat what this batch was to pay."""
    rows = connection.execute(
        "SELECT id FROM ledger.batches WHERE kind = 'payout' AND state IN ('planned', 'signed') ORDER BY id"
    ).fetchall()
    return [number for number, above in lineage(connection, [row[0] for row in rows]).items() if batch_id in above]


def open_of(connection: Conn, creator_ids: Collection[int]) -> list[str]:
    """Payout batches without an end that pay any of these creators."""
    rows = connection.execute(
        "SELECT DISTINCT b.id FROM ledger.batches b JOIN ledger.payouts p ON p.batch_id = b.id"
        " WHERE b.kind = 'payout' AND b.state IN ('planned', 'signed') AND p.creator_id = ANY(%s) ORDER BY b.id",
        (list(creator_ids),),
    )
    return [row[0] for row in rows]


def open_pix(connection: Conn, creator_ids: Collection[int]) -> dict[int, int]:
    """What payout batches without an end pay these creators, in base units."""
    rows = connection.execute(
        "SELECT p.creator_id, sum(p.amount_pix)::bigint FROM ledger.batches b JOIN ledger.payouts p ON p.batch_id = b.id"
        " WHERE b.kind = 'payout' AND b.state IN ('planned', 'signed') AND p.creator_id = ANY(%s) GROUP BY 1",
        (list(creator_ids),),
    )
    return dict(rows.fetchall())


def marked(connection: Conn, addresses: Sequence[str]) -> set[str]:
    """Of these addresses those of markers that are or were on chain."""
    rows = connection.execute("SELECT address FROM ledger.markers WHERE address = ANY(%s)", (list(addresses),))
    return {row[0] for row in rows}


def opened_slot(connection: Conn, addresses: Sequence[str]) -> int:
    """The slot by which the chain has every one of these token accounts that we have opened; 0 for none."""
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
    """Signature and bytes of live attempts that were not sent within the interval.

    Of those that were never sent, as far as is known, none that has a recipient who was stopped since it was signed;
    `signed_now` are signatures made a moment ago, which are not asked about again.
    """
    rows = connection.execute(
        "SELECT signature, raw, batch_id, sends FROM ledger.attempts WHERE state = 'live'"
        " AND (sent_at IS NULL OR sent_at < now() - make_interval(secs => %s)) ORDER BY signed_at",
        (resend_interval_s,),
    ).fetchall()
    kept_back = stopped(connection, [batch_id for signature, _, batch_id, sends in rows
                                       if not sends and signature not in signed_now])  # fmt: skip
    return [(signature, bytes(raw)) for signature, raw, batch_id, _ in rows if batch_id not in kept_back]


def sent(connection: Conn, signatures: Sequence[str]) -> None:
    with book.refusals():
        connection.execute(
            "UPDATE ledger.attempts SET sent_at = now(), sends = sends + 1 WHERE signature = ANY(%s) AND state = 'live'",
            (list(signatures),),
        )


def persist(connection: Conn, signed: Sequence[tuple[Batch, str, bytes]], blockhash: Any) -> None:
    """Keep signed transactions whole. Nothing of them may be sent before this is committed."""
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
    """Of these signatures those of transactions that were signed before."""
    rows = connection.execute("SELECT signature FROM ledger.attempts WHERE signature = ANY(%s)", (list(signatures),))
    return {row[0] for row in rows}


def land(connection: Conn, attempt: Attempt, slot: int, fee: int) -> None:
    _end_attempt(connection, attempt, "landed", slot, fee, None)
    _move(connection, attempt.batch.id, "posted")


def fail(connection: Conn, attempt: Attempt, slot: int, fee: int, error: object) -> None:
    _end_attempt(connection, attempt, "failed", slot, fee, error)
    _move(connection, attempt.batch.id, "failed")


def expire(connection: Conn, attempt: Attempt) -> None:
    """This transaction can never land; the batch may be signed again."""
    _end_attempt(connection, attempt, "expired", None, None, "expired")
    _move(connection, attempt.batch.id, "planned")


def revive(connection: Conn, attempt: Attempt, slot: int, fee: int, error: object) -> None:
    """An expired transaction is final after all. Where it paid, no other attempt of its batch may be live."""
    _end_attempt(connection, attempt, "landed" if error is None else "failed", slot, fee, error, was="expired")
    if error is None:
        _move(connection, attempt.batch.id, "posted")


def find_landed(connection: Conn, attempt: Attempt, slot: int, fee: int) -> None:
    """A transaction that was given up is final after its batch has ended: the batch stays ended, as it was."""
    _end_attempt(connection, attempt, "landed", slot, fee, None, was="expired")


def fail_attempt(connection: Conn, attempt: Attempt, slot: int, fee: int, error: object) -> None:
    """This transaction failed because an earlier one of its batch had landed; the batch goes on."""
    _end_attempt(connection, attempt, "failed", slot, fee, error)


def cancel(connection: Conn, batch: Batch) -> None:
    _move(connection, batch.id, "cancelled")


def unsign(connection: Conn, batch: Batch) -> None:
    """No transaction of the batch is live any more."""
    if one(connection, batch.id).state == "signed":
        _move(connection, batch.id, "planned")


def payouts_of(connection: Conn, batch: Batch) -> list[Payout]:
    rows = connection.execute(
        "SELECT p.id, p.creator_id, p.amount_pix, t.source FROM ledger.payouts p"
        " JOIN ledger.transfers t ON t.id = p.transfer_id WHERE p.batch_id = %s ORDER BY p.id",
        (batch.id,),
    )
    return [Payout(*row) for row in rows]


def end_each(connection: Conn, received: Sequence[tuple[Payout, int]], entry_id: int) -> None:
    """End each payout by what was received: posted if that is its amount, else voided; `entry_id` moved the money."""
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
    """What recipients of a voided batch got all the same; its transfers stay voided, another entry has moved the money."""
    with book.refusals():
        connection.execute(
            "UPDATE ledger.payouts p SET on_chain_pix = g.amount"
            " FROM unnest(%s::bigint[], %s::bigint[]) AS g (id, amount) WHERE g.id = p.id",
            ([each.id for each, _ in received], [amount for _, amount in received]),
        )


def end_transfers(connection: Conn, batch: Batch, state: str, entry_id: int) -> None:
    """Post or void the transfers of a batch; `entry_id` moved the money."""
    with book.refusals():
        connection.execute(
            "UPDATE ledger.transfers t SET state = %s, final_entry = %s FROM ledger.payouts p"
            " WHERE p.transfer_id = t.id AND p.batch_id = %s",
            (state, entry_id, batch.id),
        )


def received(connection: Conn, batch: Batch) -> None:
    """The finalized transaction showed that every recipient got exactly the amount."""
    connection.execute("UPDATE ledger.payouts SET on_chain_pix = amount_pix WHERE batch_id = %s", (batch.id,))


def payable_lines(connection: Conn, batch: Batch) -> list[tuple[int, int]]:
    """The accounts that a voided batch goes back to."""
    rows = connection.execute(
        "SELECT t.source, t.amount_pix FROM ledger.payouts p JOIN ledger.transfers t ON t.id = p.transfer_id"
        " WHERE p.batch_id = %s ORDER BY p.id",
        (batch.id,),
    )
    return [(row[0], row[1]) for row in rows]


def add_marker(connection: Conn, batch: Batch, address: str, lamports: int) -> None:
    connection.execute(
        "INSERT INTO ledger.markers (batch_id, address, lamports, since) VALUES (%s, %s, %s, now())"
        " ON CONFLICT DO NOTHING",
        (batch.id, address, lamports),
    )


def reclaimable(connection: Conn, retention_s: int, pause_s: float, limit: int) -> list[tuple[str, str]]:
    """Markers old enough to be emptied: batch, address. None while a transaction that empties some is under way, nor for
    some time after the chain has refused one.
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
    """There is nothing to take back of these batches' markers now: they are looked at again after as long as any other.

    `waited_s`: so long is counted as waited.
    """
    if batch_ids:
        connection.execute(
            "UPDATE ledger.markers SET since = now() - make_interval(secs => %s) WHERE batch_id = ANY(%s)",
            (waited_s, list(batch_ids)),
        )


def reclaims(connection: Conn) -> int:
    """How many reclaiming transactions there have been, with those that are archived: it never falls."""
    row = connection.execute(
        "SELECT (SELECT count(*) FROM ledger.batches WHERE kind = 'reclaim')"
        " + (SELECT count(*) FROM ledger.past_batches WHERE kind = 'reclaim')"
    ).fetchone()
    return int(row[0]) if row else 0


def reclaimed(connection: Conn, batch: Batch) -> None:
    """The markers of this batch are empty."""
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
    recipients = tuple(Recipient(*each) for each in row[4])
    return Batch(row[0], row[1], row[2], row[3], recipients, row[5])
