"""Thumbnails of moments, as objects under `thumbnails/<video>/<token>/`: each attempt writes under its own fencing token.

So one whose lease has passed on overwrites nothing that is shown, and takes its own away again. Where nobody knows how an
attempt has ended (a connection that breaks at COMMIT), its thumbnails stay: they may be shown. The attempt whose moments
are committed deletes what older ones had left, but for what was shown until then: links to it are in browsers' caches
still, and the next attempt that is committed deletes it. Knows objects, no tables.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence

from cluster.errors import Temporary
from cluster.storage import Storage
from pipelines.media import THUMBNAILS, Segment

log = logging.getLogger(__name__)

CONTENT_TYPE = "image/webp"


class Thumbnails:
    """Those of one attempt at a video."""

    def __init__(self, storage: Storage, bucket: str, video_id: int, token: int) -> None:
        self.storage, self.bucket = storage, bucket
        self._video_id, self._token = video_id, token
        self._video = f"s3://{bucket}/{THUMBNAILS}/{video_id}/"

    def put(self, moments: Sequence[Segment]) -> list[str]:
        """Store a picture for each moment; their addresses."""
        uris = []
        for moment in moments:
            uri = f"{self._video}{self._token}/{moment.start_ms}.webp"
            self.storage.put_bytes(moment.thumbnail, uri, CONTENT_TYPE)
            uris.append(uri)
        return uris

    def are_late(self, shown: Iterable[str]) -> bool:
        """Whether one of these addresses is a later attempt's: then this one may not be shown any more."""
        return any(self._token_of(uri) > self._token for uri in shown)

    def keep(self, shown: Collection[str]) -> None:
        """The moments are committed: of older attempts only what was `shown` until then stays a while."""
        _tidied(lambda: self._drop_older(frozenset(shown)), self._video_id)

    def drop(self, shown: Collection[str]) -> None:
        """Take away what this attempt has stored: its moments were not written, and never will be. But for what is
        `shown`: a task of the same attempt that Ray has started twice may have committed it.
        """
        _tidied(lambda: self._drop_own(frozenset(shown)), self._video_id)

    def _drop_older(self, spared: frozenset[str]) -> None:
        for picture in list(self.storage.list(self._video)):
            if self._token_of(picture.uri) < self._token and picture.uri not in spared:
                self.storage.delete(picture.uri)

    def _drop_own(self, spared: frozenset[str]) -> None:
        for picture in list(self.storage.list(f"{self._video}{self._token}/")):
            if picture.uri not in spared:
                self.storage.delete(picture.uri)

    def _token_of(self, uri: str) -> int:
        """The token under which a thumbnail lies; 0 for one of a release before this one, which lies under none."""
        token, slash, _ = uri.removeprefix(self._video).partition("/")
        return int(token) if uri.startswith(self._video) and slash else 0


def _tidied(tidy: Callable[[], None], video_id: int) -> None:
    """Tidy up where the store lets it; the next attempt that is kept does it else."""
    try:
        tidy()
    except Temporary as error:
        log.warning("thumbnails are left over: %s", error, extra={"video_id": video_id})
