"""What a transaction's error says of who is at fault: the marker, a recipient, or nobody whom a hold would be fair to.

Only an instruction's error names a place in the transaction. All others (a blockhash that a node does not know, fees that
cannot be paid, a full block) are trouble of a node or of the platform, and pass or need a person. Pure; knows no chain.
"""

from __future__ import annotations

import operator
from enum import Enum
from typing import Any

from solders.transaction import VersionedTransaction

from ledger.solana.packing import COMPUTE_BUDGET

IN_USE = {"Custom": 0}  # the system program's: there is an account at this address already
SHORT = {"Custom": 1}  # the system and the token program's: who pays does not hold that much
OVERRUN = ("ComputationalBudgetExceeded", "ProgramFailedToComplete")  # the limit of the whole transaction was too low


class Fault(Enum):
    """Whom an error is about."""

    MARKER = "marker"  # its account exists: a transaction of the batch has landed
    LINEAGE = "lineage"  # the account of another batch's exists: what this one may repeat has landed
    RECIPIENT = "recipient"
    NOBODY = "nobody"


def of(error: Any, kind: str, guards: int, first: int = 0) -> Fault:
    """Whom the error of a batch's transaction is about.

    Args:
        error: as the chain gives it, in JSON.
        kind: the batch's.
        guards: how many instructions create markers, before the first recipient's.
        first: how many instructions set limits, before those.
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
    """How many instructions of a transaction set limits; they come first."""
    message = transaction.message
    return sum(message.account_keys[each.program_id_index] == COMPUTE_BUDGET for each in message.instructions)
