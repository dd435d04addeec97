"""The stages of ingest as plain classes, without Ray: what happens to one video, one chunk, one batch of chunks.

    video id → Plan → Task … → Decode → Decoded → Embed → ChunkRow → Store → Done

A stage takes a row and gives rows. A row that fails becomes a `Refused` row, which `Store` records; a bad file raises
nothing. `Refused` and `Done` rows pass through the stages behind them unchanged. Each stage can be called by hand.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from psycopg import Connection

from cluster.database import database
from cluster.errors import Rejected, Temporary
from cluster.runtime import S3Endpoint
from cluster.storage import Storage
from pipelines.confinement import profiles
from pipelines.confinement.profiles import Profile
from pipelines.decode import chunks
from pipelines.jobs import jobs, leases
from pipelines.media import TEMPORARY, UNCONFINED, Bytes8, Chunk, Failure, Floats, Times, Video
from pipelines.models.registry import ModelInfo
from pipelines.moments import sink
from pipelines.moments.losses import Losses
from pipelines.sandbox import answers
from pipelines.sandbox.sandbox import Result, Sandbox
from pipelines.sandbox.scratch import Scratch
from pipelines.settings import IngestSettings, ModelSettings

if TYPE_CHECKING:
    from pipelines.models.encoder import Encoder

TURN_TIMEOUT_S = 60.0  # for more urgent jobs, and for files that are fetched already
FULL_HD = 1920 * 1080  # pixels
CHUNK_SHORTEST_MS = 20_000


@dataclass(frozen=True)
class JobContext:
    """What all stages of a job share: where it reads and writes, and by which settings."""

    job_id: str
    owner: str  # of the leases: this run of the job, "job/submission"
    postgres_url: str
    s3: S3Endpoint
    bucket: str  # for thumbnails and frame vectors
    ingest: IngestSettings
    model_settings: ModelSettings
    model: ModelInfo
    files_ahead_max: int = 16  # files fetched ahead of decoding, on each machine

    def __repr__(self) -> str:
        return f"JobContext({self.owner!r})"  # the URL holds a password


@dataclass(frozen=True)
class Task:
    """One chunk to decode: the row between Plan and Decode."""

    lease: leases.Lease
    chunk: Chunk
    order: Mapping[str, Any]  # fields of a `decoders.DecodeRequest`, without path and scratch
    fetch_s: float  # how long fetching the file took; counted in the first chunk alone
    frames: int = 0  # of the whole video; 0: not known


@dataclass(frozen=True)
class Decoded:
    """One chunk, decoded: the row between Decode and Embed."""

    task: Task
    frame_ms: Times  # (frames,), of the owned frames
    features: Floats  # (frames, shots.FEATURES); (0, shots.FEATURES) in modes that look for no cuts
    candidate_ms: Times  # (candidates,)
    sharpness: Floats  # (candidates,)
    candidates: Bytes8  # (candidates, side, side, 3), at the model's size
    thumbnails: Sequence[bytes]  # WebP, one a candidate
    losses: Losses
    decode_s: float  # CPU time
    memory_mb: float  # of the child, at its peak


@dataclass(frozen=True)
class Refused:
    """A failed attempt at a video: the row that any stage may give."""

    video_id: int
    token: int  # of its lease
    failure: Failure


@dataclass(frozen=True)
class Done:
    """How far a row got: the row that ends the pipeline. `Plan` and `Decode` may give it too."""

    video_id: int
    outcome: str  # "staged", "ready", "queued", "unconfined", "quarantined", "fenced" or "busy"


AT_WORK = Done(0, "at work")  # concerns no video: a sign that a slow stage is alive


class Plan:
    """Begin an attempt at a video: claim its lease, fetch the file, probe it, and cut it into chunks.

    Takes a video id. Gives a `Task` for each chunk; or one `Refused`; or `Done` with "busy" if the video has a lease,
    is finished or must wait, or with "quarantined" if it has been started too often.

    Example:
        `7` → `Task(chunk=Chunk(number=0, count=2, …), …)`, `Task(chunk=Chunk(number=1, count=2, …), …)`
    """

    def __init__(self, context: JobContext) -> None:
        self._context = context

    def __call__(self, video_id: int) -> Iterator[Task | Refused | Done]:
        context = self._context
        scratch_of(context).wait_for_turn(TURN_TIMEOUT_S)
        with database.connect(context.postgres_url, autocommit=True) as connection:
            jobs.give_way(connection, context.job_id, TURN_TIMEOUT_S)
            lease = leases.claim(
                connection,
                video_id,
                context.owner,
                lease_s=context.ingest.lease_s,
                starts_max=context.ingest.starts_max,
            )
            if isinstance(lease, Failure):
                sink.tidy(connection, storage_of(context.s3), context.bucket, video_id)
        if lease is None or isinstance(lease, Failure):
            yield Done(video_id, "busy" if lease is None else "quarantined")
            return
        try:
            with database.translate():
                yield from self._chunks(lease)
        except (Temporary, Rejected) as error:
            yield Refused(video_id, lease.token, as_failure(error))

    def _chunks(self, lease: leases.Lease) -> Iterator[Task | Refused]:
        """Fetch and probe the leased file, and yield its chunks."""
        context = self._context
        if lease.source_bytes > context.ingest.file_max_mb * 1024 * 1024:
            raise Rejected(f"the file is larger than {context.ingest.file_max_mb} MB", code="too-large")
        if failure := refusal(context.ingest):
            yield Refused(lease.video_id, lease.token, failure)
            return
        began = time.monotonic()
        with scratch_of(context).file(
            storage_of(context.s3), lease.source_uri, lease.source_etag, lease.source_bytes, wait=True
        ) as path:
            fetch_s = time.monotonic() - began
            video = probe(path, context.ingest)
            digest = content_hash(path) if isinstance(video, Video) else ""
        if isinstance(video, Failure):
            scratch_of(context).done(lease.source_uri, lease.source_etag)
            yield Refused(lease.video_id, lease.token, video)
            return
        with database.connect(context.postgres_url, autocommit=True) as connection:
            leases.describe(connection, lease, probed_columns(video) | {"content_hash": digest})
        mode = context.ingest.mode
        plan = chunks.plan(video, chunk_ms(video, context.ingest), mode)
        frames = sum(chunk.own_stop - chunk.own_first for chunk in plan)
        for number, chunk in enumerate(plan):
            order = chunks.order(video, chunk, mode) | picture_sizes(video, context)
            yield Task(lease, chunk, order, fetch_s if number == 0 else 0.0, frames)


class Decode:
    """Decode a chunk in the sandbox, with decord or PyAV as probing chose, and with PyAV if decord fails.

    Takes a `Task`. Gives `Decoded`; or `Refused`; or `Done` with "fenced" if this attempt has ended.

    Example:
        `Task(chunk=Chunk(number=0, …), …)` → `Decoded(frame_ms=[0, 40, 80, …], candidate_ms=[0, 1000, …], …)`
    """

    def __init__(self, context: JobContext) -> None:
        self._context = context

    def __call__(self, row: Task | Refused | Done) -> Decoded | Refused | Done:
        if not isinstance(row, Task):
            return row
        lease, context = row.lease, self._context
        if self._is_over(row):
            scratch_of(context).drop(lease.source_uri, lease.source_etag, str(lease.token))
            return Done(lease.video_id, "fenced")
        try:
            result = refusal(context.ingest) or self._decoded(row)
        except (Temporary, Rejected) as error:
            result = as_failure(error)
        if isinstance(result, Failure):
            scratch_of(context).drop(lease.source_uri, lease.source_etag, str(lease.token))
            return Refused(lease.video_id, lease.token, result)
        scratch_of(context).done(
            lease.source_uri, lease.source_etag, row.chunk.number, row.chunk.count, str(lease.token)
        )
        return result

    def _decoded(self, row: Task) -> Decoded | Failure:
        """Decode the chunk from the file in the scratch folder."""
        lease, context = row.lease, self._context
        with scratch_of(context).file(
            storage_of(context.s3), lease.source_uri, lease.source_etag, lease.source_bytes
        ) as path:
            return decode(path, row, context.ingest)

    def _is_over(self, row: Task) -> bool:
        """Whether another chunk on this machine, or the database, says that the attempt has ended.

        A video of a single chunk is not looked up.
        """
        lease, context = row.lease, self._context
        if row.chunk.count == 1:
            return False
        if scratch_of(context).dropped(lease.source_uri, lease.source_etag, str(lease.token)):
            return True
        with database.connect(context.postgres_url, autocommit=True) as connection:
            return not leases.holds(connection, lease)


class Embed:
    """Encode the candidates of several chunks in the model's batches; holds the model.

    Takes a list of rows. Gives a `sink.ChunkRow` for each `Decoded`.

    Example:
        `[Decoded(candidates=(3, 224, 224, 3), …)]` → `ChunkRow(vectors=(3, 512), …)` (shapes in place of arrays)
    """

    def __init__(self, context: JobContext) -> None:
        """Load the model, and check that it is the registered one."""
        from pipelines.models import encoder

        model = context.model_settings
        self._encoder: Encoder = encoder.load(
            model.name,
            device=model.device,
            threads=model.threads,
            batch_frames=context.ingest.embed_batch_frames,
            compiled=model.compile,
        )
        assert self._encoder.fingerprint == context.model.fingerprint, "the model's weights differ between machines"

    def __call__(self, rows: Sequence[Decoded | Refused | Done]) -> Iterator[sink.ChunkRow | Refused | Done]:
        decoded = [row for row in rows if isinstance(row, Decoded)]
        yield from (row for row in rows if not isinstance(row, Decoded))
        if not decoded:
            return
        began, cpu = time.monotonic(), time.process_time()
        frames = np.concatenate([row.candidates for row in decoded])  # (candidates of all rows, side, side, 3)
        vectors = self._encoder.frames(frames)  # (candidates of all rows, dimensions)
        batch = self._encoder.batch_frames  # read afterwards, since a batch that does not fit is halved
        slots = -(-len(frames) // batch) * batch
        spent = max(time.process_time() - cpu, 0.0) or time.monotonic() - began
        start = 0
        for row in decoded:
            count = len(row.candidates)
            share = count / max(1, len(frames))
            yield chunk_row(row, vectors[start : start + count], spent * share, slots * share)
            start += count


class Store:
    """Write rows to the database: stage a chunk, make a video ready with its last chunk, record a refusal.

    Takes a `sink.ChunkRow` or `Refused`. Gives `Done`. If the database could not store a chunk (its disk is full, it
    was too busy), the video is not at fault: it is queued again and the attempt is not counted.

    Example:
        `ChunkRow(video_id=7, chunk=0, chunks=2, …)` → `Done(7, "staged")`; then chunk 1 → `Done(7, "ready")`
    """

    def __init__(self, context: JobContext) -> None:
        self._context = context

    def __call__(self, row: sink.ChunkRow | Refused | Done) -> Done:
        if isinstance(row, Done):
            return row
        with database.connect(self._context.postgres_url, autocommit=True) as connection:
            if isinstance(row, Refused):
                return self._refuse(connection, row)
            try:
                with database.translate():
                    return self._staged(connection, row)
            except Temporary as error:
                return self._refuse(connection, Refused(row.video_id, row.token, as_failure(error)))

    def _staged(self, connection: Connection, row: sink.ChunkRow) -> Done:
        """Stage a chunk; after the last one, check what was lost and make the video ready."""
        context = self._context
        if not sink.stage(connection, context.job_id, row):
            return Done(row.video_id, "staged")
        losses = sink.losses(connection, row.video_id, row.token)
        if failure := losses.refusal(context.ingest.decodable_share_min):
            return self._refuse(connection, Refused(row.video_id, row.token, failure))
        written = sink.finalise(
            connection,
            storage_of(context.s3),
            row.video_id,
            row.token,
            model_id=context.model.id,
            bucket=context.bucket,
            settings=context.ingest,
            job_id=context.job_id,
        )
        return Done(row.video_id, "ready" if written else "fenced")

    def _refuse(self, connection: Connection, row: Refused) -> Done:
        """Record the failure, and delete what a quarantined video has left behind."""
        status = leases.fail(connection, row.video_id, row.token, row.failure, self._context.ingest)
        if status == "quarantined":
            sink.tidy(connection, storage_of(self._context.s3), self._context.bucket, row.video_id)
        return Done(row.video_id, UNCONFINED if status and row.failure.code == UNCONFINED else status or "fenced")


def refusal(settings: IngestSettings) -> Failure | None:
    """Return why this machine cannot decode any file, or None."""
    return sandbox().refusal(profiles.probe(settings))


def probe(path: Path, settings: IngestSettings) -> Video | Failure:
    """Probe a file in the sandbox."""
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
    """Decode a chunk in the sandbox; with PyAV if decord fails."""
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
    losses_of_video = dataclasses.replace(losses, frames=max(task.frames, losses.frames), pictures=1)
    if failure := losses_of_video.refusal(
        settings.decodable_share_min
    ):  # this chunk alone lost more than the file may lose
        return failure
    pictures = chunks.thumbnails(arrays["thumbnail_sizes"], arrays["thumbnails"])
    names = ("frame_ms", "features", "candidate_ms", "sharpness", "candidates")
    values: dict[str, Any] = {name: arrays[name] for name in names}
    values |= {"thumbnails": pictures, "decode_s": result.cpu_seconds, "memory_mb": result.memory_mb}
    return Decoded(task=task, **values, losses=losses)


def _answer(order: Mapping[str, Any], profile: Profile) -> Result | Failure:
    """Run one decoder, and check its answer against the request."""
    result = sandbox().run("decode", order, profile)
    if isinstance(result, Failure):
        return result
    return answers.chunk(result.values, result.arrays, order) or result


def _losses(task: Task, values: Mapping[str, Any], pictures: int) -> Losses:
    """Return what the decoder lost of the chunk's owned frames."""
    owned_frames = task.chunk.own_stop - task.chunk.own_first
    return Losses(owned_frames, max(0, owned_frames - int(values["decoded"])), int(values["concealed"]), pictures)


def from_zero(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Drop frames with negative times; a decoder returns them if damage has hidden packets from the index."""
    frames, pictures = (int((arrays[name] < 0).sum()) for name in ("frame_ms", "candidate_ms"))
    skipped = {"frame_ms": frames, "features": frames, "candidate_ms": pictures, "sharpness": pictures,
               "candidates": pictures, "thumbnail_sizes": pictures,
               "thumbnails": int(arrays["thumbnail_sizes"][:pictures].sum())}  # fmt: skip
    return {name: arrays[name][start:] for name, start in skipped.items()}


def chunk_row(row: Decoded, vectors: Floats, embed_s: float, slots: float) -> sink.ChunkRow:
    """Return a decoded chunk as a row of the staging table.

    Args:
        row: The chunk.
        vectors: float32 (candidates, dimensions), unit length.
        embed_s: Its share of the encoder's time in seconds.
        slots: Its share of the frames in the encoder's batches, padding included.

    Returns:
        The row.
    """
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
    """Return the length of a video's chunks in milliseconds; it is shorter for large pictures, which decode slowly."""
    scale = min(1.0, 2 * FULL_HD / (video.width * video.height))
    return max(min(CHUNK_SHORTEST_MS, settings.chunk_ms), int(settings.chunk_ms * scale))


def picture_sizes(video: Video, context: JobContext) -> dict[str, Any]:
    """Return the fields of a `decoders.DecodeRequest` that follow from the model and the settings."""
    side = max(context.model.image_size, context.ingest.thumbnail_side_px)
    width, height = chunks.decode_size(video, side)
    return {
        "width": width,
        "height": height,
        "model_side": context.model.image_size,
        "fit": context.model.fit,
        "thumbnail_side": context.ingest.thumbnail_side_px,
        "interval_ms": context.ingest.sample_interval_ms,
    }


def probed_columns(video: Video) -> dict[str, Any]:
    """Return the columns of `media.videos` that probing fills."""
    names = ("container", "codec", "width", "height", "fps", "duration_ms", "has_audio", "warning")
    return {name: getattr(video, name) for name in names}


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def as_failure(error: Temporary | Rejected) -> Failure:
    """Return an error of a dependency as a failure.

    A dependency that is away is temporary. A rejection is final, unless it is about Pixr and not about the file (status
    500 and above).
    """
    if isinstance(error, Temporary):
        return Failure(TEMPORARY, error.public)
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Failure(TEMPORARY, error.detail)
    return Failure(error.code, error.detail, final=True)


@lru_cache(maxsize=1)
def sandbox() -> Sandbox:
    """Return this process's sandbox, started at the first use."""
    return Sandbox()


@lru_cache(maxsize=4)
def storage_of(endpoint: S3Endpoint) -> Storage:
    """Return an object store, one for each endpoint."""
    return Storage(endpoint)


def scratch_of(context: JobContext) -> Scratch:
    """Return the scratch folder of a job on this machine."""
    return Scratch.of(context.ingest, context.s3.url, context.bucket, context.files_ahead_max)
