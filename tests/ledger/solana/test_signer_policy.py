"""What the signer behind a socket signs: payouts alone, each counted to the unit, up to its ceiling and not one unit more."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from solders.hash import Hash
from solders.instruction import Instruction as SolderInstruction
from solders.message import Message, MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey

from cluster.errors import Rejected
from ledger.solana import packing
from ledger.solana.packing import Instruction, Payer
from ledger.solana.policy import Spent, rent_max, spent
from ledger.solana.remote_signer import Policy, Window, payer_of
from tests.ledger.chains import Key

TREASURY = Key("treasury").pubkey
MINT = Key("mint").pubkey
ACCOUNT = packing.token_account(TREASURY, MINT)
PAYER = Payer(TREASURY, TREASURY, ACCOUNT, MINT, 6)
WITH_GAS = Payer(Key("gas").pubkey, TREASURY, ACCOUNT, PAYER.mint, 6)
STRANGER = Key("a stranger's program").pubkey
MARK = packing.marker(PAYER, "0" * 32, "secret", 890_880)
FEE = 5000 + 5  # a signature, and what `message` pays for being preferred
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
    assert spent(message(paid(amount, payer), payer=payer), payer).pix == amount


def test_all_payouts_of_a_message_are_counted_and_what_goes_with_them_moves_nothing() -> None:
    beside = [
        packing.create_marker(PAYER, MARK),
        packing.reclaim_marker(PAYER, MARK),
        packing.open_account(PAYER, Key("a creator").pubkey),
        packing.memo("a batch"),
    ]
    for version in ("legacy", "v1"):
        found = spent(message(*beside, paid(40), paid(2), version=version), PAYER)
        assert found == Spent(42, FEE + rent_max(165))  # the marker is made and emptied
    assert spent(message(*beside), PAYER).pix == 0


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
        spent(message(paid(1), other), PAYER)


@pytest.mark.parametrize("content", [b"", b"not a message"])
def test_what_is_no_message_is_refused(content: bytes) -> None:
    with pytest.raises(Rejected):
        spent(content, PAYER)


OTHER = Key("somebody else").pubkey
FUNDED = replace(MARK, lamports=99 * 10**9)


def owned_by(
    program: Pubkey, lamports: int, space: int = 0, base: Pubkey = TREASURY, seed: str = MARK.seed
) -> Instruction:
    """CreateAccountWithSeed of any account."""
    data = struct.pack("<I32sQ", packing.CREATE_WITH_SEED, bytes(base), len(seed)) + seed.encode()
    data += struct.pack("<QQ32s", lamports, space, bytes(program))
    address = Pubkey.create_with_seed(base, seed, program)
    return Instruction(packing.SYSTEM_PROGRAM, (TREASURY, address, base), (True, True, False), data)


def emptied_into(to: Pubkey, base: Pubkey = TREASURY) -> Instruction:
    built = packing.reclaim_marker(PAYER, MARK)
    return built._replace(accounts=(built.accounts[0], base, to))


@pytest.mark.parametrize(
    "other",
    [
        packing.create_marker(PAYER, FUNDED),
        packing.create_marker(PAYER, replace(MARK, lamports=rent_max(0) + 1)),
        packing.create_marker(PAYER, replace(MARK, lamports=0)),
        owned_by(STRANGER, 890_880),
        owned_by(packing.SYSTEM_PROGRAM, 890_880, space=1),
        owned_by(packing.SYSTEM_PROGRAM, 890_880, base=OTHER),
        owned_by(packing.SYSTEM_PROGRAM, 890_880, seed="short"),
        packing.create_marker(PAYER, replace(MARK, address=OTHER)),
        emptied_into(OTHER),
        emptied_into(TREASURY, base=OTHER),
        packing.open_account(replace(PAYER, mint=OTHER), OTHER),
        packing.open_account(PAYER, OTHER)._replace(data=bytes([0])),
        packing.pay(replace(PAYER, token_account=OTHER), OTHER, 1),
        packing.pay(replace(PAYER, mint=OTHER), OTHER, 1),
        packing.pay(replace(PAYER, decimals=0), OTHER, 1),
        packing.pay(WITH_GAS, OTHER, 1),
        packing.memo("m" * 65),
        packing.memo("m")._replace(accounts=(OTHER,), writable=(False,)),
    ],
)
@pytest.mark.parametrize("version", ["legacy", "v1"])
def test_lamports_leave_by_no_instruction_but_our_own(other: Instruction, version: str) -> None:
    with pytest.raises(Rejected):
        spent(message(paid(1), other, version=version), PAYER)


def priced(*limits: Instruction) -> bytes:
    built = packing.build(PAYER, [*limits, paid(1)], str(Hash.default()), version="v1", units=9)
    keys, header = list(built.account_keys), built.header
    return to_bytes_versioned(
        Message.new_with_compiled_instructions(
            header.num_required_signatures,
            header.num_readonly_signed_accounts,
            header.num_readonly_unsigned_accounts,
            keys,
            Hash.default(),
            built.instructions,
        )
    )


def limit(form: str, *values: int) -> Instruction:
    return Instruction(packing.COMPUTE_BUDGET, (), (), struct.pack(form, *values))


def test_what_is_paid_to_be_preferred_is_counted_to_the_lamport() -> None:
    for version in ("legacy", "v1"):
        built = packing.build(
            PAYER, [paid(1)], str(Hash.default()), version=version, units=1000, priority_lamports=10**9
        )
        assert spent(to_bytes_versioned(built), PAYER).lamports == 5000 + 10**9
    assert spent(priced(limit("<BI", 2, 3), limit("<BQ", 3, 500_000)), PAYER).lamports == 5000 + 2


@pytest.mark.parametrize(
    "limits",
    [
        [limit("<BQ", 3, 10**15)],
        [limit("<BI", 2, 1), limit("<BQ", 3, 1), limit("<BQ", 3, 10**15)],
        [limit("<BI", 1, 32_768)],
        [limit("<B", 2)],
        [limit("<BII", 0, 1_400_000, 10**9)],
    ],
)
def test_a_limit_of_another_form_is_refused(limits: list[Instruction]) -> None:
    with pytest.raises(Rejected, match="no payout does"):
        spent(priced(*limits), PAYER)


@pytest.mark.parametrize("payer", [replace(PAYER, gas=OTHER), replace(PAYER, gas=OTHER, treasury=OTHER)])
def test_a_message_that_others_are_to_sign_is_refused(payer: Payer) -> None:
    with pytest.raises(Rejected, match="by others"):
        spent(message(packing.memo("m"), payer=payer), PAYER)


def test_a_message_that_looks_addresses_up_in_tables_is_refused() -> None:
    one = SolderInstruction(packing.MEMO_PROGRAM, b"m", [])
    with pytest.raises(Rejected, match="no payout has"):
        spent(to_bytes_versioned(MessageV0.try_compile(TREASURY, [one], [], Hash.default())), PAYER)


def test_whoever_pays_fees_alone_signs_for_the_treasury_that_it_names() -> None:
    named = payer_of(WITH_GAS.gas, str(MINT), 6, treasury=str(TREASURY))
    assert named == WITH_GAS
    assert payer_of(TREASURY, str(MINT), 6, gas=str(WITH_GAS.gas)) == WITH_GAS
    for addresses in (("no address", "", ""), (str(MINT), str(OTHER), str(OTHER))):
        with pytest.raises(Rejected):
            payer_of(TREASURY, addresses[0], 6, *addresses[1:])


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "key.signed"


def opened(kept: Path, now_s: float = 0.0, pix: int = 100, lamports: int = 10**9) -> Policy:
    """The signer's policy as a process that begins has it."""
    return Policy(PAYER, Window(kept, now_s), pix, lamports)


def test_lamports_are_counted_up_to_their_ceiling_and_not_one_more(kept: Path) -> None:
    policy = opened(kept, lamports=2 * FEE + MARK.lamports)
    policy.check(message(packing.create_marker(PAYER, MARK), paid(1)), 0.0)
    policy.check(message(paid(1)), 1.0)
    with pytest.raises(Rejected, match="lamports in 24 hours is above the ceiling"):
        policy.check(message(packing.memo("m")), 2.0)
    policy.check(message(packing.memo("m")), 86_400.0)


def test_a_restart_begins_no_new_day(kept: Path) -> None:
    opened(kept).check(message(paid(60)), 10.0)
    again = opened(kept, 20.0)
    with pytest.raises(Rejected, match="101 in 24 hours"):
        again.check(message(paid(41)), 20.0)
    again.check(message(paid(40)), 20.0)
    opened(kept, 86_410.0).check(message(paid(60)), 86_410.0)
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_file_that_was_cut_off_is_said_and_no_day_begins(kept: Path) -> None:
    kept.write_text("1.0 60")
    with pytest.raises(Rejected, match="no signature"):
        opened(kept)


def test_the_ceiling_is_reached_to_the_unit_and_passed_by_none(kept: Path) -> None:
    policy = opened(kept)
    policy.check(message(paid(60)), 0.0)
    policy.check(message(paid(40)), 10.0)
    with pytest.raises(Rejected, match="101 in 24 hours is above the ceiling of 100"):
        policy.check(message(paid(1)), 20.0)
    policy.check(message(packing.memo("nothing moves")), 20.0)


def test_a_refused_message_does_not_count_and_what_is_a_day_old_counts_no_more(kept: Path) -> None:
    policy = opened(kept)
    policy.check(message(paid(60)), 0.0)
    policy.check(message(paid(30)), 100.0)
    for now_s, amount in ((200.0, 11), (86_399.9, 11), (86_400.0, 71)):
        with pytest.raises(Rejected):
            policy.check(message(paid(amount)), now_s)
    policy.check(message(paid(70)), 86_400.0)  # the sixty are over, the thirty are not
    with pytest.raises(Rejected):
        policy.check(message(paid(31)), 86_499.9)
    policy.check(message(paid(30)), 86_500.0)


def test_a_ceiling_of_nothing_signs_no_unit(kept: Path) -> None:
    policy = opened(kept, pix=0)
    with pytest.raises(Rejected, match="1 in 24 hours is above the ceiling of 0"):
        policy.check(message(paid(1)), 0.0)
