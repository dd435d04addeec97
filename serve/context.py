"""What a search works with: the database, the encoder, what is kept, gates and keys. Made once a replica; decides nothing.

The routes' `Services` is one of these with more in it. Knows no request.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.resilience import Breaker
from cluster.settings import Settings
from cluster.storage import Storage
from cluster.tasks import Tasks
from ledger.recorder import Recorder
from ledger.settings import Economics
from serve.encoder import Encoding
from serve.feed import Feed
from serve.gates import Gate
from serve.generation import Generation
from serve.query import Remembered
from serve.readers import Readers
from serve.recall import Recall
from serve.repeats import Repeats
from serve.results import Results
from serve.settings import SearchSettings
from serve.threads import Threads


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
    remembered: Remembered
    repeats: Repeats  # what an Idempotency-Key stands for
    cursor_key: bytes  # that signs cursors
    patience: Breaker  # with searches at full recall
    objects: Threads  # for calls to the object store
    tasks: Tasks  # that belong to no part alone
