"""Frame vectors: what a video's moments are made of, kept in S3 as Parquet, so moments can be remade without decoding.

They are remade when the rules for shots have changed, or when moments were lost. In a video's folder,
`frames/<video>/`, `measurements.parquet` has one row per frame, and `model-<id>.parquet` one row per candidate. Both
files are written before the moments and read by `pixr index repool`. Knows objects and columns, not how moments are
made.
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
from pipelines.moments.segments import Staged
from pipelines.sources.prefixes import FRAMES

MEASUREMENTS = "measurements"
CONTENT_TYPE = "application/vnd.apache.parquet"


@dataclass(frozen=True)
class StoredFrameVectors:
    """The frame vectors of a video by one model, and the mode in which its frames were sampled."""

    staged: Staged
    mode: str


def write(storage: Storage, bucket: str, video_id: int, model_id: int, vectors: StoredFrameVectors) -> None:
    """Store a video's frame vectors; writing again replaces them.

    Args:
        storage: Object store to write to.
        bucket: Bucket of the frame vectors.
        video_id: Number of the video.
        model_id: Number of the model that made the vectors.
        vectors: The frame vectors and the mode.
    """
    staged, folder = vectors.staged, _folder(bucket, video_id)
    about = {"pipeline_version": str(PIPELINE_VERSION), "mode": vectors.mode}
    measurements = {"frame_ms": pa.array(staged.frame_ms), "features": _rows(staged.features)}
    candidates = {
        "candidate_ms": pa.array(staged.candidate_ms),
        "sharpness": pa.array(staged.sharpness),
        "vector": _rows(staged.vectors),
        "thumbnail": pa.array(staged.thumbnails, pa.binary()),
    }
    storage.put_bytes(_parquet(measurements, about), f"{folder}{MEASUREMENTS}.parquet", CONTENT_TYPE)
    storage.put_bytes(_parquet(candidates, about), f"{folder}model-{model_id}.parquet", CONTENT_TYPE)


def read(storage: Storage, bucket: str, video_id: int, model_id: int) -> StoredFrameVectors:
    """Read a video's frame vectors.

    Args:
        storage: Object store to read from.
        bucket: Bucket of the frame vectors.
        video_id: Number of the video.
        model_id: Number of the model.

    Returns:
        The frame vectors and the mode.

    Raises:
        Rejected: another version of the pipeline wrote them, whose measurements mean something else.
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
    return StoredFrameVectors(staged, _about(frames)["mode"])


def listed(storage: Storage, bucket: str) -> Iterator[tuple[int, int]]:
    """Yield the video and model ids for which frame vectors are stored."""
    for stored in storage.list(f"s3://{bucket}/{FRAMES}/"):
        video, _, name = stored.uri.rpartition(f"/{FRAMES}/")[2].partition("/")
        if name.startswith("model-"):
            yield int(video), int(name.removeprefix("model-").removesuffix(".parquet"))


def delete(storage: Storage, bucket: str, video_id: int) -> None:
    """Delete all frame vectors of a video."""
    for stored in list(storage.list(_folder(bucket, video_id))):
        storage.delete(stored.uri)


def _folder(bucket: str, video_id: int) -> str:
    """Return the prefix of a video's frame vectors."""
    return f"s3://{bucket}/{FRAMES}/{video_id}/"


def _rows(matrix: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> pa.Array:
    """Return a matrix (rows, columns) as an Arrow array of fixed-size lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])


def _matrix(column: pa.ChunkedArray) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return an Arrow column of fixed-size lists as a matrix (rows, columns)."""
    flat: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = column.combine_chunks().flatten().to_numpy()
    return flat.reshape(-1, column.type.list_size)


def _parquet(columns: Mapping[str, pa.Array], about: Mapping[str, str]) -> bytes:
    """Return columns as a Parquet file with these metadata."""
    buffer = io.BytesIO()
    table = pa.table(dict(columns)).replace_schema_metadata(dict(about))
    parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _about(table: pa.Table) -> dict[str, str]:
    """Return the metadata of a Parquet file."""
    return {key.decode(): value.decode() for key, value in table.schema.metadata.items()}


def _table(data: bytes) -> pa.Table:
    """Read a Parquet file."""
    return parquet.read_table(io.BytesIO(data))
