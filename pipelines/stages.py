"""The stages of ingest as plain classes: what happens to one video, one chunk, one batch of chunks. No Ray in here.

A stage gets a row and returns a row. What goes wrong with a row comes back as a `Refused` row, which `Store` writes down;
nothing is raised for a bad file. Each stage can be called by hand.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from psycopg import Connection

from cluster import database
from cluster.errors import Rejected, Temporary
from cluster.runtime import S3Endpoint
from cluster.storage import Storage
from pipelines import answers, chunks, jobs, leases, sink
from pipelines.confinement import profiles
from pipelines.confinement.profiles import Profile
from pipelines.losses import Losses
from pipelines.media import TEMPORARY, UNCONFINED, Bytes8, Chunk, Failure, Floats, Times, Video
from pipelines.relevance import SAME
from pipelines.sandbox import Result, Sandbox
from pipelines.scratch import Scratch, content_hash
from pipelines.settings import IngestSettings, ModelSettings

if TYPE_CHECKING:
    from pipelines.encoder import Encoder

TURN_TIMEOUT_S = 60.0
FULL_HD = 1920 * 1080
CHUNK_SHORTEST_MS = 20_000


@dataclass(frozen=True)
class Model:
    """What the stages must know of the encoder without loading it."""

    id: int
    name: str
    image_size: int
    fit: str
    fingerprint: str
    same: float = SAME  # the cosine from which on moments show the same pictures


@dataclass(frozen=True)
class Place:
    """Where a job reads and writes, and by which rules. `owner` names this run of the job in leases."""

    job_id: str
    owner: str
    postgres_url: str
    s3: S3Endpoint
    bucket: str
    ingest: IngestSettings
    model_settings: ModelSettings
    model: Model
    files_ahead_max: int = 16

    def __repr__(self) -> str:
        return f"Place({self.owner!r})"  # the URL holds a password


@dataclass(frozen=True)
class Task:
    """One chunk to decode."""

    lease: leases.Lease
    chunk: Chunk
    order: Mapping[str, Any]
    fetch_s: float
    frames: int = 0  # of the whole video; 0: not known
    content_hash: str = ""  # of the file that was probed; empty: not known


@dataclass(frozen=True)
class Decoded:
    """One chunk, decoded: measurements of each frame, pictures of the candidates at the model's size."""

    task: Task
    frame_ms: Times
    features: Floats
    candidate_ms: Times
    sharpness: Floats
    candidates: Bytes8
    thumbnails: Sequence[bytes]
    losses: Losses
    decode_s: float
    memory_mb: float  # of the child, at its peak


@dataclass(frozen=True)
class Refused:
    """A video that stops here, and why."""

    video_id: int
    token: int
    failure: Failure


@dataclass(frozen=True)
class Done:
    """How far a row got: "staged", "ready", "queued", "unconfined", "quarantined", "fenced" or "busy"."""

    video_id: int
    outcome: str


AT_WORK = Done(0, "at work")  # of no video: a stage that takes long is alive


class Plan:
    """A video's id → its chunks: begins the attempt, fetches the file, probes it, cuts it."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def __call__(self, video_id: int) -> Iterator[Task | Refused | Done]:
        place = self._place
        scratch_of(place).wait_for_turn(TURN_TIMEOUT_S)
        with database.connect(place.postgres_url, autocommit=True) as connection:
            jobs.give_way(connection, place.job_id, TURN_TIMEOUT_S)
            lease = leases.claim(
                connection, video_id, place.owner, lease_s=place.ingest.lease_s, starts_max=place.ingest.starts_max
            )
            if isinstance(lease, Failure):
                sink.tidy(connection, storage_of(place.s3), place.bucket, video_id)
        if lease is None or isinstance(lease, Failure):
            yield Done(video_id, "busy" if lease is None else "quarantined")
            return
        try:
            with database.translate():
                yield from self._chunks(lease)
        except (Temporary, Rejected) as error:
            yield Refused(video_id, lease.token, as_failure(error))

    def _chunks(self, lease: leases.Lease) -> Iterator[Task | Refused]:
        place = self._place
        if lease.source_bytes > place.ingest.file_max_mb * 1024 * 1024:
            raise Rejected(f"the file is larger than {place.ingest.file_max_mb} MB", code="too-large")
        if failure := refusal(place.ingest):
            yield Refused(lease.video_id, lease.token, failure)
            return
        began = time.monotonic()
        with scratch_of(place).file(
            storage_of(place.s3), lease.source_uri, lease.source_etag, lease.source_bytes, wait=True
        ) as path:
            fetch_s = time.monotonic() - began
            video = probe(path, place.ingest)
            digest = content_hash(path) if isinstance(video, Video) else ""
        if isinstance(video, Failure):
            scratch_of(place).done(lease.source_uri, lease.source_etag)
            yield Refused(lease.video_id, lease.token, video)
            return
        with database.connect(place.postgres_url, autocommit=True) as connection:
            leases.describe(connection, lease, described(video) | {"content_hash": digest})
        mode = place.ingest.mode
        plan = chunks.plan(video, chunk_ms(video, place.ingest), mode)
        frames = sum(chunk.own_stop - chunk.own_first for chunk in plan)
        for number, chunk in enumerate(plan):
            order = chunks.order(video, chunk, mode) | picture_sizes(video, place)
            yield Task(lease, chunk, order, fetch_s if number == 0 else 0.0, frames, digest)


class Decode:
    """A chunk to decode → a chunk decoded, in the sandbox; the second decoder has its turn where the first gives up."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def __call__(self, row: Task | Refused | Done) -> Decoded | Refused | Done:
        if not isinstance(row, Task):
            return row
        lease, place = row.lease, self._place
        if self._is_over(row):
            scratch_of(place).drop(lease.source_uri, lease.source_etag, str(lease.token))
            return Done(lease.video_id, "fenced")
        try:
            result = refusal(place.ingest) or self._decoded(row)
        except (Temporary, Rejected) as error:
            result = as_failure(error)
        if isinstance(result, Failure):
            scratch_of(place).drop(lease.source_uri, lease.source_etag, str(lease.token))
            return Refused(lease.video_id, lease.token, result)
        scratch_of(place).done(lease.source_uri, lease.source_etag, row.chunk.number, row.chunk.count, str(lease.token))
        return result

    def _decoded(self, row: Task) -> Decoded | Failure:
        lease, place = row.lease, self._place
        with scratch_of(place).file(
            storage_of(place.s3), lease.source_uri, lease.source_etag, lease.source_bytes, digest=row.content_hash
        ) as path:
            return decode(path, row, place.ingest)

    def _is_over(self, row: Task) -> bool:
        """Whether another chunk has ended this attempt: on this machine, or anywhere, once it is written down."""
        lease, place = row.lease, self._place
        if row.chunk.count == 1:
            return False
        if scratch_of(place).dropped(lease.source_uri, lease.source_etag, str(lease.token)):
            return True
        with database.connect(place.postgres_url, autocommit=True) as connection:
            return not leases.holds(connection, lease)


class Embed:
    """Decoded chunks → rows for the sink. Holds the model; frames of several videos share its batches."""

    def __init__(self, place: Place) -> None:
        from pipelines import encoder

        model = place.model_settings
        self._encoder: Encoder = encoder.load(
            model.name,
            device=model.device,
            threads=model.threads,
            batch_frames=place.ingest.embed_batch_frames,
            compiled=model.compile,
        )
        assert self._encoder.fingerprint == place.model.fingerprint, "the model's weights differ between machines"

    def __call__(self, rows: Sequence[Decoded | Refused | Done]) -> Iterator[sink.ChunkRow | Refused | Done]:
        decoded = [row for row in rows if isinstance(row, Decoded)]
        yield from (row for row in rows if not isinstance(row, Decoded))
        if not decoded:
            return
        began, cpu = time.monotonic(), time.process_time()
        frames = np.concatenate([row.candidates for row in decoded])
        vectors, batch = self._encoder.frames(frames), self._encoder.batch_frames
        slots = -(-len(frames) // batch) * batch
        spent = max(time.process_time() - cpu, 0.0) or time.monotonic() - began
        at = 0
        for row in decoded:
            count = len(row.candidates)
            share = count / max(1, len(frames))
            yield chunk_row(row, vectors[at : at + count], spent * share, slots * share)
            at += count


class Store:
    """Rows → the database: chunks are staged, the last one of a video makes it ready, refusals are written down.

    A database that could not keep a chunk (its disk is full, it was too busy) is no fault of the video: it rests, and no
    attempt is counted.
    """

    def __init__(self, place: Place) -> None:
        self._place = place

    def __call__(self, row: sink.ChunkRow | Refused | Done) -> Done:
        if isinstance(row, Done):
            return row
        with database.connect(self._place.postgres_url, autocommit=True) as connection:
            if isinstance(row, Refused):
                return self._refuse(connection, row)
            try:
                with database.translate():
                    return self._staged(connection, row)
            except Temporary as error:
                return self._refuse(connection, Refused(row.video_id, row.token, as_failure(error)))

    def _staged(self, connection: Connection, row: sink.ChunkRow) -> Done:
        place = self._place
        if not sink.stage(connection, place.job_id, row):
            return Done(row.video_id, "staged")
        losses = sink.losses(connection, row.video_id, row.token)
        if failure := losses.refusal(place.ingest.decodable_share_min):
            return self._refuse(connection, Refused(row.video_id, row.token, failure))
        kept = sink.finalise(
            connection,
            storage_of(place.s3),
            row.video_id,
            row.token,
            model_id=place.model.id,
            bucket=place.bucket,
            settings=place.ingest,
            job_id=place.job_id,
            same=place.model.same,
        )
        return Done(row.video_id, "ready" if kept else "fenced")

    def _refuse(self, connection: Connection, row: Refused) -> Done:
        status = leases.fail(connection, row.video_id, row.token, row.failure, self._place.ingest)
        if status == "quarantined":
            sink.tidy(connection, storage_of(self._place.s3), self._place.bucket, row.video_id)
        return Done(row.video_id, UNCONFINED if status and row.failure.code == UNCONFINED else status or "fenced")


def refusal(settings: IngestSettings) -> Failure | None:
    """Why no file can be looked at on this machine, whatever it holds."""
    return sandbox().refusal(profiles.probe(settings))


def probe(path: Path, settings: IngestSettings) -> Video | Failure:
    """Look at a file in the sandbox."""
    arguments = {
        "path": str(path),
        "pixels_max": settings.pixels_max,
        "duration_max_s": settings.duration_max_s,
        "share_min": settings.decodable_share_min,
    }
    result = sandbox().run("probe", arguments, profiles.probe(settings))
    if isinstance(result, Failure):
        return result
    return answers.video(result.values, result.arrays, settings.duration_max_s)


def decode(path: Path, task: Task, settings: IngestSettings) -> Decoded | Failure:
    """Decode a chunk in the sandbox; with PyAV after decord has failed."""
    profile = profiles.decode(settings)
    copied = task.order["decoder"] == "decord" and not task.order["whole"]
    order = {**task.order, "path": str(path), "scratch": f"{path}-{task.chunk.number}.mkv" if copied else ""}
    result = _answer(order, profile)
    if isinstance(result, Failure) and order["decoder"] == "decord" and not result.final:
        result = _answer({**order, "decoder": "av"}, profile)
    if isinstance(result, Failure):
        return result
    arrays = from_zero(result.arrays)
    losses = _losses(task, result.values, len(arrays["candidate_ms"]))
    whole = dataclasses.replace(losses, frames=max(task.frames, losses.frames), pictures=1)
    if failure := whole.refusal(settings.decodable_share_min):  # more is lost in this chunk than the file may lose
        return failure
    pictures = chunks.thumbnails(arrays["thumbnail_sizes"], arrays["thumbnails"])
    names = ("frame_ms", "features", "candidate_ms", "sharpness", "candidates")
    found: dict[str, Any] = {name: arrays[name] for name in names}
    found |= {"thumbnails": pictures, "decode_s": result.cpu_seconds, "memory_mb": result.memory_mb}
    return Decoded(task=task, **found, losses=losses)


def _answer(order: Mapping[str, Any], profile: Profile) -> Result | Failure:
    """What one decoder gives, if it is an answer to the order."""
    result = sandbox().run("decode", order, profile)
    if isinstance(result, Failure):
        return result
    return answers.chunk(result.values, result.arrays, order) or result


def _losses(task: Task, values: Mapping[str, Any], pictures: int) -> Losses:
    wanted = task.chunk.own_stop - task.chunk.own_first
    return Losses(wanted, max(0, wanted - int(values["decoded"])), int(values["concealed"]), pictures)


def from_zero(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Without frames from before the video begins: a decoder finds some where damage has cost the index a packet."""
    frames, pictures = (int((arrays[name] < 0).sum()) for name in ("frame_ms", "candidate_ms"))
    skipped = {"frame_ms": frames, "features": frames, "candidate_ms": pictures, "sharpness": pictures,
               "candidates": pictures, "thumbnail_sizes": pictures,
               "thumbnails": int(arrays["thumbnail_sizes"][:pictures].sum())}  # fmt: skip
    return {name: arrays[name][start:] for name, start in skipped.items()}


def chunk_row(row: Decoded, vectors: Floats, embed_s: float, slots: float) -> sink.ChunkRow:
    lease, chunk = row.task.lease, row.task.chunk
    costs = {
        "fetch_s": row.task.fetch_s,
        "decode_s": row.decode_s,
        "embed_s": embed_s,
        "embed_slots": slots,
        "bytes": lease.source_bytes if chunk.number == 0 else 0,
    }
    return sink.ChunkRow(
        lease.video_id, lease.token, chunk.number, chunk.count, row.frame_ms, row.features, row.candidate_ms,
        row.sharpness, vectors, row.thumbnails, row.losses, costs,
    )  # fmt: skip


def chunk_ms(video: Video, settings: IngestSettings) -> int:
    """Large pictures decode slower: their chunks are shorter, so that a chunk is a matter of seconds."""
    scale = min(1.0, 2 * FULL_HD / (video.width * video.height))
    return max(min(CHUNK_SHORTEST_MS, settings.chunk_ms), int(settings.chunk_ms * scale))


def picture_sizes(video: Video, place: Place) -> dict[str, Any]:
    side = max(place.model.image_size, place.ingest.thumbnail_side_px)
    width, height = chunks.decode_size(video, side)
    return {
        "width": width,
        "height": height,
        "model_side": place.model.image_size,
        "fit": place.model.fit,
        "thumbnail_side": place.ingest.thumbnail_side_px,
        "interval_ms": place.ingest.sample_interval_ms,
    }


def described(video: Video) -> dict[str, Any]:
    names = ("container", "codec", "width", "height", "fps", "duration_ms", "has_audio", "warning")
    return {name: getattr(video, name) for name in names}


def as_failure(error: Temporary | Rejected) -> Failure:
    """What a dependency said, as a reason: away is temporary, refused is final, unless it refuses us and not the file."""
    if isinstance(error, Temporary):
        return Failure(TEMPORARY, error.public)
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Failure(TEMPORARY, error.detail)
    return Failure(error.code, error.detail, final=True)


@lru_cache(maxsize=1)
def sandbox() -> Sandbox:
    """This process's keeper of decoders, started when it is first needed."""
    return Sandbox()


@lru_cache(maxsize=4)
def storage_of(endpoint: S3Endpoint) -> Storage:
    return Storage(endpoint)


def scratch_of(place: Place) -> Scratch:
    return Scratch.of(place.ingest, place.s3.url, place.bucket, place.files_ahead_max)
