"""Readiness: whether each dependency of a replica answers, asked side by side and at most once a second.

Anyone may see whether a replica is ready, operators also why not. A reason names the kind of fault, never the address
of a dependency.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cluster.errors import Temporary
from cluster.tasks import Tasks
from ledger.appearances.recorder import Recorder
from serve.http import deadlines
from serve.routes.services import Services

Question = Callable[[], Awaitable[object]]

TIMEOUT_S = 2.0  # of one question
KEPT_S = 1.0  # for how long an answer is given again
NEEDED = ("postgres", "index", "tasks")  # a replica without one of them is not ready


class Readiness:
    """The readiness of one replica, at most `KEPT_S` old; callers who ask at the same time share an answer."""

    def __init__(self, questions: Mapping[str, Question], tasks: Tasks) -> None:
        self._questions, self._tasks = questions, tasks
        self._until_s = float("-inf")
        self._looking: asyncio.Task[dict[str, Any]] | None = None

    async def now(self) -> dict[str, Any]:
        """Return the document of `look`, now or within the last second."""
        if self._looking is None or (self._looking.done() and time.monotonic() >= self._until_s):
            with deadlines.unlimited():  # shared by all who ask, so that the deadline of none holds for it
                self._looking = self._tasks.spawn("readiness", self._look())
        return await asyncio.shield(self._looking)

    async def _look(self) -> dict[str, Any]:
        try:
            return await look(self._questions)
        finally:
            self._until_s = time.monotonic() + KEPT_S


def questions_of(services: Services) -> Mapping[str, Question]:
    """Map the name of each dependency of a replica to a function that asks it, and raises if it does not answer."""
    objects, storage, bucket = services.objects, services.storage, f"s3://{services.settings.s3.bucket}"
    return {
        "postgres": lambda: services.readers.primary(lambda connection: connection.execute("SELECT 1")),
        "index": services.warming.look,
        "redis": services.store.ping,
        "s3": lambda: objects.run(storage.exists, bucket),
        "encoder": services.encoding.answers,
        "recorder": lambda: _recorder(services.recorder),
        "tasks": lambda: _tasks(services.failing()),
    }


async def look(questions: Mapping[str, Question]) -> dict[str, Any]:
    """Ask every dependency.

    Returns:
        `{"ready": …, "dependencies": {name: {"ok": …, "reason": …}}}`; `ready` if all in `NEEDED` answer.
    """
    answers = await asyncio.gather(*(_reason(question()) for question in questions.values()))
    reasons = dict(zip(questions, answers, strict=True))
    return {
        "ready": not any(reasons[name] for name in NEEDED),
        "dependencies": {name: {"ok": not reason, "reason": reason} for name, reason in reasons.items()},
    }


async def _tasks(failing: Mapping[str, str]) -> None:
    """Check the background tasks: one that fails again and again is a fault, though requests are still answered.

    Raises:
        Temporary: tasks fail; the message names them.
    """
    if failing:
        raise Temporary(f"{', '.join(sorted(failing))} failed; the log says why")


async def _recorder(recorder: Recorder) -> None:
    """Check that appearances reach the database. Otherwise they wait in the spool; searches go on until it is full.

    Raises:
        Temporary: the recorder fails, or the spool is full.
    """
    if failing := recorder.failing:
        raise Temporary(f"{', '.join(sorted(failing))} failed; the log says why")
    if recorder.is_full:
        raise Temporary("the spool is full")


async def _reason(answer: Awaitable[object]) -> str:
    """Return why a dependency does not answer; "" where it does."""
    try:
        await asyncio.wait_for(answer, TIMEOUT_S)
    except Temporary as error:
        return error.public
    except Exception as error:  # noqa: BLE001  any failure is the answer to the question
        return type(error).__name__
    return ""
