"""By which URL a part of Pixr reaches the database as its role, and what that is worth.

The best is a URL for each role: a part then holds no other's password. Where the settings name one URL for all and its
user may, a session begins with SET ROLE: that keeps a part from mistakes, and whoever takes it over can undo it. Else a
part works as that user. `notes` asks the database which it is, whatever was meant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cluster import database, runtime
from cluster.errors import PixrError, Rejected
from cluster.roles import OWNER, PARTS, Role
from cluster.settings import EMBEDDED, Settings

NOTE = "database roles"
MAY_ASSUME = "SELECT FROM pg_roles WHERE rolname = %s AND pg_has_role(session_user, oid, 'SET')"
# Roles of PostgreSQL's own that see or write past what is granted.
POWERFUL = (
    "pg_read_all_data",
    "pg_write_all_data",
    "pg_read_server_files",
    "pg_write_server_files",
    "pg_execute_server_program",
)
# Who logged in and as whom the session works; whether each of them is, or may become, more than one role: another part's,
# the owner of the tables, a powerful one or a superuser.
STANDING = """
    SELECT session_user, current_user, more.login, more.role,
           (SELECT pg_has_role(current_user, oid, 'USAGE') FROM pg_roles WHERE rolname = %(role)s)
    FROM (SELECT bool_or(pg_has_role(session_user, r.oid, 'MEMBER')) AS login,
                 bool_or(pg_has_role(current_user, r.oid, 'MEMBER')) AS role
          FROM pg_roles r WHERE r.rolsuper OR r.rolname = ANY(%(others)s)
             OR r.oid = (SELECT nspowner FROM pg_namespace WHERE nspname = 'ledger')) AS more"""


def url(settings: Settings, role: Role) -> str:
    """The URL by which a part works as its role; where it has none of its own, the database is asked what is allowed.

    Raises:
        Rejected: the settings name no URL that would do.
        Temporary: the database has to be asked and does not answer.
    """
    own = runtime.role_url(settings, role)
    shared = runtime.role_url(settings, OWNER)
    if not own and not shared:
        hint = f"set [postgres] {role.setting}, or run this where it is set"
        raise Rejected(f"this machine knows no database URL for {role.part}", code="no-database-url", hint=hint)
    if own:
        return own
    with database.session(shared, autocommit=True) as connection:
        may = connection.execute(MAY_ASSUME, (role.name,)).fetchone()
    return assuming(shared, role) if may is not None else shared


def held(settings: Settings, role: Role) -> str:
    """The URL of a process that was given the settings of one part (`only`); asks nobody."""
    return runtime.role_url(settings, role) or settings.postgres.url


def assuming(shared: str, role: Role) -> str:
    """A URL whose sessions begin with SET ROLE."""
    if "://" not in shared.partition("=")[0]:
        asked = conninfo_to_dict(shared).get("options") or ""
        return make_conninfo(shared, options=f"{asked} -c role={role.name}".strip())
    parts = urlsplit(shared)
    query = dict(parse_qsl(parts.query))
    query["options"] = f"{query.get('options', '')} -c role={role.name}".strip()
    return urlunsplit(parts._replace(query=urlencode(query, quote_via=quote)))


def only(settings: Settings, role: Role) -> Settings:
    """The settings for a process of one part: of the database's URLs they hold that of its role alone.

    Raises:
        Rejected, Temporary: as `url`.
    """
    urls: dict[str, Any] = {each.setting: "" for each in PARTS if each is not role}
    if settings.postgres.url != EMBEDDED:  # there is none to hold: a process makes its own of the secret of its role
        urls |= dict.fromkeys(("url", role.setting), url(settings, role))
    return settings.with_section(dataclasses.replace(settings.postgres, **urls))


def notes(settings: Settings) -> Mapping[str, str]:
    """One line on how far the parts are kept apart in the database, as it says itself; it begins with how far.

    A part whose URL this machine does not know is left out.
    """
    weaker, own = [], []
    for role in PARTS:
        if not runtime.role_url(settings, role) and not runtime.role_url(settings, OWNER):
            continue
        if why := _weakness(settings, role):
            weaker.append(f"{role.part} {why}")
        else:
            own.append(role.part)
    if not weaker:
        return {NOTE: f"strong: a login of its own for {', '.join(own)}"}
    return {NOTE: f"weaker: {'; '.join(weaker)}"}


def _weakness(settings: Settings, role: Role) -> str:
    """Why a part may more than its role; empty where it may not."""
    try:
        with database.session(url(settings, role), autocommit=True) as connection:
            others = [*POWERFUL, *(each.name for each in PARTS if each is not role)]
            row = connection.execute(STANDING, {"role": role.name, "others": others}).fetchone()
    except PixrError as error:
        return f"cannot log in: {error}"
    assert row is not None  # of aggregates
    return _said(*row, role=role)


def _said(login: str, current: str, login_more: Any, current_more: Any, has_role: Any, *, role: Role) -> str:
    if current_more:
        return f"works as {current}, who may do more than {role.may}: name a member of {role.name} by [postgres] {role.setting}"
    if not has_role:
        return f"works as {current}, who is no member of {role.name}"
    if login_more:
        return (
            f"is {role.name} by SET ROLE of {login}, who may do more: name one who may not by [postgres] {role.setting}"
        )
    return ""
