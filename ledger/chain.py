"""Talking to Solana: a pool of RPC nodes, asked one question each, with answers that say how far they can be trusted.

The nodes are unmodified `solana` AsyncClients. Every answer about a transaction carries the slot at which the node
looked, because a node that lags says "not found" in good faith. Transport trouble is `Temporary`; it never means that
something did not happen. Knows transactions as bytes and signatures, nothing of money.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

from solders.hash import Hash, ParseHashError
from solders.pubkey import Pubkey
from solders.signature import Signature

from cluster import urls
from cluster.errors import Rejected, Temporary
from cluster.resilience import Breaker
from ledger.packing import COMPUTE_UNITS_MAX

log = logging.getLogger(__name__)

STATUSES_MAX = 256
ACCOUNTS_MAX = 100
SIGNATURES_MAX = 1000
EFFECTS_AT_ONCE = 16  # transactions that each node is asked about side by side
HISTORY_MAX = 1_000_000  # transactions that are read at once of the treasury's history
STRETCH_MAX = 100_000  # where the next call goes on: each round asks for what it has not booked of them again
MARKS_MAX = 10_000  # places at which it does: half a stretch lies between two of them
OUTVOTE = 2  # nodes that agree against one
HISTORY_SHORT = 10_000  # of one node's, before it is asked whether others go on as well
TOUCHED_MAX = 2_000  # transactions that name an address and are read before a batch is ended
TOKEN_ACCOUNT_BYTES = 165
SYSTEM_PROGRAM = "1" * 32  # it owns every account that no other program does
FAILURES_MAX, REST_S = 5, 2.0  # after so many failures in a row a node is left alone so long
SIMULATIONS_MAX = 16  # that one node is asked at once
SIMULATION = {"encoding": "base64", "sigVerify": False, "replaceRecentBlockhash": True, "commitment": "confirmed"}
OF_ANOTHER_FORM = ("UnsupportedVersion", "SanitizeFailure")
# What reading an answer of another form raises.
MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError, ParseHashError)
LIFE_BLOCKS = 150  # a blockhash can be used
AHEAD_BLOCKS_MAX, APART_SLOTS_MAX = 2 * LIFE_BLOCKS, 1000  # of one node to others; one that lags is not yet a liar
WHOLE_MAX = 2**63 - 1  # of slots, heights and lamports: what the database keeps
TOKENS_MAX = 2**64 - 1  # that an account can hold of one mint: of their own, strangers make as many as they like
VERSION_MAX = 255  # of transactions that nodes are to tell of: only what they cost and moved is read, so any
OTHER_VERSION = -32015  # a node's refusal to tell of one
FAILED = "failed"
ERROR_CHARS_MAX = 1_000
TEXT_CHARS_MAX = 500
NO_TEXT = re.compile(r"[^ -~]")
BEHIND = (-32005, -32016)  # the node is unhealthy, or has not reached minContextSlot: another one may have


class RpcRefusal(Exception):
    """A node's JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        message = _text(message)
        super().__init__(code, message, data)
        self.code, self.message, self.data = code, message, data


class Unreadable(Temporary):
    """A node gives an answer that cannot be read: a proxy's page, a newer form, a lie."""


class Node(Protocol):
    """One RPC node."""

    name: str

    async def call(self, method: str, params: list[Any]) -> Any:
        """The result; RpcRefusal when the node says no, Temporary when it does not answer."""


class HttpNode:
    """A node over HTTP, through solana's AsyncClient, behind a breaker and a pace.

    Its name tells it apart from others, and shows no key: `number` is its own among those whose URLs are shown alike.
    """

    def __init__(self, url: str, timeout_s: float, requests_per_s: float, number: int = 1) -> None:
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
    """At most so many requests a second, in bursts of a fifth of a second's worth."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._clock = per_s, clock
        self._burst = max(1.0, per_s / 5)
        self._tokens, self._at = self._burst, clock()

    async def wait(self) -> None:
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        self._tokens -= 1
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / self._per_s)


@dataclass(frozen=True)
class Blockhash:
    """A recent blockhash, how long a transaction with it may land, and the slot at which the node said so."""

    hash: str
    last_valid_block_height: int
    context_slot: int


@dataclass(frozen=True)
class Status:
    """What a node knows of a signature. `level` is processed, confirmed or finalized."""

    slot: int
    level: str
    error: Any


@dataclass(frozen=True)
class Look:
    """One look at many signatures: what was found, and the slot the node had reached."""

    node: str
    slot: int
    statuses: Mapping[str, Status | None]
    first_slot: int = 0  # what is older, the node has forgotten


@dataclass(frozen=True)
class Account:
    """An account's bytes."""

    lamports: int
    owner: str
    data: bytes


@dataclass(frozen=True)
class Simulation:
    """What a node says a transaction would do: its error (None when it would succeed), compute units, the node's slot.

    `told`: for each node that was asked, the accounts that were asked for as they would be after it.
    """

    error: Any
    units: int
    slot: int
    told: tuple[tuple[Account | None, ...], ...] = ()


@dataclass(frozen=True)
class Effect:
    """What a finalized transaction did: cost to its payer, and change of each token account, by address."""

    signature: str
    slot: int
    error: Any
    fee: int
    lamports: Mapping[str, int]
    tokens: Mapping[str, int]


class Named(NamedTuple):
    """A finalized transaction that names an address, as a node says; `error` is None where it has succeeded."""

    signature: str
    slot: int
    error: Any
    node: str


class History(NamedTuple):
    """Finalized transactions that name an address, by any node, each node's oldest first; up to `slot_max` all of them."""

    named: list[Named]
    slot_max: int


class Stretch(NamedTuple):
    """What one node says of a history, the newest first; whether it came to its end, and the slot up to which it is whole."""

    named: list[Named]
    has_ended: bool
    slot_max: int


Read = Callable[[Any], Any]  # a node's answer as it came, to what it says; raises one of MALFORMED


def _as_it_is(answer: Any) -> Any:
    return answer


class Chain:
    """The pool. Reads go to the first node that answers; sends go to all; looks can be asked of a given node."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        if not nodes:
            raise Rejected("no RPC node is named", code="no-rpc", hint="set [solana] urls")
        self.nodes = list(nodes)
        self._runner = asyncio.Runner()
        self._marks: dict[tuple[str, str], list[Named]] = {}  # by node and address (see `history`)

    def close(self) -> None:
        self._runner.close()

    # ── Questions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def ask(self, method: str, *params: Any, read: Read = _as_it_is) -> Any:
        """The first node that gives an answer which `read` can read: what that returns."""
        return self._runner.run(self._first(method, list(params), read=read))

    def ask_all(self, method: str, *params: Any, least: int = 1, read: Read = _as_it_is) -> list[Any]:
        """Every node's answer, of those that give one which can be read, in their order.

        Raises:
            Temporary: fewer than `least` answer.
        """
        return self._runner.run(self._all(method, list(params), least, read))

    def genesis(self) -> str:
        return str(self.ask("getGenesisHash", read=lambda told: str(Hash.from_string(told))))

    def slot(self, commitment: str = "finalized") -> int:
        return int(self.ask("getSlot", {"commitment": commitment}, read=_whole))

    def takes(self, raw: bytes) -> bool:
        """Whether every node that answers can run a transaction of this form; what its software calls itself proves nothing.

        Raises:
            Temporary: no node answers.
        """
        return self._runner.run(self._takes([base64.b64encode(raw).decode(), SIMULATION]))

    def is_alpenglow(self) -> bool:
        """Under Alpenglow a confirmed block is final; detected, never assumed."""
        try:
            return self.ask("getAgGenesisCert") is not None
        except RpcRefusal:
            return False

    def latest_blockhash(self, opinions: int = 1) -> Blockhash:
        """At `confirmed`: a finalized one costs 32 blocks of its life, a processed one may be on a fork.

        It is the longest-lived one that `opinions` nodes know, and held to live as long as the longest-lived one of all that
        nodes name: held to live too long it costs patience, too short money. Who names one that lives longer than the chain
        lets it, by where `opinions` nodes are, is not believed.

        Raises:
            Temporary: fewer nodes than `opinions` answer, or are believed, or know one and the same.
        """
        at = {"commitment": "confirmed"}
        reached: list[tuple[int, int]] = self.ask_all("getEpochInfo", at, least=opinions, read=_epoch)
        height, slot = (sorted(each)[-opinions] for each in zip(*reached, strict=True))
        named = self._runner.run(self._by_name("getLatestBlockhash", [at], opinions, _blockhash))
        near = {
            name: each
            for name, each in named.items()
            if each.last_valid_block_height <= height + AHEAD_BLOCKS_MAX
            and abs(each.context_slot - slot) <= APART_SLOTS_MAX
        }
        if len(near) < opinions:
            raise Temporary(f"{len(near)} RPC nodes name a blockhash that can be the latest one, {opinions} are needed")
        last = max(each.last_valid_block_height for each in near.values())
        if any(each.last_valid_block_height < last - LIFE_BLOCKS for each in named.values()):
            log.warning("an RPC node names a blockhash that others hold to be over")
        known = self._runner.run(self._known_to(near, opinions))
        return Blockhash(known, last, min(each.context_slot for each in near.values()))

    def finalized_height(self, opinions: int = 1) -> tuple[int, int]:
        """Finalized block height by the most cautious node, and a slot that it had reached.

        Raises:
            Temporary: fewer nodes than `opinions` answer.
        """
        answers: list[tuple[int, int]] = self.ask_all(
            "getEpochInfo", {"commitment": "finalized"}, least=opinions, read=_epoch
        )
        return min(answers)

    def finalized_slot(self, opinions: int = 1) -> int:
        """The lowest finalized slot that a node names: who lies of a height names none that is ahead of all.

        Raises:
            Temporary: fewer nodes than `opinions` answer.
        """
        answers: list[tuple[int, int]] = self.ask_all(
            "getEpochInfo", {"commitment": "finalized"}, least=opinions, read=_epoch
        )
        return min(slot for _, slot in answers)

    def highest(self, opinions: int = 1) -> int:
        """The highest block height that a node names which can be right, by where `opinions` nodes are.

        Raises:
            Temporary: fewer nodes than `opinions` answer.
        """
        at = {"commitment": "processed"}
        answers: list[tuple[int, int]] = self.ask_all("getEpochInfo", at, least=opinions, read=_epoch)
        heights = sorted(height for height, _ in answers)
        return min(heights[-1], heights[-opinions] + AHEAD_BLOCKS_MAX)

    def rent(self, size: int) -> int:
        return int(self.ask("getMinimumBalanceForRentExemption", size, read=_whole))

    def balance(self, address: str, commitment: str = "finalized") -> int:
        return int(self.ask("getBalance", address, {"commitment": commitment}, read=lambda told: _whole(told["value"])))

    def accounts(self, addresses: Sequence[str], commitment: str = "finalized") -> tuple[int, list[Account | None]]:
        """Accounts by address, and the slot they were read at (the oldest of the pages)."""
        found: list[Account | None] = []
        slots: list[int] = []
        for start in range(0, len(addresses), ACCOUNTS_MAX):
            page = list(addresses[start : start + ACCOUNTS_MAX])
            options = {"commitment": commitment, "encoding": "base64"}
            slot, accounts = self.ask("getMultipleAccounts", page, options, read=_accounts(len(page)))
            slots.append(slot)
            found += accounts
        return min(slots, default=0), found

    def all_accounts(
        self, addresses: Sequence[str], commitment: str = "finalized", *, opinions: int
    ) -> list[tuple[int, list[Account | None]]]:
        """The same by every node that answers, each with its own slot; at most ACCOUNTS_MAX addresses.

        Raises:
            Temporary: fewer nodes than `opinions` answer.
        """
        options, read = {"commitment": commitment, "encoding": "base64"}, _accounts(len(addresses))
        return self.ask_all("getMultipleAccounts", list(addresses), options, least=opinions, read=read)

    def not_wallets(self, addresses: Sequence[str], opinions: int = 1) -> dict[str, str]:
        """Of these addresses those that a program owns, by every node that answers, each with the program.

        Raises:
            Temporary: fewer nodes than `opinions` answer.
        """
        found: dict[str, str] = {}
        for start in range(0, len(addresses), ACCOUNTS_MAX):
            page = list(addresses[start : start + ACCOUNTS_MAX])
            options = {"commitment": "finalized", "encoding": "base64", "dataSlice": {"offset": 0, "length": 0}}
            answers = self.ask_all("getMultipleAccounts", page, options, least=opinions, read=_accounts(len(page)))
            for address, seen in zip(page, zip(*(accounts for _, accounts in answers), strict=True), strict=True):
                if all(account is not None and account.owner != SYSTEM_PROGRAM for account in seen):
                    found[address] = seen[0].owner
        return found

    def looks(self, signatures: Sequence[str], *, reach: bool = False) -> list[Look]:
        """What each node that answers knows of these signatures, history included; `reach`: and how far back it knows."""
        return self._runner.run(self._looks(signatures, reach))

    def effect(self, signature: str, opinions: int = 1) -> Effect | None:
        """What a finalized transaction did; None until `opinions` nodes say the same."""
        return self._runner.run(self._effect(signature, opinions))

    def effects(self, signatures: Sequence[str], opinions: int = 1, *, mint: str) -> list[Effect | Temporary | None]:
        """What many did to tokens of a mint, asked side by side; in place of one of which no node says anything, why.

        Of their error only whether there is one, and nothing of other tokens: nodes of two releases tell these differently, and
        strangers choose them.
        """
        return self._runner.run(self._effects(signatures, opinions, mint))

    def remembered(self, signature: str, slot: int, opinions: int, *, mint: str) -> Effect | None:
        """What fewer nodes than `opinions` say it did, where the others no longer have the block of `slot`: they abstain.

        None as well while one that has it does not answer, or says otherwise, or where none is left; or where `slot` is
        not yet final by as many nodes.
        """
        able = self._runner.run(self._able(slot))
        if not 0 < able < opinions or slot > self.finalized_height(opinions)[1]:
            return None
        return self._runner.run(self._effect(signature, able, mint))

    def raw(self, signature: str) -> bytes:
        """The bytes of a finalized transaction.

        Raises:
            Temporary: the node does not have it.
        """
        options = {"commitment": "finalized", "encoding": "base64", "maxSupportedTransactionVersion": VERSION_MAX}
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
        """For each address what every node that answers says is there.

        Raises:
            Temporary: fewer nodes than `opinions` answer.
        """
        found: list[list[Account | None]] = []
        for start in range(0, len(addresses), ACCOUNTS_MAX):
            answers = self.all_accounts(addresses[start : start + ACCOUNTS_MAX], commitment, opinions=opinions)
            found += [list(seen) for seen in zip(*(accounts for _, accounts in answers), strict=True)]
        return found

    def history(
        self,
        address: str,
        until: str | None = None,
        slot_min: int = 0,
        opinions: int = 1,
        *,
        until_slot: int | None = None,
    ) -> History:
        """Finalized transactions that name an address after `until`, by any node that answers, each node's oldest first:
        once for each node that names it, which may be wrong about the slot.

        Only nodes that have reached `slot_min` are believed; and none that goes on after `HISTORY_SHORT` where enough others
        have come to an end: it has lost `until`, or makes them up.

        Nodes tell the newest first. Where there are more than `STRETCH_MAX` and `until_slot` is given, which is that of
        `until`, the next call goes on from there towards `until`: so the oldest of them are told, up to a slot that enough
        nodes have come to, however many there are. Without it `HISTORY_MAX` are too many.

        Raises:
            Temporary: fewer than `opinions` of them answer, or there are too many, of which the next call tells more.
        """
        more = ({"until": until} if until else {}) | ({"minContextSlot": slot_min} if slot_min else {})
        most = HISTORY_MAX if until_slot is None else STRETCH_MAX
        marks: dict[str, list[Named]] = {node.name: [] for node in self.nodes}
        if until_slot is not None:
            for name in marks:
                marks[name] = self._marks.setdefault((name, address), [])
                while marks[name] and (marks[name][-1].slot <= until_slot or len(marks[name]) > MARKS_MAX):
                    marks[name].pop()  # read
        stretches = self._runner.run(self._histories(address, opinions, HISTORY_SHORT, more, marks))
        ended = [each for each in stretches if each.has_ended]
        if len(ended) < (needed := min(max(opinions, OUTVOTE), len(stretches))):
            stretches = self._runner.run(self._histories(address, opinions, most, more, marks))
            ended = [each for each in stretches if each.has_ended]
            _mark(stretches, marks)
            if len(ended) < needed or (until_slot is None and len(ended) < len(stretches)):
                raise Temporary(f"more than {most} transactions name {address}")
        slot_max = sorted((each.slot_max for each in ended), reverse=True)[min(opinions, len(ended)) - 1]
        return History([each for stretch in ended for each in reversed(stretch.named)], slot_max)

    def touched(self, address: str, opinions: int = 1) -> list[str] | None:
        """Finalized transactions that name an address, by any node that answers, but for those that have failed: who sends
        such moves nothing. None where there are more than TOUCHED_MAX.

        Raises:
            Temporary: fewer nodes than `opinions` answer.
        """
        stretches = self._runner.run(self._histories(address, opinions, TOUCHED_MAX, {}, {}))
        if not all(each.has_ended for each in stretches):
            return None
        told = [each for stretch in stretches for each in stretch.named]
        failed = Counter(each.signature for each in told if each.error is not None)
        return [
            signature for signature in dict.fromkeys(each.signature for each in told) if failed[signature] < opinions
        ]

    def simulate_all(
        self, raws: Sequence[bytes], slot_min: int = 0, opinions: int = 1, shown: Sequence[Sequence[str]] = ()
    ) -> list[Simulation]:
        """What each would do, under a fresh blockhash, unsigned, by `opinions` nodes that have reached `slot_min`: an error
        of any of them, the most compute units and the lowest slot that one names.

        They run at once, each beginning with another node. Where fewer nodes answer, what there is counts: who needs more
        than one to go on asks them for other things as well, and those that are merely behind keep nobody waiting.

        `shown`: for each transaction the addresses whose accounts are told as well, as they would be after it.
        """
        return self._runner.run(self._simulate_all(raws, slot_min, opinions, shown or [()] * len(raws)))

    def simulations(self, raw: bytes, slot_min: int = 0) -> list[Simulation]:
        """What one would do, by every node that answers and has reached `slot_min`."""
        params = [base64.b64encode(raw).decode(), _simulated_at(slot_min)]
        return self.ask_all("simulateTransaction", *params, least=0, read=_simulation)

    def send(self, raws: Sequence[bytes]) -> int:
        """Hand the bytes to every node; returns how many were taken somewhere. What was refused is only a hint."""
        return self._runner.run(self._send(raws))

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _simulate_all(
        self, raws: Sequence[bytes], slot_min: int, opinions: int, shown: Sequence[Sequence[str]]
    ) -> list[Simulation]:
        places = asyncio.Semaphore(SIMULATIONS_MAX * len(self.nodes) // min(opinions, len(self.nodes)))

        async def one(number: int, raw: bytes) -> Simulation:
            params = [base64.b64encode(raw).decode(), _simulated_at(slot_min, shown[number])]
            async with places:
                try:
                    return _worst(await self._some("simulateTransaction", params, number, opinions, _simulation))
                except RpcRefusal as refusal:  # of this one; the others are simulated all the same
                    log.error("a node refuses to simulate a transaction: %s", refusal.message)
                    return Simulation(f"refused: {refusal.message}", 0, 0)

        found = await asyncio.gather(*(one(number, raw) for number, raw in enumerate(raws)), return_exceptions=True)
        answers = []
        for answer in found:
            if isinstance(answer, BaseException):
                raise answer
            answers.append(answer)
        return answers

    async def _takes(self, params: list[Any]) -> bool:
        said = [each for node in self.nodes if (each := await _form(node, params)) is not None]
        if not said:
            raise Temporary("no RPC node answers")
        return all(said)

    async def _first(self, method: str, params: list[Any], *, read: Read = _as_it_is) -> Any:
        return (await self._some(method, params, 0, 1, read))[0]

    async def _some(self, method: str, params: list[Any], begin: int, count: int, read: Read) -> list[Any]:
        """What `count` nodes say from one of them on, or fewer: who is away or behind is passed over.

        Raises:
            Temporary: no node answers.
            RpcRefusal: one says no.
        """
        begin %= len(self.nodes)
        left = [*self.nodes[begin:], *self.nodes[:begin]]
        found: list[Any] = []
        last: Exception = Temporary("no RPC node answers")
        while left and len(found) < count:
            asked = left[: count - len(found)]
            left = left[len(asked) :]
            answers = await asyncio.gather(
                *(_told(node, method, params, read) for node in asked), return_exceptions=True
            )
            for node, answer in zip(asked, answers, strict=True):
                if isinstance(answer, Temporary):
                    last = answer
                elif isinstance(answer, RpcRefusal) and answer.code in BEHIND:
                    last = Temporary(f"{node.name} is behind: {answer.message}")
                elif isinstance(answer, BaseException):
                    raise answer
                else:
                    found.append(answer)
        if not found:
            raise last
        return found

    async def _by_name(self, method: str, params: list[Any], least: int, read: Read) -> dict[str, Any]:
        """What each node that answers says, by its name."""
        asked = (_told(node, method, params, read) for node in self.nodes)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        told = iter(self._answers(method, answers, least))
        return {
            node.name: next(told)
            for node, answer in zip(self.nodes, answers, strict=True)
            if not isinstance(answer, BaseException)
        }

    async def _known_to(self, near: Mapping[str, Blockhash], opinions: int) -> str:
        """Of the blockhashes that nodes name, the longest-lived one that `opinions` nodes name or hold to be valid."""
        latest_first = sorted(near.values(), key=lambda each: -each.last_valid_block_height)
        for candidate in dict.fromkeys(each.hash for each in latest_first):
            naming = {name for name, each in near.items() if each.hash == candidate}
            if len(naming) >= opinions:
                return candidate
            params = [candidate, {"commitment": "confirmed"}]
            told: dict[str, tuple[bool, int]] = await self._by_name("isBlockhashValid", params, 0, _validity)
            known = {name for name, (is_valid, _) in told.items() if is_valid} | naming
            if len(known) >= opinions:
                return candidate
            named_at = min(near[name].context_slot for name in naming)
            is_denied = any(slot >= named_at for name, (_, slot) in told.items() if name not in known)
            level = logging.WARNING if is_denied else logging.INFO  # else the others have not come to it yet
            about = {"nodes": sorted(naming), "blockhash": candidate}
            log.log(level, "a node names a blockhash that too few others know", extra=about)
        raise Temporary(f"{opinions} RPC nodes are needed that know the same blockhash")

    async def _all(self, method: str, params: list[Any], least: int, read: Read) -> list[Any]:
        asked = (_told(node, method, params, read) for node in self.nodes)
        return self._answers(method, await asyncio.gather(*asked, return_exceptions=True), least)

    def _answers(self, method: str, answers: Sequence[Any], least: int) -> list[Any]:
        found = []
        for answer in answers:
            if not isinstance(answer, BaseException):
                found.append(answer)
            elif not isinstance(answer, (Temporary, RpcRefusal)):
                raise answer
        if len(found) < least:
            raise Temporary(f"{len(found)} of {len(self.nodes)} RPC nodes answer {method}, {least} are needed")
        return found

    async def _effect(self, signature: str, opinions: int, mint: str | None = None) -> Effect | None:
        options = {"commitment": "finalized", "encoding": "json", "maxSupportedTransactionVersion": VERSION_MAX}
        read = partial(_effect_or_none, signature, mint)
        asked = (_told(node, "getTransaction", [signature, options], read) for node in self.nodes)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        told = self._answers("getTransaction", answers, 0)
        for effect in told:
            if effect is not None and told.count(effect) >= opinions:
                assert isinstance(effect, Effect)
                return effect
        if sum(map(_is_unreadable, answers)) >= opinions:
            raise Unreadable(f"what RPC nodes say of transaction {signature} cannot be read")
        if not told:
            raise Temporary(f"none of {len(self.nodes)} RPC nodes answers getTransaction")
        return None

    async def _effects(self, signatures: Sequence[str], opinions: int, mint: str) -> list[Effect | Temporary | None]:
        places = asyncio.Semaphore(EFFECTS_AT_ONCE)

        async def one(signature: str) -> Effect | Temporary | None:
            async with places:
                try:
                    return await self._effect(signature, opinions, mint)
                except Temporary as error:
                    return error

        return await asyncio.gather(*(one(signature) for signature in signatures))

    async def _histories(
        self, address: str, least: int, most: int, more: Mapping[str, Any], marks: Mapping[str, list[Named]]
    ) -> list[Stretch]:
        asked = (_history(node, address, most, more, marks.get(node.name, [])) for node in self.nodes)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return self._answers("getSignaturesForAddress", answers, least)

    async def _looks(self, signatures: Sequence[str], reach: bool) -> list[Look]:
        found = await asyncio.gather(*(self._look(node, signatures, reach) for node in self.nodes))
        return [look for look in found if look is not None]

    async def _look(self, node: Node, signatures: Sequence[str], reach: bool) -> Look | None:
        statuses: dict[str, Status | None] = {}
        slot: int | None = None
        for start in range(0, len(signatures), STATUSES_MAX):
            page = list(signatures[start : start + STATUSES_MAX])
            try:
                options = {"searchTransactionHistory": True}
                at, known = await _told(node, "getSignatureStatuses", [page, options], _statuses(page))
            except (Temporary, RpcRefusal):
                return None  # no answer is no knowledge
            slot = at if slot is None else min(slot, at)
            statuses |= known
        try:
            first = await _told(node, "getFirstAvailableBlock", [], _whole) if reach else 0
        except (Temporary, RpcRefusal):
            return None
        return Look(node.name, slot or 0, statuses, first)

    async def _able(self, slot: int) -> int:
        """How many nodes may still have the block of a slot; one that does not say so counts."""
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


async def _history(node: Node, address: str, most: int, more: Mapping[str, Any], marks: list[Named]) -> Stretch:
    """Finalized transactions that name an address, the newest first, page by page; no page begins after so many.

    It begins below the lowest of `marks`. One below which all is read is taken away.
    """
    found: list[Named] = []
    asked = 0
    while asked < most:
        above = found[-1] if found else marks[-1] if marks else None
        options: dict[str, Any] = {"commitment": "finalized", "limit": SIGNATURES_MAX, **more}
        options |= {"before": above.signature} if above else {}
        page: list[Named] = await _told(node, "getSignaturesForAddress", [address, options], partial(_named, node.name))
        found += page
        asked += len(page)
        if len(page) >= SIGNATURES_MAX:
            continue
        if not marks:
            return Stretch(found, True, WHOLE_MAX)
        if any(each.slot < marks[-1].slot for each in found):
            return Stretch(found, True, marks[-1].slot - 1)  # others of its slot may lie above it
        marks.pop()
        found = []
    return Stretch(found, False, -1)


def _mark(stretches: Sequence[Stretch], marks: Mapping[str, list[Named]]) -> None:
    """Remember where those that have not ended are to go on: from the middle, so that two reach further than one."""
    for each in stretches:
        if not each.has_ended and each.named:
            middle = each.named[len(each.named) // 2]
            marks[middle.node].append(middle)


async def _form(node: Node, params: list[Any]) -> bool | None:
    """Whether a node can run a transaction of this form; None where it cannot say now."""
    try:
        told: Simulation = await _told(node, "simulateTransaction", params, _simulation)
    except Temporary:
        return None
    except RpcRefusal as error:
        return None if error.code in BEHIND else False
    return told.error not in OF_ANOTHER_FORM


async def _told(node: Node, method: str, params: list[Any], read: Read) -> Any:
    """What a node says, read.

    Raises:
        RpcRefusal: the node says no.
        Temporary: it does not answer.
        Unreadable: what it says cannot be read.
    """
    answer = await node.call(method, params)
    try:
        return read(answer)
    except MALFORMED as error:
        log.warning("an RPC node gives an answer that cannot be read", extra={"node": node.name, "method": method})
        said = _text(repr(error))
        raise Unreadable(f"{node.name} gives an answer to {method} that cannot be read: {said}") from error


def _is_unreadable(answer: Any) -> bool:
    return isinstance(answer, Unreadable) or (isinstance(answer, RpcRefusal) and answer.code == OTHER_VERSION)


def _text(said: Any) -> str:
    """What a node says in words, as logs and the database can keep it."""
    return NO_TEXT.sub("?", str(said)[:TEXT_CHARS_MAX])


def _error(value: Any) -> Any:
    """What a transaction fails with. Nodes say it in few words of ASCII; what is none of these is kept as a text."""
    said = json.dumps(value, allow_nan=False)
    return value if len(said) <= ERROR_CHARS_MAX and "\\" not in said else _text(value)


def _whole(value: Any, most: int = WHOLE_MAX) -> int:
    """A slot, a height or an amount."""
    if not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"{_text(value)} is no whole number from 0 to {most}")
    return int(value)


def _blockhash(told: Any) -> Blockhash:
    value, slot = told["value"], _whole(told["context"]["slot"])
    Hash.from_string(value["blockhash"])  # else it fails where it is signed
    return Blockhash(value["blockhash"], _whole(value["lastValidBlockHeight"]), slot)


def _validity(told: Any) -> tuple[bool, int]:
    if not isinstance(told["value"], bool):
        raise TypeError(f"{told['value']!r} is neither true nor false")
    return told["value"], _whole(told["context"]["slot"])


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
    return [
        Named(str(Signature.from_string(each["signature"])), _whole(each["slot"]), _error(each["err"]), node)
        for each in told
    ]


def _effect_or_none(signature: str, mint: str | None, told: Any) -> Effect | None:
    if not told:
        return None
    effect = _effect(signature, told, mint)
    return effect if mint is None or effect.error is None else replace(effect, error=FAILED)


def _simulated_at(slot_min: int, shown: Sequence[str] = ()) -> dict[str, Any]:
    accounts = {"accounts": {"encoding": "base64", "addresses": list(shown)}} if shown else {}
    return SIMULATION | ({"minContextSlot": slot_min} if slot_min else {}) | accounts


def _simulation(answer: Any) -> Simulation:
    value = answer["value"]
    units = value.get("unitsConsumed") or COMPUTE_UNITS_MAX  # of a node that names none
    accounts = value.get("accounts")
    told = (tuple(map(_account, accounts)),) if accounts else ()
    return Simulation(_error(value["err"]), _whole(units), _whole(answer["context"]["slot"]), told)


def _worst(found: Sequence[Simulation]) -> Simulation:
    error = next((each.error for each in found if each.error is not None), None)
    told = tuple(accounts for each in found for accounts in each.told)
    return Simulation(error, max(each.units for each in found), min(each.slot for each in found), told)


def _status(value: Any) -> Status | None:
    if value is None:
        return None
    level = value.get("confirmationStatus") or ("finalized" if value.get("confirmations") is None else "processed")
    return Status(_whole(value["slot"]), str(level), _error(value["err"]))


def _account(value: Any) -> Account | None:
    if value is None:
        return None
    owner = str(Pubkey.from_string(value["owner"]))
    return Account(_whole(value["lamports"]), owner, base64.b64decode(value["data"][0]))


def _effect(signature: str, answer: Any, mint: str | None) -> Effect:
    """What a transaction did; `mint`: of tokens only to these."""
    meta = answer["meta"]
    loaded = meta.get("loadedAddresses") or {"writable": [], "readonly": []}
    named = [*answer["transaction"]["message"]["accountKeys"], *loaded["writable"], *loaded["readonly"]]
    keys = [str(Pubkey.from_string(each)) for each in named]
    lamports = {
        key: _whole(after) - _whole(before)
        for key, before, after in zip(keys, meta["preBalances"], meta["postBalances"], strict=True)
        if after != before
    }
    tokens: dict[str, int] = {}
    for sign, balances in ((-1, meta.get("preTokenBalances")), (1, meta.get("postTokenBalances"))):
        for each in balances or ():
            if mint is None or each["mint"] == mint:
                address = keys[_whole(each["accountIndex"])]
                amount = _whole(int(each["uiTokenAmount"]["amount"]), TOKENS_MAX)
                tokens[address] = tokens.get(address, 0) + sign * amount
    return Effect(signature, _whole(answer["slot"]), _error(meta["err"]), _whole(meta["fee"]), lamports, tokens)
