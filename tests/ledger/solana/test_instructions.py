"""Instructions are those of the programs' own client libraries: accounts, which of them change, and data, byte by byte."""

from __future__ import annotations

import pytest
from solders.instruction import Instruction as Theirs
from solders.system_program import (
    CreateAccountWithSeedParams,
    TransferWithSeedParams,
    create_account_with_seed,
    transfer_with_seed,
)
from spl.token.instructions import (
    create_idempotent_associated_token_account,
    transfer,
    transfer_checked,
)
from spl.token.models import TransferCheckedParams, TransferParams

from ledger.solana import packing
from ledger.solana.packing import Instruction, Payer
from tests.ledger.chains import Key

TREASURY, GAS, MINT = (Key(name).pubkey for name in ("treasury", "gas", "mint"))
ACCOUNT, TO, WALLET = (Key(name).pubkey for name in ("account", "to", "a creator"))
ONE, TWO = Payer(TREASURY, TREASURY, ACCOUNT, MINT, 6), Payer(GAS, TREASURY, ACCOUNT, MINT, 6)


def assert_same(ours: Instruction, theirs: Theirs) -> None:
    assert ours.program == theirs.program_id
    assert list(ours.accounts) == [each.pubkey for each in theirs.accounts]
    signers = {each.pubkey for each in theirs.accounts if each.is_signer}
    changes = {each.pubkey for each in theirs.accounts if each.is_writable}
    assert {key for key, changed in zip(ours.accounts, ours.writable, strict=True) if changed} == changes
    assert signers <= {TREASURY, GAS}
    assert ours.data == bytes(theirs.data)


@pytest.mark.parametrize("amount", [1, 2**40 + 7, 2**63 - 1])
def test_a_payout_is_a_checked_transfer_and_a_plain_one_beside_another_payer(amount: int) -> None:
    named = {"program_id": packing.TOKEN_PROGRAM, "source": ACCOUNT, "dest": TO, "owner": TREASURY, "amount": amount}
    checked = TransferCheckedParams(**named, mint=MINT, decimals=6)
    assert_same(packing.pay(ONE, TO, amount), transfer_checked(checked))
    assert_same(packing.pay(TWO, TO, amount), transfer(TransferParams(**named)))


@pytest.mark.parametrize("payer", [ONE, TWO], ids=["one key", "two keys"])
def test_a_token_account_is_opened_where_there_is_none(payer: Payer) -> None:
    theirs = create_idempotent_associated_token_account(payer.gas, WALLET, MINT)
    ours = packing.open_account(payer, WALLET)
    assert_same(ours, theirs)
    assert ours.accounts[1] == packing.token_account(WALLET, MINT)


@pytest.mark.parametrize("payer", [ONE, TWO], ids=["one key", "two keys"])
def test_a_marker_is_an_account_of_no_size_made_with_a_seed_and_emptied_whole(payer: Payer) -> None:
    mark = packing.marker(payer, "0" * 32, "secret", 890_880)
    made = create_account_with_seed(
        CreateAccountWithSeedParams(
            from_pubkey=payer.gas, to_pubkey=mark.address, base=TREASURY, seed=mark.seed, lamports=890_880,
            space=0, owner=packing.SYSTEM_PROGRAM,
        )
    )  # fmt: skip
    ours = packing.create_marker(payer, mark)
    assert (ours.program, ours.data) == (made.program_id, bytes(made.data))
    assert ours.accounts[:2] == (payer.gas, mark.address)
    assert set(ours.accounts) == {each.pubkey for each in made.accounts} | {TREASURY}
    assert ours.writable == (True, True, False)
    emptied = transfer_with_seed(
        TransferWithSeedParams(
            from_pubkey=mark.address, from_base=TREASURY, from_seed=mark.seed, from_owner=packing.SYSTEM_PROGRAM,
            to_pubkey=payer.gas, lamports=890_880,
        )
    )  # fmt: skip
    ours = packing.reclaim_marker(payer, mark)
    assert (ours.program, ours.data) == (emptied.program_id, bytes(emptied.data))
    assert list(ours.accounts) == [each.pubkey for each in emptied.accounts]
    assert list(ours.writable) == [each.is_writable for each in emptied.accounts]
