"""Thumbnails of moments, as objects under `thumbnails/<video>/<token>/`: each attempt writes under its own fencing token.

So an attempt whose lease has expired overwrites nothing that is shown, and deletes its own thumbnails. If the outcome
of an attempt is unknown (a connection that breaks at COMMIT), its thumbnails stay, since they may be shown. An attempt
that commits deletes the thumbnails of older attempts. It spares those that were shown until then, because browsers have
cached links to them; the next attempt that commits deletes these. Knows objects, no tables.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from cluster.errors import Temporary
from cluster.storage import Storage
from pipelines.media import THUMBNAILS, Segment

log = logging.getLogger(__name__)

CONTENT_TYPE = "image/webp"


class Thumbnails:
    """The thumbnails of one attempt at a video."""

    def __init__(self, storage: Storage, bucket: str, video_id: int, token: int) -> None:
        """Name the attempt; nothing is stored yet.

        Args:
            storage: Object store to write to.
            bucket: Bucket of the thumbnails.
            video_id: Number of the video.
            token: Fencing token of the attempt.
        """
        self.storage, self.bucket = storage, bucket
        self._video_id, self._token = video_id, token
        self._video = f"s3://{bucket}/{THUMBNAILS}/{video_id}/"

    def put(self, moments: Sequence[Segment]) -> list[str]:
        """Store the thumbnail of each moment; return their URIs."""
        uris = []
        for moment in moments:
            uri = f"{self._video}{self._token}/{moment.start_ms}.webp"
            self.storage.put_bytes(moment.thumbnail, uri, CONTENT_TYPE)
            uris.append(uri)
        return uris

    def are_late(self, shown: Iterable[str]) -> bool:
        """Whether a later attempt wrote one of these thumbnails; if so, this attempt's must not replace them."""
        return any(self._token_of(uri) > self._token for uri in shown)

    def keep(self, shown: Collection[str]) -> None:
        """Delete the thumbnails of older attempts, except those `shown` until now. To be called after the commit."""
        spared = frozenset(shown)
        with self._tidying():
            for picture in list(self.storage.list(self._video)):
                if self._token_of(picture.uri) < self._token and picture.uri not in spared:
                    self.storage.delete(picture.uri)

    def drop(self, shown: Collection[str]) -> None:
        """Delete this attempt's thumbnails, except those `shown`. To be called after a failure.

        A second run of the same task may have committed some of them, which are then shown.
        """
        spared = frozenset(shown)
        with self._tidying():
            for picture in list(self.storage.list(f"{self._video}{self._token}/")):
                if picture.uri not in spared:
                    self.storage.delete(picture.uri)

    @contextmanager
    def _tidying(self) -> Iterator[None]:
        """Log errors of the object store in the block, which deletes objects, in place of raising them.

        The next committed attempt deletes what is left.
        """
        try:
            yield
        except Temporary as error:
            log.warning("thumbnails are left over: %s", error, extra={"video_id": self._video_id})

    def _token_of(self, uri: str) -> int:
        """Return the token that a thumbnail's URI holds; 0 for one of an earlier release, which holds none."""
        token, slash, _ = uri.removeprefix(self._video).partition("/")
        return int(token) if uri.startswith(self._video) and slash else 0
