"""Packing: turn recipients into the bytes of a transaction.

A transaction is limited in three ways: bytes (1232, or 4096 in version 1), addresses (64) and executed instructions
(64, including those that programs call). Capacities are found by building the largest transaction that fits, not by a
formula. Messages are compiled here, field by field, because that is an order of magnitude faster than composing
instruction objects. Knows amounts and addresses, not who is paid or why.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from solders.hash import Hash
from solders.instruction import CompiledInstruction
from solders.message import Message, MessageHeader, MessageV1, TransactionConfig
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from ledger.solana.signer import Signer

TOKEN_PROGRAM = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
ATA_PROGRAM = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
COMPUTE_BUDGET = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
MEMO_PROGRAM = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
SYSTEM_PROGRAM = Pubkey.default()

BYTES_MAX = {"legacy": 1232, "v1": 4096}
ADDRESSES_MAX = 64
INSTRUCTIONS_MAX = 64  # executed, programs' own calls included
OPENING_CALLS = 6  # what one token account's opening executes
COMPUTE_UNITS_MAX = 1_400_000
TRANSFER, TRANSFER_CHECKED, CREATE_IDEMPOTENT = 3, 12, b"\x01"
CREATE_WITH_SEED, TRANSFER_WITH_SEED = 3, 11


@dataclass(frozen=True)
class Payer:
    """The keys and accounts of a treasury: `gas` pays fees and rent, `treasury` owns the tokens in `token_account`.

    `gas` and `treasury` are often the same key.
    """

    gas: Pubkey
    treasury: Pubkey
    token_account: Pubkey
    mint: Pubkey
    decimals: int

    @property
    def signers(self) -> list[Pubkey]:
        return [self.gas] if self.gas == self.treasury else [self.gas, self.treasury]


@dataclass(frozen=True)
class Marker:
    """The account that a batch's transaction creates, so that a second transaction of the same batch fails whole."""

    address: Pubkey
    seed: str
    lamports: int


class Instruction(NamedTuple):
    """An instruction whose accounts are addresses, not yet numbers; `writable` tells for each whether it may change."""

    program: Pubkey
    accounts: tuple[Pubkey, ...]
    writable: tuple[bool, ...]
    data: bytes


def token_account(wallet: Pubkey, mint: Pubkey) -> Pubkey:
    """Derive the address of a wallet's associated token account."""
    return Pubkey.find_program_address([bytes(wallet), bytes(TOKEN_PROGRAM), bytes(mint)], ATA_PROGRAM)[0]


def marker(payer: Payer, batch_id: str, secret: str, lamports: int) -> Marker:
    """Derive a batch's marker. The secret prevents strangers from creating the account first.

    Args:
        payer: the keys of the treasury that creates it.
        batch_id: the batch of the marker.
        secret: the secret of the deployment's batches.
        lamports: the lamports that it is created with, or holds.

    Returns:
        The marker, with its address and seed.
    """
    seed = hashlib.sha256(f"{batch_id}|{secret}".encode()).hexdigest()[:32]
    return Marker(Pubkey.create_with_seed(payer.treasury, seed, SYSTEM_PROGRAM), seed, lamports)


# ── Instructions ───────────────────────────────────────────────────────────────────────────────────────────────────


def pay(payer: Payer, to: Pubkey, amount: int) -> Instruction:
    """Make the transfer of `amount` base units from the treasury's token account to another one.

    It is a TransferChecked, which names the mint. If another key than the treasury's pays the fees, it is a Transfer,
    which names no mint: that key takes one of the 64 addresses, so the mint's is left out. The program still
    requires that both accounts are of one mint, and the treasury's was checked when it was opened.
    """
    if payer.gas != payer.treasury:
        plain = struct.pack("<BQ", TRANSFER, amount)
        return Instruction(TOKEN_PROGRAM, (payer.token_account, to, payer.treasury), (True, True, False), plain)
    data = struct.pack("<BQB", TRANSFER_CHECKED, amount, payer.decimals)
    accounts = (payer.token_account, payer.mint, to, payer.treasury)
    return Instruction(TOKEN_PROGRAM, accounts, (True, False, True, False), data)


def open_account(payer: Payer, wallet: Pubkey) -> Instruction:
    """Make the instruction that creates a wallet's token account, unless it exists."""
    address = token_account(wallet, payer.mint)
    accounts = (payer.gas, address, wallet, payer.mint, SYSTEM_PROGRAM, TOKEN_PROGRAM)
    return Instruction(ATA_PROGRAM, accounts, (True, True, False, False, False, False), CREATE_IDEMPOTENT)


def create_marker(payer: Payer, mark: Marker) -> Instruction:
    """Make the CreateAccountWithSeed instruction of a marker, an account without data; fails if the account exists."""
    seed = mark.seed.encode()
    data = struct.pack("<I32sQ", CREATE_WITH_SEED, bytes(payer.treasury), len(seed)) + seed
    data += struct.pack("<QQ32s", mark.lamports, 0, bytes(SYSTEM_PROGRAM))
    accounts = (payer.gas, mark.address, payer.treasury)
    return Instruction(SYSTEM_PROGRAM, accounts, (True, True, False), data)


def memo(text: str) -> Instruction:
    """Make a memo instruction. Its unique text distinguishes transactions that have no marker."""
    return Instruction(MEMO_PROGRAM, (), (), text.encode())


def reclaim_marker(payer: Payer, mark: Marker) -> Instruction:
    """Make the TransferWithSeed instruction that sends all that a marker holds back to the payer of fees."""
    seed = mark.seed.encode()
    data = struct.pack("<IQQ", TRANSFER_WITH_SEED, mark.lamports, len(seed)) + seed + bytes(SYSTEM_PROGRAM)
    accounts = (mark.address, payer.treasury, payer.gas)
    return Instruction(SYSTEM_PROGRAM, accounts, (True, False, True), data)


# ── Transactions ───────────────────────────────────────────────────────────────────────────────────────────────────


def build(
    payer: Payer,
    instructions: Sequence[Instruction],
    blockhash: str,
    *,
    version: str,
    units: int,
    priority_lamports: int = 0,
) -> Message | MessageV1:
    """Compile the message of a transaction.

    Args:
        payer: the keys that sign, of which `gas` pays the fee.
        instructions: what the transaction does. Before version 1, instructions that set its limits are put before
            these.
        blockhash: a recent blockhash, in base 58.
        version: "legacy" or "v1".
        units: the compute units that it may use.
        priority_lamports: the priority fee.

    Returns:
        The message, to be signed by `payer.signers` in their order.
    """
    if version == "legacy":
        instructions = [*_limits(units, priority_lamports), *instructions]
    keys, header = _keys(payer, instructions)
    index_of = {key: index for index, key in enumerate(keys)}
    compiled = [
        CompiledInstruction(index_of[each.program], each.data, bytes(index_of[key] for key in each.accounts))
        for each in instructions
    ]
    if version == "legacy":
        return Message.new_with_compiled_instructions(*header, keys, Hash.from_string(blockhash), compiled)
    config = TransactionConfig(priority_fee=priority_lamports or None, compute_unit_limit=units)
    return MessageV1(MessageHeader(*header), config, Hash.from_string(blockhash), keys, compiled)


def sign(message: Message | MessageV1, signers: Sequence[Signer]) -> bytes:
    """Sign a message; `signers` are in the order of the message's signing keys. Returns the bytes for the chain."""
    from solders.message import to_bytes_versioned

    content = to_bytes_versioned(message)
    signatures = [Signature.from_bytes(signer.sign(content)) for signer in signers]
    return bytes(VersionedTransaction.populate(message, signatures))


def unsigned(message: Message | MessageV1, signers: int) -> bytes:
    """Return the bytes of a transaction without signatures, for a simulation; `signers` is how many signers it has."""
    return bytes(VersionedTransaction.populate(message, [Signature.default()] * signers))


def signature_of(raw: bytes) -> str:
    """Return the first signature of a transaction, which identifies it."""
    return str(VersionedTransaction.from_bytes(raw).signatures[0])


@lru_cache(maxsize=64)
def capacity(kind: str, version: str, *, separate_gas: bool, with_marker: bool, lineage: int = 0) -> int:
    """Return how many recipients one transaction holds, found by building larger and larger ones.

    Args:
        kind: "payout", "accounts" (to be opened) or "reclaim" (of markers).
        version: "legacy" or "v1".
        separate_gas: whether another key than the treasury's pays the fees.
        with_marker: whether the transaction creates its batch's marker.
        lineage: how many other batches' markers it creates and empties.

    Returns:
        The number of recipients; 0 if not even the markers fit.
    """
    make_one = {"payout": _some_pay, "accounts": _some_open, "reclaim": _some_reclaim}[kind]
    keys = [Pubkey(bytes([251, index]) + bytes(30)) for index in range(4)]
    payer = Payer(keys[0], keys[1] if separate_gas else keys[0], keys[2], keys[3], 6)
    markers = [Marker(_number(index, 252), "0" * 32, 1) for index in range(lineage + 1)]
    guards = [make(payer, mark) for mark in markers[1:] for make in (create_marker, reclaim_marker)]
    guards += [create_marker(payer, markers[0])] if with_marker else []
    count = 0
    while _fits(payer, [*guards, *(make_one(payer, index) for index in range(count + 1))], version, kind, count + 1):
        count += 1
    return count


def _fits(payer: Payer, instructions: Sequence[Instruction], version: str, kind: str, count: int) -> bool:
    blockhash = str(Hash.default())
    message = build(payer, instructions, blockhash, version=version, units=COMPUTE_UNITS_MAX, priority_lamports=1)
    executed = len(message.instructions) + (OPENING_CALLS - 1) * count * (kind == "accounts")
    size = len(unsigned(message, len(payer.signers)))
    return size <= BYTES_MAX[version] and len(message.account_keys) <= ADDRESSES_MAX and executed <= INSTRUCTIONS_MAX


def _number(index: int, first: int = 253) -> Pubkey:
    return Pubkey(bytes([first]) + index.to_bytes(4, "big") + bytes(27))


def _some_pay(payer: Payer, index: int) -> Instruction:
    return pay(payer, _number(index), 1)


def _some_open(payer: Payer, index: int) -> Instruction:
    return open_account(payer, _number(index))


def _some_reclaim(payer: Payer, index: int) -> Instruction:
    return reclaim_marker(payer, Marker(_number(index), "0" * 32, 1))


def _limits(units: int, priority_lamports: int) -> list[Instruction]:
    limits = [Instruction(COMPUTE_BUDGET, (), (), struct.pack("<BI", 2, units))]
    if priority_lamports:
        price = -(-priority_lamports * 1_000_000 // units)  # micro-lamports per unit, rounded up
        limits.append(Instruction(COMPUTE_BUDGET, (), (), struct.pack("<BQ", 3, price)))
    return limits


def _keys(payer: Payer, instructions: Sequence[Instruction]) -> tuple[list[Pubkey], tuple[int, int, int]]:
    """Return addresses in the order of the format (signers, writable ones, all others), and the header's counts."""
    signers = payer.signers
    writable: dict[Pubkey, None] = {}
    readonly: dict[Pubkey, None] = {}
    for each in instructions:
        for key, changes in zip(each.accounts, each.writable, strict=True):
            (writable if changes else readonly)[key] = None
        readonly[each.program] = None
    taken = set(signers)
    plain_writable = [key for key in writable if key not in taken]
    plain_readonly = [key for key in readonly if key not in writable and key not in taken]
    readonly_signers = sum(key not in writable for key in signers[1:])
    return [*signers, *plain_writable, *plain_readonly], (len(signers), readonly_signers, len(plain_readonly))
