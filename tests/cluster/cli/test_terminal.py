"""Nothing from outside commands the terminal of who reads it."""

from __future__ import annotations

import io

import pytest
from rich.markup import escape
from rich.table import Table

from cluster.cli.terminal import Printer, printable

WICKED = "Goat \x1b]0;PWNED\x07\x1b[2J\x9b2J\u202egnp.exe\x7f"


def test_a_text_keeps_its_letters_and_loses_its_commands() -> None:
    assert printable(WICKED) == "Goat ]0;PWNED[2J2Jgnp.exe"
    assert printable("two\nlines\twith übergrößen 東京 🐐") == "two\nlines\twith übergrößen 東京 🐐"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_console_prints_no_command_but_its_own_colours(terminal: bool) -> None:
    written = io.StringIO()
    console = Printer(
        file=written,
        highlight=False,
        force_terminal=terminal,
        width=100,
        color_system="truecolor" if terminal else None,
    )
    table = Table("title", title=escape(WICKED))
    table.add_row(escape(WICKED))
    console.print(table)
    console.print(WICKED, style="yellow", soft_wrap=True)
    console.print(WICKED, markup=False)
    text = written.getvalue()
    assert "PWNED" in text
    for command in ("\x1b]", "\x1b[2J", "\x07", "\x9b", "\x7f", "\u202e"):
        assert command not in text
    assert ("\x1b[" in text) == terminal
