"""Takedown: remove a video from search in one transaction, then delete everything that was made of it.

The row stays without its words, so that a later listing of its source does not bring the video back; the ledger's
journal keeps its opaque ids. Repeating a takedown finishes an interrupted one.
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from cluster.errors import Rejected
from cluster.storage import Storage
from pipelines.catalog import catalog
from pipelines.media import THUMBNAILS
from pipelines.moments import frame_vectors, segments
from pipelines.sources.lists import UPLOADS


def remove(connection: Connection[Any], storage: Storage, bucket: str, video_id: int) -> None:
    """Take a video down: remove it from search and commit, then delete its objects.

    The commit comes first, so that no search names an object that is being deleted.

    Args:
        connection: Connection to the primary; it is committed.
        storage: Object store.
        bucket: Pixr's own bucket. Only its uploads, thumbnails and frame vectors are deleted.
        video_id: Number of the video.

    Raises:
        Rejected: the video does not exist.
        Temporary: it is out of search, but its objects could not all be deleted; call again.
    """
    uris = catalog.uris(connection, video_id)
    if uris is None:
        raise Rejected(f"there is no video {video_id}", status=404, code="not-found")
    with connection.transaction():
        segments.forget_lineage(connection, video_id)
        catalog.clear_words(connection, video_id)
        catalog.remove(connection, video_id)
    connection.commit()
    for uri in uris:
        if uri and uri.startswith(f"s3://{bucket}/{UPLOADS}/"):
            storage.delete(uri)
    for picture in list(storage.list(f"s3://{bucket}/{THUMBNAILS}/{video_id}/")):
        storage.delete(picture.uri)
    frame_vectors.delete(storage, bucket, video_id)
