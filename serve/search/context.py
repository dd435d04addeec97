"""What searches work with: the settings, connections and caches of one replica, made once and passed on.

Only the story (`answer`) and the HTTP side of it take the whole context; each step that they call takes what it needs.
The routes' `Services` is a context with more in it. Knows no request and decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from cluster.resilience import Breaker
from cluster.settings import Settings
from cluster.storage import Storage
from cluster.tasks import Tasks
from ledger.appearances.recorder import Recorder
from ledger.settings import Economics
from serve.http.gates import Gate
from serve.http.threads import Threads
from serve.replica.encoder import Encoding
from serve.replica.generation import Generation
from serve.replica.readers import Readers
from serve.replica.recall import Recall
from serve.replica.repeats import Repeats
from serve.replica.results import Results
from serve.search.candidates import ListSources
from serve.search.feed import Feed
from serve.search.moments import MomentLinks
from serve.search.query import QueryCache
from serve.search.references import PictureStore
from serve.settings import SearchSettings


@dataclass(frozen=True)
class SearchContext:
    """The settings and connections of one replica, as far as searches use them."""

    settings: Settings
    search: SearchSettings
    economics: Economics
    readers: Readers
    storage: Storage
    encoding: Encoding
    recorder: Recorder  # of appearances
    generation: Generation
    results: Results  # pages that were made for earlier queries
    feed: Feed
    gate: Gate  # limits how many searches are made at once
    picture_gate: Gate  # limits those by a picture, which pass it first
    recall: Recall
    query_cache: QueryCache
    repeats: Repeats  # remembers for which search each Idempotency-Key was sent
    cursor_key: bytes  # signs cursors
    patience: Breaker  # open while searches at full recall take too long
    objects: Threads  # for calls to the object store
    tasks: Tasks  # background tasks that belong to no component

    @cached_property
    def sources(self) -> ListSources:
        """The connections and services from which the lists of vectors and of words are made."""
        return ListSources(self.readers, self.encoding, self.recall, self.patience)

    @cached_property
    def pictures(self) -> PictureStore:
        """The store of the pictures that a query can name."""
        return PictureStore(self.storage, self.objects, self.settings.s3.bucket)

    @cached_property
    def links(self) -> MomentLinks:
        """The maker of links from an answer to the thumbnails and videos of its moments."""
        return MomentLinks.of(self.settings)
