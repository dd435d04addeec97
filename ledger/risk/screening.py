"""Screening: an operator's own code decides about recipients before payouts to them are planned.

`[ledger] screening = "package.module:function"` names that code. It is called with the recipients of the next payouts.
It returns the creators who must not be paid, each with a reason; they are then held for that reason. While it fails, no
payout is planned; payouts that are planned already are settled nevertheless.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from cluster.errors import Rejected, Temporary

log = logging.getLogger(__name__)


class Recipient(NamedTuple):
    """A creator who would be paid next; the amount is 0 if a token account is to be opened for a later payout."""

    creator_id: int
    wallet: str  # address on Solana, base58
    amount_pix: int  # base units of PIX


Screening = Callable[[Sequence[Recipient]], Mapping[int, str]]


def load(name: str) -> Screening:
    """Import the function that the setting names; if it names none, return one that passes every recipient.

    Raises:
        Rejected: it cannot be imported, or is not callable.
    """
    if not name:
        return lambda _: {}
    module, _, function = name.partition(":")
    try:
        named = getattr(importlib.import_module(module), function)
    except Exception as error:  # foreign code: whatever is wrong with it, no recipient is paid unscreened
        hint = "write it like package.module:function, importable where the ledger runs"
        raise Rejected(f"[ledger] screening {name!r} is not found: {error}", code="no-screening", hint=hint) from error
    if not callable(named):
        raise Rejected(f"[ledger] screening {name!r} is no function", code="no-screening")
    screening: Screening = named
    return screening


def ask(screening: Screening, recipients: Sequence[Recipient]) -> dict[int, str]:
    """Call the screening; return the recipients who must not be paid, each with the reason.

    Raises:
        Temporary: the screening raised an error.
    """
    if not recipients:
        return {}
    try:
        reasons = dict(screening(recipients))
    except Exception as error:  # foreign code: whatever is wrong with it, no recipient is paid unscreened
        log.exception("screening failed")
        raise Temporary(f"screening failed, nothing new is paid: {type(error).__name__}: {error}", 5.0) from error
    creators = {recipient.creator_id for recipient in recipients}
    return {creator: str(reason) for creator, reason in reasons.items() if creator in creators}
