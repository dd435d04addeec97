"""Attribution: what a transaction that the journal has forgotten is, and whom it has paid.

It is one of the ledger's own only where each of its instructions is one that the ledger builds (see `policy`), and it costs
no more than such a transaction does. Whom it paid is said by its batch's id, which stands in it (see `batch_ids`): of the
creators who have named a wallet that it paid, now or ever, those it is true of. So nobody can claim what another one was
paid. Knows nothing of the journal.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from solders.message import to_bytes_versioned
from solders.transaction import VersionedTransaction

from cluster.errors import Rejected
from ledger import batch_ids, packing, policy
from ledger.chain import Effect
from ledger.treasury import FEE_LAMPORTS_MAX, Treasury

TRIED_MAX = 50_000  # of the ways in which creators can have been paid at wallets that several have named


class Payment(NamedTuple):
    """What a transaction pays at a token account, in base units."""

    address: str
    amount: int


@dataclass(frozen=True)
class Read:
    """A transaction of the ledger's own. `markers` it makes, in its order; `opened` are wallets whose token accounts it opens;
    `batch_id` is "" where none can be read in it.
    """

    payments: tuple[Payment, ...]
    opened: tuple[str, ...]
    markers: tuple[str, ...]
    batch_id: str
    lamports_max: int

    @property
    def paid(self) -> dict[str, int]:
        """What each token account receives."""
        paid: dict[str, int] = {}
        for address, amount in self.payments:
            paid[address] = paid.get(address, 0) + amount
        return paid

    @property
    def is_sealed(self) -> bool:
        return self.batch_id.startswith(batch_ids.SEALED)


def read(treasury: Treasury, gas: Collection[str], transaction: VersionedTransaction) -> Read:
    """What a transaction does, if all of it is what the ledger does; `gas`: who pays or has paid its fees.

    Raises:
        Rejected: something of it is not.
    """
    message, payer = transaction.message, treasury.payer
    first, programs = message.account_keys[0], message.account_keys
    if str(first) in gas:
        payer = replace(payer, gas=first)
    shape = policy.spent(to_bytes_versioned(message), payer)
    payments, opened, markers, text = list[Payment](), list[str](), list[str](), ""
    for step in message.instructions:
        data, accounts = bytes(step.data), [message.account_keys[index] for index in step.accounts]
        program = programs[step.program_id_index]
        if program == packing.TOKEN_PROGRAM:
            to = accounts[1 if payer.gas != payer.treasury else 2]
            payments.append(Payment(str(to), int.from_bytes(data[1:9], "little")))
        elif program == packing.ATA_PROGRAM:
            opened.append(str(accounts[2]))
        elif program == packing.MEMO_PROGRAM:
            text = data.decode("ascii", "replace")
        elif program == packing.SYSTEM_PROGRAM and int.from_bytes(data[:4], "little") == packing.CREATE_WITH_SEED:
            markers.append(str(accounts[1]))
            seed = data[44 : 44 + struct.unpack_from("<Q", data, 36)[0]].decode("ascii")
    number = batch_ids.of_seed(treasury.secret, seed) if markers else text
    known = number if number and batch_ids.BATCH_ID.fullmatch(number) else ""
    return Read(tuple(payments), tuple(opened), tuple(markers), known, shape.lamports)


def require_cost(treasury: Treasury, effect: Effect, found: Read) -> None:
    """That a transaction has cost no more than its fees, within what the settings let them be, and its rents.

    Raises:
        Rejected: it has cost more.
    """
    most = FEE_LAMPORTS_MAX + treasury.priority_lamports
    if effect.fee > most:
        raise Rejected(
            f"its fee is {effect.fee} lamports, more than [ledger] priority_fee_lamports lets it be ({most})"
        )
    taken = -effect.lamports.get(str(treasury.payer.gas), 0)
    if taken > (effect.fee if effect.error is not None else found.lamports_max):
        raise Rejected(f"it took {taken} lamports, more than its fees and rents")


def creators_of(secret: str, batch_id: str, choices: Sequence[Sequence[int]]) -> list[int] | None:
    """Whom a batch has paid, by its id; None where these are not all of them. `choices`: for each payment, in its order.

    A batch names its creators once, in the order of their numbers. Those first of each are tried first: who names others'
    wallets by the dozen keeps nobody from being found.

    Raises:
        Rejected: there are too many ways to try them all.
    """
    tries = _ascending(choices, _latest(choices))
    for creators in itertools.islice(tries, TRIED_MAX):
        if batch_ids.is_of(secret, batch_id, creators):
            return list(creators)
    if next(tries, None) is not None:
        raise Rejected(f"too many creators have named the wallets that batch {batch_id} has paid")
    return None


def _ascending(choices: Sequence[Sequence[int]], latest: Sequence[int], above: int = 0) -> Iterator[tuple[int, ...]]:
    """The ways to choose one of each so that they ascend, those first that begin with the first choices."""
    if not choices:
        yield ()
        return
    for creator in choices[0]:
        if above < creator <= latest[0]:
            for others in _ascending(choices[1:], latest[1:], creator):
                yield (creator, *others)


def _latest(choices: Sequence[Sequence[int]]) -> list[int]:
    """The highest of each after which the rest can still ascend, so that no way is begun that does not end; else 0."""
    found: list[int] = []
    for each in reversed(choices):
        found.append(max((creator for creator in each if not found or creator < found[-1]), default=0))
    return found[::-1]
