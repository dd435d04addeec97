"""Takedown: a video leaves every answer in one transaction, then everything that was made of it is deleted.

The row stays, emptied of its words, so that a later listing of its source does not bring the video back; the journal
keeps its opaque ids. Doing it again finishes what an interrupted takedown has left.
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from cluster.errors import Rejected
from cluster.storage import Storage
from pipelines.catalog import catalog
from pipelines.media import THUMBNAILS
from pipelines.moments import frame_vectors
from pipelines.sources.lists import UPLOADS


def remove(connection: Connection[Any], storage: Storage, bucket: str, video_id: int) -> None:
    """Rows first, committed, so that no answer names what is about to be deleted; then the objects of ours.

    Raises:
        Rejected: there is no such video.
        Temporary: it is out of search, but its objects could not all be deleted; call again.
    """
    row = connection.execute("SELECT source_uri, playback_uri FROM media.videos WHERE id = %s", (video_id,)).fetchone()
    if row is None:
        raise Rejected(f"there is no video {video_id}", status=404, code="not-found")
    with connection.transaction():
        # Redirects to and from its moments would outlive the moments themselves.
        connection.execute(
            "DELETE FROM media.segment_lineage l USING media.segments s"
            " WHERE s.video_id = %s AND s.id IN (l.old_id, l.new_id)",
            (video_id,),
        )
        connection.execute(
            "UPDATE media.videos SET title = '', description = '', tags = '{}', manifest_words = NULL,"
            " error = coalesce(error_code, error) WHERE id = %s",
            (video_id,),
        )
        catalog.remove(connection, video_id)
    connection.commit()
    for uri in (row[0], row[1]):
        if uri and uri.startswith(f"s3://{bucket}/{UPLOADS}/"):
            storage.delete(uri)
    for picture in list(storage.list(f"s3://{bucket}/{THUMBNAILS}/{video_id}/")):
        storage.delete(picture.uri)
    frame_vectors.delete(storage, bucket, video_id)
