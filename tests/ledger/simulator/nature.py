"""What happens on chain without the ledger: blocks, forks, outages, strangers, frozen accounts, a treasury's other hand."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from solders.account import Account
from solders.pubkey import Pubkey
from solders.rent import Rent

from ledger.solana import packing
from ledger.solana.packing import Instruction, Payer
from ledger.solana.signer import Signer
from tests.ledger.chains import FINAL_BLOCKS

if TYPE_CHECKING:
    from tests.ledger.simulator.world import World

DUST_PIX, DUST_LAMPORTS = 9_999, 5_000
TRANSFER = 2  # of the system program
STATE_AT, FROZEN, OPEN = 108, 2, 1  # in a token account's bytes
STRANGERS_PIX, STRANGERS_LAMPORTS = 10**12, 10**13
STEP_BLOCKS = 30  # between two chances for others
LEAST_PER_BYTE, MOST_PER_BYTE = 1000, 6000  # lamports; policies know a limit above which a node is not believed


def pass_time(world: World) -> None:
    """Blocks: a few, or many at once; many while no node answers."""
    leaps = world.luck("leap") or all(node.down_until > world.chain.height for node in world.nodes)
    count = world.rng.randint(60, 190) if leaps else world.rng.randint(0, 12)
    while count > 0:
        world.advance(min(count, STEP_BLOCKS))
        count -= STEP_BLOCKS
        world.baton.pass_on(0.5)


def fork(world: World) -> None:
    for transaction in world.chain.abandon(world.rng.randint(1, 20)):
        if world.rng.random() < 0.5:
            world.chain.enqueue(transaction)


def jump(world: World) -> None:
    """The database's clock is set."""
    world.ground.clock += timedelta(hours=world.rng.randint(-30, 30))


def outage(world: World) -> None:
    """One node is away for a while."""
    world.rng.choice(world.nodes).down_until = world.chain.height + world.rng.randint(20, 400)


def stretch(world: World) -> None:
    """All of them are, for minutes."""
    until = world.chain.height + world.rng.randint(200, 900)
    for node in world.nodes:
        node.down_until = until


# ── Strangers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def dust(world: World) -> None:
    """Less than a deposit is worth, a few times."""
    for _ in range(world.rng.randint(1, 4)):
        if world.rng.random() < 0.5:
            give_lamports(world, world.treasury.payer.gas, world.rng.randint(1, DUST_LAMPORTS))
        else:
            give_pix(world, world.rng.randint(1, DUST_PIX))


def deposit(world: World) -> None:
    if world.rng.random() < 0.7:
        give_pix(world, world.rng.randint(10_000, 10**6))
    else:
        give_lamports(world, world.treasury.payer.gas, world.rng.randint(10**6, 10**8))


def touch(world: World) -> None:
    """A transaction that names the treasury and fails."""
    give_pix(world, 10**18)


def prefund(world: World) -> None:
    """Somebody who has seen the bytes of a payout pays for its marker, before it lands or after."""
    rows = world.ground.rows(
        "SELECT a.batch_id, a.signature FROM ledger.attempts a JOIN ledger.batches b ON b.id = a.batch_id"
        " WHERE b.kind = 'payout' AND b.ended_at IS NULL ORDER BY 1, 2"
    )
    known = [batch for batch, signature in rows if signature in world.truth.batch_of]
    if known and world.climate.is_marked:
        address = world.opened_treasury().marker(world.rng.choice(known)).address
        world.truth.prefunded.add(str(address))
        give_lamports(world, address, world.treasury.marker_rent + world.rng.randint(0, 5))


def lamports(world: World) -> None:
    """Somebody sends some to a marker that stands."""
    rows = world.ground.rows("SELECT address FROM ledger.markers WHERE reclaimed_by IS NULL ORDER BY 1")
    if rows:
        give_lamports(world, Pubkey.from_string(world.rng.choice(rows)[0]), world.rng.randint(1, DUST_LAMPORTS))


def give_lamports(world: World, to: Pubkey, amount: int) -> None:
    stranger = world.stranger
    data = struct.pack("<IQ", TRANSFER, amount)
    send(
        world,
        stranger,
        [Instruction(packing.SYSTEM_PROGRAM, (stranger.gas, to), (True, True), data)],
        [world.strangers_key],
    )


def give_pix(world: World, amount: int) -> None:
    send(
        world,
        world.stranger,
        [packing.pay(world.stranger, world.treasury.payer.token_account, amount)],
        [world.strangers_key],
    )


def send(world: World, payer: Payer, instructions: Sequence[Instruction], signers: Sequence[Signer]) -> str:
    """Put a transaction of somebody else's where the next block finds it; its signature. No two are the same."""
    world.strangers_sent += 1
    blockhash, _ = world.chain.blockhash_at("confirmed")
    units = 200_000 + world.strangers_sent
    message = packing.build(payer, instructions, blockhash, version="legacy", units=units)
    raw = packing.sign(message, signers)
    return world.chain.enqueue(world.chain.parse(raw))


# ── Accounts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def freeze_account(world: World) -> None:
    """The mint's authority freezes a creator's token account."""
    creator = world.some_creator()
    if set_frozen(world, world.address_of(world.truth.wallets[creator][-1]), frozen=True):
        world.truth.touched |= world.sharing(creator)


def close_account(world: World) -> None:
    """A creator takes what is in their token account and closes it. No block that may be undone has changed it."""
    creator = world.some_creator()
    address = world.address_of(world.truth.wallets[creator][-1])
    account = world.chain.svm.get_account(address)
    open_blocks = range(world.chain.height_at("finalized"), world.chain.height + 1)
    is_still = not any(address in world.chain.blocks[each].undo for each in open_blocks if each in world.chain.blocks)
    if account is None or not account.lamports or not is_still:
        return
    world.truth.closed.add(world.truth.wallets[creator][-1])
    world.truth.taken[str(address)] += int.from_bytes(account.data[64:72], "little")
    world.truth.touched |= world.sharing(creator)
    world.chain.svm.set_account(address, Account(0, b"", packing.SYSTEM_PROGRAM))


def freeze_treasury(world: World) -> None:
    """The mint's authority freezes the treasury's own account."""
    set_frozen(world, world.treasury.payer.token_account, frozen=True)


def set_frozen(world: World, address: Pubkey, *, frozen: bool) -> bool:
    """Whether there is such a token account."""
    account = world.chain.svm.get_account(address)
    if account is None or not account.lamports or len(account.data) <= STATE_AT:
        return False
    data = bytearray(account.data)
    data[STATE_AT] = FROZEN if frozen else OPEN
    world.chain.svm.set_account(address, Account(account.lamports, bytes(data), account.owner))
    return True


def is_frozen(world: World, address: Pubkey) -> bool:
    """Whether a token account is frozen now, or at the end of a block that a node can still be at."""
    accounts = [world.chain.svm.get_account(address)]
    accounts += [block.undo.get(address) for block in world.chain.blocks.values()]
    return any(each is not None and len(each.data) > STATE_AT and each.data[STATE_AT] == FROZEN for each in accounts)


def thaw_all(world: World) -> None:
    """Every account may be used again; and the blocks in which it could not are final."""
    for address in [world.treasury.payer.token_account, *map(world.address_of, world.all_wallets())]:
        set_frozen(world, address, frozen=False)
    world.advance(FINAL_BLOCKS)
    for address in [world.treasury.payer.token_account, *map(world.address_of, world.all_wallets())]:
        set_frozen(world, address, frozen=False)  # what a fork has brought back


def withdraw(world: World) -> None:
    """The treasury's owner takes something out, by a transaction of their own."""
    payer = world.treasury.payer
    amount = world.rng.randint(1, 10**6)
    taken = [packing.pay(payer, world.stranger.token_account, amount)]
    if world.rng.random() < 0.3:
        data = struct.pack("<IQ", TRANSFER, world.rng.randint(1, 10**6))
        taken.append(Instruction(packing.SYSTEM_PROGRAM, (payer.gas, world.stranger.gas), (True, True), data))
    world.truth.withdrawn.add(send(world, payer, taken, world.treasury.signers))


def tamper(world: World) -> None:
    """Lamports come to who pays the fees, and no transaction brings them; no fork takes them back."""
    gas, more = world.treasury.payer.gas, world.rng.randint(1, 10**6)
    account = world.chain.svm.get_account(gas)
    assert account is not None
    world.chain.svm.set_account(gas, _richer(account, more))
    for block in world.chain.blocks.values():
        before = block.undo.get(gas)
        if before is not None:
            block.undo[gas] = _richer(before, more)
    world.truth.tampered += more


def _richer(account: Account, lamports: int) -> Account:
    return Account(account.lamports + lamports, bytes(account.data), account.owner)


def cheaper(world: World) -> None:
    """The chain asks less for an account from now on; what was paid for those that stand stays in them."""
    _ask(world, world.lamports_per_byte * world.rng.randint(60, 95) // 100)


def dearer(world: World) -> None:
    """It asks more; those that stand keep what they have."""
    _ask(world, world.lamports_per_byte * world.rng.randint(105, 130) // 100)


def _ask(world: World, lamports_per_byte: int) -> None:
    world.lamports_per_byte = min(max(LEAST_PER_BYTE, lamports_per_byte), MOST_PER_BYTE)
    world.chain.svm.set_rent(Rent.with_lamports_per_byte(world.lamports_per_byte))


HAPPENINGS: Mapping[str, Callable[[World], None]] = {
    "fork": fork,
    "jump": jump,
    "outage": outage,
    "stretch": stretch,
    "dust": dust,
    "deposit": deposit,
    "touch": touch,
    "prefund": prefund,
    "lamports": lamports,
    "freeze account": freeze_account,
    "close account": close_account,
    "freeze treasury": freeze_treasury,
    "withdraw": withdraw,
    "tamper": tamper,
    "cheaper": cheaper,
    "dearer": dearer,
}
