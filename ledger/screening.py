"""Screening: what an operator's own code says of recipients before anything is planned for them.

`[ledger] screening = "package.module:function"` names it. It is given the recipients of the next payouts and returns
reasons, by creator, for those who are not to be paid; they are held with that reason. While it cannot say, nobody new
is planned, and what is under way is settled all the same.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from cluster.errors import Rejected, Temporary

log = logging.getLogger(__name__)

# In a text that the database keeps, and that a log shows in one line.
UNKEPT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class Recipient(NamedTuple):
    """Who would be paid what, and where to. Base units; 0 where a token account is to be opened for what is planned later."""

    creator_id: int
    wallet: str
    amount_pix: int


Screening = Callable[[Sequence[Recipient]], Mapping[int, str]]


def load(name: str) -> Screening:
    """The function that a setting names; without one, everybody passes.

    Raises:
        Rejected: there is no such function.
    """
    if not name:
        return lambda _: {}
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # somebody else's code: whatever is wrong with it, nobody is paid unscreened
        hint = "write it like package.module:function, importable where the ledger runs"
        raise Rejected(f"[ledger] screening {name!r} is not found: {error}", code="no-screening", hint=hint) from error
    if not callable(found):
        raise Rejected(f"[ledger] screening {name!r} is no function", code="no-screening")
    screening: Screening = found
    return screening


def ask(screening: Screening, recipients: Sequence[Recipient]) -> dict[int, str]:
    """Reasons not to pay, of those that were asked about.

    Raises:
        Temporary: it could not say.
    """
    if not recipients:
        return {}
    try:
        found = dict(screening(recipients))
    except Exception as error:  # somebody else's code: whatever is wrong with it, nobody is paid unscreened
        log.exception("screening failed")
        raise Temporary(f"screening failed, nothing new is paid: {type(error).__name__}: {error}", 5.0) from error
    asked = {each.creator_id for each in recipients}
    return {creator: UNKEPT.sub("?", str(reason)) for creator, reason in found.items() if creator in asked}
