"""The command line `pixr`: its root, and the one place where errors become exit codes.

Has the commands up, down, status, migrate and config; packages add theirs under the entry point group `pixr.commands`.
Prints tables for people and, with `--json`, JSON for programs. Exit codes: 0 done, 1 something is wrong, 2 the user's
input is wrong (one clear line on standard error, no traceback).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

import click

from cluster.cli.context import Context
from cluster.cli.terminal import printable
from cluster.errors import Rejected, Temporary


class Commands(click.Group):
    """The commands of this package, and those of the other packages, which are imported only when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        registered = {entry.name for entry in entry_points(group="pixr.commands")}
        return sorted({*super().list_commands(ctx), *registered})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            return command
        for entry in entry_points(group="pixr.commands", name=cmd_name):
            loaded: click.Command = entry.load()
            return loaded
        return None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--config", type=click.Path(path_type=Path), help="Settings file (else PIXR_CONFIG, configs/local.toml).")
@click.version_option(package_name="pixr")
@click.pass_context
def pixr(ctx: click.Context, config: Path | None) -> None:
    """Search a catalogue of videos by meaning, down to the moment, and pay the people whose moments are shown."""
    ctx.obj = Context(config)


def main() -> None:
    """Run the console script; the one place where errors become exit codes."""
    from cluster.cli import stack

    for command in (stack.up, stack.down, stack.status, stack.migrate, stack.config):
        pixr.add_command(command)
    try:
        _refuse_empty(sys.argv[1:])
        sys.exit(pixr.main(prog_name="pixr", standalone_mode=False))
    except click.ClickException as error:
        _refuse(error.format_message() + _usage_hint(error))
    except (Rejected, Temporary) as error:
        _refuse(str(error))
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # `pixr … | head`: the reader has closed the pipe
        sys.exit(0)


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Refuse empty arguments: with an unset variable, `pixr ingest "$FOLDER"` would ingest the current folder.

    Raises:
        UsageError: an argument, or the value of an option, is the empty text.
    """
    for before, argument in zip(("", *arguments), arguments, strict=False):
        name, equals, value = argument.partition("=")
        if argument == "" or (name.startswith("--") and equals and not value):
            what = argument or f"what follows `{before}`" if before else "an argument"
            raise click.UsageError(f"{what} is empty; is a variable of the shell not set?")


def _usage_hint(error: click.ClickException) -> str:
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f" (see `{error.ctx.command_path} --help`)"
    return ""


def _refuse(line: str) -> None:
    """Print one line on standard error and exit with code 2."""
    click.echo(f"pixr: {printable(' '.join(line.split()))}", err=True)
    sys.exit(2)
