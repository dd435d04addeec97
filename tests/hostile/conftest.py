"""A stack of the tier's own with a small catalogue, shared by its tests, since each of them may leave it broken."""

from __future__ import annotations

import os
import secrets
import struct
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from cluster import runtime
from pipelines.samples import samples
from tests.conftest import until
from tests.hostile import gauges
from tests.hostile.wire import Door
from tests.stack import Stack, finds, is_whole, running

SEED = 20
VIDEOS = 3
PADDED_BYTES = 40_000_000  # of a video: more than sockets and proxies hold for a player that has paused
WHOLE_WITHIN_S = 90.0
WHOLE_BY_ITSELF_S = 20.0
WARM_REQUESTS, WARM_AT_ONCE = 96, 32
ATTACKERS = tuple(f"127.0.0.{number}" for number in range(2, 10))


@dataclass(frozen=True)
class Scene:
    """A running stack and what a client of it must know."""

    stack: Stack
    door: Door
    key: str  # of scope search
    stranger_key: str  # another that is good
    texts: tuple[str, ...]
    links: tuple[str, ...]  # of a long video


@pytest.fixture(scope="package")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with running(tmp_path_factory.mktemp("hostile"), PIXR_POSTGRES_REPLICA_URLS="") as stack:
        folder = tmp_path_factory.mktemp("catalogue")
        yield scene_of(stack, samples.write(folder, VIDEOS, SEED, shots=(2, 2), seconds=(2.0, 2.2)), folder)


def scene_of(stack: Stack, made: list[samples.Sample], folder: Path) -> Scene:
    """The scene on a stack into which these samples are ingested."""
    pad(folder / made[0].file, PADDED_BYTES)
    job = stack.json("ingest", str(folder))
    assert job["status"] == "succeeded", job
    key, stranger_key = (stack.json("keys", "create", who, "--scope", "search")["key"] for who in ("quiet", "stranger"))
    texts = tuple(shot.caption for sample in made for shot in sample.shots)
    until(lambda: finds(stack, texts[0]), WHOLE_WITHIN_S, "the catalogue is found")
    with stack.anonymous as client:
        found = [client.get("/v1/search", params={"q": text}).json()["moments"] for text in texts[:2]]
    title = made[0].title
    links = {each["play_url"].partition("#")[0] for moments in found for each in moments if each["title"] == title}
    assert links, found
    return Scene(stack, Door.of(runtime.serve_url(stack.settings)), key, stranger_key, texts, tuple(sorted(links)))


def pad(video: Path, size: int) -> None:
    """Make an MP4 file longer: players pass over a box of type `free`."""
    length = video.stat().st_size + size
    with video.open("ab") as file:
        file.write(struct.pack(">I4s", size, b"free"))
    os.truncate(video, length)


@pytest.fixture(autouse=True)
def mended(request: pytest.FixtureRequest) -> None:
    """Each test that uses the scene finds it whole and warm, also where the one before has shown that it breaks."""
    if "scene" in request.fixturenames:
        scene: Scene = request.getfixturevalue("scene")
        mend(scene.stack, scene.texts[0])


def mend(stack: Stack, text: str) -> None:
    """Wait until it is whole, with its replica and door killed where that does not come about by itself."""
    try:
        until(lambda: gauges.read(stack).get(gauges.USED) == 0, WHOLE_BY_ITSELF_S, "no connection is held")
        until(lambda: is_whole(stack, text), WHOLE_BY_ITSELF_S, "whole by itself")
    except AssertionError:
        killed = [each for role in ("SearchApi", "door") for each in gauges.processes(stack, role)]
        for process in killed:
            process.kill()
        psutil.wait_procs(killed, timeout=5)
        until(lambda: is_whole(stack, text), WHOLE_WITHIN_S, "whole after its replica was killed")
    warm(stack)


def warm(stack: Stack) -> None:
    """Have every pool opened as far as it goes, so that what grows later is a leak and not a first use."""

    def ask(_: int) -> None:
        client.get("/v1/search", params={"q": secrets.token_hex(8), "intent": "probe"})

    with stack.admin as client, ThreadPoolExecutor(WARM_AT_ONCE) as pool:
        list(pool.map(ask, range(WARM_REQUESTS)))


@pytest.fixture
def show(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Prints a test's tables also where it passes."""

    def shown(*parts: str) -> None:
        with capsys.disabled():
            sys.stdout.write("\n".join(("", f"== {request.node.name}", *parts, "")))

    return shown
