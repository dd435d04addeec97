"""What Serve's replicas may do in the database: answer strangers, and nothing that moves money or changes tables."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import Connection

from cluster import database, migrations
from cluster.settings import Settings

FORBIDDEN = (
    "CREATE TABLE media.mine (id int)",
    "CREATE ROLE mine SUPERUSER",
    "COPY media.videos TO PROGRAM 'cat'",
    "COPY media.videos FROM '/etc/passwd'",
    "SELECT pg_read_file('/etc/passwd')",
    "ALTER TABLE app.api_keys DROP COLUMN scopes",
    "UPDATE ledger.accounts SET balance = balance + 1",
    "INSERT INTO ledger.entries DEFAULT VALUES",
    "INSERT INTO ledger.payouts DEFAULT VALUES",
    "UPDATE ledger.batches SET state = 'settled'",
    "DELETE FROM ledger.appearance_batches",
    "UPDATE ledger.fence SET epoch = epoch + 1",
    "UPDATE ledger.holds SET released_at = now()",
    "UPDATE ledger.freezes SET released_at = now()",
    "ALTER TABLE ledger.postings DISABLE TRIGGER ALL",
    "SET session_replication_role = replica",
)


@pytest.fixture
def replica(settings: Settings) -> Connection:
    return database.connect(settings.postgres.serve_url, autocommit=True)


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_a_replica_may_not(replica: Connection, statement: str) -> None:
    with replica, pytest.raises(psycopg.errors.InsufficientPrivilege):
        replica.execute(statement)  # type: ignore[arg-type]


def test_a_replica_is_no_superuser_and_creates_nothing(replica: Connection) -> None:
    with replica:
        row = replica.execute(
            "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles"
            " WHERE rolname = current_user"
        ).fetchone()
    assert row == (False,) * 5


def test_tables_of_later_migrations_and_models_are_readable(settings: Settings, replica: Connection) -> None:
    with database.connect(settings.postgres.url, autocommit=True) as owner:
        owner.execute("SELECT media.register_model('tiny', 4, 'print')")
        owner.execute("CREATE TABLE ledger.later (id int)")
        migrations.migrate(settings.postgres.url)
    with replica:
        partition = replica.execute("SELECT format('media.embeddings_m%s', id) FROM media.models").fetchone()
        assert partition is not None
        replica.execute(f"SELECT FROM {partition[0]}")
        replica.execute("SELECT FROM ledger.later")
