"""A contact sheet: the moments of a video as one picture, each thumbnail above its start and end time.

Reads what ingest has stored; decodes no video.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw
from psycopg import Connection

from cluster.errors import Rejected
from cluster.storage import Storage
from pipelines.media import time_code

MOMENTS_MAX = 400
COLUMNS_MAX = 8
CELL_SIDE = 216  # the longer side of a thumbnail
CAPTION_HEIGHT = 16
GAP = 6
PAPER, INK = (24, 24, 27), (228, 228, 231)


def of(connection: Connection, storage: Storage, video_id: int) -> bytes:
    """Return the contact sheet of a video as WebP.

    Raises:
        Rejected: the video has no moments.
    """
    rows = connection.execute(
        "SELECT start_ms, end_ms, thumbnail_uri FROM media.segments"
        " WHERE video_id = %s AND thumbnail_uri IS NOT NULL ORDER BY start_ms LIMIT %s",
        (video_id, MOMENTS_MAX),
    ).fetchall()
    if not rows:
        raise Rejected(f"video {video_id} has no moments", status=404, code="not-found", hint="is it ready?")
    pictures = [Image.open(io.BytesIO(storage.read(uri)), formats=("WEBP",)).convert("RGB") for _, _, uri in rows]
    buffer = io.BytesIO()
    sheet(pictures, [f"{time_code(start)} - {time_code(end)}" for start, end, _ in rows]).save(
        buffer, "WEBP", quality=85
    )
    return buffer.getvalue()


def sheet(pictures: Sequence[Image.Image], captions: Sequence[str]) -> Image.Image:
    """Arrange pictures in rows, each above its caption."""
    cells = [_within(picture) for picture in pictures]
    width, height = max(cell.width for cell in cells), max(cell.height for cell in cells)
    columns = min(COLUMNS_MAX, math.ceil(math.sqrt(len(cells))))
    rows = math.ceil(len(cells) / columns)
    step_x, step_y = width + GAP, height + CAPTION_HEIGHT + GAP
    paper = Image.new("RGB", (columns * step_x + GAP, rows * step_y + GAP), PAPER)
    ink = ImageDraw.Draw(paper)
    for number, (cell, caption) in enumerate(zip(cells, captions, strict=True)):
        left, top = GAP + number % columns * step_x, GAP + number // columns * step_y
        paper.paste(cell, (left + (width - cell.width) // 2, top + (height - cell.height) // 2))
        ink.text((left, top + height + 2), caption, fill=INK)
    return paper


def _within(picture: Image.Image) -> Image.Image:
    """Return a copy, scaled down to fit `CELL_SIDE` pixels."""
    copy = picture.copy()
    copy.thumbnail((CELL_SIDE, CELL_SIDE))
    return copy
