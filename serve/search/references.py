"""References of a query: it may name a picture in the deployment's store, and ask for moments that have a stake.

The picture and the moments are read first; only then are the kept answers searched, since these are keyed by what a
query means, not by the names in it. A query can name pictures in only one folder of the deployment's bucket, and none in
a folder that Pixr itself writes, so that a search does not read anything that its caller may not see.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cluster.errors import Rejected
from cluster.storage import Storage
from ledger.creators import stakes
from pipelines.sources import prefixes
from serve.http import problems
from serve.http.deadlines import within
from serve.http.threads import Threads
from serve.replica import dimensions
from serve.replica.readers import Readers
from serve.search.query import Query
from serve.settings import SearchSettings

NO_FILE = frozenset(("", ".", ".."))  # as a part of a path: a gateway may take it for another folder


@dataclass(frozen=True)
class PictureStore:
    """Reads pictures that a query names from the deployment's bucket, in the threads of the object store."""

    storage: Storage
    threads: Threads
    bucket: str

    async def read(self, uri: str, search: SearchSettings) -> bytes:
        """Read a picture in the folder that searches may name.

        Raises:
            Rejected: the address lies outside of that folder or in one that Pixr writes, no object has it, or the object
                has too many bytes.
            Temporary: the store does not answer in time.
        """
        folder = f"s3://{self.bucket}/{search.image_folder}"
        is_named = uri.startswith(folder) and NO_FILE.isdisjoint(uri.removeprefix(folder).split("/"))
        if not is_named or prefixes.is_own(uri, self.bucket):
            hint = f"put it under {folder}, or send it as base64"
            raise Rejected(f"{uri} is no picture that a search can name", status=422, code="bad-image", hint=hint)
        reading = self.threads.run(_read, self.storage, uri, search.image_max_bytes)
        with problems.of_the_store("picture"):
            return await within(reading, search.deadline_s, "it takes too long")


async def resolved(readers: Readers, pictures: PictureStore, search: SearchSettings, query: Query) -> Query:
    """Replace the picture's address in a query by the picture, and the least stake by the moments that have it.

    Args:
        readers: where the moments with a stake are looked up.
        pictures: where a named picture is read.
        search: the limits on moments, bytes and pixels.
        query: the checked query.

    Returns:
        The query with `filters.segment_ids` in place of `stake_min_pix`, and `image` in place of `image_uri`.

    Raises:
        Rejected: too many moments have the stake; the picture lies elsewhere, does not exist, cannot be decoded, or has
            too many bytes or pixels.
        Temporary: the database or the store does not answer in time.
    """
    if query.stake_min_pix is not None:
        query = await _with_staked_moments(readers, query, query.stake_min_pix, search.stake_segments_max)
    if query.image is not None:
        dimensions.checked(query.image, search.image_pixels_max, search.image_jpeg_pixels_max)
    if query.image_uri is None:
        return query
    image = await pictures.read(query.image_uri, search)
    dimensions.checked(image, search.image_pixels_max, search.image_jpeg_pixels_max)
    return replace(query, image=image, image_uri=None)


async def _with_staked_moments(readers: Readers, query: Query, least_pix: int, segments_max: int) -> Query:
    """Narrow a query to the moments in which at least `least_pix` base units are invested.

    Raises:
        Rejected: more than `segments_max` moments have such a stake, too many to compare each.
    """
    segment_ids = await readers.ask(lambda connection: stakes.segments(connection, least_pix, segments_max + 1))
    if len(segment_ids) > segments_max:
        detail = f"more than {segments_max} moments have a stake of {least_pix}"
        raise Rejected(detail, status=422, code="bad-query", hint="ask for a larger stake")
    return replace(query, filters=replace(query.filters, segment_ids=tuple(segment_ids)), stake_min_pix=None)


def _read(storage: Storage, uri: str, bytes_max: int) -> bytes:
    size = storage.size(uri)
    if not 0 < size <= bytes_max:
        raise Rejected(f"{uri} has {size} bytes, 1 to {bytes_max} are allowed", status=422, code="bad-image")
    return storage.read(uri)
