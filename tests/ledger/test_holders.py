"""Whose a token account is: what a wallet's account is paid, only the wallet gets."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from psycopg import Connection
from solders.account import Account
from solders.pubkey import Pubkey

from ledger import holders, packing, stops, wallets
from ledger.batches import Batch, Recipient
from ledger.chain import Account as Seen
from ledger.signing import CLOSED
from tests.ledger.chains import FINAL_BLOCKS, RENT, Key, Rig, assert_paid, new_chain, token_account, wallet_of
from tests.ledger.test_two_walls import Node
from tests.ledger.test_two_walls import pair as pair
from tests.ledger.test_two_walls import three as three

THIEF = Key("thief").pubkey
MINT = Key("mint").pubkey
WALLETS = [str(Key(word).pubkey) for word in "ab"]


def give_away(rig: Rig, creator: int, to: Pubkey = THIEF) -> None:
    """The wallet's key has made another one the owner of its token account (SetAuthority), which keeps its address."""
    held = rig.on_chain(creator)
    rig.chain.svm.set_account(rig.address_of(creator), token_account(rig.treasury.payer.mint, to, held))
    rig.advance(FINAL_BLOCKS)


def release(rig: Rig, *creators: int) -> None:
    """A person releases the holds on these creators."""
    for each in stops.in_force(rig.connection):
        if each.creator_id in creators:
            stops.release(rig.connection, each.name, "ana")
    rig.connection.commit()


def name_wallet(rig: Rig, creator: int, word: str) -> Pubkey:
    """The creator names another wallet, which has a token account already."""
    wallet = Key(word).pubkey
    address = packing.token_account(wallet, rig.treasury.payer.mint)
    rig.chain.svm.set_account(address, token_account(rig.treasury.payer.mint, wallet))
    rig.advance(FINAL_BLOCKS)
    rig.connection.execute("UPDATE ledger.wallets SET wallet = %s WHERE creator_id = %s", (str(wallet), creator))
    rig.connection.execute("UPDATE ledger.wallets SET hold_until = NULL WHERE creator_id = %s", (creator,))
    rig.connection.commit()
    return address


def test_who_has_given_their_token_account_away_is_held_and_the_others_of_the_batch_are_paid(rig: Rig) -> None:
    for creator in (1, 2, 3):
        rig.creator(creator, 1000)
    rig.pay(3)
    give_away(rig, 2)
    for creator in (1, 2, 3):
        rig.earn(creator, 500)
    rig.pay(5)
    assert_paid(rig, {1: 1500, 2: 1000, 3: 1500})
    (said,) = rig.holds().items()
    assert said[0] == 2
    assert said[1].startswith(f"{wallets.UNPAYABLE}: {wallet_of(2)} ")
    assert f"token account {rig.address_of(2)}" in said[1]
    assert "name another wallet, or have its owner set back" in said[1]

    release(rig, 2)  # and nothing was mended
    rig.pay(4)
    assert (rig.on_chain(2), list(rig.holds())) == (1000, [2])
    give_away(rig, 2, Pubkey.from_string(wallet_of(2)))
    release(rig, 2)
    rig.pay(4)
    assert_paid(rig, {1: 1500, 2: 1500, 3: 1500})


def test_who_names_another_wallet_since_they_gave_their_token_account_away_is_paid_there(rig: Rig) -> None:
    rig.creator(1, 1000)
    give_away(rig, 1)
    rig.pay(3)
    assert (rig.on_chain(1), list(rig.holds())) == (0, [1])
    address = name_wallet(rig, 1, "another wallet")
    rig.pay(5)
    assert rig.holds() == {}
    there = rig.chain.account(address)
    assert there is not None
    assert int.from_bytes(there.data[64:72], "little") == 1000


def test_two_creators_of_one_wallet_whose_token_account_was_given_away_are_both_told(rig: Rig) -> None:
    for creator in (1, 2, 3):
        rig.creator(creator, 1000)
    rig.connection.execute("UPDATE ledger.wallets SET wallet = %s, hold_until = NULL", (wallet_of(1),))
    rig.connection.execute("UPDATE ledger.wallets SET hold_until = NULL")
    rig.connection.commit()
    give_away(rig, 1)
    rig.pay(4)
    assert sorted(rig.holds()) == [1, 2, 3]
    give_away(rig, 1, Pubkey.from_string(wallet_of(1)))
    release(rig, 1, 2, 3)
    rig.pay(4)
    assert (rig.on_chain(1), rig.holds()) == (3000, {})


def test_what_was_planned_or_given_up_before_is_not_signed_for_another_owner(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.creator(2, 1000)
    rig.payouts.plan()
    give_away(rig, 1)
    rig.pay(5)
    assert_paid(rig, {1: 0, 2: 1000})
    assert list(rig.holds()) == [1]


def owned_by(address: Pubkey, mint: Pubkey, owner: Pubkey) -> tuple[Any, Any]:
    """A node that says so of a token account: when it is asked for it, and beside a simulation."""
    data = [base64.b64encode(bytes(token_account(mint, owner).data)).decode(), "base64"]
    made_up = {"lamports": RENT, "owner": str(packing.TOKEN_PROGRAM), "data": data}

    def told(answer: Any, params: list[Any]) -> Any:
        answer["value"] = [
            made_up if name == str(address) else was for name, was in zip(params[0], answer["value"], strict=True)
        ]
        return answer

    def simulated(answer: Any) -> Any:
        if answer["value"]["accounts"]:
            answer["value"]["accounts"] = [made_up for _ in answer["value"]["accounts"]]
        return answer

    return told, simulated


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("is_given_away", [True, False])
def test_whose_a_token_account_is_is_no_single_nodes_word(
    three: tuple[Rig, list[Node]], place: int, is_given_away: bool
) -> None:
    rig, nodes = three
    rig.creator(1, 1000)
    mint, own = rig.treasury.payer.mint, Pubkey.from_string(wallet_of(1))
    if is_given_away:
        give_away(rig, 1)
    told, simulated = owned_by(rig.address_of(1), mint, own if is_given_away else THIEF)
    nodes[place].changes, nodes[place].lies["simulateTransaction"] = told, simulated
    rig.pay(4)
    assert (rig.on_chain(1), list(rig.holds())) == ((0, [1]) if is_given_away else (1000, []))


def test_while_two_nodes_differ_on_whose_a_token_account_is_it_is_not_paid_and_nobody_is_held(
    pair: tuple[Rig, list[Node]], caplog: pytest.LogCaptureFixture
) -> None:
    rig, nodes = pair
    for creator in (1, 2):
        rig.creator(creator, 1000)
    told, simulated = owned_by(rig.address_of(1), rig.treasury.payer.mint, THIEF)
    nodes[0].changes, nodes[0].lies["simulateTransaction"] = told, simulated
    rig.payouts.plan()
    assert rig.payouts.sign() == []
    assert rig.holds() == {}
    assert {each.__dict__["address"] for each in caplog.records if "whose a token account is" in each.message} == {
        str(rig.address_of(1))
    }
    nodes[0].changes = None
    nodes[0].lies.clear()
    rig.pay(3)
    assert_paid(rig, {1: 1000, 2: 1000})


@pytest.mark.parametrize("leaves_out", [True, False])
def test_a_node_that_tells_no_accounts_beside_a_simulation_is_asked_for_them(
    pair: tuple[Rig, list[Node]], leaves_out: bool
) -> None:
    rig, nodes = pair

    def without(answer: Any) -> Any:
        answer["value"]["accounts"] = answer["value"]["accounts"] and answer["value"]["accounts"][1:]
        if leaves_out:
            del answer["value"]["accounts"]
        return answer

    nodes[0].lies["simulateTransaction"] = without
    for creator in (1, 2, 3):
        rig.creator(creator, 1000)
    give_away(rig, 2)
    rig.pay(5)
    assert_paid(rig, {1: 1000, 2: 0, 3: 1000})


def test_nobody_is_asked_for_accounts_that_every_node_has_told_of_beside_the_simulation(rig: Rig) -> None:
    for creator in range(1, 40):
        rig.creator(creator, 1000)
    rig.payouts.plan()
    for node in rig.rpc.nodes:
        node.calls.clear()  # type: ignore[attr-defined]
    rig.payouts.sign()
    for node in rig.rpc.nodes:
        assert node.calls.count("getMultipleAccounts") == 1  # type: ignore[attr-defined]  # what the treasury holds
    rig.pay(2)
    assert_paid(rig, dict.fromkeys(range(1, 40), 1000))


def test_a_token_account_is_a_wallets_by_its_program_its_mint_and_its_owner() -> None:
    own, other = (bytes(MINT) + bytes(Pubkey.from_string(each)) + bytes(101) for each in WALLETS)
    program = str(packing.TOKEN_PROGRAM)
    assert holders.belongs(Seen(RENT, program, own), WALLETS[0], MINT)
    for seen in (
        None,
        Seen(RENT, program, other),
        Seen(RENT, program, own[:63]),
        Seen(RENT, program, b""),
        Seen(RENT, str(packing.SYSTEM_PROGRAM), own),
        Seen(RENT, program, bytes(THIEF) + own[32:]),
    ):
        assert not holders.belongs(seen, WALLETS[0], MINT)


def test_in_doubt_is_whom_any_node_does_not_vouch_for() -> None:
    mine = [
        Seen(RENT, str(packing.TOKEN_PROGRAM), bytes(MINT) + bytes(Pubkey.from_string(each)) + bytes(101))
        for each in WALLETS
    ]
    one, two = (Recipient(number, wallet, f"at {wallet}", 5) for number, wallet in enumerate(WALLETS, 1))
    again = Recipient(3, WALLETS[0], f"at {WALLETS[0]}", 5)
    batch = Batch("b", "payout", "planned", 15, (one, two, again))
    good = tuple(mine)
    assert holders.paid_at(batch) == [one.address, two.address]
    assert holders.in_doubt(batch, [good, good], MINT, 2) == []
    assert holders.in_doubt(batch, [good], MINT, 2) == [one, two, again]
    assert holders.in_doubt(batch, [good, good[:1]], MINT, 2) == [one, two, again]
    assert holders.in_doubt(batch, [good, (mine[0], mine[0])], MINT, 2) == [two]
    assert holders.in_doubt(batch, [(None, mine[1]), good], MINT, 2) == [one, again]
    opening = Batch("a", "accounts", "planned", 0, (Recipient(1, WALLETS[0], "x"),))
    assert holders.in_doubt(opening, [], MINT, 2) == []


# ── A token account that its owner has closed ──────────────────────────────────────────────────────────────────────


def close(rig: Rig, creator: int) -> None:
    rig.chain.svm.set_account(rig.address_of(creator), Account(0, b"", packing.SYSTEM_PROGRAM))
    rig.advance(FINAL_BLOCKS)


@pytest.mark.parametrize("creators", [(1,), (1, 2)])
def test_who_has_closed_the_account_that_we_opened_is_told_and_paid_once_it_is_open_again(
    rig: Rig, creators: tuple[int, ...]
) -> None:
    for creator in (*creators, 9):
        rig.creator(creator, 1000, account=False)
    rig.connection.execute(
        "UPDATE ledger.wallets SET wallet = %s WHERE creator_id = ANY(%s)", (wallet_of(1), list(creators))
    )
    rig.connection.execute("UPDATE ledger.wallets SET hold_until = NULL")
    rig.connection.commit()
    rig.pay(6)
    assert rig.on_chain(1) == 1000 * len(creators)
    close(rig, 1)
    for creator in (*creators, 9):
        rig.earn(creator, 500)
    rig.pay(6)
    assert tuple(sorted(rig.holds())) == creators
    assert all("the chain refuses it" in each and CLOSED in each for each in rig.holds().values())
    assert rig.on_chain(9) == 1500

    release(rig, *creators)  # it is closed as before
    rig.pay(6)
    assert tuple(sorted(rig.holds())) == creators
    rig.put_account(1)
    release(rig, *creators)
    rig.pay(6)
    assert (rig.on_chain(1), rig.holds(), rig.freezes()) == (500 * len(creators), {}, [])


def test_who_closes_it_when_the_payout_is_signed_already_is_told_what_to_do(rig: Rig) -> None:
    rig.creator(1, 1000, account=False)
    rig.pay(4)
    rig.earn(1, 500)
    rig.payouts.plan()
    rig.payouts.sign()
    close(rig, 1)
    rig.payouts.send()
    rig.pay(3)
    (said,) = rig.holds().values()
    assert said.startswith("the transaction failed: ")
    assert said.endswith(CLOSED)
    rig.put_account(1)
    release(rig, 1)
    rig.pay(4)
    assert (rig.on_chain(1), rig.holds()) == (500, {})


def test_who_hands_over_a_closed_account_opened_again_by_another_key_is_not_paid_there(
    journal: Connection[Any],
) -> None:
    rig = Rig(journal, new_chain())
    rig.creator(1, 1000)
    rig.pay(3)
    close(rig, 1)
    give_away(rig, 1)
    rig.earn(1, 500)
    rig.pay(4)
    assert (rig.on_chain(1), list(rig.holds())) == (0, [1])
