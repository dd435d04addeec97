"""The URL by which a part of Pixr reaches the database as its role, and how well that separates the parts.

One URL per role is best: then a part holds no other part's password. If the settings name one URL for all parts, and
its user may take the role, sessions begin with SET ROLE. That protects against mistakes, but an attacker inside the
part can undo it. Otherwise the part works as that user. `notes` asks the database which of these holds, instead of
trusting the settings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cluster import runtime
from cluster.database import database
from cluster.errors import PixrError, Rejected
from cluster.roles import OWNER, PARTS, Role
from cluster.settings import EMBEDDED, Settings

NOTE = "database roles"
MAY_ASSUME = "SELECT FROM pg_roles WHERE rolname = %s AND pg_has_role(session_user, oid, 'SET')"
# Predefined roles of PostgreSQL that read or write regardless of grants.
POWERFUL = (
    "pg_read_all_data",
    "pg_write_all_data",
    "pg_read_server_files",
    "pg_write_server_files",
    "pg_execute_server_program",
)
# The login and the role that the session works as; whether each of them is a member of another part's role, of the owner
# of the tables or of a powerful role, or is a superuser; whether the session has its part's role.
STANDING = """
    SELECT session_user, current_user, more.login, more.role,
           (SELECT pg_has_role(current_user, oid, 'USAGE') FROM pg_roles WHERE rolname = %(role)s)
    FROM (SELECT bool_or(pg_has_role(session_user, r.oid, 'MEMBER')) AS login,
                 bool_or(pg_has_role(current_user, r.oid, 'MEMBER')) AS role
          FROM pg_roles r WHERE r.rolsuper OR r.rolname = ANY(%(others)s)
             OR r.oid = (SELECT nspowner FROM pg_namespace WHERE nspname = 'ledger')) AS more"""


def url(settings: Settings, role: Role) -> str:
    """Return the URL by which a part works as its role.

    Where the settings have none for the role, it is the owner's URL, with SET ROLE where the database allows that.

    Raises:
        Rejected: the settings name neither a URL for the role nor the owner's.
        Temporary: the database has to be asked and does not answer.
    """
    own_url = runtime.role_url(settings, role)
    owners_url = runtime.role_url(settings, OWNER)
    if not own_url and not owners_url:
        hint = f"set [postgres] {role.setting}, or run this where it is set"
        raise Rejected(f"this machine knows no database URL for {role.part}", code="no-database-url", hint=hint)
    if own_url:
        return own_url
    with database.session(owners_url, autocommit=True) as connection:
        may_assume = connection.execute(MAY_ASSUME, (role.name,)).fetchone()
    return assuming(owners_url, role) if may_assume is not None else owners_url


def held(settings: Settings, role: Role) -> str:
    """Return the database URL from settings that `only` has reduced to one part; no database is asked."""
    return runtime.role_url(settings, role) or settings.postgres.url


def assuming(shared: str, role: Role) -> str:
    """Return a URL whose sessions begin with SET ROLE."""
    if "://" not in shared.partition("=")[0]:
        asked = conninfo_to_dict(shared).get("options") or ""
        return make_conninfo(shared, options=f"{asked} -c role={role.name}".strip())
    parts = urlsplit(shared)
    query = dict(parse_qsl(parts.query))
    query["options"] = f"{query.get('options', '')} -c role={role.name}".strip()
    return urlunsplit(parts._replace(query=urlencode(query, quote_via=quote)))


def only(settings: Settings, role: Role) -> Settings:
    """Return the settings for a process of one part: of all database URLs they hold only that of its role.

    Raises:
        Rejected: see `url`.
        Temporary: see `url`.
    """
    urls: dict[str, Any] = {each.setting: "" for each in PARTS if each is not role}
    if settings.postgres.url != EMBEDDED:  # for the embedded database a process derives the URL from its role's secret
        urls |= dict.fromkeys(("url", role.setting), url(settings, role))
    return settings.with_section(dataclasses.replace(settings.postgres, **urls))


def notes(settings: Settings) -> Mapping[str, str]:
    """Return one line, under its title, on how well the parts are separated in the database, as the database itself says.

    The line begins with "strong" or "weaker". A part whose URL this machine does not know is left out.
    """
    weaker, strong = [], []
    for role in PARTS:
        if not runtime.role_url(settings, role) and not runtime.role_url(settings, OWNER):
            continue
        if weakness := _weakness(settings, role):
            weaker.append(f"{role.part} {weakness}")
        else:
            strong.append(role.part)
    if not weaker:
        return {NOTE: f"strong: a login of its own for {', '.join(strong)}"}
    return {NOTE: f"weaker: {'; '.join(weaker)}"}


def _weakness(settings: Settings, role: Role) -> str:
    """Return why a part has more rights than its role or cannot work; empty if neither is so."""
    try:
        with database.session(url(settings, role), autocommit=True) as connection:
            others = [*POWERFUL, *(each.name for each in PARTS if each is not role)]
            row = connection.execute(STANDING, {"role": role.name, "others": others}).fetchone()
    except PixrError as error:
        return f"cannot log in: {error}"
    assert row is not None  # aggregates always give a row
    login, current, login_more, current_more, has_role = row
    if current_more:
        return f"works as {current}, who may do more than {role.may}: name a member of {role.name} by [postgres] {role.setting}"
    if not has_role:
        return f"works as {current}, who is no member of {role.name}"
    if login_more:
        return (
            f"is {role.name} by SET ROLE of {login}, who may do more: name one who may not by [postgres] {role.setting}"
        )
    return ""
