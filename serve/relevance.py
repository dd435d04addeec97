"""How relevant a moment is to a query: the one number that an answer shows and money is computed from.

It is the calibrated cosine of the moment with what the caller asks for: the text as it stands, the picture, the moment to
find more of; of several the least, so that adding a part can only lower it. Weights, `blend`, `negative` and filters
decide the order of an answer and never this number. A moment without a vector, or whose cosine cannot be looked up, has
relevance 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cluster.errors import Rejected
from cluster.tasks import ended
from pipelines import index
from pipelines.index import Connection, Found, Model
from pipelines.relevance import Calibration
from serve.query import Query
from serve.services import Services, Vector

LENGTH_MIN = 0.01  # of a blended vector, as a share of its weights: below it is rounding, not meaning
Cosines = Mapping[int, float]  # by moment


@dataclass(frozen=True)
class Part:
    """One thing that is asked for, as a unit vector, and how much it counts in the blended one."""

    vector: Vector
    weight: float
    is_text: bool


@dataclass(frozen=True)
class Parts:
    """What a query asks for (at least one part) and what it should keep away from (weights above 0 move away).

    `like` is the moment to find more of: other moments of its creator are found and pay nothing, nor do copies of it.
    """

    wanted: tuple[Part, ...]
    unwanted: tuple[Part, ...] = ()
    like: Found | None = None

    @property
    def is_plain(self) -> bool:
        """Is the one wanted part all that is searched by?"""
        return len(self.wanted) == 1 and not self.unwanted and self.wanted[0].weight > 0

    def blended(self) -> Vector:
        """The unit vector to search near: the wanted parts added up by their weights, less the unwanted ones.

        Raises:
            Rejected: nothing is left of the sum.
        """
        if self.is_plain:
            return self.wanted[0].vector
        signed = [(part.weight, part) for part in self.wanted] + [(-part.weight, part) for part in self.unwanted]
        total = np.sum([weight * part.vector.astype(np.float64) for weight, part in signed], axis=0)
        length = float(np.linalg.norm(total))
        if not length > LENGTH_MIN * sum(abs(weight) for weight, _ in signed):
            hint = "give one of them another weight"
            raise Rejected("the parts of the query cancel each other out", status=422, code="bad-query", hint=hint)
        unit: Vector = (total / length).astype(np.float32)
        return unit


@dataclass(frozen=True)
class Measured:
    """By moment: the cosine that decided, and the relevance in parts per million. What is missing has relevance 0."""

    cosines: Cosines = field(default_factory=dict)
    ppm: Mapping[int, int] = field(default_factory=dict)

    def of(self, segment_id: int) -> int:
        return self.ppm.get(segment_id, 0)


async def parts_of(services: Services, query: Query, model: Model) -> Parts:
    """The vectors of a query's parts, all encoded side by side.

    Raises:
        Rejected: there is no such segment.
        Temporary: the encoder is away.
    """
    encode, blend = services.encoding, query.blend
    wanted: list[tuple[float, bool, Awaitable[Vector]]] = []
    if query.wanted:
        wanted.append((blend.text, True, encode.text(query.encoded, model.name)))
    if query.image is not None:
        wanted.append((blend.image, False, encode.image(query.image, model.name)))
    share = blend.negative / max(1, len(query.negative))
    unwanted = [(share, True, encode.text(negative, model.name)) for negative in query.negative]
    named = [_moment(services, query.segment_id, model)] if query.segment_id is not None else []
    encoded = [asyncio.ensure_future(vector) for _, _, vector in (*wanted, *unwanted)]
    looked = [asyncio.ensure_future(moment) for moment in named]
    try:
        vectors, moments = await asyncio.gather(asyncio.gather(*encoded), asyncio.gather(*looked))
    finally:
        await ended(*encoded, *looked)  # where one of them is refused
    parts = [
        Part(vector, weight, is_text)
        for vector, (weight, is_text, _) in zip(vectors, (*wanted, *unwanted), strict=True)
    ]
    similar = [Part(vector, blend.segment, is_text=False) for vector, _ in moments]
    like = moments[0][1] if moments else None
    return Parts((*parts[: len(wanted)], *similar), tuple(parts[len(wanted) :]), like)


async def _moment(services: Services, segment_id: int, model: Model) -> tuple[Vector, Found]:
    """A moment's own vector, and the moment."""

    async def look(connection: Connection) -> tuple[Vector, Found] | None:
        current = await index.redirected(connection, segment_id)
        vector = await index.vector_of(connection, model, current)
        found = await index.found(connection, [current]) if vector is not None else {}
        return (vector, found[current]) if vector is not None and current in found else None

    moment = await services.readers.ask(look)
    if moment is None:
        raise Rejected(f"there is no segment {segment_id}", status=404, code="not-found")
    return moment


def known(parts: Parts, near: Cosines) -> list[Cosines]:
    """What the search itself has told: of each wanted part the cosines, if it was searched by that part alone."""
    return [near] if parts.is_plain else [{} for _ in parts.wanted]


async def looked_up(
    services: Services, model: Model, parts: Parts, near: Cosines, segment_ids: Sequence[int]
) -> list[Cosines]:
    """The cosines of moments with each wanted part. No round trip where the search has told all of them.

    Raises:
        Temporary, psycopg.OperationalError: the database does not answer.
    """
    told = known(parts, near)
    missing = [segment_id for segment_id in segment_ids if segment_id not in told[0]]
    if not missing:
        return told

    async def look(connection: Connection) -> list[dict[int, float]]:
        return [await index.cosines(connection, model, part.vector, missing) for part in parts.wanted]

    return [{**first, **more} for first, more in zip(told, await services.readers.ask(look), strict=True)]


def measured(calibration: Calibration, parts: Parts, cosines: Sequence[Cosines]) -> Measured:
    """The relevance of each moment: the least of what the wanted parts give it, each by the curve of its own kind.

    `cosines` are of each wanted part, in order; a moment that one of them lacks has relevance 0.
    """
    segment_ids = [segment_id for segment_id in cosines[0] if all(segment_id in each for each in cosines)]
    if not segment_ids:
        return Measured()
    values = np.array([[each[segment_id] for segment_id in segment_ids] for each in cosines])  # (part, moment)
    ppm = np.array([
        calibration.ppm(row, asked_by_text=part.is_text) for row, part in zip(values, parts.wanted, strict=True)
    ])  # fmt: skip
    least = ppm.argmin(axis=0)
    columns = np.arange(len(segment_ids))
    return Measured(
        dict(zip(segment_ids, values[least, columns].tolist(), strict=True)),
        dict(zip(segment_ids, ppm[least, columns].tolist(), strict=True)),
    )
