"""Runs what is written for threads (jobs, takedown, earnings) beside the event loop, each with its own connection.

These are rare calls; what every search needs goes through the async pool instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from psycopg import Connection

from cluster import database, runtime
from cluster.settings import Settings

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


async def with_connection(
    settings: Settings,
    function: Callable[Concatenate[Connection[Any], Arguments], Result],
    *args: Arguments.args,
    **kwargs: Arguments.kwargs,
) -> Result:
    """`function(connection, …)` in a thread; committed when it returns, rolled back when it raises."""

    def run() -> Result:
        url = runtime.endpoints(settings).postgres_url
        with database.session(url) as connection:
            return function(connection, *args, **kwargs)

    return await asyncio.to_thread(run)
