"""The ledger's rows as they were at an earlier time, to be brought back: a database that was restored by any means.

Sequences stay where they are, as after `pixr restore`, which skips ids; or go back too, as after a restore by other means, so
that ids come again. Roles, types and functions do not change.
"""

from __future__ import annotations

from typing import Any, LiteralString

from psycopg import Connection, sql

NUMBERED = """
    SELECT table_name, column_name FROM information_schema.columns
    WHERE table_schema = 'ledger' AND is_identity = 'YES' ORDER BY 1"""

SET_BACK: LiteralString = (
    "SELECT setval(pg_get_serial_sequence({0}, {1}), greatest(max({2}), 1), max({2}) IS NOT NULL) FROM {3}"
)


class Snapshot:
    """All tables of the ledger, as COPY writes them."""

    def __init__(self, connection: Connection[Any]) -> None:
        connection.rollback()
        self._rows = {name: self._read(connection, name) for name in _tables(connection)}
        connection.rollback()

    def bring_back(self, connection: Connection[Any], *, numbers: bool = False) -> None:
        """Delete what was written since and write the rows back, with the triggers that forbid this switched off.

        With `numbers` sequences go back, too.
        """
        connection.rollback()
        connection.execute("SET LOCAL session_replication_role = replica")
        for name in self._rows:
            connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier("ledger", name)))
        self.put(connection)
        for name, column in connection.execute(NUMBERED).fetchall() if numbers else ():
            table = sql.Identifier("ledger", name)
            connection.execute(sql.SQL(SET_BACK).format(f"ledger.{name}", column, sql.Identifier(column), table))
        connection.commit()

    def put(self, connection: Connection[Any]) -> None:
        """Write the rows into tables that are empty."""
        for name, rows in self._rows.items():
            if rows:
                with connection.cursor().copy(
                    sql.SQL("COPY {} FROM STDIN").format(sql.Identifier("ledger", name))
                ) as copy:
                    copy.write(rows)

    def _read(self, connection: Connection[Any], name: str) -> bytes:
        with connection.cursor().copy(sql.SQL("COPY {} TO STDOUT").format(sql.Identifier("ledger", name))) as copy:
            return b"".join(bytes(part) for part in copy)


def _tables(connection: Connection[Any]) -> list[str]:
    rows = connection.execute(
        "SELECT c.relname FROM pg_catalog.pg_class c WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind = 'r'"
        " ORDER BY c.relname"
    )
    return [name for (name,) in rows]
