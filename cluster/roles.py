"""Roles in PostgreSQL: one for each part of Pixr, with only the rights that this part needs.

The owner creates and changes tables. Parts that answer requests from the internet, read uploaded files or move money
work as other roles, whose rights on each table stand in `schema/grants.sql` of each package. Knows no address and no
connection.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Role:
    """One role of the database.

    `part` is the part of Pixr that works as it, `name` its name in PostgreSQL. `setting` is the key in `[postgres]`
    with the URL of a login that is a member of the role; `secret` names the file with its password where the database
    is embedded. `may` tells people what the role may do. `bounds` are settings that its sessions start with where the
    database is embedded.
    """

    part: str
    name: str
    setting: str
    secret: str
    may: str
    # The timeouts guard against mistakes only, since a session may change them. `temp_file_limit`, the disk space that
    # sorting may take, can be changed by no role but a superuser.
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
