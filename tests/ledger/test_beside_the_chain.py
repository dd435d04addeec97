"""The journal beside the chain: what both hold, and what becomes of each transaction that the chain names."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ledger.chain import Chain
from ledger.reconcile import UNKNOWN, adopt_history, compare
from tests.ledger.chains import GAS, POOL, Rig
from tests.ledger.test_opinions import Telling

PLACES = {"reward_pool": "PIX", "platform": "SOL"}


@pytest.fixture
def told(rig: Rig) -> Iterator[Callable[..., Chain]]:
    """A chain of nodes that say what a test lets them say."""
    made: list[Chain] = []

    def of(*answers: dict[str, Any]) -> Chain:
        made.append(Chain([Telling(str(place), each) for place, each in enumerate(answers)]))
        return made[-1]

    yield of
    for each in made:
        each.close()


# ── What both hold ─────────────────────────────────────────────────────────────────────────────────────────────────


def holding(pix: int | None, lamports: int | None, slot: int = 50) -> dict[str, Any]:
    """A node by which the treasury and who pays its fees hold so much; None: there is no such account."""
    data = bytes(64) + (pix or 0).to_bytes(8, "little") + bytes(93)
    token = {"lamports": 7, "owner": "x", "data": [base64.b64encode(data).decode(), "base64"]}
    gas = {"lamports": lamports, "owner": "x", "data": ["", "base64"]}
    value = [None if pix is None else token, None if lamports is None else gas]
    return {"getMultipleAccounts": {"context": {"slot": slot}, "value": value}}


def test_where_both_hold_the_same_nothing_is_said(rig: Rig, told: Callable[..., Chain]) -> None:
    found = compare(rig.connection, told(holding(POOL, GAS, 60), holding(POOL, GAS, 50)), rig.treasury)
    assert (found.ok, found.conclusive, found.slot) == (True, True, 50)  # as old as the older of the two
    assert (found.journal_pix, found.chain_pix, found.journal_lamports, found.chain_lamports) == (POOL, POOL, GAS, GAS)


@pytest.mark.parametrize(
    ("pix", "lamports", "words"),
    [
        (POOL + 1, GAS, ["PIX"]),
        (POOL - 1, GAS, ["PIX"]),
        (POOL, GAS + 1, ["lamports"]),
        (POOL, GAS - 1, ["lamports"]),
        (0, 0, ["PIX", "lamports"]),
        (None, GAS, ["PIX"]),
        (POOL, None, ["lamports"]),
    ],
)
def test_a_unit_more_or_less_is_a_difference(
    rig: Rig, told: Callable[..., Chain], pix: int | None, lamports: int | None, words: list[str]
) -> None:
    found = compare(rig.connection, told(holding(pix, lamports), holding(pix, lamports)), rig.treasury)
    assert (found.ok, found.conclusive) == (False, True)
    assert (found.chain_pix, found.chain_lamports) == (pix or 0, lamports or 0)
    assert [word for word in ("PIX", "lamports") if any(word in each for each in found.problems)] == words


@pytest.mark.parametrize(
    ("nodes", "chain_pix", "slot", "conclusive"),
    [
        ([(POOL, 10)], POOL, 10, True),  # there is no second one
        ([(POOL, 10), (POOL + 5, 20)], None, None, False),
        ([(POOL + 5, 10), (POOL, 30), (POOL, 20)], POOL, 20, True),
        ([(POOL, 30), (POOL, 20), (POOL + 5, 10)], POOL, 20, True),
        ([(POOL, 10), (POOL + 5, 20), (POOL + 6, 30)], None, None, False),
    ],
)
def test_the_chain_holds_what_two_nodes_say_alike(
    rig: Rig,
    told: Callable[..., Chain],
    nodes: list[tuple[int, int]],
    chain_pix: int | None,
    slot: int,
    conclusive: bool,
) -> None:
    found = compare(rig.connection, told(*(holding(pix, GAS, at) for pix, at in nodes)), rig.treasury)
    assert found.conclusive is conclusive
    if conclusive:
        assert (found.chain_pix, found.slot) == (chain_pix, slot)


# ── What becomes of a transaction ──────────────────────────────────────────────────────────────────────────────────


def naming(rig: Rig, signature: str, pix: int, lamports: int) -> dict[str, Any]:
    """A node that knows one transaction: it changed the treasury's tokens and its payer's lamports by so much."""
    keys = [str(rig.treasury.payer.gas), rig.treasury.token_account, "another"]
    tokens = [{"accountIndex": 1, "uiTokenAmount": {"amount": str(10**9 + change)}} for change in (0, pix)]
    meta = {
        "err": None, "fee": 5000, "preBalances": [10**9, 1, 1], "postBalances": [10**9 + lamports, 1, 1],
        "preTokenBalances": tokens[:1], "postTokenBalances": tokens[1:],
    }  # fmt: skip
    return {
        "getSignaturesForAddress": [{"signature": signature, "slot": 40, "err": None}],
        "getTransaction": {"slot": 40, "transaction": {"message": {"accountKeys": keys}}, "meta": meta},
        "getFirstAvailableBlock": 0,
    }


def kept(rig: Rig) -> list[tuple[Any, ...]]:
    return rig.rows("SELECT kind, delta_pix, delta_lamports, entry_id IS NOT NULL FROM ledger.chain_transactions")


@pytest.mark.parametrize(
    ("pix", "lamports", "kind"),
    [
        (500, 0, "deposit"),
        (0, 700, "deposit"),
        (500, 700, "deposit"),
        (0, 0, "neutral"),
        (-500, 0, "unknown"),
        (0, -700, "unknown"),
        (500, -700, "unknown"),
        (-500, 700, "unknown"),
    ],
)
def test_what_comes_in_is_a_deposit_and_what_goes_out_unasked_stops_payouts(
    rig: Rig, told: Callable[..., Chain], pix: int, lamports: int, kind: str
) -> None:
    before = {place: rig.balance(place, asset=asset) for place, asset in PLACES.items()}
    node = naming(rig, "a signature", pix, lamports)
    assert adopt_history(rig.connection, told(node, node), rig.treasury) is None
    assert kept(rig) == [(kind, pix, lamports, kind == "deposit")]
    grown = {place: rig.balance(place, asset=asset) - before[place] for place, asset in PLACES.items()}
    booked = kind == "deposit"
    assert grown == {"reward_pool": pix if booked else 0, "platform": lamports if booked else 0}
    assert rig.freezes() == ([UNKNOWN] if kind == "unknown" else [])
    assert set(rig.rows("SELECT slot, signature FROM ledger.chain_cursors")) == {(40, "a signature")}
    assert adopt_history(rig.connection, told(node, node), rig.treasury) is None
    assert len(kept(rig)) == 1


@pytest.mark.parametrize(
    ("pix", "lamports", "is_ours", "kind"),
    [
        (-500, -5000, True, "attempt"),
        (0, -5000, True, "neutral"),
        (-500, -5000, False, "unknown"),
        (0, 900, True, "deposit"),
    ],
)
def test_only_what_goes_out_is_asked_about_and_adopted(
    rig: Rig, told: Callable[..., Chain], pix: int, lamports: int, is_ours: bool, kind: str
) -> None:
    asked: list[tuple[int, ...]] = []

    def adopt(effect: Any) -> bool:
        asked.append(tuple(effect.tokens.values()))
        return is_ours

    node = naming(rig, "a signature", pix, lamports)
    assert adopt_history(rig.connection, told(node, node), rig.treasury, adopt) is None
    assert [each[0] for each in kept(rig)] == [kind]
    assert len(asked) == (kind != "deposit")
    assert rig.freezes() == ([UNKNOWN] if kind == "unknown" else [])


@pytest.mark.parametrize(
    ("state", "is_ended", "kind"),
    [
        ("live", False, None),
        ("expired", False, None),  # settling comes first: it was given up too early
        ("expired", True, "unknown"),
        ("landed", True, "attempt"),
        ("failed", True, "attempt"),
        ("failed", False, "attempt"),
        ("landed", False, "attempt"),
    ],
)
def test_what_is_ours_waits_until_it_is_settled(
    rig: Rig, told: Callable[..., Chain], state: str, is_ended: bool, kind: str | None
) -> None:
    rig.creator(1, 1000)
    rig.payouts.plan()
    (signature,) = rig.payouts.sign()
    rig.connection.execute("SET session_replication_role = replica")
    rig.connection.execute("UPDATE ledger.attempts SET state = %s", (state,))
    rig.connection.execute(
        "UPDATE ledger.batches SET state = %s, ended_at = CASE WHEN %s THEN now() END",
        ("failed" if is_ended else "signed", is_ended),
    )
    rig.connection.execute("SET session_replication_role = DEFAULT")
    rig.connection.commit()
    node = naming(rig, signature, -1000, -5000)
    asked: list[Any] = []
    waits = adopt_history(rig.connection, told(node, node), rig.treasury, lambda effect: bool(asked.append(effect)))
    assert waits == (signature if kind is None else None)
    assert [each[0] for each in kept(rig)] == ([kind] if kind else [])
    assert asked == []  # the attempt says what it is
    assert rig.freezes() == ([UNKNOWN] if kind == "unknown" else [])
