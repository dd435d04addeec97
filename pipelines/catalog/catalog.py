"""The table of videos, `media.videos`: registering listed files, choosing a job's videos, changing and removing them.

Registering the same listing again changes nothing; a video that is already ingested is skipped without reading its
object. Leases and their outcomes are written by `jobs/leases.py`, creators by `creators.py`. Knows SQL and nothing of
decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
from psycopg import Connection
from psycopg.types.json import Jsonb

from cluster.errors import Rejected
from pipelines.catalog import creators, reposts
from pipelines.media import PIPELINE_VERSION
from pipelines.sources import mending
from pipelines.sources.handles import ANY_CREATOR, Rights
from pipelines.sources.listed import Listed, Note
from pipelines.sources.remarks import LEFT_OUT, STAYS, TAKEN_DOWN

PAGE_ROWS = 1000
# The generation as a scalar subquery, for a reader that asks for other values in the same round trip.
GENERATION: LiteralString = "(SELECT value FROM media.generation)"


@dataclass(frozen=True)
class Registered:
    """The outcome of registering a listing: refused videos with the reasons, and remarks on the stored videos."""

    refused: list[Note] = field(default_factory=list)  # videos that are not part of the job, with the reason
    notes: list[Note] = field(default_factory=list)  # remarks on stored videos: what of a manifest was not applied


# Errors that a row causes again on every attempt: half characters, values that do not fit a type or an index.
UNSTORABLE = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded, UnicodeEncodeError)


def register(
    connection: Connection, job_id: str, videos: Sequence[Listed], model_id: int, rights: Rights = ANY_CREATOR
) -> Registered:
    """Store every listed video, add it to the job, and apply what the manifests say now (see `sources/mending.py`).

    Idempotent. An object whose content has changed is ingested again from the first attempt.

    Args:
        connection: Connection to the primary; each page of `PAGE_ROWS` videos is one transaction.
        job_id: Job that the videos are added to.
        videos: Videos as the source was listed.
        model_id: Model of the job; videos that have its embeddings already are marked as skipped.
        rights: Creators that the job may speak for, and whether it may move videos between creators.

    Returns:
        The videos that could not be stored, with reasons, and remarks on what was not applied.
    """
    outcome = Registered()
    for start in range(0, len(videos), PAGE_ROWS):
        if page := _own(connection, videos[start : start + PAGE_ROWS], rights, outcome):
            _register_page(connection, job_id, page, model_id, rights, outcome)
    with connection.transaction():
        if len(videos) > PAGE_ROWS:  # without fresh statistics the joins below, and later ones, take hours
            connection.execute("ANALYZE media.job_videos, media.videos")
        _take_turns(connection, job_id)
    if rights.creators is None:  # a job bound to some creators must not learn which other creators exist
        outcome.notes.extend(creators.alike(connection, videos))
    return outcome


def _register_page(
    connection: Connection, job_id: str, page: Sequence[Listed], model_id: int, rights: Rights, outcome: Registered
) -> None:
    """Register a page of videos in one transaction.

    If PostgreSQL refuses a row, register each half of the page by itself, until only that row is left out.
    """
    try:
        with connection.transaction():
            notes = creators.register(connection, page)
            _register_videos(connection, page)
            mended, is_visible = mending.apply(connection, page, rights)
            _add_to_job(connection, job_id, page, model_id)
            notes += [*mended, *_taken_down(connection, job_id, page)]
            if is_visible:
                bump_generation(connection)
    except UNSTORABLE as error:
        if len(page) == 1:
            reason = f"the database does not keep it: {str(error).splitlines()[0]}"
            outcome.refused.append(Note(LEFT_OUT, reason, page[0]))
            return
        for half in (page[: len(page) // 2], page[len(page) // 2 :]):
            _register_page(connection, job_id, half, model_id, rights, outcome)
        return
    outcome.notes.extend(notes)


def _own(connection: Connection, page: Sequence[Listed], rights: Rights, outcome: Registered) -> Sequence[Listed]:
    """Return the page without stored videos of creators that the job may not speak for; note those as refused."""
    if rights.creators is None:
        return page
    rows = connection.execute(
        "SELECT v.source_uri FROM media.videos v JOIN media.creators c ON c.id = v.creator_id"
        " WHERE v.source_uri = ANY(%s) AND c.handle <> ALL(%s)",
        ([video.source_uri for video in page], list(rights.creators)),
    ).fetchall()
    foreign_uris = {uri for (uri,) in rows}
    reason = "it is a creator's whom this job does not speak for"
    outcome.refused.extend(
        Note(LEFT_OUT, reason, video, is_named=False) for video in page if video.source_uri in foreign_uris
    )
    return [video for video in page if video.source_uri not in foreign_uris]


def _taken_down(connection: Connection, job_id: str, page: Sequence[Listed]) -> list[Note]:
    """Return a remark for each video of the page that was taken down and therefore stays removed."""
    rows = connection.execute(
        "SELECT v.source_uri FROM media.job_videos j JOIN media.videos v ON v.id = j.video_id"
        " WHERE j.job_id = %s AND j.outcome = 'removed' AND v.source_uri = ANY(%s)",
        (job_id, [video.source_uri for video in page]),
    ).fetchall()
    removed_uris = {uri for (uri,) in rows}
    return [Note(TAKEN_DOWN, STAYS, video) for video in page if video.source_uri in removed_uris]


def _register_videos(connection: Connection, page: Sequence[Listed]) -> None:
    """Insert the videos of a page; if a stored video's object has changed, mark the video to be ingested again."""
    rows = [
        {
            "source_uri": video.source_uri, "etag": video.etag, "size": video.size, "creator": video.creator,
            "title": video.title, "description": video.description, "tags": list(video.tags),
            "visibility": video.visibility or "public", "language": video.language or "english", "said": video.words(),
        }
        for video in page
    ]  # fmt: skip
    # A removed video stays removed; every other video is queued again when the ETag of its object has changed.
    connection.execute(
        """
        INSERT INTO media.videos AS v (creator_id, source_uri, source_etag, source_bytes, title, description, tags,
                                       visibility, language, manifest_words)
        SELECT c.id, g.source_uri, g.etag, g.size, g.title, g.description,
               ARRAY(SELECT jsonb_array_elements_text(g.tags)), g.visibility, g.language, g.said
        FROM jsonb_to_recordset(%s::jsonb) AS g (source_uri text, etag text, size bigint, creator text, title text,
             description text, tags jsonb, visibility text, language text, said jsonb)
        JOIN media.creators c ON c.handle = g.creator
        ON CONFLICT (source_uri) DO UPDATE SET
            source_etag = excluded.source_etag, source_bytes = excluded.source_bytes,
            status = CASE WHEN v.status IN ('ready', 'removed') THEN v.status ELSE 'queued' END,
            pipeline_version = NULL, attempts = 0, failures = 0, error = NULL, error_code = NULL, retry_at = NULL
        WHERE v.source_etag <> excluded.source_etag
        """,
        (Jsonb(rows),),
    )


def _add_to_job(connection: Connection, job_id: str, page: Sequence[Listed], model_id: int) -> None:
    # Videos that are ingested already are skipped here, in one statement a page, without reading any object.
    """Add the videos of a page to the job.

    Videos that need no work get their outcome at once; failed videos are queued again.
    """
    connection.execute(
        """
        INSERT INTO media.job_videos (job_id, video_id, position, outcome, error, error_code)
        SELECT %(job)s, v.id, 0,
               CASE WHEN v.status IN ('quarantined', 'removed') THEN v.status
                    WHEN v.status = 'ready' AND v.pipeline_version = %(version)s AND EXISTS (
                         SELECT FROM media.embeddings e WHERE e.video_id = v.id AND e.model_id = %(model)s)
                    THEN 'skipped' END,
               CASE WHEN v.status = 'quarantined' THEN v.error END,
               CASE WHEN v.status = 'quarantined' THEN v.error_code END
        FROM media.videos v WHERE v.source_uri = ANY(%(uris)s)
        ON CONFLICT (job_id, video_id) DO NOTHING
        """,
        {"job": job_id, "version": PIPELINE_VERSION, "model": model_id, "uris": [video.source_uri for video in page]},
    )
    connection.execute(
        "UPDATE media.videos SET status = 'queued', failures = 0, attempts = 0, error = NULL, error_code = NULL"
        " WHERE status = 'failed' AND source_uri = ANY(%s)",
        ([video.source_uri for video in page],),
    )
    connection.execute(  # a ready video that is ingested again gets a fresh count of attempts
        "UPDATE media.videos v SET failures = 0, attempts = 0 FROM media.job_videos j WHERE v.source_uri = ANY(%s)"
        " AND v.status = 'ready' AND v.lease_token IS NULL AND j.job_id = %s AND j.video_id = v.id AND j.outcome IS NULL",
        ([video.source_uri for video in page], job_id),
    )


def add_lacking(connection: Connection, job_id: str, model: str) -> int:
    """Add to a job every ready video with a segment that lacks an embedding by this model; return how many were added.

    Their attempts are counted from zero.
    """
    inserted = connection.execute(
        """
        WITH lacking AS (
            SELECT v.id FROM media.videos v WHERE v.status = 'ready' AND EXISTS (
                SELECT FROM media.segments s WHERE s.video_id = v.id AND NOT EXISTS (
                    SELECT FROM media.embeddings e JOIN media.models m ON m.id = e.model_id
                    WHERE e.segment_id = s.id AND m.name = %(model)s)) FOR UPDATE),
        begun AS (
            UPDATE media.videos v SET attempts = 0, failures = 0 FROM lacking l WHERE v.id = l.id)
        INSERT INTO media.job_videos (job_id, video_id, position)
        SELECT %(job)s, id, row_number() OVER (ORDER BY id) FROM lacking
        """,
        {"job": job_id, "model": model},
    )
    return inserted.rowcount


def finished(connection: Connection, videos: Sequence[Listed], model: str) -> dict[str, str]:
    """Return the status of each video that a new job would skip, by source URI: "ready", "quarantined" or "removed"."""
    statuses: dict[str, str] = {}
    for start in range(0, len(videos), PAGE_ROWS):
        page = videos[start : start + PAGE_ROWS]
        # The condition of `_add_to_job`, for objects that have not changed. An empty ETag means that the URI holds the
        # content's hash. A removed video stays removed whatever its content.
        rows = connection.execute(
            """
            SELECT v.source_uri, v.status FROM media.videos v
            JOIN unnest(%s::text[], %s::text[]) AS g (uri, etag) ON v.source_uri = g.uri
             AND (g.etag IN ('', v.source_etag) OR v.status = 'removed')
            WHERE v.status IN ('quarantined', 'removed') OR v.status = 'ready' AND v.pipeline_version = %s AND EXISTS (
                  SELECT FROM media.embeddings e JOIN media.models m ON m.id = e.model_id
                  WHERE e.video_id = v.id AND m.name = %s)
            """,
            ([video.source_uri for video in page], [video.etag for video in page], PIPELINE_VERSION, model),
        ).fetchall()
        statuses.update(rows)
    return statuses


def _take_turns(connection: Connection, job_id: str) -> None:
    """Order a job's videos so that creators take turns: the first video of each, then the second of each.

    Each creator's largest videos come first, so that no long video is left to run alone at the end of the job.
    """
    connection.execute(
        """
        UPDATE media.job_videos j SET position = turn.position
        FROM (SELECT v.id, row_number() OVER (ORDER BY round, creator_id, id) AS position
              FROM (SELECT v.id, v.creator_id, row_number() OVER w AS round
                    FROM media.job_videos j JOIN media.videos v ON v.id = j.video_id WHERE j.job_id = %(job)s
                    WINDOW w AS (PARTITION BY v.creator_id ORDER BY v.source_bytes DESC, v.id)) AS v
             ) AS turn
        WHERE j.job_id = %(job)s AND j.video_id = turn.id AND j.position <> turn.position
        """,
        {"job": job_id},
    )


def change(connection: Connection, video_id: int, **words: Any) -> bool:
    """Change title, description, tags, visibility or language of a video, and what searches see, in one transaction.

    `words` maps these columns to their new values. Returns False if the video does not exist or was removed.

    Raises:
        Rejected: `words` names a column that cannot be changed.
    """
    allowed = ("title", "description", "tags", "visibility", "language")
    if unknown := [name for name in words if name not in allowed]:
        raise Rejected(f"{unknown[0]!r} cannot be changed", hint=f"these can: {', '.join(allowed)}")
    with connection.transaction():
        row = connection.execute(
            "UPDATE media.videos SET title = coalesce(%(title)s, title), tags = coalesce(%(tags)s, tags),"
            " description = coalesce(%(description)s, description), language = coalesce(%(language)s, language),"
            " visibility = coalesce(%(visibility)s, visibility) WHERE id = %(id)s AND status <> 'removed' RETURNING id",
            {**dict.fromkeys(allowed), **words, "id": video_id},
        ).fetchone()
        if row is None:
            return False
        mending.carry_over(connection, [video_id])
        bump_generation(connection)
        return True


def accept_repost(connection: Connection, video_id: int, *, is_accepted: bool) -> bool:
    """Let a repost earn, or no longer (see `reposts`); return False if the video does not exist or was removed."""
    with connection.transaction():
        if not reposts.accept(connection, video_id, is_accepted=is_accepted):
            return False
        bump_generation(connection)
        return True


def remove(connection: Connection, video_id: int) -> bool:
    """Take a video out of search for good; return False if it does not exist or was removed before.

    Its row stays, so that a later listing of the source does not bring the video back.
    """
    with connection.transaction():
        row = connection.execute(
            "UPDATE media.videos SET status = 'removed', lease_owner = NULL, lease_token = NULL, lease_until = NULL"
            " WHERE id = %s AND status <> 'removed' RETURNING id",
            (video_id,),
        ).fetchone()
        if row is None:
            return False
        for table in ("embeddings", "segments", "staging"):
            connection.execute(f"DELETE FROM media.{table} WHERE video_id = %s", (video_id,))
        bump_generation(connection)
        return True


def uris(connection: Connection, video_id: int) -> tuple[str, str | None] | None:
    """Return the source URI and the playback URI of a video, or None if the video does not exist."""
    query = "SELECT source_uri, playback_uri FROM media.videos WHERE id = %s"
    return connection.execute(query, (video_id,)).fetchone()


def clear_words(connection: Connection, video_id: int) -> None:
    """Empty the title, description and tags of a video, what its manifest said, and the text of its error."""
    connection.execute(
        "UPDATE media.videos SET title = '', description = '', tags = '{}', manifest_words = NULL,"
        " error = coalesce(error_code, error) WHERE id = %s",
        (video_id,),
    )


def requeue(connection: Connection, video_ids: Sequence[int]) -> int:
    """Queue quarantined and failed videos again, with attempts counted from zero; return how many were queued."""
    updated = connection.execute(
        "UPDATE media.videos SET status = 'queued', attempts = 0, failures = 0, error = NULL, error_code = NULL,"
        " retry_at = NULL WHERE id = ANY(%s) AND status IN ('quarantined', 'failed')",
        (list(video_ids),),
    )
    return updated.rowcount


def bump_generation(connection: Connection, *, only_grown: bool = False) -> None:
    """Raise the generation, which tells caches and cursors that the catalogue has changed.

    Call it last in a transaction, because it locks a row. Set `only_grown` if the transaction only added moments and
    hid or removed none; cached answers may then stay a little longer (`growth_interval_s`).
    """
    connection.execute("UPDATE media.generation SET value = value + 1, grown = grown + %s", (int(only_grown),))
