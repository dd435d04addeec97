"""What every command receives: the settings, a console, connections to the database; and the option `--json`.

Used by the commands of every package. Knows no command.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cluster import settings as settings_module
from cluster.cli.terminal import Printer
from cluster.roles import Role
from cluster.settings import EMBEDDED, Settings

if TYPE_CHECKING:
    from psycopg import Connection


Function = TypeVar("Function", bound=Callable[..., Any])


def json_option(command: Function) -> Function:
    """Add the option `--json` to a command, as its argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


class Context:
    """The object that every command receives: settings, read at first use, and a console."""

    def __init__(self, config: Path | None) -> None:
        self._config = config
        self.console = Printer(highlight=False)

    @cached_property
    def settings(self) -> Settings:
        return settings_module.load(self._config)

    def connect(self, role: Role, *, autocommit: bool = False) -> Connection[Any]:
        """Connect to the deployment's database as one of its roles.

        Raises:
            Rejected: the database is embedded and Pixr is not running, the settings have no URL for the role, or the server
                refuses the login.
            Temporary: the database does not answer.
        """
        from cluster.database import database, logins
        from cluster.embedded import supervisor

        url = logins.url(self.settings, role)
        if self.settings.postgres.url == EMBEDDED:
            supervisor.require_running(self.settings)
        return database.connect(url, autocommit=autocommit)

    def emit(self, document: Any) -> None:
        """Print a document as JSON on standard output."""
        click.echo(json.dumps(document, indent=2, default=str))
