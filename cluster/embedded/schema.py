"""The service `schema`: a step that applies the migrations before the services that need the tables start.

On the embedded database it also updates pgvector and lets the roles log in. Knows no table.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster import runtime
from cluster.database import grants, logins, migrations
from cluster.embedded import postgres_programs
from cluster.roles import OWNER, PARTS
from cluster.settings import EMBEDDED, Settings


@dataclass
class Schema:
    """The service `schema`. It runs no process: all its work is done in `prepare`."""

    settings: Settings
    name: str = "schema"
    needs: tuple[str, ...] = ("postgres",)
    start_timeout_s: float = 60.0

    def prepare(self) -> None:
        url = logins.url(self.settings, OWNER)
        if self.settings.postgres.url == EMBEDDED:
            postgres_programs.follow(url)
        migrations.migrate(url)
        if self.settings.postgres.url == EMBEDDED:
            passwords = {role: runtime.secret(self.settings, role.secret) for role in PARTS}
            grants.allow_login(url, passwords, self.settings.postgres.connections_max)

    def command(self) -> None:
        return None

    def check(self) -> None:
        """Do nothing: no process runs that could fail."""

    def address(self) -> str:
        return f"{len(migrations.registered())} migrations"
