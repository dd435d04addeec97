"""Lies: what a node says that is not so. A liar's own lies, a plot of all nodes, and a story that several liars tell.

* A liar alone makes up another lie at each question, so that nobody says the same.
* In a plot every node says that time is long past, and that nothing of what was sent is there.
* A story is one lie, told by all who have agreed on it: of a payment that never landed that it has, of one that has that it has
  failed or is not there, of money that nobody has sent; or that the treasury holds what would follow from that.

What as many nodes say as an end needs is believed, and nothing keeps a ledger from that. What is expected of it while two of
three tell a story is that nothing stays hidden: once they are found out, payouts are frozen and the freeze says why.
"""

from __future__ import annotations

import base64
import copy
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from solders.account import Account
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata

from ledger import packing
from ledger.localnet import blocks, methods
from ledger.localnet.store import Landed
from tests.ledger.simulator.slots import Slots

# What a liar says of a transaction that would succeed.
TROUBLES = ["BlockhashNotFound", {"InstructionError": [1, {"Custom": 17}]}, {"InstructionError": [0, {"Custom": 0}]}]
NONSENSE: list[Any] = [None, {}, [], "<html>", {"context": {"slot": -1}, "value": []}, {"blockHeight": "1"}]
PLOT_BLOCKS = 400  # by which time has passed, in a plot
FAR_SLOTS = (0, 0, -200, 10**6, 10**15)  # by which a liar's slot is another one
INVENTED = 0.02  # of a liar's histories: from then on a signature stands in them that nobody else knows
AMOUNT_AT = slice(64, 72)  # in a token account's bytes
FROZEN_ERROR = {"Custom": 17}  # the token program's
FEE_LAMPORTS = 5_000
TOLD_PAID, TOLD_GONE, TOLD_FAILED = 0.3, 0.15, 0.15  # of what a story's liars are sent
GIFT = 0.004  # of a story's histories: from then on there is a deposit in them that nobody has made
GIFTS_MAX = 2


@dataclass
class Plot:
    """What all nodes tell, while it goes on. What is sent meanwhile lands after it: `in_order`, as it was sent."""

    is_on: bool = False
    in_order: bool = False
    last: int = 0  # height at which the last one lands

    def lands_at(self, height: int, delay: int) -> int:
        if self.in_order:
            self.last = max(self.last, height) + 1
            return self.last
        return height + delay

    def told(self, method: str, result: Any, slot: int) -> Any:
        """`slot`: the newest one of the chain."""
        told = copy.deepcopy(result)
        if method == "getEpochInfo":
            told["blockHeight"] += PLOT_BLOCKS
            told["absoluteSlot"] += PLOT_BLOCKS
        elif method == "getSignatureStatuses":
            told["context"]["slot"] = slot + PLOT_BLOCKS
            told["value"] = [None] * len(told["value"])
        elif method == "getMultipleAccounts":
            told["context"]["slot"] = slot + PLOT_BLOCKS
            told["value"] = [None if is_marker(each) else each for each in told["value"]]
        elif method == "getTransaction":
            told = None
        return told


class Liar:
    """A node that answers at once, up to date and wrong; its lies are its own."""

    def __init__(self, chain: blocks.Chain, slots: Slots, rng: random.Random) -> None:
        self._chain, self._slots, self._rng = chain, slots, rng
        self._invented: dict[str, Any] | None = None

    def told(self, method: str, result: Any) -> Any:
        if self._rng.random() < 0.03:
            return self._rng.choice(NONSENSE)
        told = copy.deepcopy(result)
        tell: Callable[[Any], Any] | None = getattr(self, f"_{method}", None)
        return told if tell is None else tell(told)

    @property
    def _slot(self) -> int:
        return self._slots.of(self._chain.height)

    def _getSignatureStatuses(self, told: Any) -> Any:  # noqa: N802
        told["context"]["slot"] = self._slot
        told["value"] = [self._status(each) for each in told["value"]]
        return told

    def _getMultipleAccounts(self, told: Any) -> Any:  # noqa: N802
        """A marker is not there, or the treasury holds another sum, or a token account has gone."""
        told["context"]["slot"] = self._slot
        if len(told["value"]) == 1 or self._rng.random() < 0.1:
            told["value"] = [None] * len(told["value"])
            return told
        for each in told["value"]:
            if each is not None and self._rng.random() < 0.2:
                each["lamports"] = self._rng.randint(0, 2 * each["lamports"])
        return told

    def _getEpochInfo(self, told: Any) -> Any:  # noqa: N802
        """Another height, and another slot, which has nothing to do with it."""
        told["blockHeight"] = max(0, told["blockHeight"] + self._rng.choice((500, 500, -200)))
        told["absoluteSlot"] = max(0, told["absoluteSlot"] + self._rng.choice(FAR_SLOTS))
        return told

    def _getLatestBlockhash(self, told: Any) -> Any:  # noqa: N802
        """It lives shorter; or it is another one, which nobody else knows and which lives longer."""
        if self._rng.random() < 0.5:
            told["value"]["lastValidBlockHeight"] -= 120
            return told
        own = blocks.base58_of(bytes(self._rng.randint(1, 255) for _ in range(32)))
        told["value"] = {"blockhash": own, "lastValidBlockHeight": told["value"]["lastValidBlockHeight"] + 100}
        return told

    def _isBlockhashValid(self, told: Any) -> Any:  # noqa: N802
        told["value"] = self._rng.random() < 0.5
        return told

    def _getTransaction(self, told: Any) -> Any:  # noqa: N802
        """It is not there; or it did otherwise, as only this node says."""
        if told is None or self._rng.random() < 0.6:
            return None
        meta = told["meta"]
        if self._rng.random() < 0.5:
            meta["err"] = None if meta["err"] else {"InstructionError": [1, {"Custom": self._rng.randint(17, 99)}]}
        else:
            meta["postBalances"] = [each + self._rng.randint(1, 10**6) for each in meta["postBalances"]]
        return told

    def _simulateTransaction(self, told: Any) -> Any:  # noqa: N802
        """It fails, or takes less or more than it does, or says nothing of that; or a token account is another's."""
        if self._rng.random() < 0.3:
            told["value"]["err"] = self._rng.choice(TROUBLES)
        elif self._rng.random() < 0.5:
            told["value"]["unitsConsumed"] = self._rng.choice((None, 0, 1, 1, 10**9))
        elif told["value"]["accounts"] and self._rng.random() < 0.3:
            told["value"]["accounts"] = [
                None if each is None else _given_away(each) for each in told["value"]["accounts"]
            ]
        return told

    def _getSignaturesForAddress(self, told: Any) -> Any:  # noqa: N802
        """Some are not told of; and now and then one is made up."""
        kept = [each for each in told if self._rng.random() < 0.5]
        if self._invented is None and self._rng.random() < INVENTED:
            slot = self._slots.of(self._chain.height_at("finalized"))
            self._invented = _named(signature_of(self._rng), slot)
        return kept if self._invented is None else [self._invented, *kept]

    def _getFirstAvailableBlock(self, told: Any) -> Any:  # noqa: N802
        return self._rng.choice((0, told, self._slot))

    def _status(self, status: Any) -> Any:
        if status is None or self._rng.random() < 0.5:
            return None
        return {**status, "confirmationStatus": "finalized", "confirmations": None}


def _given_away(account: dict[str, Any]) -> dict[str, Any]:
    """The same token account, of another owner."""
    data = bytearray(base64.b64decode(account["data"][0]))
    data[32:64] = bytes(32)
    return {**account, "data": [base64.b64encode(data).decode(), "base64"]}


# ── A story ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Tale:
    """What is told of one transaction: as `getTransaction` answers, or nothing at all."""

    signature: str
    height: int
    transaction: VersionedTransaction | None = None
    meta: dict[str, Any] | None = None  # none: it is not there
    pix: int = 0  # by which the treasury has changed, as it is told
    lamports: int = 0


@dataclass
class Story:
    """What liars who have agreed on it tell. `covers`: the treasury holds what follows from it."""

    chain: blocks.Chain
    slots: Slots
    payer: packing.Payer
    rng: random.Random
    covers: bool = False
    is_told: bool = False  # something was told that is not so
    is_over: bool = False
    tales: dict[str, Tale] = field(default_factory=dict)
    _heard: set[str] = field(default_factory=set)

    def hear(self, transaction: VersionedTransaction) -> None:
        """Somebody has sent this: the liars agree on what they will say of it."""
        signature, luck = str(transaction.signatures[0]), self.rng.random()
        if signature in self._heard or self.is_over:
            return
        self._heard.add(signature)
        at = max(0, self.chain.height_at("finalized"))
        if luck < TOLD_PAID:
            meta = pretended(self.chain, transaction)
            if meta is not None:
                self.tales[signature] = self._tale(signature, at, transaction, meta)
        elif luck < TOLD_PAID + TOLD_GONE:
            self.tales[signature] = Tale(signature, at)
        elif luck < TOLD_PAID + TOLD_GONE + TOLD_FAILED:
            self.tales[signature] = self._tale(signature, at, transaction, refused(self.chain, transaction))

    def told(self, method: str, params: Sequence[Any], result: Any) -> Any:
        """What all of them say."""
        tell: Callable[[Sequence[Any], Any], Any] | None = getattr(self, f"_{method}", None)
        if tell is None or (not self.tales and method != "getSignaturesForAddress"):
            return result
        return tell(params, copy.deepcopy(result))

    def _tale(self, signature: str, height: int, transaction: VersionedTransaction, meta: dict[str, Any]) -> Tale:
        keys = transaction.message.account_keys
        pix, lamports = changes(self.payer, [str(each) for each in keys], meta)
        return Tale(signature, height, transaction, meta, pix, lamports)

    def _getSignatureStatuses(self, params: Sequence[Any], told: Any) -> Any:  # noqa: N802
        told["context"]["slot"] = self.slots.of(self.chain.height)
        for place, signature in enumerate(params[0]):
            if signature in self.tales:
                told["value"][place] = self._status(self.tales[signature])
        return told

    def _status(self, tale: Tale) -> Any:
        self.is_told = True
        if tale.meta is None:
            return None
        error = tale.meta["err"]
        status = {"Err": error} if error is not None else {"Ok": None}
        said = {"confirmations": None, "err": error, "status": status, "confirmationStatus": "finalized"}
        return {"slot": self.slots.of(tale.height), **said}

    def _getTransaction(self, params: Sequence[Any], told: Any) -> Any:  # noqa: N802
        tale = self.tales.get(params[0])
        if tale is None:
            return told
        self.is_told = True
        if tale.meta is None or tale.transaction is None:
            return None
        landed = Landed(tale.signature, tale.height, 0, tale.height, bytes(tale.transaction), None, "")
        version = blocks.version_of(tale.transaction)
        encoding = params[1].get("encoding", "json") if len(params) > 1 else "json"
        return {
            "slot": self.slots.of(tale.height),
            "blockTime": tale.height,
            "version": version if version == "legacy" else int(version),
            "transaction": methods._encoded(landed, tale.transaction, encoding),
            "meta": tale.meta,
        }

    def _getSignaturesForAddress(self, params: Sequence[Any], told: Any) -> Any:  # noqa: N802
        """With what they have made up, the newest first; without what they say is not there."""
        if params[0] not in (str(self.payer.token_account), str(self.payer.gas)):
            return told
        if self.rng.random() < GIFT and sum(each.pix > 0 for each in self.tales.values()) < GIFTS_MAX:
            self._make_gift()
        known = {each["signature"] for each in told}
        found = [each for each in told if each["signature"] not in self.tales or self._is_there(each["signature"])]
        made = [
            _named(each.signature, self.slots.of(each.height), each.meta["err"])
            for each in self.tales.values()
            if each.meta is not None and each.signature not in known
        ]
        self.is_told = self.is_told or bool(made) or len(found) < len(told)
        return sorted([*found, *made], key=lambda each: (-each["slot"], each["signature"]))

    def _is_there(self, signature: str) -> bool:
        return self.tales[signature].meta is not None

    def _getMultipleAccounts(self, params: Sequence[Any], told: Any) -> Any:  # noqa: N802
        if not self.covers:
            return told
        made = [each for each in self.tales.values() if self.chain.store.transaction(each.signature) is None]
        pix, lamports = sum(each.pix for each in made), sum(each.lamports for each in made)
        for address, account in zip(params[0], told["value"], strict=True):
            if account is None:
                continue
            if address == str(self.payer.token_account):
                data = bytearray(base64.b64decode(account["data"][0]))
                if len(data) >= AMOUNT_AT.stop:
                    held = int.from_bytes(data[AMOUNT_AT], "little") + pix
                    data[AMOUNT_AT] = max(held, 0).to_bytes(8, "little")
                    account["data"][0] = base64.b64encode(bytes(data)).decode()
            elif address == str(self.payer.gas):
                account["lamports"] = max(account["lamports"] + lamports, 0)
        return told

    def _make_gift(self) -> None:
        """A deposit that nobody has made."""
        amount, key = self.rng.randint(10_000, 10**6), bytes(self.rng.getrandbits(8) for _ in range(32))
        stranger = Pubkey.from_bytes(key)
        giver = packing.Payer(stranger, stranger, packing.token_account(stranger, self.payer.mint), self.payer.mint, 6)
        gift = packing.pay(giver, self.payer.token_account, amount)
        blockhash, _ = self.chain.blockhash_at("finalized")
        message = packing.build(giver, [gift], blockhash, version="legacy", units=200_000)
        transaction = VersionedTransaction.from_bytes(packing.unsigned(message, 1))
        keys = [str(each) for each in transaction.message.account_keys]
        balances = {str(giver.token_account): (amount, 0), str(self.payer.token_account): (0, amount)}
        meta: dict[str, Any] = {
            "err": None, "fee": FEE_LAMPORTS, "preBalances": [10**9] * len(keys), "postBalances": [10**9] * len(keys),
            "loadedAddresses": {"writable": [], "readonly": []},
        }  # fmt: skip
        for place, name in enumerate(("preTokenBalances", "postTokenBalances")):
            meta[name] = [
                {"accountIndex": keys.index(address), "uiTokenAmount": {"amount": str(held[place])}}
                for address, held in balances.items()
            ]
        signature = signature_of(self.rng)
        self.tales[signature] = self._tale(signature, self.chain.height_at("finalized"), transaction, meta)


def pretended(chain: blocks.Chain, transaction: VersionedTransaction) -> dict[str, Any] | None:
    """What a transaction would do now, as `getTransaction` says it; none where it would fail. Nothing is changed."""
    svm, keys = chain.svm, transaction.message.account_keys
    before = [svm.get_account(key) for key in keys]
    result = svm.send_transaction(transaction)
    after = [svm.get_account(key) for key in keys]
    for key, account, now in zip(keys, before, after, strict=True):
        if account != now:
            svm.set_account(key, account or Account(0, b"", blocks.SYSTEM_PROGRAM))
    if isinstance(result, FailedTransactionMetadata):
        return None
    told = chain._meta(
        result, None, [blocks._present(each) for each in before], [blocks._present(each) for each in after]
    )
    return dict(json.loads(json.dumps(told)))


def refused(chain: blocks.Chain, transaction: VersionedTransaction) -> dict[str, Any]:
    """That the last recipient's account has refused it: all it did is cost its fee."""
    message = transaction.message
    held = [account.lamports if (account := chain.svm.get_account(key)) else 0 for key in message.account_keys]
    fee = FEE_LAMPORTS * message.header.num_required_signatures
    return {
        "err": {"InstructionError": [len(message.instructions) - 1, FROZEN_ERROR]},
        "fee": fee,
        "preBalances": held,
        "postBalances": [max(held[0] - fee, 0), *held[1:]],
        "preTokenBalances": [],
        "postTokenBalances": [],
        "loadedAddresses": {"writable": [], "readonly": []},
    }


def changes(payer: packing.Payer, keys: Sequence[str], meta: dict[str, Any]) -> tuple[int, int]:
    """By how much a transaction has changed the treasury's tokens, and the lamports of who pays its fees."""
    pix = lamports = 0
    if str(payer.gas) in keys:
        place = keys.index(str(payer.gas))
        lamports = meta["postBalances"][place] - meta["preBalances"][place]
    if str(payer.token_account) in keys:
        place = keys.index(str(payer.token_account))
        held = [
            sum(int(each["uiTokenAmount"]["amount"]) for each in meta[name] if each["accountIndex"] == place)
            for name in ("preTokenBalances", "postTokenBalances")
        ]
        pix = held[1] - held[0]
    return pix, lamports


def signature_of(rng: random.Random) -> str:
    """One that nobody has made."""
    return blocks.base58_of(bytes(rng.randint(1, 255) for _ in range(64)))


def is_marker(told: Any) -> bool:
    """An account of no size with no more lamports than a marker's rent comes to."""
    return told is not None and not told["space"] and told["lamports"] < 10**7


def _named(signature: str, slot: int, error: Any = None) -> dict[str, Any]:
    return {
        "signature": signature,
        "slot": slot,
        "err": error,
        "memo": None,
        "blockTime": 0,
        "confirmationStatus": "finalized",
    }
