"""The real application over real services, called in this process or listened to on a port; and a small catalogue.

Where nothing else is said the encoder is away: searches are answered from full text, as they are when that happens for
real. `near` is the real encoder, in threads of this process instead of a deployment's.
"""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import imageio_ffmpeg
import numpy as np
import uvicorn
from fastapi import FastAPI
from psycopg import AsyncConnection, Connection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from cluster import database, runtime
from cluster.door.config import HEALTH_PATH
from cluster.errors import Temporary
from cluster.settings import Settings
from cluster.storage import Storage
from pipelines import relevance
from serve import app, keys
from serve.encoding import QueryEncoder, RemoteEncoding
from serve.services import Encoding, Facts, Services, Vector
from serve.settings import SearchSettings

VECTOR = "[" + ",".join(["0.5"] * 4) + "]"
PICTURE = b"RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00\x2f\x00\x00\x00\x10\x07\x10\x11\x11\x88\x88\xfe\x07\x00"


class Away:
    """An encoder that does not answer."""

    async def answers(self) -> None:
        raise Temporary("the encoder is away")

    async def facts(self, _model: str = "") -> Facts:
        raise Temporary("the encoder is away")

    def prepare(self, _models: Iterable[str]) -> None:
        pass

    async def close(self) -> None:
        pass

    async def text(self, _text: str, _model: str = "") -> Vector:
        raise Temporary("the encoder is away")

    async def image(self, _data: bytes, _model: str = "") -> Vector:
        raise Temporary("the encoder is away")


class Tiny(Away):
    """The encoder of the model that `fill` registers: whatever is asked for is the one vector that its moments have."""

    async def answers(self) -> None:
        pass

    async def facts(self, _model: str = "") -> Facts:
        return Facts("tiny", 4, "print", relevance.general())

    async def text(self, _text: str, _model: str = "") -> Vector:
        return np.full(4, 0.5, np.float32)


MakeEncoding = Callable[[Any, Any], Encoding]


def away(_search: Any, _redis: Any) -> Encoding:
    return Away()


def tiny(_search: Any, _redis: Any) -> Encoding:
    return Tiny()


def near(model: QueryEncoder) -> MakeEncoding:
    """The encoder in threads of this process, behind the same caches, limits and breakers as a deployment's."""

    async def facts(name: str) -> Facts:
        return await asyncio.to_thread(model.facts, name)

    async def text(asked: str, name: str) -> Vector:
        return (await asyncio.to_thread(model.texts, [asked], name))[0]

    async def image(data: bytes, name: str) -> Vector:
        return await asyncio.to_thread(model.image, data, name)

    return lambda search, cache: RemoteEncoding(search, cache, facts, text, image)


def uncut(settings: Settings) -> Settings:
    """The same where everything is shown, however far it is."""
    return settings.with_section(replace(settings.section(SearchSettings), relevance_min_ppm=0))


def services_of(settings: Settings, encoding: MakeEncoding = away) -> Services:
    return app.services_of(settings, encoding)


@dataclass(frozen=True)
class Doors:
    """The application, and a client that calls it without a key."""

    settings: Settings
    services: Services
    app: FastAPI
    http: httpx.AsyncClient

    def database(self) -> Connection[Any]:
        return database.connect(self.settings.postgres.url, autocommit=True)

    def key(
        self,
        *scopes: str,
        creator_id: int | None = None,
        creators: Sequence[str] = (),
        folders: Sequence[str] | None = None,
    ) -> dict[str, str]:
        """Headers with a fresh key of these scopes; one of scope ingest speaks for any creator unless some are named."""
        with self.database() as connection:
            name = "-".join([*scopes, str(creator_id), *creators])  # keys of one name may do the same
            speaks_for = creators or (keys.ANY if "ingest" in scopes else None)
            asked: dict[str, Any] = {"creator_id": creator_id, "creators": speaks_for, "folders": folders}
            return bearer(keys.create(connection, name, scopes, **asked)[1])


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def opened(settings: Settings, encoding: MakeEncoding = away) -> AsyncIterator[Doors]:
    services = services_of(settings, encoding)
    made = app.build(services)
    transport = httpx.ASGITransport(made, raise_app_exceptions=False)
    async with (
        made.router.lifespan_context(made),
        httpx.AsyncClient(transport=transport, base_url="http://pixr") as client,
    ):
        await services.readers.primary(answers)
        yield Doors(settings, services, made, client)


async def answers(connection: AsyncConnection[Any]) -> None:
    """The shortest question."""
    await connection.execute("SELECT 1")


@asynccontextmanager
async def without_store(doors: Doors) -> AsyncIterator[httpx.AsyncClient]:
    """The same application while its store does not answer."""
    nowhere = Storage(runtime.S3Endpoint("http://127.0.0.1:1", "key", "secret", "us-east-1"))
    made = app.build(replace(doors.services, storage=nowhere))
    transport = httpx.ASGITransport(made, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://pixr", timeout=60) as client:
        yield client


def checked(application: ASGIApp) -> ASGIApp:
    """As Serve carries an application: it answers the door's checks by itself."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        asked = PlainTextResponse("success") if scope.get("path") == HEALTH_PATH else application
        await asked(scope, receive, send)

    return answered


@contextmanager
def listening(settings: Settings, encoding: MakeEncoding = away) -> Iterator[str]:
    """The same behind a port of its own; the URL."""
    port = runtime.port(settings, "serve", 8000)
    made = app.build(services_of(settings, encoding))
    config = uvicorn.Config(checked(made), host="127.0.0.1", port=port, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive(), "the server ended while starting"
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)


@dataclass(frozen=True)
class Shelf:
    """Ids of a small catalogue: two creators, a video each, two moments each."""

    ada: int
    bob: int
    video: int
    other: int
    moments: tuple[int, ...]


def fill(settings: Settings, *, video: bytes = b"0123456789" * 1000) -> Shelf:
    """Two ready videos with their objects in S3."""
    storage, bucket = Storage(runtime.endpoints(settings).s3), settings.s3.bucket
    storage.ensure_bucket(bucket)
    with database.connect(settings.postgres.url) as connection:
        model = one(connection, "SELECT media.register_model('tiny', 4, 'print')")
        owners = [
            one(connection, "INSERT INTO media.creators (handle, name) VALUES (%s, %s) RETURNING id", handle, handle)
            for handle in ("ada", "bob")
        ]
        videos, moments = [], []
        for number, (owner, title) in enumerate(zip(owners, ("Orchard in spring", "Harbour at night"), strict=True)):
            name = f"{settings.data_dir.name}-{number}"
            uri = f"s3://{bucket}/uploads/{name}/film.mp4"
            storage.put_bytes(video, uri, "video/mp4")
            videos.append(_video(connection, owner, uri, title))
            moments += [_moment(connection, storage, bucket, model, videos[-1], start) for start in (0, 2000)]
    return Shelf(owners[0], owners[1], videos[0], videos[1], tuple(moments))


def one(connection: Connection[Any], query: str, *parameters: Any) -> int:
    row = connection.execute(query, parameters).fetchone()  # type: ignore[arg-type]
    assert row is not None
    return int(row[0])


def _video(connection: Connection[Any], owner: int, uri: str, title: str) -> int:
    return one(
        connection,
        "INSERT INTO media.videos (creator_id, source_uri, title, tags, duration_ms, width, height, fps, has_audio,"
        " status, ready_at, pipeline_version)"
        " VALUES (%s, %s, %s, '{fruit}', 4000, 320, 180, 25, false, 'ready', now(), 1) RETURNING id",
        owner,
        uri,
        title,
    )


def _moment(connection: Connection[Any], storage: Storage, bucket: str, model: int, video: int, start: int) -> int:
    thumbnail = f"s3://{bucket}/thumbnails/{video}/{start}.webp"
    storage.put_bytes(PICTURE, thumbnail, "image/webp")
    moment = one(
        connection,
        "INSERT INTO media.segments (video_id, creator_id, start_ms, end_ms, best_frame_ms, description, search,"
        " thumbnail_uri, pipeline_version) SELECT id, creator_id, %s, %s, %s, description,"
        " media.search_text(language, title, tags, description), %s, 1 FROM media.videos WHERE id = %s RETURNING id",
        start,
        start + 1500,
        start + 500,
        thumbnail,
        video,
    )
    connection.execute(
        "INSERT INTO media.embeddings (model_id, segment_id, video_id, creator_id, start_ms, end_ms, embedding)"
        " SELECT %s, id, video_id, creator_id, start_ms, end_ms, %s::halfvec FROM media.segments WHERE id = %s",
        (model, VECTOR, moment),
    )
    return moment


def film(path: Path, seconds: int = 4) -> Path:
    """A small MP4 that any browser plays."""
    source = f"testsrc2=size=320x180:rate=25:duration={seconds}"
    argv = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-f", "lavfi", "-i", source]
    argv += ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path)]
    subprocess.run(argv, check=True)
    return path
