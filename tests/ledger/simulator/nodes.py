"""Nodes that fail in every way a node can: silence, refusals, lost replies, late landing, lag, gaps of memory, and lies.

A liar's lies are its own: two of them tell different tales of what a transaction did. In a plot every node tells the same
one: time is long past, and nothing of what was sent is there.
"""

from __future__ import annotations

import base64
import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from solders.account import Account
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from cluster.errors import Temporary
from ledger.chain import RpcRefusal
from ledger.localnet import blocks
from ledger.localnet.methods import RpcError, answer
from ledger.localnet.store import Landed
from tests.ledger.simulator.climate import CALM, Weather

# What a liar says of a transaction that would succeed.
TROUBLES = ["BlockhashNotFound", {"InstructionError": [1, {"Custom": 17}]}, {"InstructionError": [0, {"Custom": 0}]}]
MEMORY_BLOCKS = 400  # of a forgetful node
PLOT_BLOCKS = 400  # by which time has passed, in a plot
NONSENSE: list[Any] = [None, {}, [], "<html>", {"context": {"slot": -1}, "value": []}, {"blockHeight": "1"}]


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


class View:
    """The chain as a node sees it that is some blocks behind."""

    def __init__(self, chain: blocks.Chain, lag: int) -> None:
        self._chain = chain
        self.height = max(0, chain.height - lag)
        self.store, self.svm = self, chain.svm
        self.faucet, self.genesis, self.alpenglow = chain.faucet, chain.genesis, chain.alpenglow
        self.decimals, self.parse = chain.decimals, chain.parse

    def height_at(self, commitment: str) -> int:
        behind = {"processed": 0, "confirmed": blocks.CONFIRMED_BLOCKS, "finalized": blocks.FINALITY_BLOCKS}
        return max(0, self.height - behind[commitment])

    def blockhash_at(self, commitment: str) -> tuple[str, int]:
        height = self.height_at(commitment)
        return str(self._chain._block(height).hash), height + blocks.WINDOW_BLOCKS

    def is_valid(self, blockhash: str) -> bool:
        return self._chain.is_valid(blockhash)

    def level(self, height: int) -> str:
        levels = ("finalized", "confirmed")
        return next((level for level in levels if height <= self.height_at(level)), "processed")

    def account(self, pubkey: Pubkey, commitment: str = "processed") -> Account | None:
        for height in range(self.height_at(commitment) + 1, self._chain.height + 1):
            block = self._chain.blocks.get(height)
            if block is not None and pubkey in block.undo:
                return block.undo[pubkey]
        return blocks._present(self.svm.get_account(pubkey))

    def transaction(self, signature: str) -> Landed | None:
        landed = self._chain.store.transaction(signature)
        return landed if landed is not None and landed.height <= self.height else None

    def mentions(self, pubkey: bytes, **options: Any) -> list[Landed]:
        return self._chain.store.mentions(pubkey, **options)


class Node:
    """One RPC node in bad weather. `step` is told before and after each call, and may end the caller's process; `sent` of
    every transaction that reaches the node, whatever it does with it.
    """

    def __init__(
        self,
        name: str,
        chain: blocks.Chain,
        rng: random.Random,
        step: Callable[[], None],
        *,
        liar: bool = False,
        forgetful: bool = False,
        storm: Weather | None = None,
        sent: Callable[[VersionedTransaction], None] = lambda _: None,
        plot: Plot | None = None,
    ) -> None:
        self.name, self.chain, self.liar, self.forgetful = name, chain, liar, forgetful
        self.storm = storm or Weather()
        self.weather = CALM
        self.late: list[tuple[int, VersionedTransaction]] = []
        self.down_until = 0  # height
        self._rng, self._step, self._sent = rng, step, sent
        self._plot = plot or Plot()
        self._lag = 0

    async def call(self, method: str, params: list[Any]) -> Any:
        self._step()
        if self.chain.height < self.down_until or self._rng.random() < self.weather.silent:
            raise Temporary(f"{self.name} does not answer {method}")
        if self._rng.random() < self.weather.refusing:
            raise self._rng.choice([RpcRefusal(-32005, "Node is behind"), Temporary("429 Too Many Requests")])
        result = self._take(params) if method == "sendTransaction" else self._told(method, params)
        self._step()
        return result

    def deliver(self) -> None:
        """What was delayed arrives when its time has come."""
        if self.late:
            due = [each for height, each in self.late if height <= self.chain.height]
            self.late = [(height, each) for height, each in self.late if height > self.chain.height]
            for transaction in due:
                self.chain.enqueue(transaction)

    def hurry(self) -> None:
        """What was delayed arrives now."""
        self.late = [(0, each) for _, each in self.late]
        self.deliver()

    def _take(self, params: list[Any]) -> str:
        transaction = self.chain.parse(base64.b64decode(params[0]))
        self._sent(transaction)
        signature = str(transaction.signatures[0])
        luck, delay = self._rng.random(), self._rng.randint(1, 149)
        if self._plot.is_on:
            self.late.append((self._plot.lands_at(self.chain.height, delay), transaction))
            return signature
        if luck < self.weather.dropping:
            return signature
        if luck < self.weather.dropping + self.weather.delaying:
            self.late.append((self.chain.height + delay, transaction))
            return signature
        self.chain.enqueue(transaction)
        if self._rng.random() < self.weather.losing:
            raise Temporary("the reply was lost")
        return signature

    def _told(self, method: str, params: list[Any]) -> Any:
        result = self._read(method, params)
        if self.forgetful:
            result = self._remembered(method, result)
        if self._plot.is_on:
            return self._plotted(method, result)
        if self.liar and self._rng.random() < self.storm.lying:
            return self._lie(method, params, result)
        return result

    def _read(self, method: str, params: list[Any]) -> Any:
        if self._rng.random() < 0.1:
            lags = self._rng.random() < self.weather.lagging
            self._lag = self._rng.randint(0, self.weather.lag_max) if lags else 0
        view: Any = View(self.chain, min(self._lag, self.weather.lag_max))
        try:
            return answer(view, method, params)
        except RpcError as error:
            raise RpcRefusal(error.code, error.message, error.data) from error

    # ── A short memory ─────────────────────────────────────────────────────────────────────────────────────────────

    def _remembered(self, method: str, result: Any) -> Any:
        """What is left of an answer when old blocks are forgotten."""
        first = max(0, self.chain.height - MEMORY_BLOCKS)
        if method == "getFirstAvailableBlock":
            return first
        if method == "getTransaction" and result is not None and result["slot"] < first:
            return None
        if method == "getSignatureStatuses":
            known = [each if each is None or each["slot"] >= first else None for each in result["value"]]
            return {**result, "value": known}
        if method == "getSignaturesForAddress":
            return [each for each in result if each["slot"] >= first]
        return result

    # ── Lies ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _plotted(self, method: str, result: Any) -> Any:
        told = copy.deepcopy(result)
        if method == "getEpochInfo":
            told["blockHeight"] += PLOT_BLOCKS
            told["absoluteSlot"] += PLOT_BLOCKS
        elif method == "getSignatureStatuses":
            told["context"]["slot"] = self.chain.height + PLOT_BLOCKS
            told["value"] = [None] * len(told["value"])
        elif method == "getMultipleAccounts":
            told["context"]["slot"] = self.chain.height + PLOT_BLOCKS
            told["value"] = [None if _is_marker(each) else each for each in told["value"]]
        elif method == "getTransaction":
            told = None
        return told

    def _lie(self, method: str, params: list[Any], result: Any) -> Any:
        """A node that answers at once, up to date and wrong."""
        if self._rng.random() < 0.03:
            return self._rng.choice(NONSENSE)
        told = copy.deepcopy(result)
        tell = getattr(self, f"_lie_{method}", None)
        return told if tell is None else tell(params, told)

    def _lie_getSignatureStatuses(self, _: list[Any], told: Any) -> Any:  # noqa: N802
        told["context"]["slot"] = self.chain.height
        told["value"] = [self._status(each) for each in told["value"]]
        return told

    def _lie_getMultipleAccounts(self, _: list[Any], told: Any) -> Any:  # noqa: N802
        """A marker is not there, or the treasury holds another sum, or a token account has gone."""
        told["context"]["slot"] = self.chain.height
        if len(told["value"]) == 1 or self._rng.random() < 0.1:
            told["value"] = [None] * len(told["value"])
            return told
        for each in told["value"]:
            if each is not None and self._rng.random() < 0.2:
                each["lamports"] = self._rng.randint(0, 2 * each["lamports"])
        return told

    def _lie_getEpochInfo(self, _: list[Any], told: Any) -> Any:  # noqa: N802
        told["blockHeight"] += self._rng.choice((500, 500, -200))
        told["blockHeight"] = max(0, told["blockHeight"])
        return told

    def _lie_getLatestBlockhash(self, _: list[Any], told: Any) -> Any:  # noqa: N802
        told["value"]["lastValidBlockHeight"] -= 120
        return told

    def _lie_getTransaction(self, _: list[Any], told: Any) -> Any:  # noqa: N802
        """It is not there; or it did otherwise, as only this node says."""
        if told is None or self._rng.random() < 0.6:
            return None
        meta = told["meta"]
        if self._rng.random() < 0.5:
            meta["err"] = None if meta["err"] else {"InstructionError": [1, {"Custom": self._rng.randint(17, 99)}]}
        else:
            meta["postBalances"] = [each + self._rng.randint(1, 10**6) for each in meta["postBalances"]]
        return told

    def _lie_simulateTransaction(self, _: list[Any], told: Any) -> Any:  # noqa: N802
        if self._rng.random() < 0.3:
            told["value"]["err"] = self._rng.choice(TROUBLES)
        return told

    def _lie_getSignaturesForAddress(self, _: list[Any], told: Any) -> Any:  # noqa: N802
        """Some are not told of; none is made up, which would be waited for as long as the node is asked."""
        return [each for each in told if self._rng.random() < 0.5]

    def _lie_getFirstAvailableBlock(self, _: list[Any], told: Any) -> Any:  # noqa: N802
        return self._rng.choice((0, told, self.chain.height))

    def _status(self, status: Any) -> Any:
        if status is None or self._rng.random() < 0.5:
            return None
        return {**status, "confirmationStatus": "finalized", "confirmations": None}


def _is_marker(told: Any) -> bool:
    """An account of no size with no more lamports than a marker's rent comes to."""
    return told is not None and not told["space"] and told["lamports"] < 10**7
