"""The state machine of the ledger's rows as the database enforces it: which states exist, and which may follow which.

Nothing here is listed by hand. States are the values that a table's checks let a column have; transitions are those that its
triggers let through, found by trying each on a copy of the table, as each role which may write that column, beside each value
of each other column. Tables without a trigger that guards their updates have no machine: they are named (`left_out`). What
the database's owner does counts as reached by nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import Connection, sql

from cluster.roles import PARTS

Conn = Connection[Any]

# Tables with a row trigger before updates: bits of pg_trigger.tgtype for row, before and update.
GUARDED = """
    SELECT DISTINCT c.relname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE c.relnamespace = 'ledger'::regnamespace AND NOT t.tgisinternal AND t.tgtype & 1 = 1 AND t.tgtype & 2 = 2
      AND t.tgtype & 16 = 16 ORDER BY 1"""
CHECKS = """
    SELECT pg_get_constraintdef(oid) FROM pg_constraint
    WHERE contype = 'c' AND conrelid = format('ledger.%%I', %s::text)::regclass ORDER BY conname"""
COLUMNS = """
    SELECT a.attname, format_type(a.atttypid, NULL), a.attnotnull, EXISTS (
        SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisprimary AND a.attnum = ANY(i.indkey))
    FROM pg_attribute a WHERE a.attrelid = format('ledger.%%I', %s::text)::regclass AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum"""
TRIGGERS = """
    SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = format('ledger.%%I', %s::text)::regclass
      AND NOT tgisinternal AND tgtype & 1 = 1 AND tgtype & 2 = 2 AND tgtype & 16 = 16 ORDER BY tgname"""
UNGUARDED = """
    SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind = 'r' AND c.relname <> ALL (%s)
      AND EXISTS (SELECT FROM unnest(%s::text[]) AS r
                  WHERE has_table_privilege(r, c.oid, 'UPDATE') OR has_any_column_privilege(r, c.oid, 'UPDATE'))
    ORDER BY 1"""
FORBIDDEN = "23514"  # of a check that refuses; a guard's own refusals begin with PX
ANY_OF = re.compile(r"\((\w+) (?:= ANY|<> ALL) \(+ARRAY\[")  # a column whose values a check lists, wherever it does
ONE_OF = re.compile(r"CHECK \(\((\w+) = ANY \(ARRAY\[(.*)\]\)\)\)(?: NOT VALID)?")
VALUE = re.compile(r"'((?:[^']|'')*)'::text")
EXAMPLES = {  # of a column that a probe must fill
    "text": "x", "bigint": "1", "integer": "1", "smallint": "1", "boolean": "true", "date": "2026-01-01", "jsonb": "{}",
    "timestamp with time zone": "2999-01-01 UTC", "bytea": "\\x00", "double precision": "0", "text[]": "{}",
    "uuid": "11111111-1111-1111-1111-111111111111",
}  # fmt: skip
SET, NONE = "set", "none"
OBSERVED = """
    CREATE TABLE IF NOT EXISTS sim.reached (relation text, field text, was text, became text);
    CREATE OR REPLACE FUNCTION sim.observe() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
    DECLARE
        name text;
        before text;
        after text;
    BEGIN
        IF current_setting('role') = 'none' THEN  -- the owner, who is none of the product's parts
            RETURN NULL;
        END IF;
        FOREACH name IN ARRAY TG_ARGV LOOP
            EXECUTE format('SELECT ($1).%I::text', name) INTO after USING NEW;
            IF TG_OP = 'UPDATE' THEN
                EXECUTE format('SELECT ($1).%I::text', name) INTO before USING OLD;
            END IF;
            IF TG_OP = 'INSERT' OR before IS DISTINCT FROM after THEN
                INSERT INTO sim.reached VALUES (
                    TG_TABLE_NAME, name, CASE WHEN TG_OP = 'UPDATE' THEN coalesce(before, 'none') END, coalesce(after, 'none'));
            END IF;
        END LOOP;
        RETURN NULL;
    END $$"""


@dataclass(frozen=True, order=True)
class State:
    """A value that a column may have."""

    relation: str
    field: str
    value: str

    def __str__(self) -> str:
        return f"{self.relation}.{self.field} = {self.value}"


@dataclass(frozen=True, order=True)
class Transition:
    """A change of a column from one value to another."""

    relation: str
    field: str
    was: str
    became: str

    def __str__(self) -> str:
        return f"{self.relation}.{self.field}: {self.was} → {self.became}"


@dataclass(frozen=True)
class Column:
    """A column that has states; `values` are those of its check, or SET if it is written once."""

    relation: str
    name: str
    values: tuple[str, ...]

    @property
    def is_written_once(self) -> bool:
        return self.values == (SET,)


@dataclass(frozen=True)
class Machine:
    """All columns with their states and transitions."""

    columns: tuple[Column, ...] = ()
    transitions: frozenset[Transition] = field(default=frozenset())
    first: frozenset[State] = field(default=frozenset())  # of the rows that the migrations leave
    left_out: tuple[str, ...] = ()  # tables that are updated and have no guard

    @property
    def states(self) -> frozenset[State]:
        return frozenset(State(each.relation, each.name, value) for each in self.columns for value in each.values)

    @classmethod
    def of(cls, connection: Conn) -> Machine:
        """Read the catalogue and try the triggers. The connection is in autocommit mode."""
        columns: list[Column] = []
        transitions: set[Transition] = set()
        guarded = [relation for (relation,) in connection.execute(GUARDED).fetchall()]
        for relation in guarded:
            with Probe(connection, relation) as probe:
                columns += probe.columns()
                transitions |= set(probe.transitions())
        first = {State(each.relation, each.name, value) for each in columns for value in _present(connection, each)}
        names = [each.name for each in PARTS]
        left_out = tuple(name for (name,) in connection.execute(UNGUARDED, (guarded, names)).fetchall())
        return cls(tuple(columns), frozenset(transitions), frozenset(first), left_out)

    def observe(self, connection: Conn) -> None:
        """Add triggers of the simulation's own that note what is reached."""
        connection.execute(OBSERVED)
        for relation in sorted({each.relation for each in self.columns}):
            names = [each.name for each in self.columns if each.relation == relation]
            changed = sql.SQL(" OR ").join(
                sql.SQL("OLD.{0} IS DISTINCT FROM NEW.{0}").format(sql.Identifier(name)) for name in names
            )
            told = sql.SQL(", ").join(map(sql.Literal, names))
            for name, when in (("INSERT", sql.SQL("")), ("UPDATE", sql.SQL("WHEN ({})").format(changed))):
                connection.execute(
                    sql.SQL(
                        "CREATE OR REPLACE TRIGGER {trigger} AFTER {event} ON {table} FOR EACH ROW {when}"
                        " EXECUTE FUNCTION sim.observe({told})"
                    ).format(
                        trigger=sql.Identifier(f"zz_observed_{name.lower()}"),
                        event=sql.SQL(name),
                        table=sql.Identifier("ledger", relation),
                        when=when,
                        told=told,
                    )
                )

    def reached(self, rows: Iterable[Sequence[Any]]) -> tuple[set[State], set[Transition]]:
        """Return the states and transitions in rows of `sim.reached`."""
        once = {(each.relation, each.name) for each in self.columns if each.is_written_once}
        states: set[State] = set()
        transitions: set[Transition] = set()
        for relation, name, was, became in rows:
            if (relation, name) in once:
                was, became = (each if each in (None, NONE) else SET for each in (was, became))
            states.add(State(relation, name, became))
            if was is not None and was != became:
                transitions.add(Transition(relation, name, was, became))
        return (states | self.first) & self.states, transitions


class Probe:
    """A copy of a table with its triggers, on which updates are tried."""

    def __init__(self, connection: Conn, relation: str) -> None:
        self._connection, self._relation = connection, relation
        rows = connection.execute(COLUMNS, (relation,)).fetchall()
        self._types = {name: kind for name, kind, _, _ in rows}
        self._needed = {name for name, _, is_needed, _ in rows if is_needed}
        self._keys = {name for name, _, _, is_key in rows if is_key}
        self._named = _named(connection, relation, self._types)

    def __enter__(self) -> Probe:
        execute = self._connection.execute
        execute("DROP TABLE IF EXISTS sim.probe CASCADE")
        execute(sql.SQL("CREATE TABLE sim.probe (LIKE {})").format(sql.Identifier("ledger", self._relation)))
        # A guard may hand its rows to a function that takes those of the real table.
        execute(
            sql.SQL("CREATE CAST (sim.probe AS {}) WITH INOUT AS IMPLICIT").format(
                sql.Identifier("ledger", self._relation)
            )
        )
        execute(sql.SQL("GRANT ALL ON sim.probe TO {}").format(_roles(each.name for each in PARTS)))
        for (text,) in execute(TRIGGERS, (self._relation,)).fetchall():
            execute(re.sub(rf" ON ledger\.{self._relation} ", " ON sim.probe ", text))
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.execute("DROP TABLE sim.probe CASCADE")

    def columns(self) -> list[Column]:
        """Return the columns whose check names their values, booleans, and columns that are written once."""
        found = [Column(self._relation, name, values) for name, values in self._named.items()]
        for name, kind in self._types.items():
            if name in self._named or name in self._keys:
                continue
            if kind == "boolean":
                found.append(Column(self._relation, name, ("true", "false")))
            elif name not in self._needed and self._is_written_once(name):
                found.append(Column(self._relation, name, (SET,)))
        return found

    def transitions(self) -> list[Transition]:
        found = []
        for column in self.columns():
            if column.is_written_once:
                found.append(Transition(self._relation, column.name, NONE, SET))
            else:
                values = [*column.values, *([] if column.name in self._needed else [NONE])]
                # A truth that may be missing is said once: checks tie it to the instant at which it is.
                is_said_once = column.name not in self._named and NONE in values
                found += [
                    Transition(self._relation, column.name, was, became)
                    for was in ([NONE] if is_said_once else values)
                    for became in values
                    if was != became and self._may_somehow(column.name, _value(was), _value(became))
                ]
        return found

    def _may_somehow(self, name: str, was: str | None, became: str | None) -> bool:
        """Return whether any role that may write a column may make a change, for any value of one other column."""
        return any(
            self._may(name, was, became, other, role) for role in self._writers(name) for other in self._others(name)
        )

    def _others(self, name: str) -> list[dict[str, str]]:
        """Yield rows in which a change is tried: as they are first, and with each value of each other column."""
        return [{}] + [{each: value} for each, values in self._named.items() if each != name for value in values]

    def _is_written_once(self, name: str) -> bool:
        example = EXAMPLES[self._types[name]]
        return self._may_somehow(name, None, example) and not self._may_somehow(name, example, None)

    def _may(self, name: str, was: str | None, became: str | None, others: dict[str, str], role: str | None) -> bool:
        """Return whether the triggers let a row's column go from one value to another and keep it.

        Raises:
            psycopg.DatabaseError: neither a guard nor a check refuses it; the probe does not fit the table.
        """
        row: dict[str, str | None] = {each: EXAMPLES[self._types[each]] for each in sorted(self._needed)}
        row |= {each: values[0] for each, values in self._named.items() if each in self._needed}
        row |= others
        row[name] = was
        execute = self._connection.execute
        try:
            with self._connection.transaction(force_rollback=True):
                execute("SET LOCAL session_replication_role = replica")
                execute("DELETE FROM sim.probe")
                execute(
                    sql.SQL("INSERT INTO sim.probe ({}) VALUES ({})").format(
                        sql.SQL(", ").join(map(sql.Identifier, row)),
                        sql.SQL(", ").join(
                            sql.SQL("{}::{}").format(sql.Literal(value), sql.SQL(self._types[each]))
                            for each, value in row.items()
                        ),
                    )
                )
                execute("SET LOCAL session_replication_role = origin")
                if role is not None:
                    execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
                found = execute(
                    sql.SQL("UPDATE sim.probe SET {0} = {1}::{2} RETURNING {0} IS NOT DISTINCT FROM {1}::{2}").format(
                        sql.Identifier(name), sql.Literal(became), sql.SQL(self._types[name])
                    )
                ).fetchone()
        except psycopg.DatabaseError as error:
            if error.sqlstate != FORBIDDEN and not str(error.sqlstate).startswith("PX"):
                raise
            return False
        return found == (True,)

    def _writers(self, name: str) -> list[str | None]:
        """Return the roles that may write this column of the real table; None, for its owner, if there is none."""
        rows = self._connection.execute(
            "SELECT r FROM unnest(%s::text[]) AS r WHERE has_column_privilege(r, %s, %s, 'UPDATE') ORDER BY r",
            ([each.name for each in PARTS], f"ledger.{self._relation}", name),
        ).fetchall()
        return [role for (role,) in rows] or [None]


def _named(connection: Conn, relation: str, types: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the columns whose check lists their values; a check that this cannot parse is an error."""
    found: dict[str, tuple[str, ...]] = {}
    listed: set[str] = set()
    for (text,) in connection.execute(CHECKS, (relation,)).fetchall():
        listed |= set(ANY_OF.findall(text))
        said = ONE_OF.fullmatch(text)
        if said is not None and types.get(said[1]) == "text":
            found[said[1]] = tuple(each.replace("''", "'") for each in VALUE.findall(said[2]))
    assert listed <= found.keys(), (
        f"checks of ledger.{relation} list values of {listed - found.keys()}, which are not read"
    )
    return found


def _present(connection: Conn, column: Column) -> list[str]:
    query = sql.SQL("SELECT DISTINCT {}::text FROM {}")
    rows = connection.execute(query.format(sql.Identifier(column.name), sql.Identifier("ledger", column.relation)))
    return [SET if column.is_written_once else value for (value,) in rows if value is not None]


def _value(told: str) -> str | None:
    return None if told == NONE else told


def _roles(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))
