"""Thumbnails of moments, as objects under `thumbnails/<video>/<token>/`: each attempt writes under its own fencing token.

So one whose lease has passed on overwrites nothing that is shown, and takes its own away again. The attempt whose moments
are committed deletes what older ones had left, those of moments that are gone among them. Knows objects, no tables.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from cluster.errors import Temporary
from cluster.storage import Storage
from pipelines.media import Segment

log = logging.getLogger(__name__)

THUMBNAILS = "thumbnails"
CONTENT_TYPE = "image/webp"


class Thumbnails:
    """Those of one attempt at a video."""

    def __init__(self, storage: Storage, bucket: str, video_id: int, token: int) -> None:
        self._storage, self._video_id, self._token = storage, video_id, token
        self._video = f"s3://{bucket}/{THUMBNAILS}/{video_id}/"
        self.kept = False

    def put(self, moments: Sequence[Segment]) -> list[str]:
        """Store a picture for each moment; their addresses."""
        uris = []
        for moment in moments:
            uri = f"{self._video}{self._token}/{moment.start_ms}.webp"
            self._storage.put_bytes(moment.thumbnail, uri, CONTENT_TYPE)
            uris.append(uri)
        return uris

    def keep(self) -> None:
        """The moments are committed: these are shown, and those of older attempts no more."""
        self.kept = True
        _tidied(self._drop_older, self._video_id)

    def _drop_older(self) -> None:
        for picture in list(self._storage.list(self._video)):
            token, slash, _ = picture.uri.removeprefix(self._video).partition("/")
            if not slash or int(token) < self._token:  # without a token: of a release before this one
                self._storage.delete(picture.uri)

    def drop(self) -> None:
        """Take away what this attempt has stored."""
        for picture in list(self._storage.list(f"{self._video}{self._token}/")):
            self._storage.delete(picture.uri)


@contextmanager
def of_attempt(storage: Storage, bucket: str, video_id: int, token: int) -> Iterator[Thumbnails]:
    """Thumbnails that are gone after the block unless they were kept in it."""
    pictures = Thumbnails(storage, bucket, video_id, token)
    try:
        yield pictures
    finally:
        if not pictures.kept:
            _tidied(pictures.drop, video_id)


def _tidied(tidy: Callable[[], None], video_id: int) -> None:
    """Tidy up where the store lets it; the next attempt that is kept does it else."""
    try:
        tidy()
    except Temporary as error:
        log.warning("thumbnails are left over: %s", error, extra={"video_id": video_id})
