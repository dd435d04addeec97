"""`pixr search`: names who made what it finds, says in words that nothing matches, and prints no one's commands."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from cluster.cli.context import Context
from cluster.database import database
from cluster.embedded import leftovers
from cluster.settings import Settings
from serve.cli.search import search
from serve.replica.encoding import QueryEncoder
from tests.serve.doors import away, listening, near
from tests.serve.scenes import Scenes, hang


@pytest.fixture
def hanging(settings: Settings, painted: Scenes) -> Settings:
    with database.connect(settings.postgres.url) as connection:
        hang(connection, painted, creators=("ada", "bob"))
        connection.execute("UPDATE media.videos SET title = %s", ("Goat \x1b]0;PWNED\x07\x1b[2J",))
    return settings


@pytest.fixture(autouse=True)
def up(settings: Settings) -> Iterator[None]:
    """The data folder is held, as a supervisor holds it: of a Pixr that is down nothing is asked."""
    with open(leftovers.lock_path(settings.data_dir), "a", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def served(hanging: Settings, model: QueryEncoder) -> Iterator[Settings]:
    with listening(hanging, near(model)):
        yield hanging


def run(settings: Settings, *arguments: str) -> Result:
    context = Context(None)
    context.settings = settings
    return CliRunner().invoke(search, list(arguments), obj=context, catch_exceptions=False)


def test_a_search_names_the_creators_and_commands_no_terminal(served: Settings) -> None:
    done = run(served, "banana")
    assert done.exit_code == 0
    assert {"ada", "bob"} & set(done.output.split())
    assert "PWNED" in done.output
    assert not {"\x1b", "\x07"} & set(done.output)


def test_that_nothing_matches_is_said_with_what_to_try(served: Settings) -> None:
    done = run(served, "asdfghjkl [bold]")
    assert done.exit_code == 0
    assert "Nothing matches “asdfghjkl [bold]”" in done.output
    assert "fewer words" in " ".join(done.output.split())
    document = json.loads(run(served, "asdfghjkl", "--json").output)
    assert (document["nothing_matches"], document["moments"]) == (True, [])


def test_what_could_not_be_asked_is_not_said_to_match_nothing(hanging: Settings) -> None:
    with listening(hanging, away):
        done = run(hanging, "asdfghjkl")
    assert done.exit_code == 0
    assert "Nothing matches" not in done.output
    assert "skipped: vector" in done.output
