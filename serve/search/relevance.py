"""How relevant a moment is to a query: the one number that an answer shows and that money is computed from.

Relevance is the calibrated cosine of the moment with what the caller asks for: the text as it stands, the picture, the
moment to find more of. Of several parts the least counts, so that adding a part can only lower it. Weights, `blend`,
`negative` and filters decide the order of an answer and never this number. A moment without a vector, or whose cosine
cannot be looked up, has relevance 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cluster.errors import Rejected
from cluster.tasks import ended
from pipelines.index import vectors as index
from pipelines.index.vectors import Connection, MomentDetails, SearchModel
from pipelines.models.relevance import Calibration
from serve.replica.encoder import Encoding, Vector
from serve.replica.readers import Readers
from serve.search.query import Query

LENGTH_MIN = 0.01  # of a blended vector, as a share of its weights: below it is rounding, not meaning
Cosines = Mapping[int, float]  # by segment id


@dataclass(frozen=True)
class Part:
    """One part of a query, as a unit vector, and how much it counts in the blended vector."""

    vector: Vector  # (dimensions,)
    weight: float
    is_text: bool


@dataclass(frozen=True)
class QueryParts:
    """The parts that a query asks for (at least one), and the parts to keep away from.

    `similar_to` is the moment to find more of: its creator's other moments, and copies of it, are found and pay nothing.
    """

    wanted: tuple[Part, ...]
    unwanted: tuple[Part, ...] = ()
    similar_to: MomentDetails | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the query has one wanted part and nothing to keep away from, so that its vector is that part's own."""
        return len(self.wanted) == 1 and not self.unwanted and self.wanted[0].weight > 0

    def blended(self) -> Vector:
        """Return the unit vector to search near: the weighted sum of the wanted parts, less that of the unwanted ones.

        Raises:
            Rejected: the parts cancel each other out.
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
    """The relevance of each moment and the cosine that decided it, by segment id.

    A moment that is missing has relevance 0.
    """

    cosines: Cosines = field(default_factory=dict)
    ppm: Mapping[int, int] = field(default_factory=dict)  # parts per million

    def of(self, segment_id: int) -> int:
        """Return the relevance of a moment in parts per million."""
        return self.ppm.get(segment_id, 0)


async def parts_of(encoding: Encoding, readers: Readers, query: Query, model: SearchModel) -> QueryParts:
    """Encode the parts of a query, all of them side by side.

    Args:
        encoding: encodes the texts and the picture.
        readers: where the vector of the moment to find more of is looked up.
        query: the checked query.
        model: the model to encode with.

    Returns:
        The wanted parts in the order text, picture, moment; the negative texts as unwanted parts, which share the
        weight `blend.negative`.

    Raises:
        Rejected: the moment to find more of does not exist.
        Temporary: the encoder is away.
    """
    blend = query.blend
    wanted: list[tuple[float, bool, Awaitable[Vector]]] = []
    if query.wanted:
        wanted.append((blend.text, True, encoding.text(query.encoded, model.name)))
    if query.image is not None:
        wanted.append((blend.image, False, encoding.image(query.image, model.name)))
    share = blend.negative / max(1, len(query.negative))
    unwanted = [(share, True, encoding.text(negative, model.name)) for negative in query.negative]
    named = [_vector_and_details(readers, query.segment_id, model)] if query.segment_id is not None else []
    encoded = [asyncio.ensure_future(vector) for _, _, vector in (*wanted, *unwanted)]
    lookups = [asyncio.ensure_future(moment) for moment in named]
    try:
        vectors, moments = await asyncio.gather(asyncio.gather(*encoded), asyncio.gather(*lookups))
    finally:
        await ended(*encoded, *lookups)  # where one of them is refused
    parts = [
        Part(vector, weight, is_text)
        for vector, (weight, is_text, _) in zip(vectors, (*wanted, *unwanted), strict=True)
    ]
    similar = [Part(vector, blend.segment, is_text=False) for vector, _ in moments]
    similar_to = moments[0][1] if moments else None
    return QueryParts((*parts[: len(wanted)], *similar), tuple(parts[len(wanted) :]), similar_to)


async def _vector_and_details(readers: Readers, segment_id: int, model: SearchModel) -> tuple[Vector, MomentDetails]:
    """Look up a moment that can be shown, and its vector.

    Raises:
        Rejected: the moment does not exist, or a search does not show it.
    """

    async def look(connection: Connection) -> tuple[Vector, MomentDetails] | None:
        current = await index.redirected(connection, segment_id)
        vector = await index.vector_of(connection, model, current)
        details = await index.moment_details(connection, [current]) if vector is not None else {}
        return (vector, details[current]) if vector is not None and current in details else None

    moment = await readers.ask(look)
    if moment is None:
        raise Rejected(f"there is no segment {segment_id}", status=404, code="not-found")
    return moment


def known(parts: QueryParts, near: Cosines) -> list[Cosines]:
    """Return the cosines with each wanted part that follow from the search itself, without a look-up.

    `near` are cosines with the vector that was searched by. If the query has a single part, that is the part's own
    vector; otherwise nothing is known of the parts.
    """
    return [near] if parts.is_plain else [{} for _ in parts.wanted]


async def looked_up(
    readers: Readers, model: SearchModel, parts: QueryParts, near: Cosines, segment_ids: Sequence[int]
) -> list[Cosines]:
    """Look up the cosines of moments with each wanted part. The database is not asked if `near` has all of them.

    Args:
        readers: where cosines are looked up.
        model: the model whose vectors are compared.
        parts: the parts of the query.
        near: the cosines with the vector searched by, as the search itself has found them.
        segment_ids: the moments to look up.

    Returns:
        One mapping for each wanted part, in order; a moment without a vector is missing in it.

    Raises:
        Temporary, psycopg.OperationalError: the database does not answer.
    """
    told = known(parts, near)
    missing = [segment_id for segment_id in segment_ids if segment_id not in told[0]]
    if not missing:
        return told

    async def look(connection: Connection) -> list[dict[int, float]]:
        return [await index.cosines(connection, model, part.vector, missing) for part in parts.wanted]

    return [{**first, **added} for first, added in zip(told, await readers.ask(look), strict=True)]


def measured(calibration: Calibration, parts: QueryParts, cosines: Sequence[Cosines]) -> Measured:
    """Return the relevance of each moment: the least of its calibrated cosines with the wanted parts of the query.

    `cosines` are those with each wanted part, in order; a moment that is missing for one part has relevance 0.
    """
    segment_ids = [segment_id for segment_id in cosines[0] if all(segment_id in each for each in cosines)]
    if not segment_ids:
        return Measured()
    values = np.array([[each[segment_id] for segment_id in segment_ids] for each in cosines])  # (parts, moments)
    ppm = np.array([  # (parts, moments)
        calibration.ppm(row, asked_by_text=part.is_text) for row, part in zip(values, parts.wanted, strict=True)
    ])  # fmt: skip
    least = ppm.argmin(axis=0)  # (moments,): the part that decides
    columns = np.arange(len(segment_ids))
    return Measured(
        dict(zip(segment_ids, values[least, columns].tolist(), strict=True)),
        dict(zip(segment_ids, ppm[least, columns].tolist(), strict=True)),
    )
