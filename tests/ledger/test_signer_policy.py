"""What the signer behind a socket signs: payouts alone, each counted to the unit, up to its ceiling and not one unit more."""

from __future__ import annotations

import struct

import pytest
from solders.hash import Hash
from solders.message import to_bytes_versioned
from solders.pubkey import Pubkey

from cluster.errors import Rejected
from ledger import packing
from ledger.packing import Instruction, Payer
from ledger.remote_signer import Policy, moved
from tests.ledger.chains import Key

TREASURY = Key("treasury").pubkey
ACCOUNT = Key("account").pubkey
PAYER = Payer(TREASURY, TREASURY, ACCOUNT, Key("mint").pubkey, 6)
WITH_GAS = Payer(Key("gas").pubkey, TREASURY, ACCOUNT, PAYER.mint, 6)
STRANGER = Key("a stranger's program").pubkey
MARK = packing.marker(PAYER, "0" * 32, "secret", 890_880)
LARGEST = 2**63 - 1


def message(*instructions: Instruction, payer: Payer = PAYER, version: str = "legacy") -> bytes:
    built = packing.build(payer, instructions, str(Hash.default()), version=version, units=1000, priority_lamports=5)
    return to_bytes_versioned(built)


def paid(amount: int, payer: Payer = PAYER) -> Instruction:
    return packing.pay(payer, Key("a creator").pubkey, amount)


def called(program: Pubkey, data: bytes) -> Instruction:
    return Instruction(program, (ACCOUNT, TREASURY), (True, False), data)


@pytest.mark.parametrize("payer", [PAYER, WITH_GAS], ids=["one key", "two keys"])
@pytest.mark.parametrize("amount", [1, 255, 256, 2**56, LARGEST])
def test_every_unit_of_a_payout_is_counted(payer: Payer, amount: int) -> None:
    assert moved(message(paid(amount, payer), payer=payer)) == amount


def test_all_payouts_of_a_message_are_counted_and_what_goes_with_them_moves_nothing() -> None:
    beside = [
        packing.create_marker(PAYER, MARK),
        packing.reclaim_marker(PAYER, MARK),
        packing.open_account(PAYER, Key("a creator").pubkey),
        packing.memo("a batch"),
    ]
    for version in ("legacy", "v1"):
        assert moved(message(*beside, paid(40), paid(2), version=version)) == 42
    assert moved(message(*beside)) == 0


LIKE_A_TRANSFER = struct.pack("<BQB", packing.TRANSFER_CHECKED, 7, 6)
LIKE_A_MARKER = packing.create_marker(PAYER, MARK).data


@pytest.mark.parametrize(
    "other",
    [
        called(STRANGER, LIKE_A_TRANSFER),
        called(STRANGER, LIKE_A_MARKER),
        called(STRANGER, b""),
        called(packing.SYSTEM_PROGRAM, struct.pack("<IQ", 2, 10**9)),  # a transfer of lamports
        called(packing.SYSTEM_PROGRAM, LIKE_A_TRANSFER),
        called(packing.TOKEN_PROGRAM, LIKE_A_MARKER),
        called(packing.TOKEN_PROGRAM, struct.pack("<BQ", packing.TRANSFER_CHECKED, 7)),
        called(packing.TOKEN_PROGRAM, struct.pack("<BQB", packing.TRANSFER, 7, 6)),
        called(packing.TOKEN_PROGRAM, struct.pack("<BQ", 4, 7)),  # approve: another may take it later
        called(packing.TOKEN_PROGRAM, struct.pack("<BBB", 6, 2, 0)),  # another owner
        called(packing.TOKEN_PROGRAM, bytes([9])),  # close the account
        called(packing.TOKEN_PROGRAM, b""),
    ],
    ids=lambda each: f"{str(each.program)[:8]} {each.data.hex()[:20]}",
)
def test_one_instruction_that_is_of_no_payout_spoils_the_message(other: Instruction) -> None:
    with pytest.raises(Rejected, match="no payout does"):
        moved(message(paid(1), other))


@pytest.mark.parametrize("content", [b"", b"not a message"])
def test_what_is_no_message_is_refused(content: bytes) -> None:
    with pytest.raises(Rejected):
        moved(content)


def test_the_ceiling_is_reached_to_the_unit_and_passed_by_none() -> None:
    policy = Policy(100)
    policy.check(message(paid(60)), 0.0)
    policy.check(message(paid(40)), 10.0)
    with pytest.raises(Rejected, match="101 in 24 hours is above the ceiling of 100"):
        policy.check(message(paid(1)), 20.0)
    policy.check(message(packing.memo("nothing moves")), 20.0)


def test_a_refused_message_does_not_count_and_what_is_a_day_old_counts_no_more() -> None:
    policy = Policy(100)
    policy.check(message(paid(60)), 0.0)
    policy.check(message(paid(30)), 100.0)
    for now_s, amount in ((200.0, 11), (86_399.9, 11), (86_400.0, 71)):
        with pytest.raises(Rejected):
            policy.check(message(paid(amount)), now_s)
    policy.check(message(paid(70)), 86_400.0)  # the sixty are over, the thirty are not
    with pytest.raises(Rejected):
        policy.check(message(paid(31)), 86_499.9)
    policy.check(message(paid(30)), 86_500.0)


def test_a_ceiling_of_nothing_signs_no_unit() -> None:
    policy = Policy(0)
    with pytest.raises(Rejected, match="1 in 24 hours is above the ceiling of 0"):
        policy.check(message(paid(1)), 0.0)
