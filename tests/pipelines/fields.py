"""H.264 of which each packet holds one field of a picture, as camcorders write AVCHD: no encoder at hand makes such.

Every macroblock is uncompressed (I_PCM), so that a picture is known to the sample. After ITU-T H.264, 7.3.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av

SIDE = 64  # pixels; a field has half as many rows
BLOCKS = SIDE // 16 * (SIDE // 32)  # macroblocks of a field
CHROMA = bytes([128]) * 128
I_PCM, ALL_INTRA = 25, 7
SPS, PPS, IDR, DELIMITER = b"\x67", b"\x68", b"\x65", b"\0\0\0\1\x09\x10"
FIELD = 1800  # 20 ms by the clock of a transport stream
CLOCK = Fraction(1, 90_000)


class _Bits:
    """Bits, written one behind the other."""

    def __init__(self) -> None:
        self._text = ""

    def fixed(self, value: int, count: int) -> None:
        self._text += f"{value:0{count}b}"

    def golomb(self, *values: int) -> None:
        for value in values:
            self._text += "0" * ((value + 1).bit_length() - 1) + f"{value + 1:b}"

    def samples(self, data: bytes) -> None:
        self._text += "0" * (-len(self._text) % 8) + "".join(f"{byte:08b}" for byte in data)

    def unit(self, head: bytes) -> bytes:
        """A NAL unit of these bits, with what keeps start codes out of it."""
        text = self._text + "1"
        text += "0" * (-len(text) % 8)
        out, zeros = bytearray(), 0
        for byte in int(text, 2).to_bytes(len(text) // 8, "big"):
            if zeros >= 2 and byte <= 3:
                out.append(3)
                zeros = 0
            out.append(byte)
            zeros = zeros + 1 if byte == 0 else 0
        return b"\0\0\0\1" + head + bytes(out)


def _parameters() -> bytes:
    sequence, picture = _Bits(), _Bits()
    for byte in (77, 0, 30):  # Main, level 3
        sequence.fixed(byte, 8)
    sequence.golomb(0, 0, 2, 1)  # id, bits of frame_num, order as stored, one reference
    sequence.fixed(0, 1)
    sequence.golomb(SIDE // 16 - 1, SIDE // 32 - 1)
    sequence.fixed(0b00100, 5)  # fields, none within a picture, 8x8 inference, not cropped, nothing more
    picture.golomb(0, 0)
    picture.fixed(0, 2)
    picture.golomb(0, 0, 0)
    picture.fixed(0, 3)
    picture.golomb(0, 0, 0)
    picture.fixed(0, 3)
    return sequence.unit(SPS) + picture.unit(PPS)


def _field(number: int, light: int, bottom: bool) -> bytes:
    """A field of one shade. The second one of a picture is no key picture by itself."""
    bits = _Bits()
    bits.golomb(0, ALL_INTRA, 0)
    bits.fixed(0, 4)
    bits.fixed(2 + bottom, 2)  # a field, which
    if bottom:
        bits.fixed(0, 1)
    else:
        bits.golomb(number % 2)
        bits.fixed(0, 2)
    bits.golomb(0)
    for _ in range(BLOCKS):
        bits.golomb(I_PCM)
        bits.samples(bytes([light]) * 256 + CHROMA)
    return bits.unit(b"\x61" if bottom else IDR)


def film(path: Path, pictures: int) -> Path:
    """A transport stream of so many pictures, 25 a second, each in two packets with times of their own."""
    with av.open(str(path), "w", format="mpegts") as out:
        stream = out.add_stream("libx264", rate=50)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = SIDE, SIDE, "yuv420p", CLOCK
        out.start_encoding()
        for number in range(2 * pictures):
            data = DELIMITER + _parameters() + _field(number // 2, 40 + 10 * (number // 2 % 16), bool(number % 2))
            packet = av.Packet(data)
            packet.pts = packet.dts = number * FIELD
            packet.duration, packet.time_base, packet.stream = FIELD, CLOCK, stream
            packet.is_keyframe = not number % 2
            out.mux(packet)
    return path
