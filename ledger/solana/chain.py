"""Talking to Solana: a pool of RPC nodes, and questions to one or all of them.

The nodes are unmodified `solana` AsyncClients. Every answer about a transaction carries the slot that the node had
reached, because a node that lags answers "not found" in good faith. Transport errors are `Temporary`; they never mean
that something did not happen. A parameter `opinions` is the number of nodes that must answer, or that must report the
same. Knows transactions as bytes and signatures, nothing of money.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

from solders.hash import Hash

from cluster import urls
from cluster.errors import Rejected, Temporary
from cluster.resilience import Breaker

log = logging.getLogger(__name__)

# Layout of the token program's accounts, in bytes: length and decimals of a mint, state of a token account.
MINT_BYTES, MINT_DECIMALS_AT = 82, 44
ACCOUNT_STATE_AT, ACCOUNT_FROZEN = 108, 2
STATUSES_MAX = 256
ACCOUNTS_MAX = 100
SIGNATURES_MAX = 1000
EFFECTS_AT_ONCE = 16  # transactions that each node is asked about at once
HISTORY_MAX = 1_000_000  # transactions of the treasury's history that are read at once
OUTVOTE = 2  # nodes that agree against one
HISTORY_SHORT = 10_000  # transactions of one node; only if others have more too is it asked for all
TOUCHED_MAX = 100_000  # transactions that name an address and are read before a batch is ended
TOKEN_ACCOUNT_BYTES = 165
SYSTEM_PROGRAM = "1" * 32  # owner of every account that no other program owns
FAILURES_MAX, REST_S = 5, 2.0  # failures in a row after which a node is left alone, and for how long
SIMULATIONS_MAX = 16  # that one node runs at once
SIMULATION = {"encoding": "base64", "sigVerify": False, "replaceRecentBlockhash": True, "commitment": "confirmed"}
OF_ANOTHER_FORM = ("UnsupportedVersion", "SanitizeFailure")  # errors of a transaction whose version a node cannot run
# What `read` raises on an answer of another form.
MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError)
LIFE_BLOCKS = 150  # for which a blockhash can be used
AHEAD_BLOCKS_MAX, APART_SLOTS_MAX = 2 * LIFE_BLOCKS, 1000  # between honest nodes: one that lags is not yet a liar
WHOLE_MAX = 2**63 - 1  # largest slot, height or amount: what a bigint of the database holds
BEHIND = (-32005, -32016)  # the node is unhealthy, or has not reached minContextSlot; another one may have


class RpcRefusal(Exception):
    """A node's JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(code, message, data)
        self.code, self.message, self.data = code, message, data


class Node(Protocol):
    """One RPC node."""

    name: str

    async def call(self, method: str, params: list[Any]) -> Any:
        """Call a JSON-RPC method. Returns its result.

        Raises:
            RpcRefusal: the node answers with an error.
            Temporary: it does not answer.
        """


class HttpNode:
    """A node over HTTP, through solana's AsyncClient, with a circuit breaker and a rate limit.

    Its name distinguishes it from other nodes, and shows no key that the URL may contain.
    """

    def __init__(self, url: str, timeout_s: float, requests_per_s: float, number: int = 1) -> None:
        """Make a node that is not connected yet.

        Args:
            url: the address of the node; may contain a key.
            timeout_s: seconds to wait for an answer.
            requests_per_s: the rate limit.
            number: distinguishes nodes whose names would otherwise be the same.
        """
        self.name = f"{urls.shown(url)}{f' ({number})' if number > 1 else ''}"
        self._url, self._timeout_s = url, timeout_s
        self._breaker = Breaker(f"RPC {self.name}", failures_max=FAILURES_MAX, reset_s=REST_S)
        self._pace = Pace(requests_per_s)
        self._client: Any = None

    async def call(self, method: str, params: list[Any]) -> Any:
        import pydantic
        from solana.exceptions import SolanaRpcException
        from solana.rpc.async_api import AsyncClient
        from solana.rpc.jsonrpc import JsonRpcRequest, SolanaJsonRpcError

        if not self._breaker.allow():
            raise Temporary(f"RPC {self.name} is resting")
        await self._pace.wait()
        if self._client is None:
            self._client = AsyncClient(self._url, timeout=self._timeout_s)
        try:
            request = JsonRpcRequest(id=1, method=method, params=params)
            result = await self._client.send_rpc_request(request, Any)
        except SolanaJsonRpcError as error:
            self._breaker.success()
            raise RpcRefusal(error.code, error.message, error.data) from error
        except (SolanaRpcException, pydantic.ValidationError, OSError) as error:
            self._breaker.failure()
            raise Temporary(f"RPC {self.name} does not answer {method}: {type(error).__name__}") from error
        self._breaker.success()
        return result


class Pace:
    """A limit of `per_s` requests a second; a burst may use at once what a fifth of a second allows."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._clock = per_s, clock
        self._burst = max(1.0, per_s / 5)
        self._tokens, self._at = self._burst, clock()

    async def wait(self) -> None:
        """Wait until one more request may be made."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        self._tokens -= 1
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / self._per_s)


@dataclass(frozen=True)
class Blockhash:
    """A recent blockhash, the last height at which a transaction with it may land, and the slot of the report."""

    hash: str
    last_valid_block_height: int
    context_slot: int


@dataclass(frozen=True)
class Status:
    """What a node knows about a signature. `level` is processed, confirmed or finalized."""

    slot: int
    level: str
    error: Any


@dataclass(frozen=True)
class Look:
    """What one node knows about many signatures, the slot that it had reached, and the first slot that it remembers."""

    node: str
    slot: int
    statuses: Mapping[str, Status | None]
    first_slot: int = 0  # of the oldest block that the node still has


@dataclass(frozen=True)
class Simulation:
    """The result of a simulation on one node: the error (None if it would succeed), compute units, the node's slot."""

    error: Any
    units: int
    slot: int


@dataclass(frozen=True)
class Account:
    """An account on chain as a node returns it."""

    lamports: int
    owner: str
    data: bytes


@dataclass(frozen=True)
class Effect:
    """What a finalized transaction did: its fee, and by address the changes in lamports and in tokens."""

    signature: str
    slot: int
    error: Any
    fee: int
    lamports: Mapping[str, int]
    tokens: Mapping[str, int]


class Named(NamedTuple):
    """A finalized transaction that names an address, as reported by one node; `error` is None if it succeeded."""

    signature: str
    slot: int
    error: Any
    node: str


Read = Callable[[Any], Any]  # from a node's answer to a value of ours; raises one of MALFORMED


def _as_it_is(answer: Any) -> Any:
    return answer


class Chain:
    """A pool of RPC nodes.

    A question that needs one answer goes to one node after another until one answers; all others go to all nodes.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        if not nodes:
            raise Rejected("no RPC node is named", code="no-rpc", hint="set [solana] urls")
        self.nodes = list(nodes)
        self._runner = asyncio.Runner()

    def close(self) -> None:
        self._runner.close()

    # ── Questions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def ask(self, method: str, *params: Any, read: Read = _as_it_is) -> Any:
        """Call a method on one node after another until `read` accepts an answer; return the result of `read`."""
        return self._runner.run(self._first(method, list(params), read=read))

    def ask_all(self, method: str, *params: Any, least: int = 1, read: Read = _as_it_is) -> list[Any]:
        """Call a method on all nodes at once. Returns the results of `read` for accepted answers, in order of the nodes.

        Raises:
            Temporary: `read` accepts the answers of fewer than `least` nodes.
        """
        return self._runner.run(self._all(method, list(params), least, read))

    def genesis(self) -> str:
        """Return the genesis hash, which identifies the chain."""
        return str(self.ask("getGenesisHash"))

    def slot(self, commitment: str = "finalized") -> int:
        """Return the newest slot, as the first node that answers reports it."""
        return int(self.ask("getSlot", {"commitment": commitment}, read=_whole))

    def takes(self, raw: bytes) -> bool:
        """Whether every node that answers can run a transaction of this version; tested by simulating `raw`.

        Raises:
            Temporary: no node answers.
        """
        return self._runner.run(self._takes([base64.b64encode(raw).decode(), SIMULATION]))

    def latest_blockhash(self, opinions: int = 1) -> Blockhash:
        """Return the latest blockhash at `confirmed`.

        A finalized blockhash has lost 32 blocks of its life, and a processed one may be on a fork. Of the blockhashes
        that nodes report, the one with the longest life is taken: to believe in too long a life costs time, in too
        short a life money. A blockhash is not believed if it lives longer than the chain allows, counted from the
        height that `opinions` nodes have reached.

        Raises:
            Temporary: fewer than `opinions` nodes answer, or fewer blockhashes are believed.
        """
        at = {"commitment": "confirmed"}
        reached: list[tuple[int, int]] = self.ask_all("getEpochInfo", at, least=opinions, read=_epoch)
        # Height and slot that `opinions` nodes have reached.
        height, slot = (sorted(each)[-opinions] for each in zip(*reached, strict=True))
        answers: list[Blockhash] = self.ask_all("getLatestBlockhash", at, least=opinions, read=_blockhash)
        believed = [
            each
            for each in answers
            if each.last_valid_block_height <= height + AHEAD_BLOCKS_MAX
            and abs(each.context_slot - slot) <= APART_SLOTS_MAX
        ]
        if len(believed) < opinions:
            raise Temporary(
                f"{len(believed)} RPC nodes name a blockhash that can be the latest one, {opinions} are needed"
            )
        longest = max(believed, key=lambda each: each.last_valid_block_height)
        if any(each.last_valid_block_height < longest.last_valid_block_height - LIFE_BLOCKS for each in answers):
            log.warning("an RPC node names a blockhash that others hold to be over")
        return replace(longest, context_slot=min(each.context_slot for each in believed))

    def finalized_height(self, opinions: int = 1) -> tuple[int, int]:
        """Return the lowest finalized block height that any node reports, and the finalized slot of the same node.

        Raises:
            Temporary: fewer nodes than `opinions` answer.
        """
        answers: list[tuple[int, int]] = self.ask_all(
            "getEpochInfo", {"commitment": "finalized"}, least=opinions, read=_epoch
        )
        return min(answers)

    def finalized_slot(self, opinions: int = 1) -> int:
        """Return the lowest finalized slot that any node reports. So no single node can make it larger.

        Raises:
            Temporary: fewer nodes than `opinions` answer.
        """
        answers: list[tuple[int, int]] = self.ask_all(
            "getEpochInfo", {"commitment": "finalized"}, least=opinions, read=_epoch
        )
        return min(slot for _, slot in answers)

    def highest(self, opinions: int = 1) -> int:
        """Return the highest block height that any node reports.

        It is bounded to `AHEAD_BLOCKS_MAX` above the height that `opinions` nodes have reached.

        Raises:
            Temporary: fewer nodes than `opinions` answer.
        """
        at = {"commitment": "processed"}
        answers: list[tuple[int, int]] = self.ask_all("getEpochInfo", at, least=opinions, read=_epoch)
        heights = sorted(height for height, _ in answers)
        return min(heights[-1], heights[-opinions] + AHEAD_BLOCKS_MAX)

    def rent(self, size: int) -> int:
        """Return the lamports that an account of `size` bytes must hold, as the first node that answers reports it."""
        return int(self.ask("getMinimumBalanceForRentExemption", size, read=_whole))

    def balance(self, address: str, commitment: str = "finalized") -> int:
        """Return the lamports of an address, as the first node that answers reports them."""
        return int(self.ask("getBalance", address, {"commitment": commitment}, read=lambda told: _whole(told["value"])))

    def accounts(self, addresses: Sequence[str], commitment: str = "finalized") -> tuple[int, list[Account | None]]:
        """Return the slot at which a node read the accounts, and the accounts in the order asked.

        Accounts are read in pages; the slot is the oldest one of any page. None stands for an account that does not
        exist.
        """
        accounts: list[Account | None] = []
        slots: list[int] = []
        for start in range(0, len(addresses), ACCOUNTS_MAX):
            page = list(addresses[start : start + ACCOUNTS_MAX])
            options = {"commitment": commitment, "encoding": "base64"}
            slot, page_accounts = self.ask("getMultipleAccounts", page, options, read=_accounts(len(page)))
            slots.append(slot)
            accounts += page_accounts
        return min(slots, default=0), accounts

    def all_accounts(
        self, addresses: Sequence[str], commitment: str = "finalized", *, opinions: int
    ) -> list[tuple[int, list[Account | None]]]:
        """Return, for every node that answers, its slot and the accounts in the order asked.

        Args:
            addresses: at most `ACCOUNTS_MAX`.
            commitment: "processed", "confirmed" or "finalized".
            opinions: nodes that must answer.

        Raises:
            Temporary: fewer nodes than `opinions` answer.
        """
        options, read = {"commitment": commitment, "encoding": "base64"}, _accounts(len(addresses))
        return self.ask_all("getMultipleAccounts", list(addresses), options, least=opinions, read=read)

    def not_wallets(self, addresses: Sequence[str], opinions: int = 1) -> dict[str, str]:
        """Find the addresses whose account belongs to a program; return each with its program.

        An ordinary wallet is not among them: its account belongs to the system program, which does not count. An
        address is returned only if every node that answers reports another owner than that.

        Raises:
            Temporary: fewer nodes than `opinions` answer.
        """
        program_of: dict[str, str] = {}
        for start in range(0, len(addresses), ACCOUNTS_MAX):
            page = list(addresses[start : start + ACCOUNTS_MAX])
            options = {"commitment": "finalized", "encoding": "base64", "dataSlice": {"offset": 0, "length": 0}}
            answers = self.ask_all("getMultipleAccounts", page, options, least=opinions, read=_accounts(len(page)))
            for address, seen in zip(page, zip(*(accounts for _, accounts in answers), strict=True), strict=True):
                if all(account is not None and account.owner != SYSTEM_PROGRAM for account in seen):
                    program_of[address] = seen[0].owner
        return program_of

    def looks(self, signatures: Sequence[str], *, reach: bool = False) -> list[Look]:
        """Return what each node that answers knows about these signatures; with `reach`, also how far back its memory goes."""
        return self._runner.run(self._looks(signatures, reach))

    def effect(self, signature: str, opinions: int = 1) -> Effect | None:
        """Return what a finalized transaction did; None if fewer than `opinions` nodes report the same."""
        return self._runner.run(self._effect(signature, opinions))

    def effects(self, signatures: Sequence[str], opinions: int = 1) -> list[Effect | Temporary | None]:
        """Return what each of these finalized transactions did; if no node answers about one, the error takes its place."""
        return self._runner.run(self._effects(signatures, opinions))

    def remembered(self, signature: str, slot: int, opinions: int) -> Effect | None:
        """Return what an old transaction did, as reported by all nodes that still have its block (the block of `slot`).

        This is for transactions that `effect` cannot decide, because fewer than `opinions` nodes still have the block.
        Returns None if at least `opinions` nodes have it, or no node has; if a node that has it does not answer or
        reports something else; and if fewer than `opinions` nodes have finalized `slot`.
        """
        able = self._runner.run(self._able(slot))
        if not 0 < able < opinions or slot > self.finalized_height(opinions)[1]:
            return None
        return self.effect(signature, able)

    def raw(self, signature: str) -> bytes:
        """Return the bytes of a finalized transaction, from the first node that answers.

        Raises:
            Temporary: no node answers, or the one that does has no such transaction.
        """
        options = {"commitment": "finalized", "encoding": "base64", "maxSupportedTransactionVersion": 1}
        raw: bytes | None = self.ask(
            "getTransaction",
            signature,
            options,
            read=lambda told: base64.b64decode(told["transaction"][0]) if told else None,
        )
        if raw is None:
            raise Temporary(f"transaction {signature} is not there yet")
        return raw

    def seen_accounts(
        self, addresses: Sequence[str], commitment: str = "finalized", *, opinions: int
    ) -> list[list[Account | None]]:
        """Return, for each address, the account as each node that answers reports it.

        Args:
            addresses: any number.
            commitment: "processed", "confirmed" or "finalized".
            opinions: nodes that must answer.

        Raises:
            Temporary: fewer nodes than `opinions` answer.
        """
        by_address: list[list[Account | None]] = []
        for start in range(0, len(addresses), ACCOUNTS_MAX):
            answers = self.all_accounts(addresses[start : start + ACCOUNTS_MAX], commitment, opinions=opinions)
            by_address += [list(seen) for seen in zip(*(accounts for _, accounts in answers), strict=True)]
        return by_address

    def history(self, address: str, until: str | None = None, slot_min: int = 0, opinions: int = 1) -> list[Named]:
        """Return finalized transactions that name an address, once for each node that reports them.

        Args:
            address: the address.
            until: a signature; only transactions after it are returned. None returns all.
            slot_min: nodes that have not reached this slot are not asked.
            opinions: nodes that must answer.

        Returns:
            Node after node, the oldest transaction of each first. A node may be wrong about the slot. If enough nodes
            return fewer than `HISTORY_SHORT` transactions, the other nodes are left out: they do not know `until`, or
            make up transactions.

        Raises:
            Temporary: fewer nodes than `opinions` answer, or one returns `HISTORY_MAX` transactions or more.
        """
        options = ({"until": until} if until else {}) | ({"minContextSlot": slot_min} if slot_min else {})
        histories = self._runner.run(self._histories(address, opinions, HISTORY_SHORT, options))
        ended = [history for history in histories if len(history) < HISTORY_SHORT]
        if len(ended) < min(max(opinions, OUTVOTE), len(histories)):
            ended = self._runner.run(self._histories(address, opinions, HISTORY_MAX, options))
        if any(len(history) >= HISTORY_MAX for history in ended):
            raise Temporary(f"more than {HISTORY_MAX} transactions name {address}")
        return [each for history in ended for each in reversed(history)]

    def touched(self, address: str, opinions: int = 1) -> list[str] | None:
        """Return finalized transactions that name an address and have not failed, as reported by any node.

        Returns None if a node reports `TOUCHED_MAX` transactions or more. A transaction counts as failed only if
        `opinions` nodes report that.

        Raises:
            Temporary: fewer nodes than `opinions` answer.
        """
        histories = self._runner.run(self._histories(address, opinions, TOUCHED_MAX, {}))
        if any(len(each) >= TOUCHED_MAX for each in histories):
            return None
        failed = Counter(each.signature for history in histories for each in history if each.error is not None)
        named = dict.fromkeys(each.signature for history in histories for each in history)
        return [signature for signature in named if failed[signature] < opinions]

    def simulate_all(self, raws: Sequence[bytes], slot_min: int = 0) -> list[Simulation]:
        """Simulate unsigned transactions, each on one node that has reached `slot_min`, under a fresh blockhash.

        Simulations run at the same time and are spread over the nodes in turn. If a node does not answer, its
        simulations are repeated on the next node.
        """
        return self._runner.run(self._simulate_all(raws, slot_min))

    def simulations(self, raw: bytes, slot_min: int = 0) -> list[Simulation]:
        """Simulate one transaction on every node that answers and has reached `slot_min`."""
        params = [base64.b64encode(raw).decode(), _simulated_at(slot_min)]
        return self.ask_all("simulateTransaction", *params, least=0, read=_simulation)

    def send(self, raws: Sequence[bytes]) -> int:
        """Send transactions to every node. Returns how many of them any node has accepted, which is only a hint."""
        return self._runner.run(self._send(raws))

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _simulate_all(self, raws: Sequence[bytes], slot_min: int) -> list[Simulation]:
        places = asyncio.Semaphore(SIMULATIONS_MAX * len(self.nodes))

        async def one(number: int, raw: bytes) -> Simulation:
            params = [base64.b64encode(raw).decode(), _simulated_at(slot_min)]
            async with places:
                try:
                    told: Simulation = await self._first("simulateTransaction", params, number, read=_simulation)
                    return told
                except RpcRefusal as refusal:  # of this one; the others are simulated all the same
                    log.error("a node refuses to simulate a transaction: %s", refusal.message)
                    return Simulation(f"refused: {refusal.message}", 0, 0)

        answers = await asyncio.gather(*(one(number, raw) for number, raw in enumerate(raws)), return_exceptions=True)
        simulations = []
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            simulations.append(answer)
        return simulations

    async def _takes(self, params: list[Any]) -> bool:
        answers = [each for node in self.nodes if (each := await _form(node, params)) is not None]
        if not answers:
            raise Temporary("no RPC node answers")
        return all(answers)

    async def _first(self, method: str, params: list[Any], begin: int = 0, *, read: Read = _as_it_is) -> Any:
        last: Exception = Temporary("no RPC node answers")
        begin %= len(self.nodes)
        for node in (*self.nodes[begin:], *self.nodes[:begin]):
            try:
                return await _told(node, method, params, read)
            except Temporary as error:
                last = error
            except RpcRefusal as error:
                if error.code not in BEHIND:
                    raise
                last = Temporary(f"{node.name} is behind: {error.message}")
        raise last

    async def _all(self, method: str, params: list[Any], least: int, read: Read) -> list[Any]:
        calls = (_told(node, method, params, read) for node in self.nodes)
        return self._answers(method, await asyncio.gather(*calls, return_exceptions=True), least)

    def _answers(self, method: str, answers: Sequence[Any], least: int) -> list[Any]:
        """Return the answers without the errors of nodes that could not or would not answer.

        Raises:
            Temporary: fewer than `least` answers are left.
        """
        given = []
        for answer in answers:
            if not isinstance(answer, BaseException):
                given.append(answer)
            elif not isinstance(answer, (Temporary, RpcRefusal)):
                raise answer
        if len(given) < least:
            raise Temporary(f"{len(given)} of {len(self.nodes)} RPC nodes answer {method}, {least} are needed")
        return given

    async def _effect(self, signature: str, opinions: int) -> Effect | None:
        options = {"commitment": "finalized", "encoding": "json", "maxSupportedTransactionVersion": 1}
        effects: list[Effect] = []
        read = partial(_effect_or_none, signature)
        effect: Effect | None
        for effect in await self._all("getTransaction", [signature, options], 1, read):
            if effect is not None:
                effects.append(effect)
                if effects.count(effect) >= opinions:
                    return effects[-1]
        return None

    async def _effects(self, signatures: Sequence[str], opinions: int) -> list[Effect | Temporary | None]:
        places = asyncio.Semaphore(EFFECTS_AT_ONCE)

        async def one(signature: str) -> Effect | Temporary | None:
            async with places:
                try:
                    return await self._effect(signature, opinions)
                except Temporary as error:
                    return error

        return await asyncio.gather(*(one(signature) for signature in signatures))

    async def _histories(self, address: str, least: int, most: int, options: Mapping[str, Any]) -> list[list[Named]]:
        calls = (_history(node, address, most, options) for node in self.nodes)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        return self._answers("getSignaturesForAddress", answers, least)

    async def _looks(self, signatures: Sequence[str], reach: bool) -> list[Look]:
        looks = await asyncio.gather(*(self._look(node, signatures, reach) for node in self.nodes))
        return [look for look in looks if look is not None]

    async def _look(self, node: Node, signatures: Sequence[str], reach: bool) -> Look | None:
        statuses: dict[str, Status | None] = {}
        slot: int | None = None
        for start in range(0, len(signatures), STATUSES_MAX):
            page = list(signatures[start : start + STATUSES_MAX])
            try:
                options = {"searchTransactionHistory": True}
                at, known = await _told(node, "getSignatureStatuses", [page, options], _statuses(page))
            except (Temporary, RpcRefusal):
                return None  # that it does not answer says nothing about transactions
            slot = at if slot is None else min(slot, at)
            statuses |= known
        try:
            first = await _told(node, "getFirstAvailableBlock", [], _whole) if reach else 0
        except (Temporary, RpcRefusal):
            return None
        return Look(node.name, slot or 0, statuses, first)

    async def _able(self, slot: int) -> int:
        """Return how many nodes may still have the block of a slot; a node that does not answer counts as if it had."""
        firsts = await asyncio.gather(
            *(_told(node, "getFirstAvailableBlock", [], _whole) for node in self.nodes), return_exceptions=True
        )
        for first in firsts:
            if isinstance(first, BaseException) and not isinstance(first, (Temporary, RpcRefusal)):
                raise first
        return sum(isinstance(first, BaseException) or int(first) <= slot for first in firsts)

    async def _send(self, raws: Sequence[bytes]) -> int:
        taken = await asyncio.gather(*(self._send_one(raw) for raw in raws))
        return sum(taken)

    async def _send_one(self, raw: bytes) -> bool:
        options = {"encoding": "base64", "skipPreflight": True, "maxRetries": 0}
        params = [base64.b64encode(raw).decode(), options]
        answers = await asyncio.gather(
            *(node.call("sendTransaction", params) for node in self.nodes), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, (Temporary, RpcRefusal)):
                raise answer
        return any(not isinstance(answer, BaseException) for answer in answers)


async def _history(node: Node, address: str, most: int, more_options: Mapping[str, Any]) -> list[Named]:
    """Return up to `most` finalized transactions that name an address, newest first, read page by page."""
    named: list[Named] = []
    while len(named) < most:
        options: dict[str, Any] = {"commitment": "finalized", "limit": SIGNATURES_MAX, **more_options}
        options |= {"before": named[-1].signature} if named else {}
        page: list[Named] = await _told(node, "getSignaturesForAddress", [address, options], partial(_named, node.name))
        named += page
        if len(page) < SIGNATURES_MAX:
            break
    return named


async def _form(node: Node, params: list[Any]) -> bool | None:
    """Whether a node can run a transaction of this version; None if it cannot tell at present."""
    try:
        simulation: Simulation = await _told(node, "simulateTransaction", params, _simulation)
    except Temporary:
        return None
    except RpcRefusal as error:
        return None if error.code in BEHIND else False
    return simulation.error not in OF_ANOTHER_FORM


async def _told(node: Node, method: str, params: list[Any], read: Read) -> Any:
    """Call a method on one node. Returns the result of `read` on the answer.

    Raises:
        RpcRefusal: the node answers with an error.
        Temporary: the node does not answer, or `read` cannot read the answer (a proxy's page, a newer form, a lie).
    """
    answer = await node.call(method, params)
    try:
        return read(answer)
    except MALFORMED as error:
        log.warning("an RPC node gives an answer that cannot be read", extra={"node": node.name, "method": method})
        raise Temporary(f"{node.name} gives an answer to {method} that cannot be read: {error!r}") from error


def _whole(value: Any) -> int:
    """Read a whole number from a node's answer: a slot, a height or an amount."""
    if not isinstance(value, int) or not 0 <= value <= WHOLE_MAX:
        raise ValueError(f"{value!r} is no whole number from 0 to 2^63 - 1")
    return int(value)


def _blockhash(told: Any) -> Blockhash:
    value, slot = told["value"], _whole(told["context"]["slot"])
    Hash.from_string(value["blockhash"])  # else it fails where it is signed
    return Blockhash(value["blockhash"], _whole(value["lastValidBlockHeight"]), slot)


def _epoch(told: Any) -> tuple[int, int]:
    return _whole(told["blockHeight"]), _whole(told["absoluteSlot"])


def _accounts(count: int) -> Read:
    def read(told: Any) -> tuple[int, list[Account | None]]:
        found = [_account(value) for value in told["value"]]
        if len(found) != count:
            raise ValueError(f"{len(found)} accounts, not {count}")
        return _whole(told["context"]["slot"]), found

    return read


def _statuses(signatures: Sequence[str]) -> Read:
    def read(told: Any) -> tuple[int, dict[str, Status | None]]:
        known = {key: _status(value) for key, value in zip(signatures, told["value"], strict=True)}
        return _whole(told["context"]["slot"]), known

    return read


def _named(node: str, told: Any) -> list[Named]:
    if not isinstance(told, list):
        raise TypeError(f"{type(told).__name__} is no list of transactions")
    return [Named(str(each["signature"]), _whole(each["slot"]), each["err"], node) for each in told]


def _effect_or_none(signature: str, told: Any) -> Effect | None:
    return _effect(signature, told) if told else None


def _simulated_at(slot_min: int) -> dict[str, Any]:
    return SIMULATION | ({"minContextSlot": slot_min} if slot_min else {})


def _simulation(answer: Any) -> Simulation:
    value = answer["value"]
    return Simulation(value["err"], _whole(value.get("unitsConsumed") or 0), _whole(answer["context"]["slot"]))


def _status(value: Any) -> Status | None:
    if value is None:
        return None
    level = value.get("confirmationStatus") or ("finalized" if value.get("confirmations") is None else "processed")
    return Status(_whole(value["slot"]), level, value["err"])


def _account(value: Any) -> Account | None:
    if value is None:
        return None
    return Account(_whole(value["lamports"]), str(value["owner"]), base64.b64decode(value["data"][0]))


def _effect(signature: str, answer: Any) -> Effect:
    meta = answer["meta"]
    loaded = meta.get("loadedAddresses") or {"writable": [], "readonly": []}
    keys = [*answer["transaction"]["message"]["accountKeys"], *loaded["writable"], *loaded["readonly"]]
    lamports = {
        key: _whole(after) - _whole(before)
        for key, before, after in zip(keys, meta["preBalances"], meta["postBalances"], strict=True)
        if after != before
    }
    tokens: dict[str, int] = {}
    for sign, balances in ((-1, meta["preTokenBalances"]), (1, meta["postTokenBalances"])):
        for each in balances or ():
            address = keys[each["accountIndex"]]
            tokens[address] = tokens.get(address, 0) + sign * _whole(int(each["uiTokenAmount"]["amount"]))
    return Effect(signature, _whole(answer["slot"]), meta["err"], _whole(meta["fee"]), lamports, tokens)
