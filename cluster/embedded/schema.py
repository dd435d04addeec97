"""The service `schema`: a step between the database and those who need its tables, which applies the migrations."""

from __future__ import annotations

from dataclasses import dataclass

from cluster import runtime
from cluster.database import grants, logins, migrations
from cluster.embedded import postgres_programs
from cluster.roles import OWNER, PARTS
from cluster.settings import EMBEDDED, Settings


@dataclass
class Schema:
    """The migrations, as a step between the database and whatever needs its tables."""

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
        """Nothing runs, so nothing can fail."""

    def address(self) -> str:
        return f"{len(migrations.registered())} migrations"
