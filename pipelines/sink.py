"""Where chunks become a video: binary COPY into staging, then one finalising transaction for the whole.

Every write names the lease's fencing token; the transaction holds the video's row while it looks, so exactly one writer
sees the last chunk arrive, and one whose lease has passed on sees nothing. A video becomes visible whole, and doing it
all again changes nothing.
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
from pipelines import catalog, contents, frame_vectors, leases, segments
from pipelines.frame_vectors import Kept
from pipelines.losses import Losses
from pipelines.media import PIPELINE_VERSION, Floats, Segment, Times
from pipelines.relevance import SAME
from pipelines.segments import Staged
from pipelines.settings import IngestSettings
from pipelines.shots import FEATURES, Rules
from pipelines.thumbnails import Thumbnails

COLUMNS = (
    "video_id, lease_token, chunk, chunks, frame_ms, features, candidate_ms, sharpness, vectors, thumbnails,"
    " lost, frames, concealed"
)
TYPES = ("int8", "int8", "int4", "int4", *["bytea"] * 5, "bytea[]", "int4", "int4", "int4")


@dataclass(frozen=True)
class ChunkRow:
    """One chunk, decoded and embedded."""

    video_id: int
    token: int
    chunk: int
    chunks: int
    frame_ms: Times
    features: Floats
    candidate_ms: Times
    sharpness: Floats
    vectors: Floats
    thumbnails: Sequence[bytes]
    losses: Losses
    costs: Mapping[str, float]


def stage(connection: Connection, job_id: str, row: ChunkRow) -> bool:
    """Put a chunk into staging; True when it was the last one missing. The same chunk again replaces itself."""
    key = (row.video_id, row.token, row.chunk)
    with connection.transaction():
        if not _leased(connection, row.video_id, row.token):
            return False
        again = connection.execute(
            "DELETE FROM media.staging WHERE video_id = %s AND lease_token = %s AND chunk = %s", key
        ).rowcount
        with connection.cursor().copy(f"COPY media.staging ({COLUMNS}) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(TYPES)
            arrays = (row.frame_ms, row.features, row.candidate_ms, row.sharpness, row.vectors)
            counts = (row.losses.lost, row.losses.frames, row.losses.concealed)
            copy.write_row((*key, row.chunks, *(array.tobytes() for array in arrays), list(row.thumbnails), *counts))
        if not again:
            _count(connection, job_id, row)
        found = connection.execute(
            "SELECT count(*) FROM media.staging WHERE video_id = %s AND lease_token = %s", key[:2]
        ).fetchone()
        return found is not None and found[0] == row.chunks


def _leased(connection: Connection, video_id: int, token: int) -> bool:
    """Hold the video's row, if the lease still stands: the fence, and the order among writers of one video."""
    row = connection.execute(
        "SELECT 1 FROM media.videos WHERE id = %s AND lease_token = %s AND status <> 'removed' FOR UPDATE",
        (video_id, token),
    ).fetchone()
    return row is not None


def _count(connection: Connection, job_id: str, row: ChunkRow) -> None:
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
    same: float = SAME,
) -> segments.Kept | None:
    """Decide the shots, store the thumbnails, write the moments. None: the lease has passed on.

    Pictures are the same to the model from the cosine `same` on.
    """
    staged, duration_ms = _staged(connection, video_id, token)
    if staged is None:
        return None
    moments = _moments(Kept(staged, settings.mode), duration_ms, settings)
    pictures = Thumbnails(storage, bucket, video_id, token)
    with _taken_away(connection, pictures, video_id, token):
        if settings.frame_vectors:
            frame_vectors.write(storage, bucket, video_id, model_id, Kept(staged, settings.mode))
        uris = pictures.put(moments)
        with connection.transaction():
            is_ours = _leased(connection, video_id, token)
            shown = segments.thumbnails(connection, video_id)
            if is_ours:
                contents.take_over(connection, video_id, settings.earlier_moments_max)
                kept = segments.replace(connection, video_id, model_id, moments, uris, same=same)
                _make_ready(connection, job_id, video_id, token, kept)
                catalog.bump_generation(connection, only_grown=not kept.before)
    if not is_ours:
        pictures.drop(shown)
        _forget_removed(connection, pictures, video_id)
        return None
    pictures.keep(shown)
    return kept


def repool(
    connection: Connection,
    storage: Storage,
    video_id: int,
    model_id: int,
    *,
    bucket: str,
    settings: IngestSettings,
    spared: Sequence[str] = (),
) -> segments.Kept | None:
    """Make a ready video's moments anew of its frame vectors; without decoding. None: it is at work, or not ready, or
    another one has made them meanwhile, or ingested it again. Thumbnails that are `spared` stay, beside those that were
    shown until now.

    Raises:
        Rejected: the frame vectors are those of another version.
    """
    before = _free(connection, video_id)
    if before is None:
        return None
    moments = _moments(frame_vectors.read(storage, bucket, video_id, model_id), before.duration_ms, settings)
    pictures = Thumbnails(storage, bucket, video_id, leases.next_token(connection))
    with _taken_away(connection, pictures, video_id):
        uris = pictures.put(moments)
        with connection.transaction():
            is_free = _free(connection, video_id) == before
            shown = segments.thumbnails(connection, video_id)
            # One that began later and was committed first has deleted the thumbnails of this one.
            is_ours = is_free and not pictures.are_late(shown)
            if is_ours:
                kept = segments.replace(connection, video_id, model_id, moments, uris)
                catalog.bump_generation(connection, only_grown=not kept.before)
    if not is_ours:
        pictures.drop(shown)
        return None
    pictures.keep([*shown, *spared])
    return kept


@dataclass(frozen=True)
class _Free:
    """A video that is ready and that nobody is at work on: since when, which tells one ingest from the next."""

    duration_ms: int
    ready_at: datetime


def _free(connection: Connection, video_id: int) -> _Free | None:
    """Hold the video's row, if its moments are those of the object as it is and nobody is at work on it."""
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
    """Where this block fails, delete the attempt's thumbnails but for what is shown: a video that was taken down has no
    next attempt to do it. They stay while the lease stands, for a task of it that Ray has started twice may yet commit
    them, and where the database does not say what is shown.
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
        with suppress(Temporary):  # taking it down again deletes what is left
            frame_vectors.delete(pictures.storage, pictures.bucket, video_id)


def tidy(connection: Connection, storage: Storage, bucket: str, video_id: int) -> None:
    """Delete what attempts at a quarantined video have left behind: all thumbnails but those shown."""
    token = leases.next_token(connection)  # of an attempt that begins after this look, a later one
    pictures = Thumbnails(storage, bucket, video_id, token)
    is_quarantined = connection.execute(
        "SELECT 1 FROM media.videos WHERE id = %s AND status = 'quarantined'", (video_id,)
    ).fetchone()
    if is_quarantined:
        pictures.keep(segments.thumbnails(connection, video_id))


def _moments(kept: Kept, duration_ms: int, settings: IngestSettings) -> list[Segment]:
    rules = Rules(settings.shot_min_ms, settings.shot_max_ms)
    found = segments.find_shots(kept.staged, kept.mode, duration_ms, rules, settings.fixed_segment_ms)
    return segments.assemble(kept.staged, found)


def _staged(connection: Connection, video_id: int, token: int) -> tuple[Staged | None, int]:
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
    """What was lost of a video in all, and how many pictures there are of it."""
    row = connection.execute(
        "SELECT coalesce(sum(CASE WHEN least_frames > 0 THEN frames ELSE 0 END), 0), coalesce(sum(lost), 0),"
        " coalesce(sum(concealed), 0), coalesce(sum(length(candidate_ms)), 0) / 4"
        " FROM (SELECT *, min(frames) OVER () AS least_frames FROM media.staging"
        "       WHERE video_id = %s AND lease_token = %s) s",
        (video_id, token),
    ).fetchone()
    assert row is not None
    return Losses(*map(int, row))


def _make_ready(connection: Connection, job_id: str, video_id: int, token: int, kept: segments.Kept) -> None:
    said = losses(connection, video_id, token).warning() or None
    connection.execute(
        "UPDATE media.videos SET status = 'ready', ready_at = now(), pipeline_version = %s, error = NULL,"
        " error_code = NULL, retry_at = NULL, failures = 0, lease_owner = NULL, lease_token = NULL, lease_until = NULL,"
        " warning = nullif(concat_ws('; ', warning, %s::text), '')"
        " WHERE id = %s AND lease_token = %s",
        (PIPELINE_VERSION, said, video_id, token),
    )
    connection.execute(
        "UPDATE media.job_videos SET outcome = 'ready', segments = %s WHERE job_id = %s AND video_id = %s",
        (kept.segments, job_id, video_id),
    )
    connection.execute("DELETE FROM media.staging WHERE video_id = %s", (video_id,))
