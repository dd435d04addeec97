"""Reposts: videos whose file, byte for byte, another creator's public video had before.

They are found and played like any other, and earn nothing until an administrator accepts them, since nobody but a person
knows who may show what. It is asked each time, of the catalogue as it stands: where the earlier one was taken down, made
private or given to the same creator, the later one is a repost no longer. Knows no money.
"""

from __future__ import annotations

from typing import LiteralString

from psycopg import Connection

from pipelines.remarks import NAMES_MAX, REPOST, Remarks

NOT_ACCEPTED = (
    "another creator's public video had the same file before; it earns nothing until an administrator accepts it"
    " (repost_accepted), or gives the earlier one to the same creator (a manifest that says so, pixr ingest --reassign)"
)
# The first video `o` that is public and has the content of a video `v`, where that is not later than it.
FIRST: LiteralString = (
    "FROM media.videos o WHERE o.content_hash = v.content_hash AND o.status = 'ready' AND o.visibility = 'public'"
    " AND (coalesce(o.content_at, o.created_at), o.id) <= (coalesce(v.content_at, v.created_at), v.id)"
    " ORDER BY coalesce(o.content_at, o.created_at), o.id LIMIT 1"
)
IS_REPOST: LiteralString = (
    f"NOT v.repost_accepted AND coalesce((SELECT o.creator_id {FIRST}), v.creator_id) <> v.creator_id"
)
OF: LiteralString = f"(SELECT CASE WHEN o.creator_id <> v.creator_id THEN o.public_id END {FIRST})"  # another creator's


def note(connection: Connection, job_id: str, remarks: Remarks) -> None:
    """Add which of a job's videos are reposts, by the names of their own files."""
    rows = connection.execute(
        "SELECT v.source_uri, count(*) OVER () FROM media.job_videos j JOIN media.videos v ON v.id = j.video_id"
        f" WHERE j.job_id = %s AND v.status = 'ready' AND {IS_REPOST} ORDER BY j.position LIMIT {NAMES_MAX}",
        (job_id,),
    ).fetchall()
    for number, (uri, total) in enumerate(rows):
        remarks.add(REPOST, NOT_ACCEPTED, uri.rpartition("/")[2], 1 if number else total - len(rows) + 1)


def accept(connection: Connection, video_id: int, *, is_accepted: bool) -> bool:
    """Let a repost earn, or no longer; False where there is no such video. In the caller's transaction."""
    done = connection.execute(
        "UPDATE media.videos SET repost_accepted = %s WHERE id = %s AND status <> 'removed'", (is_accepted, video_id)
    )
    return done.rowcount == 1
