"""Policy: a signer signs only a treasury's payouts, checked instruction by instruction.

Each instruction is decoded, built again by `packing`, and compared byte for byte and account for account. It is refused
unless the ledger would build it for this treasury and this mint. Both what a message pays and what it can cost in SOL
(fees, rents) are counted, for the signer's ceilings. Knows messages and numbers, no key.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from solders.message import Message, MessageV1, from_bytes_versioned
from solders.pubkey import Pubkey

from cluster.errors import Rejected
from ledger.solana import packing
from ledger.solana.chain import TOKEN_ACCOUNT_BYTES
from ledger.solana.packing import Instruction, Marker, Payer

SIGNATURE_LAMPORTS = 5000
# Rent is 6,960 lamports for each byte of an account, and for 128 bytes more. Decided changes only lower it.
BYTE_LAMPORTS_MAX, BESIDE_BYTES = 6960, 128
SEED_CHARACTERS = 32
MEMO_BYTES_MAX = 64
PRICE_SCALE = 1_000_000  # micro-lamports in a lamport
UNIT_LIMIT, UNIT_PRICE = 2, 3  # of the compute budget's instructions


class Spent(NamedTuple):
    """The most that a message moves: base units of PIX to recipients, and lamports for fees and rents."""

    pix: int
    lamports: int


class Made(NamedTuple):
    """An account whose rent a message pays, and the lamports; they are negative if taken back from the account."""

    address: Pubkey
    lamports: int


@dataclass(frozen=True)
class Step:
    """One instruction with the addresses of its accounts."""

    program: Pubkey
    accounts: tuple[Pubkey, ...]
    data: bytes

    def is_like(self, built: Instruction) -> bool:
        """Whether the instruction equals one that we have built, byte for byte and account for account."""
        return (self.program, self.accounts, self.data) == (built.program, tuple(built.accounts), built.data)


def rent_max(size: int) -> int:
    """Return the most that an account of `size` bytes may cost, in lamports."""
    return (BESIDE_BYTES + size) * BYTE_LAMPORTS_MAX


def spent(content: bytes, payer: Payer) -> Spent:
    """Return the most that a message moves; refuse it if it is not one of this treasury's payouts.

    Raises:
        Rejected: it is not the message of a transaction, or does something that no payout does.
    """
    message = _message(content)
    keys = message.account_keys
    if list(keys[: message.header.num_required_signatures]) != payer.signers:
        raise Rejected("it is to be signed by others than the treasury and its payer of fees")
    steps = [
        Step(keys[each.program_id_index], tuple(keys[index] for index in each.accounts), bytes(each.data))
        for each in message.instructions
    ]
    limits = [each for each in steps if each.program == packing.COMPUTE_BUDGET]
    fee = SIGNATURE_LAMPORTS * len(payer.signers) + _priority(message, limits)
    pix, paid_for = 0, dict[Pubkey, int]()
    for step in steps:
        if step.program == packing.COMPUTE_BUDGET:
            continue
        amount, account = _read(step, payer)
        pix += amount
        if account is not None:  # what is made and emptied at once costs nothing
            paid_for[account.address] = paid_for.get(account.address, 0) + account.lamports
    return Spent(pix, fee + sum(max(each, 0) for each in paid_for.values()))


def _message(content: bytes) -> Message | MessageV1:
    """Decode a message; refuse one that looks up addresses in tables, since the ledger builds none of these."""
    try:
        message = from_bytes_versioned(content)
        keys = len(message.account_keys)
        is_whole = all(max((each.program_id_index, *each.accounts)) < keys for each in message.instructions)
    except (ValueError, TypeError) as error:
        raise Rejected("not the message of a transaction") from error
    if not isinstance(message, Message | MessageV1) or not is_whole:
        raise Rejected("it is of a form that no payout has")
    return message


def _priority(message: Message | MessageV1, limits: Sequence[Step]) -> int:
    """Return the priority fee that a message offers, in lamports."""
    if isinstance(message, MessageV1):
        if limits:
            raise Rejected(_foreign(limits[0]))
        return int(message.config.priority_fee or 0)
    values: dict[int, int] = {}  # by kind of limit
    for each in limits:
        kind = each.data[0] if each.data else 0
        form = {UNIT_LIMIT: "<BI", UNIT_PRICE: "<BQ"}.get(kind)
        if form is None or len(each.data) != struct.calcsize(form) or each.accounts or kind in values:
            raise Rejected(_foreign(each))
        values[kind] = struct.unpack(form, each.data)[1]
    if UNIT_PRICE in values and UNIT_LIMIT not in values:
        raise Rejected("it pays for units without a limit to them, as no payout does")
    return -(-values.get(UNIT_LIMIT, 0) * values.get(UNIT_PRICE, 0) // PRICE_SCALE)


def _read(step: Step, payer: Payer) -> tuple[int, Made | None]:
    """Return the base units of PIX that an instruction moves, and the account whose rent it pays, if any."""
    if step.program == packing.MEMO_PROGRAM and not step.accounts and len(step.data) <= MEMO_BYTES_MAX:
        return 0, None
    readers: dict[Pubkey, Callable[[Step, Payer], tuple[int, Made | None] | None]] = {
        packing.TOKEN_PROGRAM: _paid,
        packing.ATA_PROGRAM: _opened,
        packing.SYSTEM_PROGRAM: _made_or_emptied,
    }
    try:
        moved = readers[step.program](step, payer) if step.program in readers else None
    except (ValueError, IndexError, struct.error):
        moved = None
    if moved is None:
        raise Rejected(_foreign(step))
    return moved


def _foreign(step: Step) -> str:
    return f"it calls {step.program} in a way that no payout does"


def _paid(step: Step, payer: Payer) -> tuple[int, Made | None] | None:
    amount = int.from_bytes(step.data[1:9], "little")
    to = step.accounts[1 if payer.gas != payer.treasury else 2]
    return (amount, None) if step.is_like(packing.pay(payer, to, amount)) else None


def _opened(step: Step, payer: Payer) -> tuple[int, Made | None] | None:
    built = packing.open_account(payer, step.accounts[2])
    return (0, Made(step.accounts[1], rent_max(TOKEN_ACCOUNT_BYTES))) if step.is_like(built) else None


def _made_or_emptied(step: Step, payer: Payer) -> tuple[int, Made | None] | None:
    if int.from_bytes(step.data[:4], "little") == packing.CREATE_WITH_SEED:
        length, at = struct.unpack_from("<Q", step.data, 36)[0], 44
        marker = _marker(payer, step.data[at : at + length], struct.unpack_from("<Q", step.data, at + length)[0])
        if not 0 < marker.lamports <= rent_max(0) or not step.is_like(packing.create_marker(payer, marker)):
            return None
        return 0, Made(marker.address, marker.lamports)
    lamports, length = struct.unpack_from("<QQ", step.data, 4)
    marker = _marker(payer, step.data[20 : 20 + length], lamports)
    return (0, Made(marker.address, -lamports)) if step.is_like(packing.reclaim_marker(payer, marker)) else None


def _marker(payer: Payer, seed: bytes, lamports: int) -> Marker:
    """Derive a marker from its seed."""
    text = seed.decode("ascii")
    if len(text) != SEED_CHARACTERS:
        raise ValueError(f"a seed of {len(text)} characters")
    return Marker(Pubkey.create_with_seed(payer.treasury, text, packing.SYSTEM_PROGRAM), text, lamports)
