"""Roles: as whom each part of Pixr knows the database. A role is a name in PostgreSQL, and what it may.

The owner makes and changes tables; no part that answers strangers, reads their files or moves money works as it. What
the others may do with each table stands in `schema/grants.sql` of each package. Knows no address and no connection.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Role:
    """One role of the database.

    `setting` of `[postgres]` names the URL of a member of it; `secret` is its password where the database is embedded.
    """

    part: str  # of Pixr, that works as it
    name: str  # in PostgreSQL
    setting: str
    secret: str
    may: str  # do, in words
    # What its sessions begin with where the database is embedded. The times are for mistakes, since a session may set others;
    # `temp_file_limit`, which bounds what one sorts on disk, no role can lift.
    bounds: tuple[tuple[str, str], ...] = ()


OWNER = Role("migration", "pixr", "url", "postgres", "make and change tables, dump and index them")
SERVE = Role(
    "serve",
    "pixr_serve",
    "serve_url",
    "postgres_serve",
    "answer searches, record what they showed and note wallets",
    (
        ("statement_timeout", "15min"),
        ("lock_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "1min"),
        ("temp_file_limit", "2GB"),
    ),
)
JOBS = Role(
    "jobs",
    "pixr_jobs",
    "jobs_url",
    "postgres_jobs",
    "write the catalogue",
    (("lock_timeout", "1min"), ("idle_in_transaction_session_timeout", "10min"), ("temp_file_limit", "8GB")),
)
LEDGER = Role(
    "ledger",
    "pixr_ledger",
    "ledger_url",
    "postgres_ledger",
    "write the journal and payouts",
    (("lock_timeout", "10s"), ("idle_in_transaction_session_timeout", "10min"), ("temp_file_limit", "8GB")),
)
READER = Role(
    "reader",
    "pixr_reader",
    "reader_url",
    "postgres_reader",
    "read, and neither keys nor what is signed",
    (
        ("statement_timeout", "1h"),
        ("lock_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "5min"),
        ("temp_file_limit", "2GB"),
    ),
)
PARTS = (SERVE, JOBS, LEDGER, READER)
