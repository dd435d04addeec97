"""A database whose epoch the test holds, and a ledger that settles on a chain of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import Connection

from cluster.database import database
from ledger.journal import book
from tests.ledger.chains import Rig, new_chain


@pytest.fixture
def journal(postgres_url: str) -> Iterator[Connection[Any]]:
    """A connection that may write: it holds the epoch."""
    with database.connect(postgres_url) as connection:
        book.take_epoch(connection, "test")
        yield connection


@pytest.fixture
def rig(journal: Connection[Any]) -> Iterator[Rig]:
    made = Rig(journal, new_chain())
    yield made
    made.rpc.close()
