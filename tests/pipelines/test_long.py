"""What is long: a video of ten hours, a manifest of 60 MB. They get in, and cost what they hold."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import numpy as np
import pytest

from pipelines import stages
from pipelines.media import Failure
from pipelines.sources import manifest, source
from tests.pipelines import counted
from tests.pipelines.conftest import ffmpeg

HOUR_MS = 3_600_000
CHUNK_MS = 60_000
CHUNK_FRAMES_MAX = 200  # of one a second
MEGABYTES = 60
CHUNK_CPU_MAX_S, MANIFEST_CPU_MAX_S = 10.0, 60.0


@pytest.fixture(scope="module")
def ten_hours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frame a second, a key frame each half minute: ten minutes sixty times."""
    folder = tmp_path_factory.mktemp("long")
    test = ("-f", "lavfi", "-i", "testsrc=size=64x64:rate=1:duration=600", "-pix_fmt", "yuv420p")
    minutes = ffmpeg(folder / "minutes.mp4", *test, "-c:v", "libx264", "-preset", "ultrafast", "-g", "30", "-bf", "0")
    return ffmpeg(folder / "hours.mp4", "-stream_loop", "59", "-i", str(minutes), "-c", "copy")


def test_ten_hours_have_their_length_and_are_cut_into_chunks_of_minutes(ten_hours: Path) -> None:
    video = counted.probed(ten_hours)
    assert (video.duration_ms, len(video.frame_ms)) == (10 * HOUR_MS, 36_000)
    assert np.array_equal(video.frame_ms, np.arange(36_000) * 1000)
    owned = [range(task.chunk.own_first, task.chunk.own_stop) for task in counted.tasks(video, CHUNK_MS)]
    assert [frame for each in owned for frame in each] == list(range(36_000))
    assert max(map(len, owned)) <= CHUNK_FRAMES_MAX


def test_a_chunk_of_ten_hours_costs_the_same_wherever_it_lies(ten_hours: Path) -> None:
    tasks = counted.tasks(counted.probed(ten_hours), CHUNK_MS)
    for task in (tasks[0], tasks[len(tasks) // 2], tasks[-1]):
        decoded = stages.decode(ten_hours, task, counted.SETTINGS)
        assert not isinstance(decoded, Failure), decoded
        assert np.array_equal(decoded.frame_ms, np.arange(task.chunk.own_first, task.chunk.own_stop) * 1000)
        assert decoded.decode_s < CHUNK_CPU_MAX_S


@pytest.mark.parametrize("words", [9000, pytest.param(100, marks=pytest.mark.slow)])
def test_a_manifest_of_sixty_megabytes_is_read_whole(tmp_path: Path, words: int) -> None:
    """Of few rows or of very many; no row is refused, and those that fit no file are counted."""
    (tmp_path / "a.mp4").write_bytes(b"a")
    row = f",A title,ana,{'w' * words}\n"
    count = (MEGABYTES << 20) // (len(row) + len("0000000.mp4"))
    with (tmp_path / "manifest.csv").open("w", encoding="ascii") as file:
        file.write("file,title,creator,description\n")
        file.writelines(f"{number:07}.mp4{row}" for number in range(count))
        file.write(f"a.mp4{row}")
    began, before_kb = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = source.local(tmp_path, "pixr", None)
    assert time.process_time() - began < MANIFEST_CPU_MAX_S
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 2 << 20  # 2 GB
    assert [(video.title, video.creator) for video in found.videos] == [("A title", "ana")]
    assert [(row["kind"], row["count"]) for row in found.remarks] == [("row without file", count)]
    assert count < manifest.ROWS_MAX
