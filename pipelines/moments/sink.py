"""Storing chunks and completing videos: binary COPY into staging, then one finalising transaction for a whole video.

Every write checks the lease's fencing token. The transaction locks the video's row while it counts the chunks, so
exactly one writer sees the last chunk arrive, and a writer whose lease has expired writes nothing. A video becomes
visible as a whole, and doing it all again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import psycopg
from psycopg import Connection

from cluster.errors import Temporary
from cluster.storage import Storage
from pipelines.catalog import catalog
from pipelines.jobs import leases
from pipelines.media import PIPELINE_VERSION, Floats, Segment, Times
from pipelines.moments import frame_vectors, segments
from pipelines.moments.frame_vectors import StoredFrameVectors
from pipelines.moments.losses import Losses
from pipelines.moments.segments import Staged
from pipelines.moments.shots import FEATURES, Rules
from pipelines.moments.thumbnails import Thumbnails
from pipelines.settings import IngestSettings

COLUMNS = (
    "video_id, lease_token, chunk, chunks, frame_ms, features, candidate_ms, sharpness, vectors, thumbnails,"
    " lost, frames, concealed"
)
TYPES = ("int8", "int8", "int4", "int4", *["bytea"] * 5, "bytea[]", "int4", "int4", "int4")


@dataclass(frozen=True)
class ChunkRow:
    """One chunk, decoded and embedded: the row of `media.staging`."""

    video_id: int
    token: int  # of the lease
    chunk: int  # number, from 0
    chunks: int  # of the video
    frame_ms: Times  # (frames,), owned frames
    features: Floats  # (frames, shots.FEATURES)
    candidate_ms: Times  # (candidates,)
    sharpness: Floats  # (candidates,)
    vectors: Floats  # (candidates, dimensions)
    thumbnails: Sequence[bytes]  # WebP, one a candidate
    losses: Losses
    costs: Mapping[
        str, float
    ]  # columns of `media.job_videos` to add to: seconds, bytes, slots of the encoder's batches


def stage(connection: Connection, job_id: str, row: ChunkRow) -> bool:
    """Store a chunk in staging, in place of an earlier copy; return True if all chunks of the attempt are there now.

    Row: `ChunkRow(video_id=7, token=41, chunk=2, chunks=3, …)`. Result: True once rows 0, 1 and 2 of token 41 are
    there. If the lease has ended, nothing is stored and the result is False.
    """
    key = (row.video_id, row.token, row.chunk)
    with connection.transaction():
        if not _leased(connection, row.video_id, row.token):
            return False
        replaced = connection.execute(
            "DELETE FROM media.staging WHERE video_id = %s AND lease_token = %s AND chunk = %s", key
        ).rowcount
        with connection.cursor().copy(f"COPY media.staging ({COLUMNS}) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(TYPES)
            arrays = (row.frame_ms, row.features, row.candidate_ms, row.sharpness, row.vectors)
            counts = (row.losses.lost, row.losses.frames, row.losses.concealed)
            copy.write_row((*key, row.chunks, *(array.tobytes() for array in arrays), list(row.thumbnails), *counts))
        if not replaced:
            _count(connection, job_id, row)
        staged = connection.execute(
            "SELECT count(*) FROM media.staging WHERE video_id = %s AND lease_token = %s", key[:2]
        ).fetchone()
        return staged is not None and staged[0] == row.chunks


def _leased(connection: Connection, video_id: int, token: int) -> bool:
    """Return whether the lease is still valid; if it is, lock the video's row.

    So writers of ended attempts are refused, and others write one after the other.
    """
    row = connection.execute(
        "SELECT 1 FROM media.videos WHERE id = %s AND lease_token = %s AND status <> 'removed' FOR UPDATE",
        (video_id, token),
    ).fetchone()
    return row is not None


def _count(connection: Connection, job_id: str, row: ChunkRow) -> None:
    """Add a chunk's costs to the job's figures for the video."""
    connection.execute(
        "UPDATE media.job_videos SET frames = frames + %(frames)s, bytes = bytes + %(bytes)s,"
        " fetch_seconds = fetch_seconds + %(fetch_s)s, decode_seconds = decode_seconds + %(decode_s)s,"
        " embed_seconds = embed_seconds + %(embed_s)s, embedded = embedded + %(embedded)s,"
        " embed_slots = embed_slots + %(embed_slots)s"
        " WHERE job_id = %(job)s AND video_id = %(video)s",
        {
            **row.costs,
            "frames": len(row.frame_ms),
            "embedded": len(row.candidate_ms),
            "job": job_id,
            "video": row.video_id,
        },
    )


def finalise(
    connection: Connection,
    storage: Storage,
    video_id: int,
    token: int,
    *,
    model_id: int,
    bucket: str,
    settings: IngestSettings,
    job_id: str,
) -> segments.SegmentsWritten | None:
    """Turn a video's staged chunks into segments and make it ready.

    Args:
        connection: Connection to the primary, in autocommit mode.
        storage: Object store for thumbnails and frame vectors.
        video_id: Number of the video.
        token: Fencing token of the attempt.
        model_id: Number of the model that made the vectors.
        bucket: Bucket for thumbnails and frame vectors.
        settings: Rules for shots.
        job_id: Job whose figures count the segments.

    Returns:
        The counts of the video's segments; None if the lease has expired or chunks are missing.
    """
    staged, duration_ms = _staged(connection, video_id, token)
    if staged is None:
        return None
    moments = _moments(StoredFrameVectors(staged, settings.mode), duration_ms, settings)
    pictures = Thumbnails(storage, bucket, video_id, token)
    with _taken_away(connection, pictures, video_id, token):
        if settings.frame_vectors:
            frame_vectors.write(storage, bucket, video_id, model_id, StoredFrameVectors(staged, settings.mode))
        uris = pictures.put(moments)
        with connection.transaction():
            is_ours = _leased(connection, video_id, token)
            shown = segments.thumbnails(connection, video_id)
            if is_ours:
                written = segments.replace(connection, video_id, model_id, moments, uris)
                _make_ready(connection, job_id, video_id, token, written)
                catalog.bump_generation(connection, only_grown=not written.before)
    if not is_ours:
        pictures.drop(shown)
        _forget_removed(connection, pictures, video_id)
        return None
    pictures.keep(shown)
    return written


def repool(
    connection: Connection,
    storage: Storage,
    video_id: int,
    model_id: int,
    *,
    bucket: str,
    settings: IngestSettings,
    spared: Sequence[str] = (),
) -> segments.SegmentsWritten | None:
    """Make the segments of a ready video again from its frame vectors, without decoding.

    Args:
        connection: Connection to the primary, in autocommit mode.
        storage: Object store of frame vectors and thumbnails.
        video_id: Number of the video.
        model_id: Number of the model whose vectors to use.
        bucket: Bucket of frame vectors and thumbnails.
        settings: Rules for shots.
        spared: URIs of older thumbnails to keep, besides those that were shown until now.

    Returns:
        The counts of the video's segments; None if the video is not ready, is being ingested, or was changed meanwhile.

    Raises:
        Rejected: the frame vectors are of another version of the pipeline.
    """
    video = _free(connection, video_id)
    if video is None:
        return None
    moments = _moments(frame_vectors.read(storage, bucket, video_id, model_id), video.duration_ms, settings)
    pictures = Thumbnails(storage, bucket, video_id, leases.next_token(connection))
    with _taken_away(connection, pictures, video_id):
        uris = pictures.put(moments)
        with connection.transaction():
            is_free = _free(connection, video_id) == video
            shown = segments.thumbnails(connection, video_id)
            # A run that began later and was committed first has deleted the thumbnails of this one.
            is_ours = is_free and not pictures.are_late(shown)
            if is_ours:
                written = segments.replace(connection, video_id, model_id, moments, uris)
                catalog.bump_generation(connection, only_grown=not written.before)
    if not is_ours:
        pictures.drop(shown)
        return None
    pictures.keep([*shown, *spared])
    return written


@dataclass(frozen=True)
class _Free:
    """A ready video without a lease; `ready_at` tells one ingest from the next."""

    duration_ms: int
    ready_at: datetime


def _free(connection: Connection, video_id: int) -> _Free | None:
    """Lock the video's row if it can be searched, is unchanged since it was ingested, and has no lease."""
    row = connection.execute(
        f"SELECT duration_ms, ready_at FROM media.videos WHERE id = %s AND {leases.SEARCHABLE} AND lease_token IS NULL"
        " FOR UPDATE",
        (video_id,),
    ).fetchone()
    return _Free(*row) if row else None


@contextmanager
def _taken_away(
    connection: Connection, pictures: Thumbnails, video_id: int, token: int | None = None
) -> Iterator[None]:
    """If the block fails, delete the attempt's thumbnails that are not shown.

    No later attempt would delete them if the video was removed meanwhile. They stay while the lease `token` is valid,
    because a second run of the same task may still commit them, and also if the database cannot say which are shown.
    """
    try:
        yield
    except Exception:
        with suppress(psycopg.Error):
            if token is None or not _leased(connection, video_id, token):
                pictures.drop(segments.thumbnails(connection, video_id))
                _forget_removed(connection, pictures, video_id)
        raise


def _forget_removed(connection: Connection, pictures: Thumbnails, video_id: int) -> None:
    """Delete the frame vectors of a video that was taken down while they were written."""
    row = connection.execute("SELECT 1 FROM media.videos WHERE id = %s AND status = 'removed'", (video_id,)).fetchone()
    if row is not None:
        with suppress(Temporary):  # a repeated takedown deletes what is left
            frame_vectors.delete(pictures.storage, pictures.bucket, video_id)


def tidy(connection: Connection, storage: Storage, bucket: str, video_id: int) -> None:
    """Delete the thumbnails that attempts at a quarantined video have left behind, except those that are shown.

    Args:
        connection: Connection to the primary.
        storage: Object store of the thumbnails.
        bucket: Bucket of the thumbnails.
        video_id: Number of the video; nothing is deleted unless it is quarantined.
    """
    token = leases.next_token(connection)  # attempts that begin after this get a larger one
    pictures = Thumbnails(storage, bucket, video_id, token)
    is_quarantined = connection.execute(
        "SELECT 1 FROM media.videos WHERE id = %s AND status = 'quarantined'", (video_id,)
    ).fetchone()
    if is_quarantined:
        pictures.keep(segments.thumbnails(connection, video_id))


def _moments(vectors: StoredFrameVectors, duration_ms: int, settings: IngestSettings) -> list[Segment]:
    """Find the shots and make segments of them."""
    rules = Rules(settings.shot_min_ms, settings.shot_max_ms)
    shots_found = segments.find_shots(vectors.staged, vectors.mode, duration_ms, rules, settings.fixed_segment_ms)
    return segments.assemble(vectors.staged, shots_found)


def _staged(connection: Connection, video_id: int, token: int) -> tuple[Staged | None, int]:
    """Return all staged chunks of a video as one, with its duration; None if the lease has expired or chunks are missing."""
    with connection.transaction():
        rows = connection.execute(
            "SELECT s.frame_ms, s.features, s.candidate_ms, s.sharpness, s.vectors, s.thumbnails, s.chunks,"
            " v.duration_ms"
            " FROM media.staging s JOIN media.videos v ON v.id = s.video_id AND v.lease_token = s.lease_token"
            " WHERE s.video_id = %s AND s.lease_token = %s ORDER BY s.chunk",
            (video_id, token),
            binary=True,
        ).fetchall()
    if not rows or len(rows) != rows[0][6]:
        return None, 0
    candidates = sum(len(row[2]) for row in rows) // 4
    vectors = np.frombuffer(b"".join(row[4] for row in rows), np.float32)
    return (
        Staged(
            np.frombuffer(b"".join(row[0] for row in rows), np.int32),
            np.frombuffer(b"".join(row[1] for row in rows), np.float32).reshape(-1, FEATURES),
            np.frombuffer(b"".join(row[2] for row in rows), np.int32),
            np.frombuffer(b"".join(row[3] for row in rows), np.float32),
            vectors.reshape(candidates, -1),
            [bytes(picture) for row in rows for picture in row[5]],
        ),
        rows[0][7],
    )


def losses(connection: Connection, video_id: int, token: int) -> Losses:
    """Return what was lost of the whole video, and how many candidates it has."""
    row = connection.execute(
        "SELECT coalesce(sum(CASE WHEN least_frames > 0 THEN frames ELSE 0 END), 0), coalesce(sum(lost), 0),"
        " coalesce(sum(concealed), 0), coalesce(sum(length(candidate_ms)), 0) / 4"
        " FROM (SELECT *, min(frames) OVER () AS least_frames FROM media.staging"
        "       WHERE video_id = %s AND lease_token = %s) s",
        (video_id, token),
    ).fetchone()
    assert row is not None  # an aggregate returns a row
    return Losses(*map(int, row))


def _make_ready(
    connection: Connection, job_id: str, video_id: int, token: int, written: segments.SegmentsWritten
) -> None:
    """Mark the video as ready, end its lease, count it for the job, and empty its staging."""
    warning = losses(connection, video_id, token).warning() or None
    connection.execute(
        "UPDATE media.videos SET status = 'ready', ready_at = now(), pipeline_version = %s, error = NULL,"
        " error_code = NULL, retry_at = NULL, failures = 0, lease_owner = NULL, lease_token = NULL, lease_until = NULL,"
        " warning = nullif(concat_ws('; ', warning, %s::text), '')"
        " WHERE id = %s AND lease_token = %s",
        (PIPELINE_VERSION, warning, video_id, token),
    )
    connection.execute(
        "UPDATE media.job_videos SET outcome = 'ready', segments = %s WHERE job_id = %s AND video_id = %s",
        (written.segments, job_id, video_id),
    )
    connection.execute("DELETE FROM media.staging WHERE video_id = %s", (video_id,))
