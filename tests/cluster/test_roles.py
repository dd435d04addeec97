"""What each role may do in the database: what its part of Pixr needs, and nothing more, however the database came to be."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import Connection, sql
from solders.keypair import Keypair

from cluster import database, grants, logins, migrations, runtime, services
from cluster.embedded import Postgres
from cluster.errors import Rejected, Temporary
from cluster.roles import JOBS, LEDGER, OWNER, PARTS, READER, SERVE, Role
from cluster.settings import ROOT, Settings
from ledger import challenges, wallets
from ledger.settings import Economics
from serve.settings import SearchSettings
from tests.cluster.privileges import assert_as_stated, found
from tests.conftest import fresh_database, throwaway_settings

FORBIDDEN: tuple[tuple[Role, LiteralString], ...] = (
    (SERVE, "CREATE TABLE media.mine (id int)"),
    (SERVE, "CREATE ROLE mine SUPERUSER"),
    (SERVE, "COPY media.videos TO PROGRAM 'cat'"),
    (SERVE, "COPY media.videos FROM '/etc/passwd'"),
    (SERVE, "SELECT pg_read_file('/etc/passwd')"),
    (SERVE, "ALTER TABLE app.api_keys DROP COLUMN scopes"),
    (SERVE, "UPDATE ledger.accounts SET balance = balance + 1"),
    (SERVE, "INSERT INTO ledger.entries DEFAULT VALUES"),
    (SERVE, "INSERT INTO ledger.payouts DEFAULT VALUES"),
    (SERVE, "UPDATE ledger.batches SET state = 'settled'"),
    (SERVE, "DELETE FROM ledger.appearance_batches"),
    (SERVE, "UPDATE ledger.fence SET epoch = epoch + 1"),
    (SERVE, "SELECT FROM ledger.fence FOR SHARE"),
    (SERVE, "UPDATE ledger.holds SET released_at = now()"),
    (SERVE, "UPDATE ledger.freezes SET released_at = now()"),
    (SERVE, "UPDATE ledger.incarnations SET folded = 0"),
    (SERVE, "UPDATE ledger.incarnations SET recorded = 1"),
    (SERVE, "INSERT INTO ledger.incarnations (id, spool, started_at) VALUES (gen_random_uuid(), 'x', 'infinity')"),
    (SERVE, "INSERT INTO ledger.appearance_batches (recorded_at) VALUES ('infinity')"),
    (SERVE, "SELECT FROM ledger.incarnations FOR UPDATE"),
    (SERVE, "SELECT FROM ledger.incarnations FOR KEY SHARE"),
    (SERVE, "DO $$ BEGIN LOCK TABLE ledger.incarnations IN ROW EXCLUSIVE MODE; END $$"),
    (SERVE, "DO $$ BEGIN LOCK TABLE ledger.wallets IN SHARE ROW EXCLUSIVE MODE; END $$"),
    (SERVE, "UPDATE ledger.wallets SET checked_wallet = wallet"),
    (
        SERVE,
        "INSERT INTO ledger.wallets (creator_id, wallet, set_by, set_at) VALUES (1, repeat('w', 40), 'creator', now())",
    ),
    (SERVE, "UPDATE ledger.wallet_rules SET change_hold_s = 0"),
    (SERVE, "SELECT FROM ledger.wallet_rules FOR SHARE"),
    (SERVE, "SELECT lo_create(0)"),
    (SERVE, "SELECT lo_from_bytea(0, 'x')"),
    (SERVE, "SELECT raw FROM ledger.attempts"),
    (SERVE, "INSERT INTO ledger.wallet_changes (creator_id, new_wallet, set_by) VALUES (1, 'w', 'creator')"),
    (SERVE, "UPDATE ledger.wallet_proofs SET wallet = 'mine'"),
    (SERVE, "DELETE FROM ledger.wallet_proofs"),
    (SERVE, "ALTER TABLE ledger.postings DISABLE TRIGGER ALL"),
    (SERVE, "SET session_replication_role = replica"),
    (SERVE, "SELECT media.register_model('mine', 4, 'print')"),
    (SERVE, "SET ROLE pixr_ledger"),
    (JOBS, "SELECT FROM ledger.entries"),
    (JOBS, "SELECT FROM app.api_keys"),
    (JOBS, "UPDATE ledger.fence SET epoch = epoch + 1"),
    (JOBS, "INSERT INTO media.models (name, dimensions, fingerprint) VALUES ('mine', 4, 'print')"),
    (JOBS, "UPDATE media.models SET active = true"),
    (JOBS, "DO $$ BEGIN LOCK TABLE media.models IN SHARE MODE; END $$"),
    (JOBS, "CREATE TABLE media.mine (id int)"),
    (JOBS, "SET ROLE pixr_ledger"),
    (SERVE, "SELECT ledger.place_order('key', 'correction', '{}', 'mine', 60)"),
    (SERVE, "SELECT ledger.approve_order('key', 1)"),
    (
        SERVE,
        "INSERT INTO ledger.orders (kind, body, reason, ordered_by, ordered_as) VALUES ('adopt', '{}', 'r', 1, 'a')",
    ),
    (READER, "SELECT ledger.approve_order('key', 1)"),
    (
        LEDGER,
        "INSERT INTO ledger.orders (kind, body, reason, ordered_by, ordered_as) VALUES ('adopt', '{}', 'r', 1, 'a')",
    ),
    (LEDGER, "UPDATE ledger.orders SET approved_by = 2"),
    (LEDGER, "SELECT app.admin_of('key')"),
    (LEDGER, "UPDATE ledger.chain_transactions SET delta_pix = 0"),
    (LEDGER, "SELECT FROM app.api_keys"),
    (LEDGER, "SELECT FROM media.videos"),
    (LEDGER, "DELETE FROM ledger.entries"),
    (LEDGER, "DELETE FROM ledger.postings"),
    (LEDGER, "UPDATE ledger.archive_rules SET least_age = '0 s'"),
    (LEDGER, "TRUNCATE ledger.postings"),
    (LEDGER, "DELETE FROM ledger.fence"),
    (LEDGER, "UPDATE ledger.wallets SET wallet = 'mine'"),
    (LEDGER, "SELECT FROM ledger.wallets FOR SHARE"),
    (LEDGER, "UPDATE ledger.accounts SET balance = balance + 1"),
    (LEDGER, "INSERT INTO ledger.accounts (kind, balance) VALUES ('platform', 1)"),
    (LEDGER, "UPDATE ledger.chain_head SET entry_id = 9223372036854775807"),
    (LEDGER, "ALTER TABLE ledger.entries DISABLE TRIGGER ALL"),
    (LEDGER, "CREATE FUNCTION ledger.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'"),
    (READER, "SELECT hash FROM app.api_keys"),
    (READER, "SELECT raw FROM ledger.attempts"),
    (READER, "UPDATE ledger.holds SET released_at = now()"),
    (READER, "INSERT INTO app.principals (name) VALUES ('mine')"),
    (READER, "SELECT lo_creat(-1)"),
)


def as_role(url: str, role: Role) -> str:
    return url.replace("//pixr:", f"//{role.name}:")


@pytest.fixture
def owner(postgres_url: str) -> Iterator[Connection[Any]]:
    with database.connect(postgres_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def untouched_url(ground: Settings, _template: str) -> Iterator[str]:
    """A database of which a test changes nothing."""
    with fresh_database(ground, _template) as url:
        yield url


def test_each_role_may_do_with_each_table_what_is_stated(owner: Connection[Any]) -> None:
    assert_as_stated(owner)


def test_a_table_that_a_role_gained_by_hand_is_taken_back(owner: Connection[Any], postgres_url: str) -> None:
    owner.execute("GRANT ALL ON ledger.fence, ledger.entries, app.api_keys TO pixr_serve, pixr_jobs, pixr_reader")
    owner.execute("GRANT UPDATE (folded) ON ledger.incarnations TO pixr_serve")
    migrations.migrate(postgres_url)
    assert_as_stated(owner)


@pytest.mark.parametrize(("role", "statement"), FORBIDDEN)
def test_a_role_is_refused(untouched_url: str, role: Role, statement: LiteralString) -> None:
    with (
        database.connect(as_role(untouched_url, role), autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement)


def test_no_role_is_more_than_its_grants(owner: Connection[Any]) -> None:
    """None is a superuser or the like, owns or makes anything, or is a member of another."""
    rows = owner.execute(
        "SELECT rolname, rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls,"
        " EXISTS (SELECT FROM pg_shdepend WHERE refobjid = r.oid AND deptype = 'o'),"
        " ARRAY(SELECT m.rolname::text FROM pg_roles m WHERE m.oid <> r.oid AND pg_has_role(r.oid, m.oid, 'MEMBER')),"
        " ARRAY(SELECT nspname::text FROM pg_namespace WHERE has_schema_privilege(r.oid, oid, 'CREATE')"
        "       AND nspname !~ '^pg_temp'), has_database_privilege(r.oid, current_database(), 'CREATE')"
        " FROM pg_roles r WHERE rolname = ANY(%s)",
        ([role.name for role in PARTS],),
    ).fetchall()
    seen = {name: (powers, owns, members, makes, creates) for name, powers, owns, members, makes, creates in rows}
    assert set(seen) == {role.name for role in PARTS}
    for name, about in seen.items():
        members = {"pg_read_all_stats", "pg_monitor"} if name == SERVE.name else set()
        assert (about[0], about[1], set(about[2]) - members, about[3], about[4]) == (False, False, set(), [], False), (
            name
        )


def test_what_runs_with_its_owners_rights_is_called_by_triggers_or_by_whom_it_is_for(owner: Connection[Any]) -> None:
    rows = owner.execute(
        "SELECT p.oid::regprocedure::text, ARRAY(SELECT r FROM unnest(%s::text[]) r WHERE has_function_privilege(r, p.oid,"
        " 'EXECUTE')), proconfig FROM pg_proc p WHERE prosecdef AND prorettype <> 'trigger'::regtype",
        ([role.name for role in PARTS],),
    ).fetchall()
    assert {name.split("(")[0]: set(who) for name, who, _ in rows} == {
        "media.register_model": {JOBS.name},
        "ledger.begin_incarnation": {SERVE.name, LEDGER.name},
        "ledger.hold_incarnation": {SERVE.name, LEDGER.name},
        "ledger.record_batch": {SERVE.name, LEDGER.name},
        "ledger.close_incarnation": {SERVE.name, LEDGER.name},
        "ledger.fit_owed": {LEDGER.name},
        "ledger.place_order": {LEDGER.name},
        "ledger.approve_order": {LEDGER.name},
        "ledger.forget_fold": {LEDGER.name},
        "ledger.forget_postings": {LEDGER.name},
        "ledger.forget_payments": {LEDGER.name},
        "ledger.forget_transactions": {LEDGER.name},
        "app.admin_of": set(),
    }
    of_triggers = owner.execute(
        "SELECT p.oid::regprocedure::text FROM pg_proc p, unnest(%s::text[]) r WHERE prosecdef"
        " AND prorettype = 'trigger'::regtype AND has_function_privilege(r, p.oid, 'EXECUTE')",
        ([role.name for role in PARTS],),
    ).fetchall()
    assert of_triggers == []  # or it could be made a trigger of another table, of temporary rows
    unset = owner.execute(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE prosecdef AND NOT EXISTS (SELECT FROM unnest(proconfig) c"
        " WHERE c LIKE 'search_path=%%pg_temp')"
    ).fetchall()
    assert unset == []  # what stands in the path before pg_temp could be another's


def test_tables_of_later_models_are_readable_and_those_of_money_are_not(
    owner: Connection[Any], postgres_url: str
) -> None:
    with database.connect(as_role(postgres_url, JOBS), autocommit=True) as jobs:
        jobs.execute("SELECT media.register_model('tiny', 4, 'print')")
    owner.execute("CREATE TABLE ledger.later (id int)")
    migrations.migrate(postgres_url)
    partition = owner.execute("SELECT format('media.embeddings_m%s', id) FROM media.models").fetchone()
    assert partition is not None
    query = sql.SQL("SELECT FROM {}").format(sql.SQL(partition[0]))
    with database.connect(as_role(postgres_url, SERVE), autocommit=True) as replica:
        replica.execute(query)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            replica.execute("SELECT FROM ledger.later")


def test_the_epoch_is_the_ledgers_and_only_grows(postgres_url: str) -> None:
    with database.connect(as_role(postgres_url, LEDGER), autocommit=True) as ledger:
        ledger.execute("UPDATE ledger.fence SET epoch = epoch + 1")
        with pytest.raises(psycopg.DatabaseError, match="is over and does not come again"):
            ledger.execute("UPDATE ledger.fence SET epoch = epoch - 1")
    with database.connect(as_role(postgres_url, SERVE), autocommit=True) as replica:
        replica.execute("SELECT set_config('ledger.epoch', '1', false)")  # anybody may say so
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            replica.execute("INSERT INTO ledger.holds (creator_id, reason) VALUES (1, 'mine')")


def test_the_epoch_grows_by_steps(postgres_url: str) -> None:
    """One that had reached the end of the numbers would end the ledger for good."""
    with database.connect(as_role(postgres_url, LEDGER), autocommit=True) as ledger:
        an_hour_ahead = "greatest(epoch, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) + 3600000000"
        for epoch in ("9223372036854775807", an_hour_ahead):
            with pytest.raises(psycopg.DatabaseError, match="the epoch does not go from"):
                ledger.execute(sql.SQL("UPDATE ledger.fence SET epoch = {}").format(sql.SQL(epoch)))
        ledger.execute("UPDATE ledger.fence SET epoch = epoch + 1000")  # a restore


def test_a_temporary_table_moves_no_balance(owner: Connection[Any], postgres_url: str) -> None:
    """A trigger on a table of one's own runs as deep as those of the journal."""
    migrations.migrate(postgres_url)
    with database.connect(as_role(postgres_url, LEDGER), autocommit=True) as ledger:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            ledger.execute("CREATE TEMP TABLE mine (entry_id bigint, line int, account_id bigint, amount bigint)")
        owner.execute(
            sql.SQL("GRANT TEMPORARY ON DATABASE {} TO pixr_ledger").format(sql.Identifier(owner.info.dbname))
        )
        ledger.execute("CREATE TEMP TABLE mine (entry_id bigint, line int, account_id bigint, amount bigint)")
        ledger.execute(
            "CREATE FUNCTION pg_temp.moved() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN UPDATE ledger.accounts SET balance = balance + 5 WHERE kind = 'chain'; RETURN NULL; END $$"
        )
        ledger.execute("CREATE TRIGGER moved AFTER INSERT ON mine FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.moved()")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            ledger.execute("INSERT INTO mine VALUES (1, 1, 1, 5)")
        for function in ("ledger.apply_postings", "ledger.link_entry", "ledger.log_wallet"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                ledger.execute(
                    sql.SQL(
                        "CREATE TRIGGER applied AFTER INSERT ON mine REFERENCING NEW TABLE AS added"
                        " FOR EACH STATEMENT EXECUTE FUNCTION {}()"
                    ).format(sql.SQL(function))
                )
    assert owner.execute("SELECT count(*) FROM ledger.accounts WHERE balance <> 0").fetchone() == (0,)


def test_what_two_roles_may_hold_is_the_catalogue_alone(owner: Connection[Any]) -> None:
    """Who may change or remove a row may lock it for as long as they like: nobody then changes it."""
    rows = owner.execute(
        "SELECT n.nspname || '.' || c.relname, array_agg(r ORDER BY r) FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace, unnest(%s::text[]) r"
        " WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname IN ('ledger', 'media', 'app', 'pixr')"
        "   AND (has_any_column_privilege(r, c.oid, 'UPDATE') OR has_table_privilege(r, c.oid, 'DELETE, TRUNCATE'))"
        " GROUP BY 1 HAVING count(*) > 1",
        ([role.name for role in PARTS],),
    ).fetchall()
    assert all(roles == [JOBS.name, SERVE.name] for _, roles in rows)
    assert {name for name, _ in rows} == {
        f"media.{name}"
        for name in ("creators", "earlier_moments", "embeddings", "generation", "job_videos", "jobs", "segment_lineage",
                     "segments", "staging", "videos")
    }  # fmt: skip


# ── Wallets ────────────────────────────────────────────────────────────────────────────────────────────────────────

MINE, THEIRS = "M" * 40, "T" * 40
UNHELD: tuple[LiteralString, ...] = (
    "UPDATE ledger.wallets SET wallet = %s, set_by = 'creator', set_at = now() - interval '1 year', hold_until = NULL",
    "UPDATE ledger.wallets SET wallet = %s, set_by = 'admin', hold_until = now()",
    """INSERT INTO ledger.wallets AS w (creator_id, wallet, set_by) VALUES (1, %s, 'creator')
       ON CONFLICT (creator_id) DO UPDATE SET wallet = excluded.wallet, hold_until = NULL""",
)


@pytest.fixture
def replica(owner: Connection[Any], postgres_url: str) -> Iterator[Connection[Any]]:
    """Serve, where creator 1 is paid at a wallet of theirs."""
    owner.execute("INSERT INTO ledger.wallets (creator_id, wallet, set_by) VALUES (1, %s, 'creator')", (THEIRS,))
    with database.connect(as_role(postgres_url, SERVE), autocommit=True) as connection:
        yield connection


def held_h(connection: Connection[Any]) -> tuple[Any, ...] | None:
    query = (
        "SELECT wallet, round(extract(epoch FROM hold_until - now()) / 3600)::int, set_at > now() - interval '1 h'"
        " FROM ledger.wallets"
    )
    return connection.execute(query).fetchone()


@pytest.mark.parametrize("statement", UNHELD)
def test_a_changed_wallet_is_held_whatever_a_replica_says(
    replica: Connection[Any], owner: Connection[Any], statement: LiteralString
) -> None:
    replica.execute(statement, (MINE,))
    assert held_h(owner) == (MINE, 72, True)
    owner.execute("UPDATE ledger.wallet_rules SET change_hold_s = 360000")  # what the ledger has noted
    replica.execute(statement, (THEIRS,))
    assert held_h(owner) == (THEIRS, 100, True)


@pytest.mark.parametrize(
    "assignments", ["hold_until = NULL", "hold_until = now()", "set_by = 'admin', hold_until = NULL"]
)
def test_no_replica_ends_the_hold_of_a_change(
    replica: Connection[Any], owner: Connection[Any], assignments: LiteralString
) -> None:
    replica.execute("UPDATE ledger.wallets SET wallet = %s", (MINE,))
    with pytest.raises(psycopg.DatabaseError, match="ends with its time"):
        replica.execute(sql.SQL("UPDATE ledger.wallets SET {}").format(sql.SQL(assignments)))
    with pytest.raises(psycopg.DatabaseError, match="a manifest changes no wallet"):  # to confirm it then
        replica.execute("UPDATE ledger.wallets SET set_by = 'manifest'")
    assert held_h(owner) == (MINE, 72, True)


@pytest.mark.parametrize("until", ["'infinity'", "'2999-12-31'", "now() + interval '1 h'"])
def test_no_replica_keeps_anybody_waiting_for_longer_than_the_ledger_says(
    replica: Connection[Any], owner: Connection[Any], until: LiteralString
) -> None:
    with pytest.raises(psycopg.DatabaseError, match="waits no longer than it did"):
        replica.execute(sql.SQL("UPDATE ledger.wallets SET hold_until = {}").format(sql.SQL(until)))
    replica.execute(sql.SQL("UPDATE ledger.wallets SET wallet = %s, hold_until = {}").format(sql.SQL(until)), (MINE,))
    assert held_h(owner) == (MINE, 72, True)
    owner.execute("DELETE FROM ledger.wallets")
    owner.execute("UPDATE ledger.wallet_rules SET manifest_hold_s = 7200, change_hold_s = 3600")
    first = "INSERT INTO ledger.wallets (creator_id, wallet, set_by, hold_until) VALUES (1, %s, 'manifest', {})"
    replica.execute(sql.SQL(first).format(sql.SQL(until)), (MINE,))
    held = owner.execute("SELECT hold_until <= now() + interval '2 h' FROM ledger.wallets").fetchone()
    assert held == (True,)


def test_a_hold_for_centuries_that_an_earlier_release_let_in_ends(postgres_url: str, owner: Connection[Any]) -> None:
    owner.execute(
        "INSERT INTO ledger.wallets (creator_id, wallet, set_by, hold_until) VALUES"
        " (1, %(w)s, 'creator', '2999-01-01'), (2, %(w)s, 'manifest', now() + interval '300 days')",
        {"w": THEIRS},
    )
    bounds = next((ROOT / "ledger" / "schema").glob("*_bounds_of_roles.sql")).read_text(encoding="utf-8")
    (mend,) = [part for part in bounds.split(";") if "UPDATE ledger.wallets w" in part]
    owner.execute(mend.encode())
    rows = owner.execute(
        "SELECT (hold_until - now() < interval '73 h') FROM ledger.wallets ORDER BY creator_id"
    ).fetchall()
    assert rows == [(True,), (False,)]


def test_a_manifests_wallet_is_confirmed_once(replica: Connection[Any], owner: Connection[Any]) -> None:
    replica.execute(
        "INSERT INTO ledger.wallets (creator_id, wallet, set_by, hold_until)"
        " VALUES (2, %s, 'manifest', now() + interval '1 day')",
        (MINE,),
    )
    replica.execute("UPDATE ledger.wallets SET set_by = 'creator', hold_until = NULL WHERE creator_id = 2")
    query = "SELECT set_by, hold_until FROM ledger.wallets WHERE creator_id = 2"
    assert owner.execute(query).fetchone() == ("creator", None)


def proven(replica: Connection[Any], creator_id: int, key: Keypair) -> wallets.Wallet:
    """The wallet after a replica has taken its key's signature."""
    economics, wallet = Economics(wallet_domain="pixr.example"), str(key.pubkey())
    made = challenges.issue(replica, economics, creator_id, wallet, "me")
    answer = challenges.Answer(made.nonce, str(key.sign_message(made.message.encode())))
    proof = challenges.prove(replica, creator_id, wallet, "me", answer)
    return wallets.change(replica, economics, creator_id, wallet, "creator", proof)


def test_a_replica_ends_the_hold_of_a_first_wallet_that_is_proven_then(replica: Connection[Any]) -> None:
    key = Keypair.from_seed(bytes(31) + b"\1")
    assert wallets.change(replica, Economics(), 2, str(key.pubkey()), "creator").hold_until is not None
    with pytest.raises(psycopg.DatabaseError, match="ends with its time"):
        replica.execute("UPDATE ledger.wallets SET hold_until = NULL WHERE creator_id = 2")
    with pytest.raises(psycopg.DatabaseError, match="ends with its time"):  # nor where no reason is told any more
        replica.execute("UPDATE ledger.wallets SET held_for = NULL, hold_until = NULL WHERE creator_id = 2")
    known = proven(replica, 2, key)
    assert (known.hold_until, known.proven) == (None, True)


def test_a_replica_gives_a_hold_no_other_reason(replica: Connection[Any], owner: Connection[Any]) -> None:
    key = Keypair.from_seed(bytes(31) + b"\2")
    replica.execute("UPDATE ledger.wallets SET wallet = %s", (str(key.pubkey()),))
    for reason in ("no proof", "manifest", None):
        replica.execute("UPDATE ledger.wallets SET held_for = %s", (reason,))
        assert owner.execute("SELECT held_for FROM ledger.wallets").fetchone() == ("change",)
    assert proven(replica, 1, key).hold_until is not None


def test_each_change_of_a_wallet_and_of_its_hold_is_written_down(
    replica: Connection[Any], owner: Connection[Any]
) -> None:
    owner.execute("UPDATE ledger.wallets SET hold_until = now() + interval '1 h'")
    replica.execute("UPDATE ledger.wallets SET set_by = 'admin'")
    replica.execute("UPDATE ledger.wallets SET set_by = 'admin'")  # nothing new
    replica.execute("UPDATE ledger.wallets SET wallet = %s", (MINE,))
    rows = owner.execute(
        "SELECT old_wallet, new_wallet, old_set_by, set_by, old_hold_until IS NULL, new_hold_until > old_hold_until"
        " FROM ledger.wallet_changes ORDER BY id"
    ).fetchall()
    assert rows == [
        (None, THEIRS, None, "creator", True, None),
        (THEIRS, THEIRS, "creator", "creator", True, None),
        (THEIRS, THEIRS, "creator", "admin", False, False),
        (THEIRS, MINE, "admin", "admin", False, True),
    ]


def test_a_wallet_is_in_base_58(replica: Connection[Any]) -> None:
    for wallet in ("0" * 40, "O" * 40, "l" * 40, "w" * 31, "w" * 45):
        with pytest.raises(psycopg.errors.CheckViolation):
            replica.execute(
                "INSERT INTO ledger.wallets (creator_id, wallet, set_by) VALUES (9, %s, 'creator')", (wallet,)
            )


def test_whoever_sets_a_wallet_leaves_a_trace(owner: Connection[Any], postgres_url: str) -> None:
    with database.connect(as_role(postgres_url, SERVE), autocommit=True) as replica:
        replica.execute(
            "INSERT INTO ledger.wallets (creator_id, wallet, set_by) VALUES (1, repeat('w', 40), 'creator')"
        )
    rows = owner.execute("SELECT creator_id, new_wallet, set_by FROM ledger.wallet_changes").fetchall()
    assert rows == [(1, "w" * 40, "creator")]


# ── Logins ─────────────────────────────────────────────────────────────────────────────────────────────────────────

WITH_LIMITS = {role.part: 3 for role in PARTS}


@pytest.fixture
def limited(ground: Settings, owner: Connection[Any], postgres_url: str) -> Iterator[None]:
    """Roles as an embedded server's start makes them, each with three connections."""
    passwords = dict.fromkeys(PARTS, runtime.secret(ground, "postgres"))
    grants.allow_login(postgres_url, passwords, WITH_LIMITS)
    yield
    grants.allow_login(postgres_url, passwords)


@pytest.mark.usefixtures("limited")
def test_no_role_takes_the_connections_of_another(postgres_url: str) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(WITH_LIMITS[READER.part]):
            stack.enter_context(database.connect(as_role(postgres_url, READER)))
        with pytest.raises(Temporary, match="no connections left"):
            database.connect(as_role(postgres_url, READER))
        for role in (SERVE, LEDGER):
            database.connect(as_role(postgres_url, role)).close()


def test_every_role_has_a_limit_and_together_they_leave_room(tmp_path: Path) -> None:
    settings = throwaway_settings(tmp_path)
    most = settings.postgres.connections_max
    assert set(most) == {role.part for role in PARTS}
    search = settings.section(SearchSettings)
    assert most[SERVE.part] >= 2 * (search.pool_max + search.threads_max + 4)  # one replica that another replaces
    runtime.port(settings, "postgres", 5432)
    argv = Postgres(settings).command().argv
    (flag,) = (each for each in argv if each.startswith("--max-connections="))
    assert int(flag.split("=")[1]) >= sum(most.values()) + 20


def test_what_a_role_has_changed_of_its_own_login_is_mended_at_the_next_start(
    ground: Settings, owner: Connection[Any], postgres_url: str
) -> None:
    passwords = dict.fromkeys(PARTS, runtime.secret(ground, "postgres"))
    with database.connect(as_role(postgres_url, READER), autocommit=True) as reader:
        reader.execute("ALTER ROLE pixr_reader PASSWORD 'mine'")
        reader.execute("ALTER ROLE pixr_reader SET idle_in_transaction_session_timeout = 0")
        reader.execute("ALTER ROLE pixr_reader SET search_path = pg_temp")
        reader.execute(
            sql.SQL("ALTER ROLE pixr_reader IN DATABASE {} SET default_transaction_read_only = on").format(
                sql.Identifier(owner.info.dbname)
            )
        )
    with pytest.raises(Rejected):
        database.connect(as_role(postgres_url, READER))
    grants.allow_login(postgres_url, passwords)
    with database.connect(as_role(postgres_url, READER)) as reader:
        bounds = dict(READER.bounds)
        for name in ("idle_in_transaction_session_timeout", "lock_timeout", "temp_file_limit"):
            assert reader.execute(sql.SQL("SHOW {}").format(sql.Identifier(name))).fetchone() == (bounds[name],)
        assert reader.execute("SHOW default_transaction_read_only").fetchone() == ("off",)
    kept = owner.execute(
        "SELECT setdatabase, unnest(setconfig) FROM pg_db_role_setting"
        " WHERE setrole = 'pixr_reader'::regrole ORDER BY 2"
    ).fetchall()
    assert [(number, each.split("=")[0]) for number, each in kept] == [(0, name) for name, _ in sorted(READER.bounds)]


def test_no_role_lifts_what_it_may_write_for_sorting(postgres_url: str) -> None:
    for role in PARTS:
        with (
            database.connect(as_role(postgres_url, role), autocommit=True) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute("SET temp_file_limit = -1")


@pytest.mark.usefixtures("_template")
def test_no_role_enters_the_servers_own_databases(ground: Settings) -> None:
    for role in PARTS:
        for name in ("postgres", "template1"):
            with pytest.raises(Rejected, match="does not let this user in"):
                database.connect(as_role(runtime.postgres_url(ground, name), role))


# ── By which URL ───────────────────────────────────────────────────────────────────────────────────────────────────


def with_urls(settings: Settings, **urls: str) -> Settings:
    """Settings of a database that is not embedded, with these URLs and no others."""
    none = {role.setting: "" for role in (OWNER, *PARTS)}
    return settings.with_section(dataclasses.replace(settings.postgres, **none | urls))


@pytest.fixture
def poor(ground: Settings, owner: Connection[Any], postgres_url: str) -> Iterator[str]:
    """The URL of a user of the server who owns nothing and is no member of any role; of its own name and no database's."""
    name = f"test_{secrets.token_hex(6)}"
    identifier = sql.Identifier(name)
    owner.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEROLE PASSWORD {}").format(identifier, name))
    yield postgres_url.replace(f"//pixr:{runtime.secret(ground, 'postgres')}", f"//{name}:{name}")
    owner.execute(sql.SQL("DROP OWNED BY {}").format(identifier))
    owner.execute(sql.SQL("DROP ROLE {}").format(identifier))


def worker(url: str) -> tuple[str, str]:
    with database.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT session_user::text, current_user::text").fetchone()
    assert row is not None
    return row


def test_a_url_of_ones_own_is_used_and_no_other_is_known(settings: Settings, postgres_url: str) -> None:
    urls = {role.setting: as_role(postgres_url, role) for role in PARTS}
    made = with_urls(settings, url=postgres_url, **urls)
    for role in PARTS:
        assert worker(logins.url(made, role)) == (role.name, role.name)
        theirs = logins.only(made, role)
        assert logins.held(theirs, role) == urls[role.setting]
        others = [url for setting, url in (("url", postgres_url), *urls.items()) if setting != role.setting]
        assert not any(url in repr(theirs.sections) for url in others)
    (said,) = logins.notes(made).values()
    assert said == "strong: a login of its own for serve, jobs, ledger, reader"


def test_one_url_for_all_is_used_with_set_role_where_its_user_may(settings: Settings, postgres_url: str) -> None:
    made = with_urls(settings, url=postgres_url + "?options=-c%20work_mem%3D5MB")
    for role in PARTS:
        url = logins.url(made, role)
        assert worker(url) == ("pixr", role.name)
        assert worker(database.with_statement_timeout(url, 1000)) == ("pixr", role.name)
        with database.connect(url) as connection:
            assert connection.execute("SHOW work_mem").fetchone() == ("5MB",)
    (said,) = logins.notes(made).values()
    assert said.startswith("weaker: serve is pixr_serve by SET ROLE of pixr, who may do more")
    assert "[postgres] ledger_url" in said


def test_a_user_who_may_not_become_the_role_works_as_himself_which_status_says(settings: Settings, poor: str) -> None:
    made = with_urls(settings, url=poor)
    name = worker(poor)[0]
    assert worker(logins.url(made, LEDGER)) == (name, name)
    (said,) = logins.notes(made).values()
    assert f"serve works as {name}, who is no member of pixr_serve" in said


def test_a_server_without_the_roles_has_one_for_everything_which_status_says(settings: Settings, poor: str) -> None:
    made, name = with_urls(settings, url=poor), worker(poor)[0]
    unmade = dataclasses.replace(LEDGER, name="pixr_unmade")
    assert worker(logins.url(made, unmade)) == (name, name)
    assert logins._weakness(made, unmade) == f"works as {name}, who is no member of pixr_unmade"


def test_a_login_that_is_more_than_its_role_is_said_to_be(
    settings: Settings, owner: Connection[Any], poor: str
) -> None:
    name = worker(poor)[0]
    for role in (SERVE, LEDGER):
        owner.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(role.name), sql.Identifier(name)))
    (said,) = logins.notes(with_urls(settings, serve_url=poor)).values()
    assert said.startswith(f"weaker: serve works as {name}, who may do more than answer searches")
    owner.execute(sql.SQL("REVOKE pixr_ledger FROM {0}; GRANT pg_write_all_data TO {0}").format(sql.Identifier(name)))
    assert [*logins.notes(with_urls(settings, serve_url=poor)).values()] == [said]
    owner.execute(sql.SQL("REVOKE pg_write_all_data FROM {}").format(sql.Identifier(name)))
    (said,) = logins.notes(with_urls(settings, serve_url=poor)).values()
    assert said == "strong: a login of its own for serve"


def test_a_machine_that_knows_no_url_for_a_part_says_which_setting_it_is(settings: Settings, postgres_url: str) -> None:
    with pytest.raises(Rejected, match="ledger_url"):
        logins.url(with_urls(settings, serve_url=as_role(postgres_url, SERVE)), LEDGER)


def test_a_machine_without_the_owners_url_makes_no_tables(settings: Settings, postgres_url: str) -> None:
    names = {each.name for each in services.all_services(settings)}
    theirs = with_urls(settings, serve_url=as_role(postgres_url, SERVE))
    assert names - {each.name for each in services.all_services(theirs)} == {"schema"}
    with pytest.raises(ValueError, match="no part has one"):
        with_urls(settings)


def test_who_makes_the_roles_and_is_no_superuser_may_become_them(
    ground: Settings, owner: Connection[Any], poor: str
) -> None:
    """On a managed server: the owner of the database may create roles, and no more."""
    mine = [dataclasses.replace(role, name=f"{role.name}_{secrets.token_hex(4)}") for role in PARTS]
    with database.connect(poor, autocommit=True) as connection, pytest.MonkeyPatch.context() as patch:
        patch.setattr(grants, "PARTS", tuple(mine))
        assert grants.ensure(connection)
        assert grants.ensure(connection)  # again
        for role in mine:
            connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role.name)))
            connection.execute("RESET ROLE")
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role.name)))


# ── However the database came to be ────────────────────────────────────────────────────────────────────────────────


def test_a_database_of_before_the_roles_has_them_after_its_migration(ground: Settings, postgres_url: str) -> None:
    """Of a release that knew one role for replicas, and gave it more."""
    with fresh_database(ground, "template1") as url, database.connect(url, autocommit=True) as connection:
        before = [each for each in migrations.registered() if (each.package, each.name) < ("ledger", "0011")]
        later = [each for each in migrations.registered() if each.package == "media"]
        migrations.migrate(url, before + later)
        connection.execute(
            "GRANT ALL ON SCHEMA ledger TO pixr_serve; GRANT ALL ON ALL TABLES IN SCHEMA ledger TO pixr_serve"
        )
        connection.execute("ALTER DEFAULT PRIVILEGES IN SCHEMA ledger GRANT SELECT ON TABLES TO pixr_serve")
        migrations.migrate(url)
        assert_as_stated(connection)
        connection.execute("CREATE TABLE ledger.later (id int)")
        assert found(connection)["ledger.later", SERVE] == ""


# ── What the code does ─────────────────────────────────────────────────────────────────────────────────────────────

WRITES = re.compile(r"(INSERT INTO|UPDATE|DELETE FROM|COPY) (media|ledger|app|pixr)\.([a-z_]+)")
NEEDS = {"INSERT INTO": "INSERT", "UPDATE": "UPDATE", "DELETE FROM": "DELETE", "COPY": "INSERT"}
# Whose statements a module holds; of several roles where more than one part runs it.
WORKS_AS: dict[str, tuple[Role, ...]] = {
    "cluster": (OWNER,),
    "cluster/fingerprints.py": (OWNER,),  # noted by Serve, forgotten by the owner
    "ledger": (LEDGER,),
    "ledger/appearances.py": (LEDGER, SERVE),
    "ledger/backup.py": (OWNER,),
    "ledger/challenges.py": (SERVE,),
    "ledger/localnet": (),  # a database of its own
    "ledger/recorder.py": (SERVE,),
    "ledger/replaced.py": (OWNER,),
    "pipelines": (JOBS,),
    "serve": (SERVE,),
}
OF_SERVE = {"INSERT INTO ledger.wallets"}  # in a module that the ledger runs too


def written() -> Iterator[tuple[str, str, str, tuple[Role, ...]]]:
    """Each statement of the code that writes: its module, what it does, the table, and who has to be let do it."""
    for package in ("cluster", "ledger", "pipelines", "serve"):
        for file in sorted((ROOT / package).rglob("*.py")):
            module = str(file.relative_to(ROOT))
            roles = WORKS_AS[max((each for each in WORKS_AS if module.startswith(each)), key=len)]
            for verb, schema, table in set(WRITES.findall(file.read_text(encoding="utf-8"))):
                yield module, verb, f"{schema}.{table}", (SERVE,) if f"{verb} {schema}.{table}" in OF_SERVE else roles


def test_what_the_code_writes_its_role_may_write(owner: Connection[Any]) -> None:
    may = found(owner)
    seen = [(module, verb, table, role) for module, verb, table, roles in written() for role in roles]
    assert len({role for *_, role in seen}) == 4  # the reader writes nothing
    letters = {"INSERT": "I", "UPDATE": "U", "DELETE": "D"}
    refused = [
        (module, verb, table, role.name)
        for module, verb, table, role in seen
        if role is not OWNER and letters[NEEDS[verb]] not in may[table, role].upper()
    ]
    assert refused == []
