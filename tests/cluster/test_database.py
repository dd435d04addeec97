"""A server that goes away is `Temporary`, before a statement as in the middle of one; other faults stay what they are."""

from __future__ import annotations

import psycopg
import pytest

from cluster import database
from cluster.errors import Temporary
from tests.conftest import free_port

END_MYSELF = "SELECT pg_terminate_backend(pg_backend_pid())"


def test_a_server_that_does_not_answer_is_temporary_and_named_without_its_password() -> None:
    port = free_port()
    with (
        pytest.raises(Temporary, match=f"127.0.0.1:{port}/pixr is unreachable") as caught,
        database.session(f"postgresql://pixr:hidden@127.0.0.1:{port}/pixr"),
    ):
        pass
    assert "hidden" not in str(caught.value)


def test_a_connection_lost_in_a_statement_is_temporary(postgres_url: str) -> None:
    with pytest.raises(Temporary, match="is unreachable"), database.session(postgres_url) as connection:
        connection.execute(END_MYSELF)


def test_a_connection_lost_before_the_block_is_over_is_temporary(postgres_url: str) -> None:
    with pytest.raises(Temporary), database.session(postgres_url) as connection:
        _lose(connection, postgres_url)


def test_a_wrong_statement_is_no_absence(postgres_url: str) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable), database.session(postgres_url) as connection:
        connection.execute("CREATE TABLE half (id int); SELECT * FROM nowhere")
    with database.session(postgres_url) as connection:
        assert connection.execute("SELECT to_regclass('half')").fetchone() == (None,)


def _lose(connection: psycopg.Connection, url: str) -> None:
    """End a connection from outside, while a transaction is open."""
    connection.execute("SELECT 1")
    with database.session(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,))
