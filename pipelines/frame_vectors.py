"""Frame vectors: what a video's moments were made of, kept in S3 as Parquet, so that they can be made anew without
decoding: under other rules for shots, or after the index was lost.

A folder a video, `frames/<video>/`: `measurements.parquet` has a row a frame, `model-<id>.parquet` one a candidate.
Written before the moments are, read by `pixr index repool`. Knows objects and columns, not how moments are made.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from cluster.errors import Rejected
from cluster.storage import Storage
from pipelines.media import PIPELINE_VERSION
from pipelines.prefixes import FRAMES
from pipelines.segments import Staged

MEASUREMENTS = "measurements"
CONTENT_TYPE = "application/vnd.apache.parquet"


@dataclass(frozen=True)
class Kept:
    """The frame vectors of a video, by one model; `mode` is how its frames were looked at."""

    staged: Staged
    mode: str


def write(storage: Storage, bucket: str, video_id: int, model_id: int, kept: Kept) -> None:
    """Keep them; again, they replace themselves."""
    staged, folder = kept.staged, _folder(bucket, video_id)
    about = {"pipeline_version": str(PIPELINE_VERSION), "mode": kept.mode}
    measurements = {"frame_ms": pa.array(staged.frame_ms), "features": _rows(staged.features)}
    candidates = {
        "candidate_ms": pa.array(staged.candidate_ms),
        "sharpness": pa.array(staged.sharpness),
        "vector": _rows(staged.vectors),
        "thumbnail": pa.array(staged.thumbnails, pa.binary()),
    }
    storage.put_bytes(_parquet(measurements, about), f"{folder}{MEASUREMENTS}.parquet", CONTENT_TYPE)
    storage.put_bytes(_parquet(candidates, about), f"{folder}model-{model_id}.parquet", CONTENT_TYPE)


def read(storage: Storage, bucket: str, video_id: int, model_id: int) -> Kept:
    """What was kept.

    Raises:
        Rejected: it was made by another version of the pipeline, whose measurements mean something else.
    """
    folder = _folder(bucket, video_id)
    frames = _table(storage.read(f"{folder}{MEASUREMENTS}.parquet"))
    candidates = _table(storage.read(f"{folder}model-{model_id}.parquet"))
    for about in (_about(frames), _about(candidates)):
        if about["pipeline_version"] != str(PIPELINE_VERSION):
            detail = f"frame vectors of video {video_id} were made by version {about['pipeline_version']}"
            raise Rejected(detail, code="other-version", hint="ingest the video again")
    staged = Staged(
        frames["frame_ms"].to_numpy(),
        _matrix(frames["features"]),
        candidates["candidate_ms"].to_numpy(),
        candidates["sharpness"].to_numpy(),
        _matrix(candidates["vector"]),
        candidates["thumbnail"].to_pylist(),
    )
    return Kept(staged, _about(frames)["mode"])


def listed(storage: Storage, bucket: str) -> Iterator[tuple[int, int]]:
    """Videos and models whose frame vectors are there."""
    for found in storage.list(f"s3://{bucket}/{FRAMES}/"):
        video, _, name = found.uri.rpartition(f"/{FRAMES}/")[2].partition("/")
        if name.startswith("model-"):
            yield int(video), int(name.removeprefix("model-").removesuffix(".parquet"))


def delete(storage: Storage, bucket: str, video_id: int) -> None:
    """Remove all of a video's."""
    for found in list(storage.list(_folder(bucket, video_id))):
        storage.delete(found.uri)


def _folder(bucket: str, video_id: int) -> str:
    return f"s3://{bucket}/{FRAMES}/{video_id}/"


def _rows(matrix: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])


def _matrix(column: pa.ChunkedArray) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    flat: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = column.combine_chunks().flatten().to_numpy()
    return flat.reshape(-1, column.type.list_size)


def _parquet(columns: Mapping[str, pa.Array], about: Mapping[str, str]) -> bytes:
    out = io.BytesIO()
    table = pa.table(dict(columns)).replace_schema_metadata(dict(about))
    parquet.write_table(table, out, compression="zstd")
    return out.getvalue()


def _about(table: pa.Table) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in table.schema.metadata.items()}


def _table(data: bytes) -> pa.Table:
    return parquet.read_table(io.BytesIO(data))
