"""A second rail stands beside Solana: a bank that takes files, confirms or rejects them days later, and knows no marker."""

# ruff: noqa: ARG002 -- a rail without markers and blocks ignores what is about them

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from psycopg import Connection

from ledger.journal import book
from ledger.payouts import batches, payouts
from ledger.payouts.batches import Attempt, Batch, BatchLine
from ledger.payouts.owed import Due
from ledger.payouts.rail import Prepared, Rail
from ledger.settings import Economics, LedgerSettings
from ledger.solana.chain import Blockhash, Effect
from ledger.solana.verdict import Fault
from tests.ledger.chains import Rig, wallet_of

OWN_ACCOUNT = "IBAN of the platform"
FOR_EVER = Blockhash("", 2**62, 0)  # no time limit: only the bank's word ends an attempt


@dataclass
class Bank:
    """What the bank has: files under their ids, each accepted once, and what it says of them in its own time."""

    files: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    times_received: int = 0
    closed: set[str] = field(default_factory=set)  # accounts that no longer exist
    says: dict[str, Effect] = field(default_factory=dict)

    def receive(self, raw: bytes) -> None:
        file = json.loads(raw)
        self.times_received += 1
        self.files.setdefault(file["id"], file["payments"])

    def works(self) -> None:
        """The bank's day: each file is booked whole, or rejected whole for an account that no longer exists."""
        for name, payments in self.files.items():
            rejected = any(each["to"] in self.closed for each in payments)
            moved = {each["to"]: each["pix"] for each in payments} | {OWN_ACCOUNT: -sum(p["pix"] for p in payments)}
            self.says[name] = Effect(name, 1, "AC04" if rejected else None, 0, {}, {} if rejected else moved)


@dataclass
class BankRail:
    """The ledger's side of it."""

    connection: Connection[Any]
    economics: Economics
    settings: LedgerSettings
    bank: Bank
    opinions: int = 1
    asset: str = "EUR"
    source_address: str = OWN_ACCOUNT
    first_payout_min_pix: int = 0

    def screening(self, _: Sequence[Any]) -> Mapping[int, str]:
        return {}

    def capacity(self, guards: int) -> int:
        return 0 if guards else 100

    def lineage_of(self, creator_ids: Collection[int]) -> Mapping[int, list[str]]:
        return {}

    def id_of(self, text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def with_free_ids(self, planned: Sequence[Batch]) -> list[Batch]:
        return list(planned)

    def find_accounts(self, missing: Sequence[Due]) -> None:
        pass

    def open_accounts(self, recipients: Sequence[BatchLine], parent: str | None) -> None:
        raise AssertionError("a bank opens no accounts")

    def forget_gone(self, batch: Batch) -> bool:
        return False

    def keep_up(self) -> None:
        pass

    def prepare(self, waiting: Sequence[Batch]) -> list[Prepared]:
        return [Prepared(batch, [{"to": r.address, "pix": r.amount} for r in batch.recipients]) for batch in waiting]

    def validity(self) -> Blockhash:
        return FOR_EVER

    def sign_batch(self, prepared: Prepared, validity: Blockhash) -> tuple[str, bytes]:
        name = prepared.batch.id.ljust(88, "-")
        return name, json.dumps({"id": name, "payments": prepared.content}).encode()

    def submit(self, raws: Sequence[bytes]) -> None:
        for raw in raws:
            self.bank.receive(raw)

    def look(self, attempts: Sequence[Attempt]) -> Any:
        return dict(self.bank.says)

    def outcome(self, attempt: Attempt, seen: Any) -> Effect | None:
        said: Effect | None = seen.get(attempt.signature)
        return said

    def is_unseen(self, attempt: Attempt, seen: Any) -> bool:
        return attempt.signature not in seen

    def effect(self, attempt: Attempt) -> Effect | None:
        return self.bank.says.get(attempt.signature)

    def expired(self, unseen: Sequence[Attempt]) -> Iterator[Attempt]:
        return iter(())  # that the bank says nothing proves nothing

    def may_expire_with_batch(self, attempt: Attempt) -> bool:
        did = self.effect(attempt)
        return did is not None and did.error is not None

    def may_give_back(self, batch: Batch, slot: int | None = None) -> bool:
        return all(self.may_expire_with_batch(each) for each in batches.open_attempts(self.connection, batch.id))

    def fault(self, attempt: Attempt, effect: Effect) -> Fault:
        return Fault.RECIPIENT if effect.error == "AC04" else Fault.NOBODY

    def is_blocked(self) -> bool:
        return False

    def cost_lines(self, effect: Effect) -> list[tuple[int, int]]:
        return []

    def note_made(self, batch: Batch) -> None:
        pass

    def require_expired(self, batch: Batch, open_ended: Sequence[Attempt]) -> int:
        raise AssertionError("nobody asks")

    def marker_lamports(self, batch: Batch) -> int:
        return 0

    def require_strangers(self, batch: Batch, evidence: dict[str, Any], *, held: int) -> None:
        raise AssertionError("nobody asks")


@pytest.fixture
def rail(rig: Rig) -> BankRail:
    """A bank's rail over the ledger of a rig, with three creators whose accounts it knows."""
    for creator in (1, 2, 3):
        rig.creator(creator, 1000)
        known = BatchLine(creator, wallet_of(creator), f"IBAN {creator}")
        batches.know_account(rig.connection, "EUR", known, None)
    rig.connection.commit()
    return BankRail(rig.connection, rig.economics, rig.settings, Bank())


def balance(rail: Rail, kind: str) -> int:
    return book.balance(rail.connection, book.account(rail.connection, kind))


def test_a_bank_pays_when_it_says_so_days_later_and_its_silence_ends_nothing(rig: Rig, rail: BankRail) -> None:
    for _ in range(5):
        payouts.run_once(rail)
    assert (rig.states(), balance(rail, "in_flight")) == ({"signed": 1}, 3000)
    assert len(rail.bank.files) == 1 < rail.bank.times_received
    rail.bank.works()
    payouts.run_once(rail)
    assert (rig.states(), balance(rail, "in_flight")) == ({"posted": 1}, 0)
    assert rig.rows("SELECT creator_id, on_chain_pix FROM ledger.payouts ORDER BY 1") == [
        (1, 1000),
        (2, 1000),
        (3, 1000),
    ]


def test_a_rejected_file_is_halved_until_the_closed_account_stands_alone_and_the_others_are_paid(
    rig: Rig, rail: BankRail
) -> None:
    rail.bank.closed = {"IBAN 2"}
    for _ in range(8):
        payouts.run_once(rail)
        rail.bank.works()
    assert rig.holds() == {2: "the transaction failed: AC04"}
    assert rig.rows("SELECT creator_id FROM ledger.payouts WHERE on_chain_pix = 1000 ORDER BY 1") == [(1,), (3,)]
    assert (balance(rail, "in_flight"), rig.balance("payable", 2)) == (0, 1000)
