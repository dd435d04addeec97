"""Reposts: videos whose file, byte for byte, a public video of another creator had before.

They are found and played like any other video, and earn nothing until an administrator accepts them, since only a person
can tell who may show what. Only that acceptance is stored; each query looks at the catalogue as it stands. So a video
stops being a repost once the earlier one is taken down, made private, or given to the same creator. Knows no money.
"""

from __future__ import annotations

from typing import LiteralString

from psycopg import Connection

from pipelines.sources.remarks import NAMES_MAX, REPOST, Remarks

NOT_ACCEPTED = (
    "another creator's public video had the same file before; it earns nothing until an administrator accepts it"
)
# The first public video `o` with the content of a video `v`: `v` itself, or one that had it before.
FIRST: LiteralString = (
    "FROM media.videos o WHERE o.content_hash = v.content_hash AND o.status = 'ready' AND o.visibility = 'public'"
    " AND (coalesce(o.content_at, o.created_at), o.id) <= (coalesce(v.content_at, v.created_at), v.id)"
    " ORDER BY coalesce(o.content_at, o.created_at), o.id LIMIT 1"
)
# Whether a video `v` is a repost that was not accepted.
IS_REPOST: LiteralString = (
    f"NOT v.repost_accepted AND coalesce((SELECT o.creator_id {FIRST}), v.creator_id) <> v.creator_id"
)
# The public id of the video that a video `v` is a repost of, accepted or not; else NULL.
REPOST_OF: LiteralString = f"(SELECT CASE WHEN o.creator_id <> v.creator_id THEN o.public_id END {FIRST})"


def note(connection: Connection, job_id: str, remarks: Remarks) -> None:
    """Add to `remarks` which videos of a job are reposts, named by their own files."""
    rows = connection.execute(
        "SELECT v.source_uri, count(*) OVER () FROM media.job_videos j JOIN media.videos v ON v.id = j.video_id"
        f" WHERE j.job_id = %s AND v.status = 'ready' AND {IS_REPOST} ORDER BY j.position LIMIT {NAMES_MAX}",
        (job_id,),
    ).fetchall()
    for number, (uri, total) in enumerate(rows):
        count = 1 if number else total - len(rows) + 1  # the first one counts for those that are not named
        remarks.add(REPOST, NOT_ACCEPTED, uri.rpartition("/")[2], count)


def accept(connection: Connection, video_id: int, *, is_accepted: bool) -> bool:
    """Let a repost earn, or no longer, in the caller's transaction; return False if the video does not exist."""
    updated = connection.execute(
        "UPDATE media.videos SET repost_accepted = %s WHERE id = %s AND status <> 'removed'", (is_accepted, video_id)
    )
    return updated.rowcount == 1
