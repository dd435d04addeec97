"""What each role may do in the database: what its part of Pixr needs, and nothing more, however the database came to be."""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import Connection, sql

from cluster import database, grants, logins, migrations, runtime, services
from cluster.errors import Rejected
from cluster.roles import JOBS, LEDGER, OWNER, PARTS, READER, SERVE, Role
from cluster.settings import ROOT, Settings
from tests.cluster.privileges import assert_as_stated, found
from tests.conftest import fresh_database

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
    (LEDGER, "TRUNCATE ledger.postings"),
    (LEDGER, "DELETE FROM ledger.fence"),
    (LEDGER, "UPDATE ledger.wallets SET wallet = 'mine'"),
    (LEDGER, "ALTER TABLE ledger.entries DISABLE TRIGGER ALL"),
    (LEDGER, "CREATE FUNCTION ledger.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'"),
    (READER, "SELECT hash FROM app.api_keys"),
    (READER, "SELECT raw FROM ledger.attempts"),
    (READER, "UPDATE ledger.holds SET released_at = now()"),
    (READER, "INSERT INTO app.principals (name) VALUES ('mine')"),
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
    assert {name: who for name, who, _ in rows} == {
        "app.admin_of(text)": [],
        "ledger.approve_order(text,bigint)": [LEDGER.name],
        "ledger.place_order(text,text,jsonb,text,integer)": [LEDGER.name],
        "media.register_model(text,integer,text)": [JOBS.name],
    }
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


def test_whoever_sets_a_wallet_leaves_a_trace(owner: Connection[Any], postgres_url: str) -> None:
    with database.connect(as_role(postgres_url, SERVE), autocommit=True) as replica:
        replica.execute(
            "INSERT INTO ledger.wallets (creator_id, wallet, set_by) VALUES (1, repeat('w', 40), 'creator')"
        )
    rows = owner.execute("SELECT creator_id, new_wallet, set_by FROM ledger.wallet_changes").fetchall()
    assert rows == [(1, "w" * 40, "creator")]


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
