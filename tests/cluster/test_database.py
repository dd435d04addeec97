"""A server that goes away is `Temporary`, before a statement as in the middle of one; other faults stay what they are."""

from __future__ import annotations

import psycopg
import pytest

from cluster import database, runtime
from cluster.errors import Rejected, Temporary
from cluster.settings import Settings
from tests.conftest import free_port, fresh_database

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


def test_each_fault_of_a_server_that_is_there_has_words_of_its_own(postgres_url: str) -> None:
    for code, words in (
        ("40P01", "ended a deadlock"),
        ("40001", "refused two transactions"),
        ("53100", "no space left on its disk"),
        ("53300", "no connections left"),
        ("55P03", "did not get a lock in time"),
        ("57014", "took too long"),
    ):
        with pytest.raises(Temporary, match=words) as caught, database.session(postgres_url) as connection:
            connection.execute(f"DO $$ BEGIN RAISE EXCEPTION 'so it is' USING ERRCODE = '{code}'; END $$")
        assert "unreachable" not in str(caught.value)


@pytest.mark.parametrize("code", ["57P01", "57P02", "57P03", "08006"])
def test_a_server_that_goes_away_is_unreachable(postgres_url: str, code: str) -> None:
    with pytest.raises(Temporary, match="is unreachable"), database.session(postgres_url) as connection:
        connection.execute(f"DO $$ BEGIN RAISE EXCEPTION 'so it is' USING ERRCODE = '{code}'; END $$")


def test_a_database_that_is_not_there_is_no_matter_of_trying_again(postgres_url: str) -> None:
    with pytest.raises(Rejected, match="has no database of this name"):
        database.connect(postgres_url.rpartition("/")[0] + "/nowhere")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('FATAL:  password authentication failed for user "pixr"', "does not accept the password"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1"', "does not let this user in"),
        ('FATAL:  role "nobody" does not exist', "does not let this user in"),
    ],
)
def test_a_wrong_password_or_user_is_not_retried_as_if_the_server_were_away(said: str, words: str) -> None:
    assert isinstance(database.of(psycopg.OperationalError(said)), Rejected)
    assert words in str(database.of(psycopg.OperationalError(said)))


def test_tests_get_their_databases_while_the_supervisor_asks_its_own(
    ground: Settings, request: pytest.FixtureRequest
) -> None:
    """On a busy machine its question took longer than the 5 s for which PostgreSQL waits for clients of what it copies."""
    with (
        database.session(runtime.postgres_url(ground, runtime.DATABASE)),
        fresh_database(ground, request.getfixturevalue("_template")) as url,
        database.session(url) as connection,
    ):
        assert connection.execute("SELECT count(*) FROM media.videos").fetchone() == (0,)
