"""Nodes that fail in every way a node can: silence, refusals, lost replies, late landing, lag and lies."""

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


@dataclass(frozen=True)
class Weather:
    """How often what goes wrong, as chances a call."""

    silent: float = 0.06
    refusing: float = 0.04
    dropping: float = 0.25
    delaying: float = 0.15
    losing: float = 0.12
    lag_max: int = 60


# What a liar says of a transaction that would succeed.
TROUBLES = ["BlockhashNotFound", {"InstructionError": [1, {"Custom": 17}]}, {"InstructionError": [0, {"Custom": 0}]}]

CALM = Weather(0, 0, 0, 0, 0, 0)


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
    """One RPC node in bad weather. `step` is told before and after each call, and may end the caller's process."""

    def __init__(
        self, name: str, chain: blocks.Chain, rng: random.Random, step: Callable[[], None], *, liar: bool
    ) -> None:
        self.name, self.chain, self.liar = name, chain, liar
        self.weather = self.storm = Weather()
        self.late: list[tuple[int, VersionedTransaction]] = []
        self._rng, self._step = rng, step
        self._lag = 0

    async def call(self, method: str, params: list[Any]) -> Any:
        self._step()
        if self._rng.random() < self.weather.silent:
            raise Temporary(f"{self.name} does not answer {method}")
        if self._rng.random() < self.weather.refusing:
            raise self._rng.choice([RpcRefusal(-32005, "Node is behind"), Temporary("429 Too Many Requests")])
        result = self._take(params) if method == "sendTransaction" else self._read(method, params)
        self._step()
        return result

    def deliver(self) -> None:
        """What was delayed arrives when its time has come."""
        due = [each for height, each in self.late if height <= self.chain.height]
        self.late = [(height, each) for height, each in self.late if height > self.chain.height]
        for transaction in due:
            self.chain.enqueue(transaction)

    def _take(self, params: list[Any]) -> str:
        transaction = self.chain.parse(base64.b64decode(params[0]))
        signature = str(transaction.signatures[0])
        luck = self._rng.random()
        if luck < self.weather.dropping:
            return signature
        if luck < self.weather.dropping + self.weather.delaying:
            self.late.append((self.chain.height + self._rng.randint(1, 149), transaction))
            return signature
        self.chain.enqueue(transaction)
        if self._rng.random() < self.weather.losing:
            raise Temporary("the reply was lost")
        return signature

    def _read(self, method: str, params: list[Any]) -> Any:
        if self._rng.random() < 0.1:
            self._lag = self._rng.randint(0, self.weather.lag_max) if self._rng.random() < 0.5 else 0
        view: Any = View(self.chain, min(self._lag, self.weather.lag_max))
        try:
            result = answer(view, method, params)
        except RpcError as error:
            raise RpcRefusal(error.code, error.message, error.data) from error
        return self._lie(method, result) if self.liar and self._rng.random() < 0.5 else result

    def _lie(self, method: str, result: Any) -> Any:
        """A node that answers at once, up to date and wrong."""
        told = copy.deepcopy(result)
        if method == "getSignatureStatuses":
            told["context"]["slot"] = self.chain.height
            told["value"] = [self._status(each) for each in told["value"]]
        elif method == "getMultipleAccounts":
            told["context"]["slot"] = self.chain.height
            if len(told["value"]) == 1:  # a marker: "there is none"
                told["value"] = [None]
        elif method == "getEpochInfo":
            told["blockHeight"] += 500
        elif method == "getLatestBlockhash":
            told["value"]["lastValidBlockHeight"] -= 120
        elif method == "getTransaction":
            told = None
        elif method == "simulateTransaction" and self._rng.random() < 0.3:
            told["value"]["err"] = self._rng.choice(TROUBLES)
        return told

    def _status(self, status: Any) -> Any:
        if status is None or self._rng.random() < 0.5:
            return None
        return {**status, "confirmationStatus": "finalized", "confirmations": None}
