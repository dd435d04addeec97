"""What each role may do with each table: the stated table (`privileges.txt`), and what the catalogue of a database says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from psycopg import Connection

from cluster.roles import JOBS, LEDGER, PARTS, READER, SERVE, Role

STATED = Path(__file__).with_name("privileges.txt")
LETTERS = {"S": "SELECT", "I": "INSERT", "U": "UPDATE", "R": "REFERENCES"}
OF_TABLES = {"D": "DELETE", "T": "TRUNCATE", "G": "TRIGGER", "M": "MAINTAIN"}  # of no column
# Of what is stated by a small letter.
COLUMNS = {
    ("app.api_keys", READER, "SELECT"): "id principal_id scopes created_at expires_at revoked_at creators folders",
    ("app.sessions", READER, "SELECT"): "principal_id created_at expires_at",
    ("ledger.attempts", SERVE, "SELECT"): "batch_id n signature state slot",
    (
        "ledger.attempts",
        READER,
        "SELECT",
    ): "batch_id n signature blockhash last_valid_block_height context_slot epoch state"
    " signed_at sent_at sends ended_at slot lamports error",
    ("ledger.accounts", LEDGER, "INSERT"): "kind party owner asset",
    ("ledger.chain_head", LEDGER, "UPDATE"): "id",
    ("ledger.incarnations", LEDGER, "UPDATE"): "folded",
    ("ledger.owed", LEDGER, "UPDATE"): "n parked_until open_since",
    ("ledger.set_aside", LEDGER, "UPDATE"): "looked_at looked_by",
    ("ledger.chain_transactions", LEDGER, "UPDATE"): "kind entry_id",
    ("ledger.orders", LEDGER, "UPDATE"): "done_at carried_out outcome entry_id",
    ("ledger.wallets", SERVE, "INSERT"): "creator_id wallet set_by hold_until proof held_for",
    ("ledger.wallets", SERVE, "UPDATE"): "wallet set_by set_at hold_until proof held_for",
    ("media.models", JOBS, "UPDATE"): "files image_size fit followed",
}
TABLES = """
    SELECT c.oid, n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
      AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
    ORDER BY 2"""
MAINTAIN_FROM = 170000  # the server that knows the privilege first


def assert_as_stated(connection: Connection[Any]) -> None:
    """Each role may do with each table what is stated, and nothing else."""
    knows = connection.info.server_version >= MAINTAIN_FROM
    wanted = {key: may if knows else may.replace("M", "") for key, may in _stated().items()}
    assert found(connection) == wanted
    assert {key for key, may in wanted.items() if may != may.upper()} == {(table, role) for table, role, _ in COLUMNS}
    for (table, role, privilege), names in COLUMNS.items():
        assert _columns(connection, table, role, privilege) == set(names.split()), (table, role.name, privilege)


def found(connection: Connection[Any]) -> dict[tuple[str, Role], str]:
    """What the catalogue says, in the letters of the file; what comes by memberships, PUBLIC and ownership too."""
    tables = connection.execute(TABLES).fetchall()
    return {(table, role): "".join(_letters(connection, oid, role)) for oid, table in tables for role in PARTS}


def _stated() -> dict[tuple[str, Role], str]:
    lines = [line.split() for line in STATED.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    head, *rows = lines
    roles = {role.part: role for role in PARTS}
    assert set(head) == set(roles)
    return {(table, roles[part]): may.strip("-") for table, *row in rows for part, may in zip(head, row, strict=True)}


def _letters(connection: Connection[Any], table: int, role: Role) -> Iterator[str]:
    for letter, name in LETTERS.items():
        query = (
            "SELECT has_table_privilege(%(r)s, %(t)s::oid, %(p)s), has_any_column_privilege(%(r)s, %(t)s::oid, %(p)s)"
        )
        row = connection.execute(query, {"r": role.name, "t": table, "p": name}).fetchone()
        assert row is not None
        if row[1]:
            yield letter if row[0] else letter.lower()
    for letter, name in OF_TABLES.items():
        if letter == "M" and connection.info.server_version < MAINTAIN_FROM:
            continue
        row = connection.execute("SELECT has_table_privilege(%s, %s::oid, %s)", (role.name, table, name)).fetchone()
        if row == (True,):
            yield letter


def _columns(connection: Connection[Any], table: str, role: Role, privilege: str) -> set[str]:
    rows = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %(table)s::regclass AND attnum > 0 AND NOT attisdropped"
        " AND has_column_privilege(%(role)s, attrelid, attnum, %(privilege)s)",
        {"table": table, "role": role.name, "privilege": privilege},
    )
    return {name for (name,) in rows}
