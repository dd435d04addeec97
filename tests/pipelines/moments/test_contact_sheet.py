"""A video's moments as one picture."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from psycopg import Connection

from cluster.database import database
from cluster.errors import Rejected
from cluster.runtime import S3Endpoint
from cluster.storage import Storage
from pipelines.catalog import catalog
from pipelines.media import time_code
from pipelines.moments import contact_sheet
from pipelines.sources.listed import Listed

COLOURS = ("red", "lime", "blue", "white", "yellow")


def fill(connection: Connection, storage: Storage, bucket: str) -> None:
    """A video with a moment a colour."""
    connection.execute("SELECT media.register_model('m', 3, 'f')")
    connection.execute("INSERT INTO media.jobs (id, source) VALUES ('j', 's3://b')")
    catalog.register(connection, "j", [Listed("s3://b/one.mp4", "e", 1, "ana", "One")], 1)
    for number, colour in enumerate(COLOURS):
        out = io.BytesIO()
        Image.new("RGB", (320, 180), colour).save(out, "WEBP")
        uri = f"s3://{bucket}/thumbnails/1/{number}.webp"
        storage.put_bytes(out.getvalue(), uri)
        connection.execute(
            "INSERT INTO media.segments (video_id, creator_id, start_ms, end_ms, best_frame_ms, search, thumbnail_uri,"
            " pipeline_version) SELECT id, creator_id, %s, %s, %s, '', %s, 1 FROM media.videos",
            (number * 1000, number * 1000 + 1000, number * 1000, uri),
        )


def test_the_sheet_shows_each_moment_in_its_place(postgres_url: str, s3: S3Endpoint, bucket: str) -> None:
    storage = Storage(s3)
    with database.connect(postgres_url, autocommit=True) as connection:
        fill(connection, storage, bucket)
        sheet = Image.open(io.BytesIO(contact_sheet.of(connection, storage, 1))).convert("RGB")
        with pytest.raises(Rejected, match="no moments"):
            contact_sheet.of(connection, storage, 2)
    width, height = contact_sheet.CELL_SIDE, contact_sheet.CELL_SIDE * 180 // 320
    step_x, step_y = width + contact_sheet.GAP, height + contact_sheet.CAPTION_HEIGHT + contact_sheet.GAP
    for number, colour in enumerate(COLOURS):  # three columns, two rows
        middle = (number % 3 * step_x + width // 2, number // 3 * step_y + height // 2)
        seen, expected = sheet.getpixel(middle), Image.new("RGB", (1, 1), colour).getpixel((0, 0))
        assert isinstance(seen, tuple)
        assert isinstance(expected, tuple)
        assert max(abs(a - b) for a, b in zip(seen, expected, strict=True)) < 12, colour


@pytest.mark.parametrize(("ms", "text"), [(0, "0:00.0"), (62_340, "1:02.3"), (3_723_456, "1:02:03.4")])
def test_time_codes(ms: int, text: str) -> None:
    assert time_code(ms) == text
