"""`/v1/segments/{id}`: one moment, who may see it, and where a replaced id leads."""

from __future__ import annotations

import httpx

from cluster.settings import Settings
from tests.serve import doors


async def test_a_moment_is_shown_with_its_links(settings: Settings) -> None:
    shelf = doors.fill(settings)
    async with doors.opened(settings) as door:
        answer = await door.http.get(f"/v1/segments/{shelf.moments[1]}")
        shown = answer.json()
        assert answer.status_code == 200
        assert (shown["segment_id"], shown["video_id"]) == (str(shelf.moments[1]), str(shelf.video))
        assert (shown["start_ms"], shown["end_ms"], shown["best_frame_ms"]) == (2000, 3500, 2500)
        picture = (await door.http.get(shown["thumbnail_url"])).headers["location"]
    async with httpx.AsyncClient() as store:
        assert (await store.get(picture)).content == doors.PICTURE


async def test_a_replaced_id_leads_to_what_took_over_most_of_it(settings: Settings) -> None:
    shelf = doors.fill(settings)
    gone = 10**9
    async with doors.opened(settings) as door:
        with door.database() as connection:
            for new, overlap in zip(shelf.moments[:2], (0.2, 0.8), strict=True):
                connection.execute(
                    "INSERT INTO media.segment_lineage (old_id, new_id, overlap) VALUES (%s, %s, %s)",
                    (gone, new, overlap),
                )
        shown = (await door.http.get(f"/v1/segments/{gone}")).json()
        assert shown["segment_id"] == str(shelf.moments[1])


async def test_a_moment_of_a_private_video_is_there_for_its_creator_only(settings: Settings) -> None:
    shelf = doors.fill(settings)
    async with doors.opened(settings) as door:
        with door.database() as connection:
            connection.execute("UPDATE media.videos SET visibility = 'private' WHERE id = %s", (shelf.video,))
        path = f"/v1/segments/{shelf.moments[0]}"
        assert (await door.http.get(path)).status_code == 404
        assert (await door.http.get(path, headers=door.key("creator", creator_id=shelf.bob))).status_code == 404
        assert (await door.http.get(path, headers=door.key("creator", creator_id=shelf.ada))).status_code == 200


async def test_a_moment_that_never_was_is_a_problem(settings: Settings) -> None:
    async with doors.opened(settings) as door:
        answer = await door.http.get("/v1/segments/7")
        assert (answer.status_code, answer.json()["detail"]) == (404, "there is no segment 7")
