"""Spoiled copies of whole video files, the same ones for the same seed, and scripts that pose as videos."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

Mutation = Callable[[random.Random, bytearray], bytearray]
SIZES = (b"\x00\x00\x40\x00", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\xff")


def flips(rng: random.Random, data: bytearray) -> bytearray:
    """Single bits, in the header as often as anywhere."""
    reach = rng.choice((2000, len(data)))
    for _ in range(rng.randint(1, 60)):
        data[rng.randrange(min(reach, len(data)))] ^= 1 << rng.randrange(8)
    return data


def cut_off(rng: random.Random, data: bytearray) -> bytearray:
    return data[: rng.randrange(1, len(data))]


def beheaded(rng: random.Random, data: bytearray) -> bytearray:
    return data[rng.randrange(1, len(data)) :]


def hole(rng: random.Random, data: bytearray) -> bytearray:
    """Zeros or noise where something was."""
    begin = rng.randrange(len(data))
    size = min(rng.choice((16, 300, 5000)), len(data) - begin)
    data[begin : begin + size] = rng.randbytes(size) if rng.random() < 0.5 else bytes(size)
    return data


def swapped(rng: random.Random, data: bytearray) -> bytearray:
    """Two boxes, clusters or stretches in each other's place."""
    edges = sorted(rng.randrange(len(data)) & ~3 for _ in range(3))
    first, second, third = edges
    return data[:first] + data[second:third] + data[first:second] + data[third:]


def boxes(rng: random.Random, data: bytearray) -> bytearray:
    """A box of an MP4 or MOV, wherever it stands, claims another length or another name."""
    names = (
        b"moov",
        b"trak",
        b"mdia",
        b"stbl",
        b"stsd",
        b"stts",
        b"stsz",
        b"stco",
        b"ctts",
        b"avc1",
        b"avcC",
        b"tkhd",
        b"elst",
    )
    places = [at for name in names if (at := data.find(name)) >= 4]
    if not places:
        return flips(rng, data)
    at = rng.choice(places)
    if rng.random() < 0.5:
        data[at - 4 : at] = rng.choice(SIZES)
    else:
        data[at : at + 4] = rng.choice(names)
    return data


def bomb(rng: random.Random, data: bytearray) -> bytearray:
    """A picture or a table that claims to be enormous."""
    places = [
        at
        for name in (b"avc1", b"tkhd", b"stts", b"stsz", b"mvhd", b"\xb0\x82", b"\xba\x82")
        if (at := data.find(name)) >= 0
    ]
    at = rng.choice(places) if places else rng.randrange(len(data))
    for offset in rng.sample(range(4, 40), 6):
        if at + offset < len(data):
            data[at + offset] = rng.choice((0x7F, 0xFF, 0x40))
    return data


MUTATIONS: tuple[Mutation, ...] = (flips, cut_off, beheaded, hole, swapped, boxes, bomb)


def write(folder: Path, sources: list[Path], count: int, seed: int) -> list[Path]:
    """`count` mutants of the sources; some under another format's name."""
    made = []
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        source = rng.choice(sources)
        mutation = MUTATIONS[number % len(MUTATIONS)]
        ending = rng.choice((".mp4", ".mkv", ".ts")) if rng.random() < 0.2 else source.suffix
        path = folder / f"{number:03d}-{mutation.__name__}-{source.stem}{ending}"
        path.write_bytes(mutation(rng, bytearray(source.read_bytes())))
        made.append(path)
    return made


def scripts(folder: Path, target: Path, url: str) -> list[Path]:
    """Files that FFmpeg could follow to `target`, a whole video, or to `url`; each named like a video."""
    texts = {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:12\n#EXTINF:12,\n{target}\n#EXT-X-ENDLIST\n",
        "hls_file": f"#EXTM3U\n#EXT-X-TARGETDURATION:12\n#EXTINF:12,\nfile://{target}\n#EXT-X-ENDLIST\n",
        "hls_http": f"#EXTM3U\n#EXT-X-TARGETDURATION:12\n#EXTINF:12,\n{url}/a.ts\n#EXT-X-ENDLIST\n",
        "hls_concat": f"#EXTM3U\n#EXTINF:12,\nconcat:{target}|{url}/a.ts\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{target}'\n",
        "concat_http": f"ffconcat version 1.0\nfile '{url}/a.mp4'\n",
        "dash": '<?xml version="1.0"?><MPD><Period><AdaptationSet mimeType="video/mp4"><Representation id="1"'
        f' bandwidth="1"><BaseURL>{url}/a.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>',
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\n"
        f"m=video {url.rpartition(':')[2]} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "asx": f'<asx version="3.0"><entry><ref href="{url}/a.mp4"/></entry></asx>',
        "smil": f'<smil><body><video src="{url}/a.mp4"/></body></smil>',
        "svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="file://{target}"/></svg>',
        "image_list": f"{target}\n",
    }
    made = []
    for name, text in texts.items():
        for ending in (".mp4", ".mkv", ".ts"):
            path = folder / f"script-{name}{ending}"
            path.write_text(text, encoding="utf-8")
            made.append(path)
    return made
