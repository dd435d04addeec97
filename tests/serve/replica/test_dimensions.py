"""A picture's size is read from its header, and what would take too much to decode is refused there."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cluster.errors import Rejected
from serve.replica import dimensions
from serve.replica.encoding import QueryEncoder
from serve.settings import SearchSettings

MAX = SearchSettings().image_pixels_max, SearchSettings().image_jpeg_pixels_max


def encoded(width: int, height: int, kind: str, mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (width, height), 7).save(stream, kind, **options)
    return stream.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of one grey, a thousandth of its pixels large."""
    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(bytes(1 + width)) for _ in range(height)) + rows.flush()

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return dimensions.PNG + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("PNG", "RGB", {}), ("PNG", "RGBA", {}), ("WEBP", "RGB", {}), ("WEBP", "RGB", {"lossless": True}),
        ("WEBP", "RGBA", {}), ("JPEG", "RGB", {}), ("JPEG", "L", {}), ("JPEG", "RGB", {"progressive": True}),
    ],
)  # fmt: skip
def test_the_header_says_the_size(kind: str, mode: str, options: dict[str, object]) -> None:
    found = dimensions.of(encoded(123, 45, kind, mode, **options))
    assert (found.kind, found.width, found.height) == (kind, 123, 45)
    assert found.progressive == ("progressive" in options)


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", dimensions.PNG, b"RIFF1234WEBPVP8X", b"RIFF1234WEBPVP8 ", b"\xff\xd8"]),
)
def test_any_bytes_have_a_size_or_are_refused(data: bytes, start: bytes) -> None:
    try:
        found = dimensions.of(start + data)
    except Rejected as refused:
        assert (refused.status, refused.code) == (422, "bad-image")
    else:
        assert (found.kind == "JPEG") == (start + data).startswith(b"\xff\xd8")


def test_a_small_file_of_many_pixels_is_refused_before_it_is_decoded() -> None:
    data = bomb(8000, 5000)
    assert len(data) < 200_000
    with pytest.raises(Rejected, match="8000 by 5000 pixels"):
        dimensions.checked(data, *MAX)
    with pytest.raises(Rejected):
        dimensions.checked(b"RIFF1234WEBPVP8X" + bytes(8) + b"\xff\x3f\x00\xff\x3f\x00", *MAX)


@pytest.mark.parametrize("before", [b"\xff\xe0", b"\xff\xc0", b"\xff\xda"])
def test_a_jpeg_padded_between_its_markers_is_refused_before_a_decoder_goes_through_it(before: bytes) -> None:
    """Three megabytes of fill bytes, or of anything, took as many turns of a loop in Python as there are bytes."""
    whole = encoded(64, 64, "JPEG")
    at = whole.index(before)
    for padding in (b"\xff" * 3_000_000, b"\0" * 3_000_000):
        with pytest.raises(Rejected, match="cannot be read"):
            dimensions.checked(whole[:at] + padding + whole[at:], *MAX)
    assert dimensions.of(whole[:at] + b"\xff" * 100 + whole[at:]).pixels == 64 * 64


@pytest.mark.parametrize(("width", "height"), [(1, 60_000), (60_000, 1), (1, 12_000_000), (100, 4001)])
def test_a_line_is_no_picture(width: int, height: int) -> None:
    """A model scales a picture until its shorter side fits: of a pixel by 12 million that is 47 kB for 13 GB."""
    header = dimensions.PNG + struct.pack(">I", 13) + b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    with pytest.raises(Rejected, match="40 times the other"):
        dimensions.checked(header, *MAX)
    assert dimensions.checked(bomb(100, 4000), *MAX).height == 4000


def test_a_camera_s_jpeg_is_decoded_at_a_lower_scale_and_a_progressive_one_refused(model: QueryEncoder) -> None:
    large, small = encoded(8000, 6000, "JPEG"), encoded(800, 600, "JPEG")
    assert dimensions.checked(large, *MAX).pixels == 48_000_000
    encoder = QueryEncoder.__new__(QueryEncoder)
    encoder.__dict__ = model.__dict__ | {"_pixels_max": MAX}
    assert float(encoder.image(large) @ encoder.image(small)) > 0.99
    with pytest.raises(Rejected, match="pixels"):
        dimensions.checked(encoded(8000, 6000, "JPEG", progressive=True), *MAX)


def test_a_jpeg_of_thousands_of_scans_is_refused() -> None:
    data = encoded(64, 64, "JPEG", progressive=True)
    with pytest.raises(Rejected, match="scans"):
        dimensions.checked(data + b"\xff\xda" * 1000, *MAX)


HOSTILE = """
import sys
from cluster import settings
from cluster.errors import Rejected
from pipelines.settings import ModelSettings
from serve.replica.encoding import QueryEncoder
from serve.settings import SearchSettings
from tests.serve.replica.test_dimensions import bomb, encoded

def resident_mb():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * 4096 / 1e6

made, search = settings.load(environ={}), SearchSettings()
encoder = QueryEncoder(made.section(ModelSettings), search.image_pixels_max, search.image_jpeg_pixels_max)
pictures = [bomb(8000, 5000), bomb(4000, 3000), encoded(4000, 3000, "PNG", "RGBA"), encoded(6000, 4000, "JPEG"), b"no"]
for each in pictures:
    try:
        encoder.image(each)
    except Rejected:
        pass
before = resident_mb()
for number in range(int(sys.argv[1])):
    try:
        encoder.image(pictures[number % len(pictures)])
    except Rejected:
        pass
print(before, resident_mb())
"""


def test_hostile_pictures_leave_an_encoder_s_memory_as_it_was() -> None:
    root = Path(__file__).parents[3]
    argv = [sys.executable, "-c", HOSTILE, "60"]
    done = subprocess.run(argv, cwd=root, check=True, capture_output=True, text=True, timeout=300)
    before, after = map(float, done.stdout.split())
    assert after <= before * 1.1
