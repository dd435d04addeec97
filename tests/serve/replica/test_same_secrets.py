"""A replica with secrets of its own machine answers nobody; one whose database is away finds out when it is back."""

from __future__ import annotations

import asyncio
import dataclasses
import time

import pytest

from cluster import runtime
from cluster.database import database, fingerprints
from cluster.errors import Rejected
from cluster.settings import Settings
from serve import app
from tests.serve.doors import opened, services_of
from tests.serve.relay import relayed

WITHIN_S = 20.0


def noted(settings: Settings) -> None:
    with database.connect(settings.postgres.serve_url) as connection:
        fingerprints.note(connection, settings)


def replaced(settings: Settings, name: str) -> None:
    runtime.replace_private(runtime.secret_path(settings, name), "of another machine")


async def well(checked: app.Checked, for_s: float) -> None:
    """Ask a replica how it is, for so long."""
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline:
        await checked.check_health()
        await asyncio.sleep(0.1)


async def test_a_replica_with_the_secrets_that_are_noted_answers(settings: Settings) -> None:
    noted(settings)
    async with opened(settings) as doors:
        checked = app.Checked()
        checked._asgi_app = doors.app
        await checked.check_health()
        assert doors.services.same_secrets._is_known


@pytest.mark.parametrize("name", fingerprints.SHARED)
async def test_a_replica_with_another_secret_does_not_start(settings: Settings, name: str) -> None:
    noted(settings)
    replaced(settings, name)
    made = app.build(services_of(settings))
    with pytest.raises(Rejected, match=f"secrets/{name}: not what this database was used with"):
        async with made.router.lifespan_context(made):
            pass


async def test_a_replica_that_could_not_ask_at_its_start_is_ended_when_it_can(settings: Settings) -> None:
    noted(settings)
    async with relayed(settings.postgres.url) as postgres:
        await postgres.cut()
        through = settings.with_section(dataclasses.replace(settings.postgres, url=postgres.url, serve_url=""))
        replaced(settings, "viewer_key")
        made = app.build(services_of(through))
        checked = app.Checked()
        checked._asgi_app = made
        async with made.router.lifespan_context(made):
            await checked.check_health()
            await postgres.mend()
            with pytest.raises(Rejected, match="viewer_key"):
                await well(checked, WITHIN_S)
