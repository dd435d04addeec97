"""Warming: a replica is ready once the index is in the database's memory and its recall is as it should be.

Right after a start each step through the index waits for the disk. `pg_prewarm` reads all of the index; where the
server does not have it, searches by probes read the parts that searches need. Some of these are then repeated by
comparing every vector, which measures recall. A probe is the vector of a moment with noise added, since the moment's
own vector would be found too easily. A catalogue that is small enough to be compared every time needs no warming.
"""

from __future__ import annotations

import asyncio
import logging

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import AsyncConnection

from cluster.errors import Rejected, Temporary
from cluster.tasks import Tasks
from pipelines.index import vectors
from pipelines.index.vectors import Connection, Filters, SearchLimits, SearchModel
from serve.replica.readers import Readers
from serve.replica.recall import AT, EXACT, share_of
from serve.settings import SearchSettings

log = logging.getLogger(__name__)

WARM_TIMEOUT_S = 1800.0  # of reading all of an index and comparing every vector for a few probes
AGAIN_S = 5.0  # between attempts


class Warming:
    """The warming of the index that one replica searches."""

    def __init__(self, readers: Readers, search: SearchSettings) -> None:
        self._readers, self._search = readers, search
        self.tasks = Tasks("warming")
        self._tried = asyncio.Event()
        self.reason = "the index is being warmed"  # why the replica is not ready; empty once it is
        self.recall = float("nan")  # the lowest of all databases, from 0 to 1

    async def start(self) -> None:
        """Begin to warm; wait for the end of the first attempt, `warm_wait_s` at most."""
        self.tasks.spawn("the index", self._until_warm())
        try:
            await asyncio.wait_for(self._tried.wait(), self._search.warm_wait_s)
        except TimeoutError:
            log.warning("searches are taken before the index is warm: %.0f s are over", self._search.warm_wait_s)

    async def close(self) -> None:
        """End the warming, if it is under way."""
        await self.tasks.close()

    async def look(self) -> None:
        """Check that the index is warm.

        Raises:
            Temporary: it is not warm yet, or its recall is too low.
        """
        if self.reason:
            raise Temporary(self.reason)

    async def _until_warm(self) -> None:
        while self.reason:
            try:
                self.reason = await self._attempt()
            except (Temporary, psycopg.Error) as error:
                self.reason = f"the index is not warm yet: {str(error).strip() or type(error).__name__}"
            except Exception as error:
                log.exception("the index cannot be warmed")
                self.reason = f"the index cannot be warmed: {type(error).__name__}"
            if self.reason:
                log.warning("%s", self.reason)
            self._tried.set()
            if self.reason:
                await asyncio.sleep(AGAIN_S)

    async def _attempt(self) -> str:
        """Warm every database that answers, and return what is wrong with the index; "" if nothing is."""
        _, model, *_ = await self._readers.ask(vectors.state)
        if model is None or model.rows <= self._search.exact_rows_max:
            return ""
        warmed = model

        async def warm(connection: Connection) -> float:
            await prewarm(connection, warmed)
            return await recall_of(connection, warmed, self._search)

        recalls = await self._readers.each(warm, manner=EXACT, limit_s=WARM_TIMEOUT_S)
        if not recalls:
            raise Temporary("no database answers")
        self.recall = min(recalls)
        log.info("the index of %d rows is warm, recall@10 of its probes is %.3f", model.rows, self.recall)
        if self.recall < self._search.warm_recall_min:
            wanted = self._search.warm_recall_min
            return f"the index finds {self.recall:.2f} of the nearest, {wanted:.2f} are wanted: run `pixr index build`"
        return ""


async def recall_of(connection: Connection, model: SearchModel, search: SearchSettings) -> float:
    """Search an index by probes, and return its recall, from 0 to 1.

    The recall counts as 1 if comparing every vector takes too long.
    """
    plan = SearchLimits(exact_rows=0, ef_search=search.ef_search, whole=False, timeout_ms=search.recall_timeout_ms)
    recalls: list[float] = []
    for number, vector in enumerate(await probes(connection, model, search.warm_probes)):
        looked = await vectors.nearest(connection, model, vector, search.candidates_max, None, plan)
        if number < search.warm_recall_probes:
            try:
                true = await vectors.exact(connection, model, vector, AT, Filters(), search.recall_timeout_ms)
            except psycopg.errors.QueryCanceled:
                log.warning("recall is not known: comparing everything takes more than recall_timeout_ms")
                continue
            recalls.append(share_of(looked.hits, true))
    return sum(recalls) / len(recalls) if recalls else 1.0


async def require_recall(url: str, name: str, search: SearchSettings) -> None:
    """Warm the index of a model and check its recall, before searches switch to the model.

    Raises:
        Rejected: its recall is lower than `warm_recall_min`.
    """
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        model = await vectors.named(connection, name)
        if model is None or model.rows <= search.exact_rows_max:
            return
        await prewarm(connection, model)
        recall, wanted = await recall_of(connection, model, search), search.warm_recall_min
    if recall < wanted:
        detail = f"the index of {name!r} finds {recall:.2f} of the nearest, {wanted:.2f} are wanted"
        hint = f"`pixr index build --model {name}`, or use --force"
        raise Rejected(detail, status=409, code="low-recall", hint=hint)


async def prewarm(connection: Connection, model: SearchModel) -> None:
    """Read the index and the vectors of a model into memory, if the server has `pg_prewarm`."""
    row = await (await connection.execute("SELECT to_regproc('pg_prewarm') IS NOT NULL")).fetchone()
    if row is not None and row[0]:
        await vectors.configure(connection, {"statement_timeout": 0})  # reading a large index takes minutes
        await connection.execute(
            "SELECT pg_prewarm(i.indexrelid), pg_prewarm(i.indrelid) FROM pg_index i"
            " WHERE i.indrelid = to_regclass(%s) AND i.indisvalid",
            (f"media.embeddings_m{model.id}",),
        )


async def probes(connection: Connection, model: SearchModel, count: int) -> list[NDArray[np.float32]]:
    """Return vectors near moments from all over the catalogue, always the same for one catalogue.

    Args:
        connection: to the database.
        model: the model whose vectors are taken.
        count: how many probes to make; fewer where the catalogue has fewer moments.

    Returns:
        Unit vectors (dimensions,), each the sum of a moment's vector and noise of the same length, normalised.
    """
    rng, made = np.random.default_rng(model.id), []
    for vector in await vectors.sampled(connection, model, count):  # (dimensions,), of unit length
        noise = rng.standard_normal(len(vector)).astype(np.float32)
        moved = vector + noise / np.linalg.norm(noise)
        made.append((moved / np.linalg.norm(moved)).astype(np.float32))
    return made
