"""Pictures that lie in the deployment's own store, for searches that name one instead of sending it.

Only one folder of the deployment's bucket can be named, and none that Pixr itself writes, so that a search reads nothing that
its caller may not see.
"""

from __future__ import annotations

from dataclasses import replace

from cluster.errors import Rejected
from cluster.storage import Storage
from pipelines import prefixes
from serve import dimensions, problems
from serve.deadlines import within
from serve.query import Query
from serve.services import Services

NO_FILE = frozenset(("", ".", ".."))  # as a part of a path: a gateway may take it for another folder


async def resolved(services: Services, query: Query) -> Query:
    """The same search with the picture that it names, or carries, found small enough to be decoded.

    Raises:
        Rejected: it lies somewhere else, does not exist, is no picture, or has too many bytes or pixels.
        Temporary: the store does not answer in time.
    """
    search = services.search
    if query.image is not None:
        dimensions.checked(query.image, search.image_pixels_max, search.image_jpeg_pixels_max)
    if query.image_uri is None:
        return query
    uri, folder = query.image_uri, f"s3://{services.settings.s3.bucket}/{services.search.image_folder}"
    is_named = uri.startswith(folder) and NO_FILE.isdisjoint(uri.removeprefix(folder).split("/"))
    if not is_named or prefixes.is_own(uri, services.settings.s3.bucket):
        hint = f"put it under {folder}, or send it as base64"
        raise Rejected(f"{uri} is no picture that a search can name", status=422, code="bad-image", hint=hint)
    reading = services.objects.run(_read, services.storage, uri, services.search.image_max_bytes)
    with problems.of_the_store("picture"):
        data = await within(reading, services.search.deadline_s, "it takes too long")
    dimensions.checked(data, search.image_pixels_max, search.image_jpeg_pixels_max)
    return replace(query, image=data, image_uri=None)


def _read(storage: Storage, uri: str, bytes_max: int) -> bytes:
    size = storage.size(uri)
    if not 0 < size <= bytes_max:
        raise Rejected(f"{uri} has {size} bytes, 1 to {bytes_max} are allowed", status=422, code="bad-image")
    return storage.read(uri)
