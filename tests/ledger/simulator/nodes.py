"""Nodes that fail in every way a node can: silence, refusals, lost replies, late landing, lag, gaps of memory, and lies.

What a node says is what the localnet says, of the block that it has come to; what it says that is not so is in `lies`.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
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
from tests.ledger.simulator.lies import Liar, Plot, Story
from tests.ledger.simulator.slots import Slots

MEMORY_BLOCKS = 400  # of a forgetful node


class View:
    """The chain as a node sees it that is some blocks behind."""

    def __init__(self, chain: blocks.Chain, lag: int) -> None:
        self._chain = chain
        self.height = max(0, chain.height - lag)
        self.store, self.svm = self, Machine(self)
        self.faucet, self.genesis, self.alpenglow = chain.faucet, chain.genesis, chain.alpenglow
        self.decimals, self.parse = chain.decimals, chain.parse

    def height_at(self, commitment: str) -> int:
        behind = {"processed": 0, "confirmed": blocks.CONFIRMED_BLOCKS, "finalized": blocks.FINALITY_BLOCKS}
        return max(0, self.height - behind[commitment])

    def blockhash_at(self, commitment: str) -> tuple[str, int]:
        height = self.height_at(commitment)
        return str(self._chain._block(height).hash), height + blocks.WINDOW_BLOCKS

    def is_valid(self, blockhash: str, commitment: str = "processed") -> bool:
        height, made_at = self.height_at(commitment), self._chain._hashes.get(blockhash)
        return made_at is not None and height - blocks.WINDOW_BLOCKS <= made_at <= height

    def level(self, height: int) -> str:
        levels = ("finalized", "confirmed")
        return next((level for level in levels if height <= self.height_at(level)), "processed")

    def account(self, pubkey: Pubkey, commitment: str = "processed") -> Account | None:
        for height in range(self.height_at(commitment) + 1, self._chain.height + 1):
            block = self._chain.blocks.get(height)
            if block is not None and pubkey in block.undo:
                return block.undo[pubkey]
        return blocks._present(self._chain.svm.get_account(pubkey))

    def transaction(self, signature: str) -> Landed | None:
        landed = self._chain.store.transaction(signature)
        return landed if landed is not None and landed.height <= self.height else None

    def mentions(self, pubkey: bytes, **options: Any) -> list[Landed]:
        return self._chain.store.mentions(pubkey, **options)


class Machine:
    """What runs transactions, on the accounts of a view's confirmed block: whoever is behind simulates on what was."""

    def __init__(self, view: View) -> None:
        self._view = view

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view._chain.svm, name)

    def simulate_transaction(self, transaction: VersionedTransaction) -> Any:
        svm, keys = self._view._chain.svm, transaction.message.account_keys
        now = {key: svm.get_account(key) for key in keys}
        then = {key: self._view.account(key, "confirmed") for key in keys}
        changed = [key for key in keys if blocks._present(now[key]) != then[key]]
        try:
            for key in changed:
                svm.set_account(key, then[key] or _nothing())
            return svm.simulate_transaction(transaction)
        finally:
            for key in changed:
                svm.set_account(key, now[key] or _nothing())


def _nothing() -> Account:
    return Account(0, b"", blocks.SYSTEM_PROGRAM)


class Node:
    """One RPC node in bad weather. `step` is told before and after each call, and may end the caller's process; `sent` of
    every transaction that reaches the node, whatever it does with it. `story`: what a liar tells who has agreed with others.
    """

    def __init__(
        self,
        name: str,
        chain: blocks.Chain,
        rng: random.Random,
        step: Callable[[], None],
        *,
        slots: Slots,
        liar: bool = False,
        forgetful: bool = False,
        storm: Weather | None = None,
        sent: Callable[[VersionedTransaction], None] = lambda _: None,
        plot: Plot | None = None,
        story: Story | None = None,
    ) -> None:
        self.name, self.chain, self.liar, self.forgetful = name, chain, liar, forgetful
        self.storm = storm or Weather()
        self.weather = CALM
        self.late: list[tuple[int, VersionedTransaction]] = []
        self.down_until = 0  # height
        self._rng, self._step, self._sent, self._slots = rng, step, sent, slots
        self._plot, self._story, self._lies = plot or Plot(), story, Liar(chain, slots, rng)
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
        if self.liar and self._story is not None:
            self._story.hear(transaction)
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
            return self._plot.told(method, result, self._slots.of(self.chain.height))
        if self.liar and self._story is not None:
            return self._story.told(method, params, result)
        if self.liar and self._rng.random() < self.storm.lying:
            return self._lies.told(method, result)
        return result

    def _read(self, method: str, params: list[Any]) -> Any:
        if self._rng.random() < self.weather.changing:
            lags = self._rng.random() < self.weather.lagging
            self._lag = self._rng.randint(self.weather.lag_min, self.weather.lag_max) if lags else 0
        view: Any = View(self.chain, min(self._lag, self.weather.lag_max))
        try:
            return self._slots.told(method, answer(view, method, self._slots.asked(params)))
        except RpcError as error:
            raise RpcRefusal(error.code, error.message, error.data) from error

    def _remembered(self, method: str, result: Any) -> Any:
        """What is left of an answer when old blocks are forgotten."""
        first = self._slots.of(max(0, self.chain.height - MEMORY_BLOCKS))
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
