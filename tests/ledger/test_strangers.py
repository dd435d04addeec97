"""What strangers and single nodes can write in the treasury's history: none of it keeps the rest from being booked."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from solders.account import Account
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.token.state import Mint
from solders.transaction import VersionedTransaction

from cluster.errors import Temporary
from ledger import audit, chain, packing, stops
from ledger import reconcile as reconciling
from ledger.chain import RpcRefusal
from ledger.reconcile import MISMATCH, UNKNOWN, Difference, Distrust, Finding, reconcile
from ledger.screening import Recipient
from tests.ledger.chains import EXPIRED_BLOCKS, FINAL_BLOCKS, GAS, RENT, Key, Rig, token_account
from tests.ledger.test_called_back import Credulous
from tests.ledger.test_late_payouts import Hasty
from tests.ledger.test_two_walls import Node
from tests.ledger.test_two_walls import pair as pair
from tests.ledger.test_two_walls import three as three

GIFT = 5_000_000  # lamports: more than dust
Nodes = tuple[Rig, list[Node]]


class Reader:
    """Who reconciles round after round, as the ledger does."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.difference, self.distrust = rig, Difference(), Distrust()

    def read(self) -> Finding:
        rig = self.rig
        return reconcile(rig.connection, rig.rpc, rig.treasury, difference=self.difference, distrust=self.distrust)

    def given(self) -> int:
        """Lamports that deposits have brought the platform."""
        return self.rig.balance("platform", asset="SOL") - GAS


@pytest.fixture
def reader(pair: Nodes) -> Reader:
    found = Reader(pair[0])
    assert found.read().ok
    return found


def give(rig: Rig, lamports: int = GIFT) -> str:
    """Somebody sends the payer of fees lamports, and it is final."""
    signature = rig.chain.enqueue(rig.chain.airdrop(rig.treasury.payer.gas, lamports))
    rig.advance(FINAL_BLOCKS + 1)
    return signature


def give_beside(rig: Rig, held: int, to: Pubkey) -> str:
    """Who holds so many tokens of a mint of their own moves one of them, and gives an address 5,000 lamports."""
    who, mint = Key("stranger"), Key("their mint").pubkey
    first, second = Key("their account").pubkey, Key("their other account").pubkey
    svm = rig.chain.svm
    svm.set_account(who.pubkey, Account(10**9, b"", packing.SYSTEM_PROGRAM))
    svm.set_account(mint, Account(RENT, bytes(Mint(None, held, 0, True, None)), packing.TOKEN_PROGRAM))
    svm.set_account(first, token_account(mint, who.pubkey, held))
    svm.set_account(second, token_account(mint, who.pubkey, 0))
    payer = packing.Payer(who.pubkey, who.pubkey, first, mint, 0)
    gift = packing.Instruction(packing.SYSTEM_PROGRAM, (who.pubkey, to), (True, True), struct.pack("<IQ", 2, 5000))
    blockhash, _ = rig.chain.blockhash_at("confirmed")
    message = packing.build(payer, [packing.pay(payer, second, 1), gift], blockhash, version="legacy", units=200_000)
    signature = rig.chain.enqueue(VersionedTransaction.from_bytes(packing.sign(message, [who])))
    rig.advance(FINAL_BLOCKS + 1)
    return signature


@pytest.mark.parametrize("held", [2**63 - 1, 2**63, 2**64 - 1])
def test_tokens_that_a_stranger_makes_keep_nothing_from_being_booked(reader: Reader, held: int) -> None:
    give_beside(reader.rig, held, reader.rig.treasury.payer.gas)
    found = reader.read()
    assert (found.conclusive, found.ok, reader.given()) == (True, True, 5000)
    give(reader.rig)
    assert reader.read().ok
    assert reader.given() == 5000 + GIFT


# ── What nodes tell differently ────────────────────────────────────────────────────────────────────────────────────


def of(signature: str, change: Callable[[Any], None]) -> Any:
    """A node that tells of one transaction otherwise."""

    def told(answer: Any) -> Any:
        if answer is not None and signature in answer["transaction"]["signatures"]:
            change(answer)
        return answer

    return told


def other_error(answer: Any) -> None:
    answer["meta"]["err"] = {"InstructionError": [0, {"BorshIoError": "Unknown"}]}


def other_tokens(answer: Any) -> None:
    strange = {"accountIndex": 0, "mint": str(Key("a mint").pubkey), "uiTokenAmount": {"amount": "7"}}
    answer["meta"]["postTokenBalances"] = [strange]


def no_tokens(answer: Any) -> None:
    del answer["meta"]["preTokenBalances"], answer["meta"]["postTokenBalances"]


@pytest.mark.parametrize("change", [other_error, other_tokens, no_tokens])
def test_nodes_of_two_releases_agree_on_what_a_stranger_did(pair: Nodes, reader: Reader, change: Any) -> None:
    rig, nodes = pair
    fails = change is other_error
    signature = give(rig, 2**62 if fails else GIFT)
    assert (rig.chain.store.transaction(signature).error is not None) == fails  # type: ignore[union-attr]
    nodes[0].lies["getTransaction"] = of(signature, change)
    found = reader.read()
    assert (found.conclusive, found.ok, found.waits_for) == (True, True, None)
    assert reader.given() == (0 if fails else GIFT)


def test_nodes_are_asked_for_transactions_of_every_version(pair: Nodes, reader: Reader) -> None:
    rig, nodes = pair
    give(rig)
    assert reader.read().ok
    asked = [
        params[1]["maxSupportedTransactionVersion"] for method, params in nodes[0].asked if method == "getTransaction"
    ]
    assert set(asked) == {255}


# ── What nobody can read ───────────────────────────────────────────────────────────────────────────────────────────


def unknown_form(signature: str) -> Any:
    """Of one transaction every node says what this release cannot read."""

    def told(answer: Any) -> Any:
        if answer is not None and signature in answer["transaction"]["signatures"]:
            return {"slot": answer["slot"], "transaction": "of another form", "meta": None}
        return answer

    return told


def newer_version(signature: str) -> Any:
    def told(answer: Any) -> Any:
        if answer is not None and signature in answer["transaction"]["signatures"]:
            raise RpcRefusal(-32015, "Transaction version (256) is not supported by the requesting client")
        return answer

    return told


def hide(nodes: list[Node], told: Any) -> None:
    for node in nodes:
        node.lies["getTransaction"] = told


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets how long what cannot be read is waited for, in seconds."""

    def wait(seconds: float) -> None:
        monkeypatch.setattr(reconciling, "UNREAD_S", seconds)

    return wait


@pytest.mark.parametrize("form", [unknown_form, newer_version])
def test_what_nobody_can_read_is_waited_for_a_while_and_keeps_no_deposit_from_being_booked_after_it(
    pair: Nodes, reader: Reader, form: Any, short: Callable[[float], None]
) -> None:
    rig, nodes = pair
    hide(nodes, form(give(rig, 2**62)))  # it has failed, so that it has moved nothing
    give(rig)
    with pytest.raises(Temporary, match="cannot be read"):
        reader.read()
    assert reader.given() == 0
    checks = audit.run(rig.connection, rig.rpc, str(rig.treasury.payer.gas))
    assert all(each.ok for each in checks if each.name.startswith("chain"))
    short(0)
    found = reader.read()
    assert (found.conclusive, found.ok, reader.given(), rig.freezes()) == (True, True, GIFT, [])
    short(600)
    reader.distrust.unread.since -= 601  # type: ignore[operator]
    hide(nodes, form(give(rig, 2**62)))
    assert reader.read().ok  # the next one is not waited for


def test_strangers_who_send_nothing_but_what_nobody_can_read_are_read_once(
    pair: Nodes, reader: Reader, short: Callable[[float], None]
) -> None:
    rig, nodes = pair
    short(0)
    hide(nodes, unknown_form(give(rig, 2**62)))
    assert reader.read().ok
    nodes[0].asked.clear()
    assert reader.read().ok
    assert "getTransaction" not in [method for method, _ in nodes[0].asked]


def test_what_was_passed_over_and_moved_money_freezes_payouts_by_its_name_until_it_can_be_read(
    pair: Nodes, reader: Reader, short: Callable[[float], None]
) -> None:
    rig, nodes = pair
    short(0)
    signature = give(rig)
    hide(nodes, unknown_form(signature))
    found = reader.read()
    assert (found.conclusive, found.ok, rig.freezes()) == (True, False, [MISMATCH])
    assert any(signature in each and "cannot be read" in each for each in found.problems)
    for node in nodes:
        node.lies.clear()
    reader.difference = Difference()
    found = reader.read()
    assert (found.conclusive, found.ok, reader.given()) == (True, True, GIFT)


def test_while_nodes_tell_nothing_that_can_be_read_nothing_is_passed_over(
    pair: Nodes, reader: Reader, short: Callable[[float], None]
) -> None:
    rig, nodes = pair
    give(rig)
    assert reader.read().ok
    short(0)
    give(rig)
    hide(nodes, lambda _: ["no"])
    for _ in range(3):
        with pytest.raises(Temporary, match="cannot be read"):
            reader.read()
    for node in nodes:
        node.lies.clear()
    assert reader.read().ok
    assert (reader.given(), rig.freezes()) == (2 * GIFT, [])


def test_what_is_ours_is_not_passed_over(pair: Nodes, reader: Reader, short: Callable[[float], None]) -> None:
    rig, nodes = pair
    short(0)
    rig.creator(1, 1000)
    rig.payouts.plan()
    (signature,) = rig.payouts.sign()
    rig.payouts.send()
    rig.advance(FINAL_BLOCKS + 1)
    hide(nodes, unknown_form(signature))
    with pytest.raises(Temporary, match="cannot be read"):
        reader.read()
    for node in nodes:
        node.lies.clear()
    rig.payouts.settle()
    assert reader.read().ok


# ── What one node says ─────────────────────────────────────────────────────────────────────────────────────────────

NOT_PLAIN = "made\0up \ud800"


def spoil(method: str) -> Any:
    """A node that puts text which no database keeps where a name belongs."""

    def told(answer: Any) -> Any:
        if method == "getSignaturesForAddress":
            return [{"signature": NOT_PLAIN, "slot": 1, "err": {NOT_PLAIN: 1}}, *answer]
        if method == "getMultipleAccounts":
            return {**answer, "value": [each and {**each, "owner": NOT_PLAIN} for each in answer["value"]]}
        if method == "getSignatureStatuses":
            return {**answer, "value": [each and {**each, "err": NOT_PLAIN} for each in answer["value"]]}
        if method == "simulateTransaction":
            return {**answer, "value": {**answer["value"], "err": {"InstructionError": [2, NOT_PLAIN]}}}
        if method == "getTransaction":
            answer["meta"]["err"] = NOT_PLAIN
            answer["transaction"]["message"]["accountKeys"][0] = NOT_PLAIN
        return NOT_PLAIN if method == "getGenesisHash" else answer

    return told


SPOILED = (
    "getSignaturesForAddress",
    "getMultipleAccounts",
    "getSignatureStatuses",
    "simulateTransaction",
    "getTransaction",
)


@pytest.mark.parametrize("method", SPOILED)
@pytest.mark.parametrize("count", [1, 3])
def test_no_text_of_a_node_ends_the_process(three: Nodes, method: str, count: int) -> None:
    rig, nodes = three
    rig.creator(1, 1000)
    rig.creator(2, 1000, account=False)
    give(rig)
    for node in nodes[:count]:
        node.lies[method] = spoil(method)
    reader = Reader(rig)
    for _ in range(6):
        for work in (rig.payouts.run_once, reader.read):
            try:
                work()
            except (Temporary, RpcRefusal):
                rig.connection.rollback()  # which is waited for; anything else ends the process
        rig.advance(FINAL_BLOCKS)
    for node in nodes:
        node.lies.clear()
    rig.pay(8)
    assert rig.freezes() == []
    assert (rig.on_chain(1), rig.on_chain(2)) == ((1000, 1000) if not rig.holds() else (0, 0))
    assert reader.read().ok


def test_a_genesis_that_is_no_hash_is_none(three: Nodes) -> None:
    rig, nodes = three
    genesis = rig.rpc.genesis()
    nodes[0].lies["getGenesisHash"] = spoil("getGenesisHash")
    assert rig.rpc.genesis() == genesis


def test_a_refusal_says_what_the_database_can_keep() -> None:
    assert str(RpcRefusal(-1, NOT_PLAIN).message) == "made?up ?"


def test_one_node_that_names_what_was_given_up_keeps_nothing_from_being_booked(three: Nodes) -> None:
    rig, nodes = three
    signature = cancelled(rig)
    reader = Reader(rig)
    assert reader.read().ok
    slot = rig.chain.height_at("finalized")
    nodes[0].lies["getSignaturesForAddress"] = lambda told: [*told, {"signature": signature, "slot": slot, "err": None}]
    rig.advance(2)
    give(rig)
    for _ in range(3):
        found = reader.read()
    assert (found.conclusive, found.waits_for, reader.given()) == (True, None, GIFT)


def cancelled(rig: Rig) -> str:
    """A transaction that was given up, and whose batch has ended; its signature."""
    rig.creator(1, 1000)
    rig.payouts.plan()
    (signature,) = rig.payouts.sign()
    rig.advance(EXPIRED_BLOCKS)
    stops.hold(rig.connection, 1, "somebody looks")
    rig.connection.commit()
    rig.pay(3)
    assert rig.states() == {"cancelled": 1}
    return signature


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_given_up_and_has_landed_is_denied_by_nobody_in_the_end(three: Nodes, fails: bool) -> None:
    """Two nodes of three hide it from all they say, but for what the treasury holds."""
    rig, nodes = three
    reader = Reader(rig)
    rig.creator(1, 1000)
    rig.payouts.plan()
    (signature,) = rig.payouts.sign()
    rig.fresh(Hasty).settle()
    stops.hold(rig.connection, 1, "somebody looks")
    rig.connection.commit()
    rig.fresh(Credulous).sign()
    assert rig.states() == {"cancelled": 1}
    assert reader.read().ok
    if fails:
        rig.put_frozen(1)
    rig.rpc.send([bytes(rig.rows("SELECT raw FROM ledger.attempts")[0][0])])
    rig.advance(FINAL_BLOCKS + 1)
    assert rig.on_chain(1) == (0 if fails else 1000)
    for node in nodes[:2]:
        node.forgotten.add(signature)
        node.lies |= {
            "getSignaturesForAddress": lambda told: [each for each in told if each["signature"] != signature],
            "getTransaction": lambda told: None if told and signature in told["transaction"]["signatures"] else told,
        }
    for _ in range(reconciling.AGAIN_MAX):
        found = reader.read()
        assert (found.conclusive, found.waits_for) == (False, signature)
    assert not reader.read().ok
    assert rig.freezes() == [MISMATCH]
    for node in nodes:
        node.lies.clear()
        node.forgotten.clear()
    reader.difference = Difference()
    reader.read()
    assert rig.freezes() == [MISMATCH, UNKNOWN]


@pytest.mark.parametrize("shift", [1, -1])
@pytest.mark.parametrize("count", [2, 3])
def test_a_node_that_says_a_slot_again_and_again_is_heard_once(three: Nodes, shift: int, count: int) -> None:
    rig, nodes = three
    del rig.rpc.nodes[count:]
    reader = Reader(rig)
    assert reader.read().ok
    rig.advance(FINAL_BLOCKS)
    nodes[0].lies["getSignaturesForAddress"] = lambda told: [
        each | {"slot": each["slot"] + shift} for each in told for _ in range(9)
    ]
    for turn in range(1, 4):
        give(rig)
        rig.advance(FINAL_BLOCKS)
        found = reader.read()
        assert (found.conclusive, found.ok, found.waits_for, reader.given()) == (True, True, None, turn * GIFT)
    newest = rig.rows("SELECT max(slot) FROM ledger.chain_transactions")
    assert rig.rows("SELECT slot FROM ledger.chain_cursors WHERE address = %s", str(rig.treasury.payer.gas)) == newest


# ── Many of them ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes tell little at a time."""
    for name, most in (("SIGNATURES_MAX", 20), ("HISTORY_SHORT", 40), ("STRETCH_MAX", 100)):
        monkeypatch.setattr(chain, name, most)


def flood(rig: Rig, blocks: int, each: int = 30) -> int:
    """Strangers send lamports by the dozen in each block; how many they are."""
    for _ in range(blocks):
        for _ in range(each):
            rig.chain.enqueue(rig.chain.airdrop(rig.treasury.payer.gas, 1))
        rig.advance(1)
    rig.advance(FINAL_BLOCKS + 1)
    return blocks * each


def until_known(reader: Reader, rounds: int) -> int:
    """Rounds until the chain is compared again."""
    for turn in range(1, rounds + 1):
        try:
            found = reader.read()
        except Temporary as error:
            assert "more than 100 transactions" in str(error)
            reader.rig.connection.rollback()
            continue
        assert found.problems == ()
        if found.conclusive:
            return turn
    return pytest.fail("never")


@pytest.mark.parametrize("blocks", [4, 21])
@pytest.mark.usefixtures("little")
def test_strangers_who_were_many_once_are_read_from_the_oldest_on(reader: Reader, blocks: int) -> None:
    rig = reader.rig
    count = flood(rig, blocks)
    token = rig.treasury.payer.token_account
    rig.chain.enqueue(rig.chain.airdrop(token, 1))  # of the other address, after them all
    rig.advance(FINAL_BLOCKS + 1)
    until_known(reader, 4 + 2 * count // 50)
    assert (reader.given(), rig.freezes()) == (count, [])
    assert rig.rows("SELECT count(*)::int FROM ledger.chain_transactions WHERE kind = 'deposit'") == [(count,)]
    give(rig)
    assert until_known(reader, 1) == 1
    assert reader.given() == count + GIFT


@pytest.mark.usefixtures("little")
def test_strangers_who_go_on_while_they_are_read_hide_nothing(reader: Reader) -> None:
    rig = reader.rig
    count = flood(rig, 7)
    for _ in range(10):
        with contextlib.suppress(Temporary):
            reader.read()
        rig.connection.rollback()
        count += flood(rig, 1)
    until_known(reader, 40)
    assert (reader.given(), rig.freezes()) == (count, [])


@pytest.mark.usefixtures("little")
def test_a_node_without_an_end_does_not_keep_those_that_are_many_from_being_read(three: Nodes) -> None:
    rig, nodes = three
    reader = Reader(rig)
    assert reader.read().ok
    count, made = flood(rig, 7), iter(range(10**6))

    def endless(_: Any) -> Any:
        return [{"signature": str(Signature(next(made).to_bytes(64))), "slot": 1, "err": None} for _ in range(20)]

    nodes[0].lies["getSignaturesForAddress"] = endless
    until_known(reader, 30)
    assert (reader.given(), rig.freezes()) == (count, [])


def say_badly(recipients: Sequence[Recipient]) -> dict[int, str]:
    """Somebody's screening, with a reason that no database keeps."""
    return {each.creator_id: NOT_PLAIN for each in recipients}


def test_a_reason_of_somebodys_screening_is_kept_as_the_database_can(rig: Rig) -> None:
    rig.settings = dataclasses.replace(rig.settings, screening=f"{__name__}:say_badly")
    rig.payouts = rig.fresh()
    rig.creator(1, 1000)
    rig.payouts.run_once()
    assert rig.holds() == {1: "screening: made?up ?"}


@pytest.mark.parametrize("method", ["getMultipleAccounts", "getTransaction"])
def test_an_amount_that_the_journal_cannot_hold_is_waited_for(pair: Nodes, method: str) -> None:
    rig, nodes = pair
    del rig.rpc.nodes[1:]
    reader = Reader(rig)
    assert reader.read().ok
    give(rig)
    own, most = rig.treasury.token_account, 2**64 - 1

    def held(answer: Any, params: list[Any]) -> Any:
        for name, account in zip(params[0], answer["value"], strict=True):
            if name == own:
                data = bytearray(base64.b64decode(account["data"][0]))
                data[64:72] = most.to_bytes(8, "little")
                account["data"][0] = base64.b64encode(data).decode()
        return answer

    def brought(answer: Any) -> Any:
        answer["transaction"]["message"]["accountKeys"][0] = own
        token = {"accountIndex": 0, "mint": rig.treasury.mint, "uiTokenAmount": {"amount": str(most)}}
        answer["meta"]["postTokenBalances"] = [token]
        return answer

    if method == "getTransaction":
        nodes[0].lies[method] = brought
    else:
        nodes[0].changes = held
    with pytest.raises(Temporary, match="more than the journal can"):
        reader.read()
    nodes[0].lies.clear()
    nodes[0].changes = None
    assert reader.read().ok
    assert (reader.given(), rig.freezes()) == (GIFT, [])


@pytest.mark.parametrize("count", [2, 3])
def test_what_was_archived_is_not_booked_again_where_a_node_names_it_as_new(three: Nodes, count: int) -> None:
    rig, nodes = three
    del rig.rpc.nodes[count:]
    reader = Reader(rig)
    assert reader.read().ok
    old = give(rig)
    give(rig)
    assert reader.read().ok
    rig.connection.execute("SET session_replication_role = replica")
    rig.connection.execute(
        "WITH gone AS (DELETE FROM ledger.chain_transactions WHERE signature = %s RETURNING slot)"
        " UPDATE ledger.chain_cursors SET forgotten_slot = gone.slot FROM gone",
        (old,),
    )
    rig.connection.execute("SET session_replication_role = DEFAULT")
    rig.connection.commit()
    rig.advance(5)
    slot = rig.chain.height_at("finalized")
    nodes[0].lies["getSignaturesForAddress"] = lambda told: [{"signature": old, "slot": slot, "err": None}, *told]
    give(rig)
    found = reader.read()
    assert (found.conclusive, found.ok, found.waits_for) == (True, True, None)
    assert reader.given() == 3 * GIFT
