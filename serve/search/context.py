"""What a search works with: the database, the encoder, what is kept, gates and keys. Made once a replica; decides nothing.

The routes' `Services` is one of these with more in it. Knows no request.
"""

from __future__ import annotations

from dataclasses import dataclass

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
from serve.search.feed import Feed
from serve.search.query import QueryCache
from serve.settings import SearchSettings


@dataclass(frozen=True)
class SearchContext:
    """One replica's settings and connections, as far as searches use them."""

    settings: Settings
    search: SearchSettings
    economics: Economics
    readers: Readers
    storage: Storage
    encoding: Encoding
    recorder: Recorder
    generation: Generation
    results: Results
    feed: Feed
    gate: Gate  # of searches
    recall: Recall
    remembered: QueryCache
    repeats: Repeats  # what an Idempotency-Key stands for
    cursor_key: bytes  # that signs cursors
    patience: Breaker  # with searches at full recall
    objects: Threads  # for calls to the object store
    tasks: Tasks  # that belong to no part alone
