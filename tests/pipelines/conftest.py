"""Small real video files, made once a test run with FFmpeg, and a deployment whose jobs run on the test run's Ray."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest
from psycopg import AsyncConnection, Connection

from cluster import database, ray_cluster, roles, runtime
from cluster import settings as settings_module
from cluster.runtime import S3Endpoint
from cluster.settings import Settings
from cluster.storage import Storage
from pipelines import encoder, models
from pipelines.encoder import MODELS
from pipelines.settings import ModelSettings
from tests.conftest import fresh_database, supervised, throwaway_settings
from tests.pipelines.corpus import DIMENSIONS, ROWS, Catalogue, clustered, load

SCENES = ("testsrc2", "smptebars", "rgbtestsrc", "testsrc", "pal75bars", "yuvtestsrc")
CUTS_MS = (0, 2000, 4000, 6000, 8000, 10000)
X264 = ("-c:v", "libx264", "-preset", "veryfast")

Ffmpeg = Callable[..., Path]


def ffmpeg(out: Path, *arguments: str) -> Path:
    """Make a file."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *arguments, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{out.name}: {done.stderr[-500:]}"
    return out


def scenes(size: str = "320x180", seconds: int = 2, rate: int = 30) -> list[str]:
    """Arguments for six different pictures in a row: hard cuts at CUTS_MS."""
    inputs: list[str] = []
    for name in SCENES:
        inputs += ["-f", "lavfi", "-t", str(seconds), "-i", f"{name}=size={size}:rate={rate}"]
    chains = [f"[{i}:v]format=yuv420p,setsar=1[v{i}]" for i in range(len(SCENES))]
    joined = "".join(f"[v{i}]" for i in range(len(SCENES))) + f"concat=n={len(SCENES)}:v=1:a=0[v]"
    return [*inputs, "-filter_complex", ";".join([*chains, joined]), "-map", "[v]"]


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of whole files: containers, codecs and oddities. All but a few show the same six scenes."""
    folder = tmp_path_factory.mktemp("clips")
    cuts = str(ffmpeg(folder / "cuts.mp4", *scenes(), *X264, "-g", "30"))
    sine = ("-f", "lavfi", "-i", "sine=440")
    for name, arguments in {
        "hevc.mp4": ("-i", cuts, "-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error"),
        "vp9.webm": ("-i", cuts, "-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"),
        "av1.mkv": ("-i", cuts, "-c:v", "libsvtav1", "-preset", "12"),
        "prores.mov": ("-t", "2", "-i", cuts, "-c:v", "prores_ks"),
        "mpeg4.avi": ("-i", cuts, "-c:v", "mpeg4", "-bf", "2"),
        "mpeg2.mpg": ("-i", cuts, "-c:v", "mpeg2video", "-bf", "2"),
        "transport.ts": ("-i", cuts, "-c", "copy"),
        "matroska.mkv": ("-i", cuts, "-c", "copy"),
        "faststart.mp4": ("-i", cuts, "-c", "copy", "-movflags", "faststart"),
        "fragmented.mp4": ("-i", cuts, "-c", "copy", "-movflags", "frag_keyframe+empty_moov"),
        "rotated.mp4": ("-display_rotation", "90", "-i", cuts, "-c", "copy"),
        "edited.mp4": ("-ss", "1.5", "-i", cuts, "-c", "copy"),
        "audio_first.mp4": ("-i", cuts, *sine, "-t", "4", "-map", "1:a", "-map", "0:v", "-c:v", "copy", "-c:a", "aac"),
        "open_gop.mp4": ("-i", cuts, *X264, "-g", "30", "-x264-params", "open-gop=1"),
        "variable.mp4": ("-i", cuts, "-vf", "select='not(mod(n,7))+not(mod(n,3))'", "-fps_mode", "vfr", *X264),
        "portrait.mp4": ("-f", "lavfi", "-t", "2", "-i", "testsrc2=size=180x320:rate=25", *X264),
        "odd.mp4": ("-f", "lavfi", "-t", "1", "-i", "testsrc2=size=161x121:rate=30", *X264, "-pix_fmt", "yuv444p"),
        "one_frame.mp4": ("-i", cuts, "-frames:v", "1", *X264),
    }.items():
        ffmpeg(folder / name, *arguments)
    return folder


@pytest.fixture(scope="session")
def broken(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that are no whole videos; their names say why."""
    folder = tmp_path_factory.mktemp("broken")
    whole = (clips / "cuts.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "truncated.mkv").write_bytes((clips / "matroska.mkv").read_bytes()[: len(whole) // 2])
    (folder / "cut_off.mp4").write_bytes((clips / "faststart.mp4").read_bytes()[: len(whole) // 2])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is no video\n" * 100, encoding="ascii")
    (folder / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", encoding="ascii")
    (folder / "concat.mp4").write_text("ffconcat version 1.0\nfile '/etc/passwd'\n", encoding="ascii")
    ffmpeg(folder / "audio_only.mp4", "-f", "lavfi", "-t", "2", "-i", "sine=440", "-c:a", "aac")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model in a folder of the test run's own, which does not say what it is: who asks has to load it."""
    ignored = shutil.ignore_patterns(encoder.FACTS)
    return Path(shutil.copytree(MODELS / "pixr-emoji", tmp_path_factory.mktemp("model") / "tiny", ignore=ignored))


@pytest.fixture(scope="session")
def tiny_facts(tiny_model: Path) -> dict[str, Any]:
    """What it is: a job that does not know has a worker load it, which takes seconds."""
    return models.facts_of(ModelSettings(name=str(tiny_model)))


@pytest.fixture
def bucket(s3: S3Endpoint) -> str:
    """A bucket of the test's own."""
    name = f"test-{secrets.token_hex(6)}"
    Storage(s3).ensure_bucket(name)
    return name


@pytest.fixture(scope="package")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a data folder in which a Ray head of these tests' own is kept running."""
    with supervised(throwaway_settings(tmp_path_factory.mktemp("ray")), "ray") as settings:
        yield settings


@pytest.fixture
def deployment(
    ray_head: Settings,
    postgres_url: str,
    s3: S3Endpoint,
    redis_url: str,
    bucket: str,
    tiny_model: Path,
    tiny_facts: dict[str, Any],
    tmp_path: Path,
) -> Settings:
    """Settings in a file, as a submitted job reads them: the test's own database and bucket, the test run's Ray.

    The model is known there, as after any job; a back-fill's model, and those of `tests/flow`, are not.
    """
    with database.connect(postgres_url, autocommit=True) as connection:
        models.remember(connection, str(tiny_model), tiny_facts, encoder.digest(str(tiny_model)))
    for name, preferred in (("serve", 8000), ("solana", 8899)):
        runtime.port(ray_head, name, preferred)
    file = tmp_path / "deployment.toml"
    file.write_text(
        f'[postgres]\nurl = "{postgres_url}"\n[redis]\nurl = "{redis_url}"\n'
        f'[s3]\nurl = "{s3.url}"\nkey = "{s3.key}"\nsecret = "{s3.secret}"\n'
        f'bucket = "{bucket}"\ningest_buckets = ["{bucket}"]\n'
        f'[model]\nname = "{tiny_model}"\nthreads = 1\n[ingest]\nlease_s = 10\nwatch_interval_s = 1.0\n',
        encoding="utf-8",
    )
    made = settings_module.load(file, environ={"PIXR_DATA_DIR": str(ray_head.data_dir)})
    assert ray_cluster.environment(made)["PIXR_CONFIG"] == str(file)
    return made


@pytest.fixture
def connection(deployment: Settings) -> Iterator[Connection]:
    """To the database of `deployment`; modules that need no Ray have one of their own."""
    with database.connect(runtime.role_url(deployment, roles.OWNER), autocommit=True) as opened:
        yield opened


@pytest.fixture(scope="session")
def corpus(ground: Settings, _template: str) -> Iterator[Catalogue]:
    """A database full of clustered vectors, with their index. Tests change nothing in it."""
    with fresh_database(ground, _template) as url:
        made = clustered(ROWS, DIMENSIONS, seed=1)
        with database.connect(url, autocommit=True) as connection:
            load(connection, made)
        yield Catalogue(url, made)


@pytest.fixture
async def reading(corpus: Catalogue) -> AsyncIterator[AsyncConnection[Any]]:
    """A connection to it."""
    async with await AsyncConnection.connect(corpus.url, autocommit=True) as made:
        yield made
