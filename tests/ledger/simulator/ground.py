"""The ground of simulated worlds: a database whose clock they keep, sessions as each part of Pixr has them, and rows that
begin anew with every world.

`now()` and `clock_timestamp()` are found in a schema of the simulation's own before the real ones, by sessions, columns'
defaults and functions alike. So a world's clock is the only one, and may be wrong.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import psycopg
from psycopg import Connection, sql
from psycopg.pq import TransactionStatus

from cluster import database
from cluster.roles import LEDGER, SERVE, Role
from serve import keys
from tests.ledger.simulator.machine import Machine
from tests.ledger.snapshots import Snapshot

BEGINNING = datetime(2026, 3, 2, 12, tzinfo=UTC)  # before any real clock that this runs by: epochs follow the clock
LOCK_TIMEOUT_MS = 50  # of what the same thread would otherwise wait for without an end
ADMINISTRATORS = ("ana", "ben")
PARTS = ("fold", "payouts", "reconciliation")
CLOCK = """
    CREATE SCHEMA IF NOT EXISTS sim;
    GRANT USAGE ON SCHEMA sim TO PUBLIC;
    CREATE OR REPLACE FUNCTION sim.now() RETURNS timestamptz LANGUAGE sql STABLE AS $$
        SELECT coalesce(nullif(current_setting('sim.now', true), '')::timestamptz, pg_catalog.now()) $$;
    CREATE OR REPLACE FUNCTION sim.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$ SELECT sim.now() $$"""
DEFAULTS = """
    SELECT format('ALTER TABLE %s ALTER %I SET DEFAULT sim.now()', c.oid::regclass, a.attname)
    FROM pg_attrdef d JOIN pg_class c ON c.oid = d.adrelid
    JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
    WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind IN ('r', 'p')
      AND pg_get_expr(d.adbin, d.adrelid) ~ '^(pg_catalog\\.)?(now|clock_timestamp)\\(\\)$'"""
FUNCTIONS = """
    SELECT format('ALTER FUNCTION %s SET search_path = sim, pg_catalog, pg_temp', p.oid::regprocedure)
    FROM pg_proc p, unnest(p.proconfig) AS setting
    WHERE p.pronamespace = 'ledger'::regnamespace AND setting LIKE 'search_path=%'"""
TABLES = """
    SELECT c.relname FROM pg_class c
    WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind = 'r' ORDER BY c.relname"""
NUMBERED = """
    SELECT table_name, column_name FROM information_schema.columns
    WHERE table_schema = 'ledger' AND is_identity = 'YES' ORDER BY 1"""

FENCED = """
    SELECT DISTINCT c.relname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE t.tgfoid = 'ledger.check_epoch'::regproc AND NOT t.tgisinternal ORDER BY 1"""


class Session:
    """One connection, whose transactions begin at the world's time."""

    def __init__(self, ground: Ground, raw: Connection[Any]) -> None:
        self.ground, self.raw = ground, raw
        self.closed = False
        self._told: datetime | None = None

    @property
    def info(self) -> Any:
        return self.raw.info

    @property
    def is_idle(self) -> bool:
        return self.raw.info.transaction_status == TransactionStatus.IDLE

    def execute(self, *arguments: Any, **more: Any) -> Any:
        self._look_at_clock()
        return self.raw.execute(*arguments, **more)

    def cursor(self, *arguments: Any, **more: Any) -> Any:
        self._look_at_clock()
        return self.raw.cursor(*arguments, **more)

    def transaction(self) -> Any:
        self._look_at_clock()
        return self.raw.transaction()

    def commit(self) -> None:
        self.raw.commit()

    def rollback(self) -> None:
        self.raw.rollback()

    def close(self) -> None:
        """Give up what was begun; the session itself is used again."""
        self.closed = True
        self.raw.rollback()

    def setting(self, name: str, value: str) -> None:
        """Set what a real session would have been begun with. Outside of transactions."""
        self.raw.rollback()
        is_alone, self.raw.autocommit = self.raw.autocommit, True
        self.raw.execute("SELECT set_config(%s, %s, false)", (name, value))
        self.raw.autocommit = is_alone

    def _look_at_clock(self) -> None:
        if self._told != self.ground.clock and self.is_idle:
            self._told = self.ground.clock
            self.setting("sim.now", self._told.isoformat())


class Ground:
    """A database of the simulation's own; one world stands on it at a time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.clock = BEGINNING
        with database.connect(url, autocommit=True) as connection:
            _prepare(connection)
            self.machine = Machine.of(connection)
            self.machine.observe(connection)
            self.keys = [_administrator(connection, name) for name in ADMINISTRATORS]
        self._raws: list[Connection[Any]] = []
        self.admin, self._reader = Session(self, self._connect(None)), Session(self, self._connect(None))
        self._reader.raw.autocommit = True
        self.operator, self.serve = Session(self, self._connect(LEDGER)), Session(self, self._connect(SERVE))
        self.parts = {name: self._connect(LEDGER) for name in PARTS}
        # What it has now is what each world begins with.
        assert self.admin.raw.execute("SELECT count(*) FROM ledger.entries").fetchone() == (0,), "it was used before"
        names = [name for (name,) in self.admin.raw.execute(TABLES).fetchall()]
        self.fenced = [name for (name,) in self.admin.raw.execute(FENCED).fetchall()]
        listed = sql.SQL(", ").join(sql.Identifier("ledger", name) for name in names)
        self._emptied = sql.SQL("TRUNCATE {} RESTART IDENTITY").format(listed)
        self._first = Snapshot(self.admin.raw)
        self._numbered = self.admin.raw.execute(NUMBERED).fetchall()
        self.admin.raw.rollback()

    def __enter__(self) -> Ground:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for raw in self._raws:
            with suppress(psycopg.Error):
                raw.close()

    def clear(self) -> None:
        """An empty ledger, as the migrations leave it. Only here are the triggers that forbid this switched off."""
        for each in self._raws:
            each.rollback()
        raw = self.admin.raw
        raw.execute("SET LOCAL session_replication_role = replica")
        raw.execute(self._emptied)
        self._first.put(raw)
        raw.execute("UPDATE ledger.fence SET epoch = 0, owner = ''")
        for table, column in self._numbered:
            raw.execute(
                sql.SQL("SELECT setval(pg_get_serial_sequence({name}, {column}), max({field})) FROM {table}").format(
                    name=sql.Literal(f"ledger.{table}"),
                    column=sql.Literal(column),
                    field=sql.Identifier(column),
                    table=sql.Identifier("ledger", table),
                )
            )
        raw.execute("TRUNCATE sim.reached")
        raw.commit()
        self.clock = BEGINNING

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What is committed, by a session of nobody's."""
        found: list[tuple[Any, ...]] = self._reader.execute(query, values).fetchall()
        return found

    def _connect(self, role: Role | None) -> Connection[Any]:
        raw = database.connect(self._url)
        self._raws.append(raw)
        raw.execute("SET search_path = sim, pg_catalog")
        raw.execute("SET synchronous_commit = off")
        raw.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")
        if role is not None:
            raw.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role.name)))
        raw.commit()
        return raw


def _prepare(connection: Connection[Any]) -> None:
    """Once a database; again, it changes nothing."""
    connection.execute(CLOCK)
    for query in (DEFAULTS, FUNCTIONS):
        for (statement,) in connection.execute(query).fetchall():
            connection.execute(statement)


def _administrator(connection: Connection[Any], name: str) -> str:
    """An administrator of long standing; the key."""
    _, key = keys.create(connection, name, ["admin"])
    for table in ("principals", "api_keys"):
        connection.execute(f"UPDATE app.{table} SET created_at = '2026-01-01 UTC'")
    return key
