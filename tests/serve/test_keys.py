"""A key opens what its scopes say, for as long as it lives, and is never kept as it is."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import psycopg
import pytest

from cluster import database
from cluster.errors import Rejected
from cluster.settings import Settings
from serve import keys
from tests.cluster.test_cli import assert_refused, pixr
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
            number, revoked = keys.create(connection, "short", ["ingest"], creators=keys.ANY)
            keys.revoke(connection, number)
            expired = keys.create(connection, "late", ["ingest"], creators=keys.ANY, expires_in_s=-1)[1]
        assert await status(doors, bearer(revoked)) == 401
        assert await status(doors, bearer(expired)) == 401


async def test_a_rotated_key_lives_on_for_its_grace_only(settings: Settings) -> None:
    async with opened(settings) as doors:
        with doors.database() as connection:
            first, _ = keys.create(connection, "robot", ["ingest"], creators=keys.ANY)
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
            number, token = keys.create(connection, "robot", ["ingest"], creators=keys.ANY)
            assert await status(doors, bearer(token)) == 200
            keys.revoke(connection, number)
        assert await status(doors, bearer(token)) == 401


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/keys", {"name": "more", "scopes": ["admin"]}),
        ("POST", "/v1/keys/1/rotate", {"grace_s": 3600}),
        ("DELETE", "/v1/keys/1", None),
        ("DELETE", "/v1/videos/1", None),
        ("PATCH", "/v1/videos/1", {"title": "Theirs"}),
        ("PUT", "/v1/creators/1/wallet", {"wallet": "1" * 32}),
        ("POST", "/v1/jobs", {"source": "s3://pixr/incoming/"}),
    ],
)
async def test_a_revoked_key_changes_nothing_though_its_check_is_remembered(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, method: str, path: str, body: Any
) -> None:
    monkeypatch.setattr(keys, "REMEMBERED_S", 600.0)
    async with opened(settings) as doors:
        with doors.database() as connection:
            keys.create(connection, "other", ["search"])
            number, token = keys.create(connection, "leaver", ["admin"])
            assert await status(doors, bearer(token)) == 200
            keys.revoke(connection, number)
            assert await status(doors, bearer(token)) == 200  # remembered
            answer = await doors.http.request(method, path, json=body, headers=bearer(token))
            assert (answer.status_code, answer.json()["code"]) == (401, "key-invalid"), answer.text
            rows = connection.execute("SELECT revoked_at IS NULL, expires_at IS NULL FROM app.api_keys ORDER BY id")
            assert rows.fetchall() == [(True, True), (False, True)]


async def test_a_key_costs_no_query_each_time(settings: Settings) -> None:
    async with opened(settings) as doors:
        with doors.database() as connection:
            token = keys.create(connection, "robot", ["ingest"], creators=keys.ANY)[1]
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
        connection.execute("INSERT INTO media.creators (handle, name) VALUES ('ada', 'Ada'), ('bo', 'Bo')")
        keys.create(connection, "ada", ["creator"], creator_id=1)
        with pytest.raises(Rejected, match="another creator"):
            keys.create(connection, "ada", ["creator"], creator_id=2)


async def test_keys_of_one_name_are_one_caller_so_they_may_do_the_same(settings: Settings) -> None:
    async with opened(settings) as doors:
        admin = doors.key("admin")

        async def make(**asked: Any) -> tuple[int, Any]:
            answer = await doors.http.post("/v1/keys", headers=admin, json={"name": "studio", **asked})
            return answer.status_code, answer.json()

        status, first = await make(scopes=["ingest"], creators=["ana", "bo"])
        assert status == 201
        for other in (
            {"scopes": ["ingest"], "creators": ["mallory"]},
            {"scopes": ["ingest"], "creators": ["ana"]},
            {"scopes": ["ingest"], "creators": "any"},
            {"scopes": ["search"]},
            {"scopes": ["ingest", "search"], "creators": ["ana", "bo"]},
        ):
            status, said = await make(**other)
            assert (status, said["code"]) == (409, "principal-taken"), other
            assert f"revoke key {first['id']}" in said["detail"] + said.get("hint", "")
        status, second = await make(scopes=["ingest"], creators=["bo", "ana"])  # another one of the same caller
        assert status == 201
        rotated = await doors.http.post(f"/v1/keys/{first['id']}/rotate", headers=admin, json={"grace_s": 0})
        assert rotated.status_code == 201
        for number in (second["id"], rotated.json()["id"]):
            assert (await doors.http.delete(f"/v1/keys/{number}", headers=admin)).status_code == 200
        assert (await make(scopes=["search"]))[0] == 201  # no other one lives


@pytest.mark.parametrize("scopes", [["creator"], ["search"], ["ingest"], ["admin"]])
def test_there_is_no_key_for_a_creator_who_does_not_exist(postgres_url: str, scopes: list[str]) -> None:
    with database.connect(postgres_url) as connection:
        with pytest.raises(Rejected, match="there is no creator 999") as refusal:
            keys.create(connection, "nobody's", scopes, creator_id=999, creators=None)
        assert (refusal.value.status, refusal.value.code) == (404, "not-found")
        assert connection.execute("SELECT count(*) FROM app.principals").fetchone() == (0,)


async def test_a_key_for_nobody_is_one_clear_error_over_http(settings: Settings) -> None:
    async with opened(settings) as doors:
        admin = doors.key("admin")
        for creator in (999, "999", "A" * 22):
            asked = {"name": "k", "scopes": ["creator"], "creator_id": creator}
            answer = await doors.http.post("/v1/keys", headers=admin, json=asked)
            assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
            assert answer.json()["detail"] == f"there is no creator {creator}"
        assert [each["name"] for each in (await doors.http.get("/v1/keys", headers=admin)).json()["keys"]] == [
            "admin-None"
        ]


async def test_keys_are_made_listed_rotated_and_revoked_over_http(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "REMEMBERED_S", 0.0001)
    async with opened(settings) as doors:
        admin = doors.key("admin")
        made = await doors.http.post(
            "/v1/keys",
            headers=admin,
            json={"name": "robot", "scopes": ["ingest"], "creators": "any", "expires_in_s": 7200},
        )
        assert made.status_code == 201, made.text
        key = made.json()
        assert await status(doors, bearer(key["key"])) == 200
        rotated = (await doors.http.post(f"/v1/keys/{key['id']}/rotate", headers=admin, json={"grace_s": 0})).json()
        assert await status(doors, bearer(rotated["key"])) == 200
        assert await status(doors, bearer(key["key"])) == 401
        assert lifetime_s(rotated) == lifetime_s(key) == 7200
        listed = (await doors.http.get("/v1/keys", headers=admin)).json()["keys"]
        assert [each["id"] for each in listed][:2] == [rotated["id"], key["id"]]
        assert {each["key"] for each in listed} == {None}
        for _ in range(2):
            ended = await doors.http.delete(f"/v1/keys/{rotated['id']}", headers=admin)
            assert ended.json()["revoked_at"] is not None
        assert await status(doors, bearer(rotated["key"])) == 401
        again = await doors.http.post(f"/v1/keys/{rotated['id']}/rotate", headers=admin, json={})
        assert again.status_code == 404


def lifetime_s(key: dict[str, str]) -> float:
    made, ends = (datetime.fromisoformat(key[name]) for name in ("created_at", "expires_at"))
    return (ends - made).total_seconds()


async def test_only_an_administrator_deals_in_keys(settings: Settings) -> None:
    async with opened(settings) as doors:
        for headers, code in (({}, 401), (doors.key("ingest"), 403), (doors.key("search"), 403)):
            asked = {"name": "mine", "scopes": ["admin"]}
            assert (await doors.http.post("/v1/keys", headers=headers, json=asked)).status_code == code
            assert (await doors.http.get("/v1/keys", headers=headers)).status_code == code
            assert (await doors.http.delete("/v1/keys/1", headers=headers)).status_code == code
            assert (await doors.http.post("/v1/keys/1/rotate", headers=headers, json={})).status_code == code


@pytest.mark.parametrize(
    "asked",
    [
        {"name": "", "scopes": ["search"]},
        {"name": "x" * 201, "scopes": ["search"]},
        {"name": "x\0", "scopes": ["search"]},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["root"]},
        {"name": "x", "scopes": ["creator"]},
        {"name": "x", "scopes": ["search"], "expires_in_s": 0},
        {"name": "x", "scopes": ["search"], "expires_in_s": 2**40},
        {"name": "x", "scopes": ["search"], "key": "mine"},
    ],
)
async def test_a_key_that_makes_no_sense_is_refused_over_http(settings: Settings, asked: dict[str, Any]) -> None:
    async with opened(settings) as doors:
        refused = await doors.http.post("/v1/keys", headers=doors.key("admin"), json=asked)
        assert refused.status_code in (400, 422), refused.text
        with doors.database() as connection:
            assert [each.scopes for each in keys.listing(connection)] == [("admin",)]


def test_the_command_line_makes_lists_rotates_and_revokes(settings: Settings) -> None:
    environ, folder = {"PIXR_POSTGRES_URL": settings.postgres.url}, settings.data_dir
    assert "no keys yet" in pixr(folder, "keys", "list", **environ).stdout
    made = pixr(folder, "keys", "create", "web", "--scope", "search", "--scope", "ingest", "--for-any", **environ)
    assert made.returncode == 0, made.stderr
    token = made.stdout.splitlines()[0]
    assert token.startswith(keys.PREFIX)
    rotated = json.loads(pixr(folder, "keys", "rotate", "1", "--grace-hours", "0", "--json", **environ).stdout)
    assert rotated["scopes"] == ["search", "ingest"]
    assert rotated["expires_at"] is None
    assert pixr(folder, "keys", "revoke", rotated["id"], **environ).returncode == 0
    listed = pixr(folder, "keys", "list", **environ).stdout
    assert "web" in listed
    assert "revoked" in listed
    assert token not in listed
    assert_refused(pixr(folder, "keys", "create", "x", "--scope", "root", **environ), "known: search, ingest")
    assert_refused(pixr(folder, "keys", "create", " ", "--scope", "search", **environ), "1 to 200 characters")
    assert_refused(pixr(folder, "keys", "revoke", "999", **environ), "no living key 999")
    for_nobody = pixr(folder, "keys", "create", "x", "--scope", "creator", "--creator", "999", **environ)
    assert_refused(for_nobody, "there is no creator 999")


async def test_a_key_of_scope_ingest_says_for_whom_it_speaks(settings: Settings) -> None:
    async with opened(settings) as doors:
        admin = doors.key("admin")

        async def make(**asked: Any) -> tuple[int, Any]:
            answer = await doors.http.post("/v1/keys", headers=admin, json={"name": "k", "scopes": ["ingest"], **asked})
            return answer.status_code, answer.json().get("creators", answer.json().get("code"))

        assert await make() == (422, "bad-creators")
        assert await make(creators="any") == (201, "any")
        assert await make(name="both", creators=["bo", "ana", "bo"]) == (201, ["bo", "ana"])
        assert (await make(creators=["Al\u200bice"]))[0] == 422
        assert (await make(creators=[]))[0] == 422
        assert await make(scopes=["search"], creators=["ana"]) == (422, "bad-creators")
        assert await make(name="s", scopes=["search"]) == (201, None)
        assert await make(name="a", scopes=["admin", "ingest"]) == (201, "any")
        with doors.database() as connection:
            connection.execute("INSERT INTO media.creators (handle, name) VALUES ('cy', 'cy')")
            connection.execute("INSERT INTO media.creators (handle, name) VALUES (%s, 'odd')", ("Zoe\u0308 \u200b",))
        assert await make(name="cy", scopes=["ingest", "creator"], creator_id=1) == (201, ["cy"])
        assert await make(name="odd", scopes=["ingest", "creator"], creator_id=2) == (201, ["Zoe\u0308 \u200b"])
        assert await make(name="as kept", creators=["Zoe\u0308 \u200b"]) == (201, ["Zoe\u0308 \u200b"])


async def test_a_rotated_key_speaks_for_the_same_creators_and_an_old_one_for_any(settings: Settings) -> None:
    async with opened(settings) as doors:
        with doors.database() as connection:
            folders = ["s3://pixr/incoming/ana/"]
            number, token = keys.create(connection, "robot", ["ingest"], creators=["ana"], folders=folders)
            _, rotated = keys.rotate(connection, number)
            before = "INSERT INTO app.api_keys (principal_id, hash, scopes) VALUES (1, %s, '{ingest}')"  # of a release before
            connection.execute(before, (keys.digest("pixr_old"),))
            named = before.replace("scopes)", "scopes, creators)").replace("}')", "}', '{bo,cy}')")
            connection.execute(named, (keys.digest("pixr_named"),))
        usual = ("s3://first/bo/", "s3://first/cy/")
        for each, at in ((token, (*folders,)), (rotated, (*folders,)), ("pixr_named", usual), ("pixr_old", None)):
            found = await keys.identify(doors.services, each)
            assert found is not None
            assert found.folders_in(("first", "second")) == at
        for each, speaks_for in ((token, ("ana",)), (rotated, ("ana",)), ("pixr_old", None)):
            found = await keys.identify(doors.services, each)
            assert found is not None
            assert found.speaks_for == speaks_for


def test_the_command_line_makes_a_key_for_creators(settings: Settings) -> None:
    environ, folder = {"PIXR_POSTGRES_URL": settings.postgres.url}, settings.data_dir
    made = pixr(folder, "keys", "create", "k", "--scope", "ingest", "--for", "ana", "--for", "bo", "--json", **environ)
    assert json.loads(made.stdout)["creators"] == ["ana", "bo"]
    assert_refused(pixr(folder, "keys", "create", "k", "--scope", "ingest", **environ), "for whom")
    both = pixr(folder, "keys", "create", "k", "--scope", "ingest", "--for", "ana", "--for-any", **environ)
    assert_refused(both, "give one of them")
    assert "ana, bo" in pixr(folder, "keys", "list", **environ).stdout


async def test_a_key_for_named_creators_has_folders(settings: Settings) -> None:
    async with opened(settings) as doors:
        admin, bucket = doors.key("admin"), settings.s3.ingest_buckets[0]

        async def make(**asked: Any) -> tuple[int, Any]:
            body = {"name": "k", "scopes": ["ingest"], "creators": ["ana", "b/c"], **asked}
            answer = await doors.http.post("/v1/keys", headers=admin, json=body)
            return answer.status_code, answer.json().get("folders", answer.json().get("code"))

        assert await make() == (201, [f"s3://{bucket}/ana/"])
        assert await make(folders=[f"s3://{bucket}/in", f"s3://{bucket}/in/"]) == (201, [f"s3://{bucket}/in/"])
        assert await make(name="any", creators="any") == (201, None)
        wrong: list[dict[str, Any]] = [
            {"creators": "any", "folders": [f"s3://{bucket}/in/"]},
            {"scopes": ["search"], "creators": None, "folders": [f"s3://{bucket}/in/"]},
            *(
                {"folders": [f"s3://{name}"]}
                for name in (f"{bucket}/ledger/", f"{bucket}/uploads", bucket, "elsewhere/in")
            ),
        ]
        for asked in wrong:
            assert await make(**asked) == (422, "bad-folders"), asked
        for folders in ([], ["in"], [""], [f"s3://{bucket}/in//x"]):
            assert (await make(folders=folders))[0] in (400, 422), folders
        listed = (await doors.http.get("/v1/keys", headers=admin)).json()["keys"]
        assert [each["folders"] for each in listed] == [None, [f"s3://{bucket}/in/"], [f"s3://{bucket}/ana/"], None]
        rotated = await doors.http.post(f"/v1/keys/{listed[1]['id']}/rotate", headers=admin, json={})
        assert rotated.json()["folders"] == [f"s3://{bucket}/in/"]


def test_the_command_line_makes_a_key_with_folders(settings: Settings) -> None:
    environ, folder = {"PIXR_POSTGRES_URL": settings.postgres.url}, settings.data_dir
    create = ("keys", "create", "k", "--scope", "ingest")
    made = pixr(folder, *create, "--for", "ana", "--folder", "s3://pixr/in/ana", **environ)
    assert made.returncode == 0, made.stderr
    assert "its jobs read from s3://pixr/in/ana/" in " ".join((made.stdout + made.stderr).split())
    usual = pixr(folder, *create, "--for", "ana", "--json", **environ)
    assert json.loads(usual.stdout)["folders"] == ["s3://pixr/ana/"]
    assert_refused(pixr(folder, *create, "--for-any", "--folder", "s3://pixr/in", **environ), "named creators")
    assert_refused(pixr(folder, *create, "--for", "ana", "--folder", "s3://pixr/ledger", **environ), "Pixr itself")


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("admin\u200b", 422),  # a zero-width space
        ("k-vi\u0441", 422),  # Cyrillic among Latin letters
        ("\u24d0dmin", 422),  # in a circle
        ("\u0440\u043e\u0440", 409),  # all Cyrillic, and read as `pop`
        ("ADMIN", 409),
        ("k-vlc", 409),  # of `k-v1c`
        ("kvic", 0),
        ("\u0410\u043d\u043d\u0430", 0),  # Anna, in Cyrillic
        ("Zo\u00eb \u4eac", 0),
    ],
    ids=ascii,
)
def test_no_new_caller_has_a_name_that_is_read_as_anothers(postgres_url: str, name: str, status: int) -> None:
    with database.connect(postgres_url) as connection:
        keys.ensure_admin(connection, ADMIN)
        for there in ("k-v1c", "pop"):
            keys.create(connection, there, ["admin"])
        if not status:
            assert keys.create(connection, name, ["admin"])
            return
        with pytest.raises(Rejected) as refused:
            keys.create(connection, name, ["admin"])
        assert refused.value.status == status


def test_a_name_of_before_stays_and_nobody_is_called_like_it(postgres_url: str) -> None:
    with database.connect(postgres_url) as connection:
        connection.execute("INSERT INTO app.principals (name) VALUES (%s)", ("ana\u200b",))
        keys.create(connection, "ana\u200b", ["search"])
        with pytest.raises(Rejected, match="looks like"):
            keys.create(connection, "ana", ["search"])


def test_two_alike_names_that_are_given_at_once_are_not_both_taken(postgres_url: str) -> None:
    with database.connect(postgres_url) as first, database.connect(postgres_url) as second:
        keys.create(first, "ana", ["search"])
        second.execute("SET lock_timeout = '300ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            keys.create(second, "Ana", ["search"])
        second.rollback()
        first.commit()
        with pytest.raises(Rejected, match="looks like"):
            keys.create(second, "Ana", ["search"])
