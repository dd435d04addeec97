"""A key opens what its scopes say, for as long as it lives, and is never kept as it is."""

from __future__ import annotations

import pytest

from cluster import database
from cluster.errors import Rejected
from cluster.settings import Settings
from serve import keys
from tests.serve.doors import Doors, bearer, opened

ADMIN = "any text at all / even ümlauts"


async def status(doors: Doors, headers: dict[str, str]) -> int:
    return (await doors.http.get("/v1/jobs", headers=headers)).status_code


async def test_a_door_needs_a_key_of_its_scope(settings: Settings) -> None:
    async with opened(settings) as doors:
        assert await status(doors, {}) == 401
        assert await status(doors, bearer("pixr_wrong")) == 401
        assert await status(doors, {"X-API-Key": "pixr_wrong"}) == 401
        assert await status(doors, doors.key("search")) == 403
        assert await status(doors, doors.key("ingest")) == 200
        assert await status(doors, doors.key("admin")) == 200
        refused = await doors.http.get("/v1/jobs")
        assert refused.headers["www-authenticate"].startswith("Bearer")


async def test_a_wrong_key_is_refused_where_none_is_needed(settings: Settings) -> None:
    async with opened(settings) as doors:
        assert (await doors.http.get("/v1/videos/1", headers=bearer("pixr_wrong"))).status_code == 401
        assert (await doors.http.get("/v1/videos/1")).status_code == 404


async def test_the_first_admin_key_can_be_any_text_and_is_made_once(settings: Settings) -> None:
    with database.connect(settings.postgres.url) as connection:
        for _ in range(2):
            keys.ensure_admin(connection, ADMIN)
        assert [key.scopes for key in keys.listing(connection)] == [("admin",)]
    async with opened(settings) as doors:
        found = await keys.identify(doors.services, ADMIN)
        assert found is not None
        assert found.may("ingest")
        assert await keys.identify(doors.services, ADMIN + " ") is None


async def test_a_revoked_or_expired_key_is_refused(settings: Settings) -> None:
    async with opened(settings) as doors:
        with doors.database() as connection:
            number, revoked = keys.create(connection, "short", ["ingest"])
            keys.revoke(connection, number)
            expired = keys.create(connection, "late", ["ingest"], expires_in_s=-1)[1]
        assert await status(doors, bearer(revoked)) == 401
        assert await status(doors, bearer(expired)) == 401


async def test_a_rotated_key_lives_on_for_its_grace_only(settings: Settings) -> None:
    async with opened(settings) as doors:
        with doors.database() as connection:
            first, _ = keys.create(connection, "robot", ["ingest"])
            second, token = keys.rotate(connection, first, grace_s=3600)
            assert await status(doors, bearer(token)) == 200
            left = {key.id: key.expires_at for key in keys.listing(connection)}
            assert left[first] is not None
            assert left[second] is None
            keys.revoke(connection, second)
            with pytest.raises(Rejected):
                keys.rotate(connection, second)


async def test_a_revocation_is_felt_when_the_check_is_forgotten(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(settings) as doors:
        monkeypatch.setattr(keys, "REMEMBERED_S", 0.0001)
        with doors.database() as connection:
            number, token = keys.create(connection, "robot", ["ingest"])
            assert await status(doors, bearer(token)) == 200
            keys.revoke(connection, number)
        assert await status(doors, bearer(token)) == 401


async def test_a_key_costs_no_query_each_time(settings: Settings) -> None:
    async with opened(settings) as doors:
        with doors.database() as connection:
            token = keys.create(connection, "robot", ["ingest"])[1]
            assert await keys.identify(doors.services, token)
            connection.execute("DELETE FROM app.api_keys")
        assert await keys.identify(doors.services, token)


def test_no_key_is_kept_as_it_is(postgres_url: str) -> None:
    with database.connect(postgres_url) as connection:
        token = keys.create(connection, "robot", ["search"])[1]
        rows = connection.execute("SELECT k::text, p::text FROM app.api_keys k, app.principals p").fetchall()
    assert token not in str(rows)
    assert token.removeprefix(keys.PREFIX) not in str(rows)


@pytest.mark.parametrize(("scopes", "creator_id"), [((), None), (("root",), None), (("creator",), None)])
def test_a_key_that_makes_no_sense_is_refused(
    postgres_url: str, scopes: tuple[str, ...], creator_id: int | None
) -> None:
    with database.connect(postgres_url) as connection, pytest.raises(Rejected):
        keys.create(connection, "robot", scopes, creator_id=creator_id)


def test_a_name_stands_for_one_creator(postgres_url: str) -> None:
    with database.connect(postgres_url) as connection:
        keys.create(connection, "ada", ["creator"], creator_id=1)
        with pytest.raises(Rejected, match="another creator"):
            keys.create(connection, "ada", ["creator"], creator_id=2)
