"""Verdicts: what the error of a transaction is about: the marker, another batch's marker, a recipient, or none of them.

Only an instruction's error names a place in the transaction. All other errors (a blockhash that a node does not know,
fees that cannot be paid, a full block) are problems of a node or of the platform. They pass or need a person, and no
creator is held for them. Pure functions; knows no chain.
"""

from __future__ import annotations

import operator
from enum import Enum
from typing import Any

from solders.transaction import VersionedTransaction

from ledger.solana.packing import COMPUTE_BUDGET

IN_USE = {"Custom": 0}  # of the system program: an account exists at this address already
SHORT = {"Custom": 1}  # of the system and the token program: the payer does not hold that much
OVERRUN = ("ComputationalBudgetExceeded", "ProgramFailedToComplete")  # the limit of the whole transaction was too low


class Fault(Enum):
    """What an error is about."""

    MARKER = "marker"  # the batch's own exists: a transaction of the batch has landed
    LINEAGE = "lineage"  # another batch's marker exists: what this batch may repeat has landed
    RECIPIENT = "recipient"
    NOBODY = "nobody"


def of(error: Any, kind: str, guards: int, first: int = 0) -> Fault:
    """Return what the error of a batch's transaction is about.

    Args:
        error: the error as the chain states it, in JSON.
        kind: the kind of the batch.
        guards: how many instructions guard with markers; they stand before those of the recipients.
        first: how many instructions set limits; they stand before all others.

    Returns:
        What the error is about; `Fault.NOBODY` if its form is unknown.
    """
    if kind == "reclaim":
        return Fault.RECIPIENT  # a marker's own; nobody is held for it, and it is tried again
    if not isinstance(error, dict) or "InstructionError" not in error:
        return Fault.NOBODY
    try:
        index, detail = error["InstructionError"]
        index = operator.index(index)
    except (TypeError, ValueError):  # of a form that no chain gives
        return Fault.NOBODY
    if detail in OVERRUN or detail == SHORT:
        return Fault.NOBODY
    if index >= first + guards:
        return Fault.RECIPIENT
    if index < first or detail != IN_USE:
        return Fault.NOBODY
    return Fault.MARKER if index == first + guards - 1 else Fault.LINEAGE  # its own is made last


def limits_of(transaction: VersionedTransaction) -> int:
    """Return how many instructions of a transaction set its limits; they stand before all others."""
    message = transaction.message
    return sum(message.account_keys[each.program_id_index] == COMPUTE_BUDGET for each in message.instructions)
