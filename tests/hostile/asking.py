"""A client in an open loop: one search on schedule, whether or not earlier ones were answered, and every one counted.

Run as a program of its own, so that what is measured is the server's time and not that of whatever else the test does:
`python -m tests.hostile.asking PLAN` asks until it is told to end (SIGTERM) and then prints what it saw. Each search has
a connection of its own, so that nothing is lost with one that was idle.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self
from urllib.parse import quote

from tests.hostile.programs import told
from tests.hostile.wire import Answer, Door, connected, request

GIVEN_UP_S = 15.0  # after this nobody waits for an answer any more
FIELDS = ("type", "title", "status", "detail")  # of a problem document (RFC 9457)


class Kind(StrEnum):
    """How a request ended."""

    OK = "2xx"
    BUSY = "problem 503"
    REFUSED = "refused"  # no connection
    RESET = "reset"  # closed before the answer was whole
    LATE = "late"  # beyond deadline and grace, however it ended
    WRONG = "wrong"  # 404, 500, HTML, a 503 that does not say when to come again …
    OTHER = "other"  # the fault of the client's own machine


@dataclass(frozen=True)
class Plan:
    """What is asked, by whom, and how often. A key is used by every other request, where there is one.

    Of each four requests `fresh` are for text that nobody asked for before; the others repeat a text.
    """

    host: str
    port: int
    texts: tuple[str, ...]
    seed: int
    rate_per_s: float = 10.0
    key: str = ""
    sources: tuple[str, ...] = ("127.0.0.1",)  # in turn
    fresh: int = 4
    late_s: float = 4.0  # a search's deadline and a second of grace
    path: str = "/v1/search?q="


@dataclass(frozen=True)
class Asked:
    """One request: when it was due (seconds since 1970), how long it took from then on, and how it ended."""

    at_s: float
    took_s: float
    kind: Kind
    status: int = 0
    note: str = ""

    @classmethod
    def of(cls, row: Sequence[Any]) -> Self:
        at_s, took_s, kind, status, note = row
        return cls(at_s, took_s, Kind(kind), status, note)


def judged(answer: Answer) -> tuple[Kind, str]:
    """What kind of answer it is; of a wrong one also what came, of a good one what it lacks."""
    kind, start = answer.headers.get("content-type", ""), answer.body[:120]
    if 200 <= answer.status < 300:
        try:
            return Kind.OK, ",".join(json.loads(answer.body).get("degraded", ()))
        except (ValueError, AttributeError):
            return Kind.WRONG, f"{answer.status} {kind} {start!r}"
    if answer.status == 503 and answer.is_problem and "retry-after" in answer.headers:
        try:
            document = json.loads(answer.body)
        except ValueError:
            document = {}
        if all(document.get(name) for name in FIELDS) and document["status"] == answer.status:
            return Kind.BUSY, str(document["detail"])[:120]
    return Kind.WRONG, f"{answer.status} {kind} {start!r}"


async def ask(plan: Plan, source: str, text: str, key: str) -> tuple[Kind, int, str]:
    """One request, however it ends."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        async with connected(Door(plan.host, plan.port), source) as wire:
            try:
                await wire.send(request("GET", plan.path + quote(text), headers))
                answer = await wire.read()
            except ConnectionError as error:
                return Kind.RESET, 0, type(error).__name__
            kind, note = judged(answer)
            return kind, answer.status, note
    except ConnectionRefusedError as error:
        return Kind.REFUSED, 0, type(error).__name__
    except ConnectionError as error:  # taken, and thrown away before anything was said
        return Kind.RESET, 0, type(error).__name__
    except (ValueError, asyncio.LimitOverrunError) as error:
        return Kind.WRONG, 0, f"not HTTP: {error}"
    except OSError as error:
        return Kind.OTHER, 0, f"{type(error).__name__}: {error}"


async def asked(plan: Plan, number: int, due_s: float) -> Asked:
    """Request `number`, which was due at a time of the event loop's clock."""
    loop, at_s = asyncio.get_running_loop(), time.time()
    text = plan.texts[number % len(plan.texts)]
    text = f"{text} {plan.seed} {number}" if number % 4 < plan.fresh else text
    key = plan.key if number % 2 == 0 else ""
    try:
        async with asyncio.timeout(GIVEN_UP_S):
            kind, status, note = await ask(plan, plan.sources[number % len(plan.sources)], text, key)
    except TimeoutError:
        kind, status, note = Kind.LATE, 0, f"no answer in {GIVEN_UP_S:.0f} s"
    took_s = loop.time() - due_s
    if took_s > plan.late_s and kind is not Kind.OTHER:
        kind, note = Kind.LATE, note or f"{kind}, but late"
    return Asked(at_s, took_s, kind, status, note)


async def run(plan: Plan, end: asyncio.Event) -> list[Asked]:
    """Ask on schedule until the end, and wait for the answers that are still out."""
    loop, running, number = asyncio.get_running_loop(), [], 0
    due_s = loop.time() + random.Random(plan.seed).uniform(0, 1 / plan.rate_per_s)
    while not end.is_set():
        if (wait_s := due_s - loop.time()) > 0:
            await asyncio.sleep(wait_s)
        running.append(asyncio.create_task(asked(plan, number, due_s)))
        number, due_s = number + 1, due_s + 1 / plan.rate_per_s
    return list(await asyncio.gather(*running))


@dataclass(frozen=True)
class Seen:
    """Everything that a client asked."""

    rows: tuple[Asked, ...]

    def between(self, start_s: float, end_s: float) -> Seen:
        return Seen(tuple(each for each in self.rows if start_s <= each.at_s < end_s))

    def of(self, *kinds: Kind) -> list[Asked]:
        return [each for each in self.rows if each.kind in kinds]

    @property
    def kinds(self) -> Counter[Kind]:
        return Counter(each.kind for each in self.rows)

    def share(self, *kinds: Kind) -> float:
        return len(self.of(*kinds)) / max(1, len(self.rows))

    def took_s(self, quantile: float) -> float:
        """A quantile of the time that all requests took, also those without an answer."""
        times = sorted(each.took_s for each in self.rows)
        return times[min(len(times) - 1, int(quantile * len(times)))] if times else 0.0

    def worst(self, count: int = 6) -> list[str]:
        """What was not answered well, alike ones together, with their number and the longest time; clean 503s last."""
        alike: dict[tuple[Kind, int, str], list[float]] = {}
        for each in self.rows:
            if each.kind is not Kind.OK:
                alike.setdefault((each.kind, each.status, each.note), []).append(each.took_s)
        order = sorted(
            alike.items(), key=lambda item: (item[0][0] is Kind.BUSY, item[0][0] is Kind.LATE, -max(item[1]))
        )
        return [
            f"{kind} ({status}) {len(times)} times, up to {max(times):.1f} s: {note}"
            for (kind, status, note), times in order
        ][:count]


def main() -> None:
    plan = Plan(**told(sys.argv))

    async def until_told() -> list[Asked]:
        end = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
        print("started", flush=True)
        return await run(plan, end)

    rows = [list(asdict(each).values()) for each in asyncio.run(until_told())]
    print(json.dumps(rows), flush=True)


if __name__ == "__main__":
    main()
