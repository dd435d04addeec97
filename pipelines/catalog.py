"""The table of videos: which there are, which a job is to look at, what is said of them.

Run again, a listing changes nothing; what is done is skipped without a look at any object. Who works on a video and
how that ended is written by `leases`; whose videos are, by `creators`. Knows SQL and nothing of decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.types.json import Jsonb

from cluster.errors import Rejected
from pipelines import creators, mending, reposts
from pipelines.handles import ANYBODY, Rights
from pipelines.listed import Listed, Note
from pipelines.media import PIPELINE_VERSION
from pipelines.remarks import LEFT_OUT, STAYS, TAKEN_DOWN

PAGE_ROWS = 1000


@dataclass(frozen=True)
class Registered:
    """What became of a listing: videos that the database does not keep, and what there is to say of others."""

    refused: list[Note] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


# What PostgreSQL refuses of a row whatever is asked of it again: half characters, values that no type or index takes.
UNSTORABLE = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded, UnicodeEncodeError)


def register(
    connection: Connection, job_id: str, videos: Sequence[Listed], model_id: int, rights: Rights = ANYBODY
) -> Registered:
    """Make every listed video known and part of the job, and have what manifests say now take effect (see `mending`).

    Run again, it changes nothing. An object whose content has changed starts anew. What the database refuses is returned
    with its reasons, and so is what may not take effect.
    """
    done = Registered()
    for start in range(0, len(videos), PAGE_ROWS):
        if page := _own(connection, videos[start : start + PAGE_ROWS], rights, done):
            _register_page(connection, job_id, page, model_id, rights, done)
    with connection.transaction():
        if len(videos) > PAGE_ROWS:  # without statistics of what has just come, the joins below and later take hours
            connection.execute("ANALYZE media.job_videos, media.videos")
        _take_turns(connection, job_id)
    if rights.creators is None:  # others were told for whom they speak, and need not hear who else is there
        done.notes.extend(creators.alike(connection, videos))
    return done


def _register_page(
    connection: Connection, job_id: str, page: Sequence[Listed], model_id: int, rights: Rights, done: Registered
) -> None:
    """A page whole; where a row in it is refused, its halves, so that the others get in."""
    try:
        with connection.transaction():
            notes = creators.register(connection, page)
            _register_videos(connection, page)
            mended, is_felt = mending.apply(connection, page, rights)
            _add_to_job(connection, job_id, page, model_id)
            notes += [*mended, *_taken_down(connection, job_id, page)]
            if is_felt:
                bump_generation(connection)
    except UNSTORABLE as error:
        if len(page) == 1:
            reason = f"the database does not keep it: {str(error).splitlines()[0]}"
            done.refused.append(Note(LEFT_OUT, reason, page[0]))
            return
        for part in (page[: len(page) // 2], page[len(page) // 2 :]):
            _register_page(connection, job_id, part, model_id, rights, done)
        return
    done.notes.extend(notes)


def _own(connection: Connection, page: Sequence[Listed], rights: Rights, done: Registered) -> Sequence[Listed]:
    """A page without videos of creators that the job does not speak for: it neither changes them nor works on them."""
    if rights.creators is None:
        return page
    rows = connection.execute(
        "SELECT v.source_uri FROM media.videos v JOIN media.creators c ON c.id = v.creator_id"
        " WHERE v.source_uri = ANY(%s) AND c.handle <> ALL(%s)",
        ([video.source_uri for video in page], list(rights.creators)),
    ).fetchall()
    others = {uri for (uri,) in rows}
    reason = "it is a creator's whom this job does not speak for"
    done.refused.extend(Note(LEFT_OUT, reason, video, is_named=False) for video in page if video.source_uri in others)
    return [video for video in page if video.source_uri not in others]


def _taken_down(connection: Connection, job_id: str, page: Sequence[Listed]) -> list[Note]:
    rows = connection.execute(
        "SELECT v.source_uri FROM media.job_videos j JOIN media.videos v ON v.id = j.video_id"
        " WHERE j.job_id = %s AND j.outcome = 'removed' AND v.source_uri = ANY(%s)",
        (job_id, [video.source_uri for video in page]),
    ).fetchall()
    gone = {uri for (uri,) in rows}
    return [Note(TAKEN_DOWN, STAYS, video) for video in page if video.source_uri in gone]


def _register_videos(connection: Connection, page: Sequence[Listed]) -> None:
    rows = [
        {
            "source_uri": video.source_uri, "etag": video.etag, "size": video.size, "creator": video.creator,
            "title": video.title, "description": video.description, "tags": list(video.tags),
            "visibility": video.visibility or "public", "language": video.language or "english", "said": video.said(),
        }
        for video in page
    ]  # fmt: skip
    # A removed video stays removed; everything else starts anew when its object is another one.
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
    # What is done already is skipped here, in one statement for a page, without looking at a single object.
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
    connection.execute(  # one that is ready and looked at again has attempts of its own for that
        "UPDATE media.videos v SET failures = 0, attempts = 0 FROM media.job_videos j WHERE v.source_uri = ANY(%s)"
        " AND v.status = 'ready' AND v.lease_token IS NULL AND j.job_id = %s AND j.video_id = v.id AND j.outcome IS NULL",
        ([video.source_uri for video in page], job_id),
    )


def add_lacking(connection: Connection, job_id: str, model: str) -> int:
    """Make a job's all ready videos with a moment that a model has no vector of; how many. Each may be begun anew."""
    done = connection.execute(
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
    return done.rowcount


def finished(connection: Connection, videos: Sequence[Listed], model: str) -> dict[str, str]:
    """Those that a job would leave as they are, by their addresses: "ready", "quarantined" or "removed"."""
    found: dict[str, str] = {}
    for start in range(0, len(videos), PAGE_ROWS):
        page = videos[start : start + PAGE_ROWS]
        # The same question as `_add_to_job` asks, of contents that have not changed. No ETag: the address names it. What
        # was taken down stays so with any content.
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
        found.update(rows)
    return found


def _take_turns(connection: Connection, job_id: str) -> None:
    """Creators take turns: the first video of each, then the second of each.

    Of each the largest come first, so that no long one is left to be worked on alone at a job's end.
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
    """Change title, description, tags, visibility or language; what search finds follows in the same transaction."""
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
    """Let a repost earn, or no longer (see `reposts`); False where there is no such video."""
    with connection.transaction():
        if not reposts.accept(connection, video_id, is_accepted=is_accepted):
            return False
        bump_generation(connection)
        return True


def remove(connection: Connection, video_id: int) -> bool:
    """Take a video out of search for good. Its row stays, so that a later listing does not bring it back."""
    with connection.transaction():
        row = connection.execute(
            "UPDATE media.videos SET status = 'removed', lease_owner = NULL, lease_token = NULL, lease_until = NULL"
            " WHERE id = %s AND status <> 'removed' RETURNING id",
            (video_id,),
        ).fetchone()
        if row is None:
            return False
        for table in ("embeddings", "segments", "staging", "earlier_moments"):
            connection.execute(f"DELETE FROM media.{table} WHERE video_id = %s", (video_id,))
        bump_generation(connection)
        return True


def requeue(connection: Connection, video_ids: Sequence[int]) -> int:
    """Give quarantined and failed videos a fresh set of attempts."""
    done = connection.execute(
        "UPDATE media.videos SET status = 'queued', attempts = 0, failures = 0, error = NULL, error_code = NULL,"
        " retry_at = NULL WHERE id = ANY(%s) AND status IN ('quarantined', 'failed')",
        (list(video_ids),),
    )
    return done.rowcount


def bump_generation(connection: Connection, *, only_grown: bool = False) -> None:
    """Tell caches and cursors that something has changed. Last in its transaction, for it locks a row.

    `only_grown`: moments were added and none that could be shown has gone, so that answers that are kept may stay a
    little longer (`growth_interval_s`).
    """
    connection.execute("UPDATE media.generation SET value = value + 1, grown = grown + %s", (int(only_grown),))
