"""The wiring of Serve: the FastAPI application over its services, and the two deployments that carry it.

`build` makes the application from what it is given and can be used without Ray; the rest wraps plain classes into
deployments. Imported by replicas; importing it does nothing.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import psycopg
from fastapi import FastAPI

from cluster import cache, logins, runtime, telemetry
from cluster.errors import Rejected, Temporary
from cluster.resilience import Breaker
from cluster.roles import SERVE
from cluster.settings import Settings
from cluster.storage import Storage
from cluster.tasks import Tasks
from ledger.recorder import Recorder
from ledger.settings import Economics
from pipelines import index
from pipelines.settings import ModelSettings
from serve import (
    encoding,
    gates,
    memory,
    openapi,
    problems,
    retention,
    routes_creators,
    routes_feed,
    routes_jobs,
    routes_keys,
    routes_media,
    routes_page,
    routes_search,
    routes_stream,
    routes_videos,
    sockets,
)
from serve.admission import Admission
from serve.connections import Connections
from serve.deadlines import Deadlines
from serve.encoding import QueryEncoder
from serve.feed import Feed
from serve.generation import Generation
from serve.limits import Limits
from serve.liveness import Liveness
from serve.manners import Manners
from serve.metrics import Means, Metrics, pool_states
from serve.query import Remembered
from serve.readers import Readers
from serve.recall import Recall
from serve.repeats import Repeats
from serve.results import Results
from serve.same_secrets import SameSecrets
from serve.services import Encoding, Facts, Services, Vector
from serve.settings import SearchSettings
from serve.shortcut import Shortcut
from serve.store import Store
from serve.threads import DatabaseThreads, Threads
from serve.transfer import Transfer
from serve.warming import Warming

log = logging.getLogger(__name__)

APP = "pixr"
INGRESS, ENCODER = "SearchApi", "QueryEncoder"
ROUTERS = (
    routes_search,
    routes_stream,
    routes_feed,
    routes_videos,
    routes_jobs,
    routes_creators,
    routes_keys,
    routes_media,
    routes_page,
)
PREPARE_EVERY_S = 2.0
GC_THRESHOLDS = (20_000, 10, 10)  # a search makes hundreds of objects that die with it; 700 takes a twelfth of its CPU


def build(services: Services, *, stamped: bool = True) -> FastAPI:
    """The application over its services; connections are opened when it starts and closed when it ends.

    `stamped` answers carry their request id; behind Serve they do without our doing.
    """
    app = FastAPI(
        title="Pixr",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan(services),
    )
    app.state.liveness, app.state.same_secrets = services.liveness, services.same_secrets
    routers = [routes.router(services) for routes in ROUTERS]
    found = [route for each in routers for route in each.routes]
    app.add_middleware(Shortcut, services=services)  # each that is added stands outside of those before it
    app.add_middleware(Manners, search=services.search, routes=found)
    app.add_middleware(Transfer, search=services.search, gates=services.gates)
    app.add_middleware(Admission, services=services, routes=found)
    app.add_middleware(Deadlines, search=services.search)
    problems.install(app, cors_origins=services.search.cors_origins, stamped=stamped)
    for router in routers:
        app.include_router(router)
    found += openapi.install(app, services.search.limit_max)
    return app


def _lifespan(services: Services) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await services.readers.start()  # waits for none: a database that is away must not keep a replica from saying so
        try:
            await services.same_secrets.start()
        except Rejected:
            await _close(services)
            raise
        services.tasks.spawn("looking at the secrets", services.same_secrets.until_known())
        await services.recorder.start()
        await services.warming.start()
        services.liveness.start()
        services.tasks.keep("preparing models", lambda: _prepare_models(services))
        services.tasks.keep("what is kept no longer", lambda: retention.keep(services))
        try:
            yield
        finally:
            app.state.is_ending = True
            await _close(services)

    return lifespan


async def _close(services: Services) -> None:
    """What asks others ends before those that are asked."""
    await services.tasks.close()
    await services.liveness.close()
    await services.recorder.close()
    for part in (services.feed, services.recall, services.warming, services.generation, services.encoding):
        await part.close()
    await services.results.close()
    for threads in (services.threads, services.objects):
        await threads.close()
    await services.readers.close()
    await services.redis.aclose()


async def _prepare_models(services: Services) -> None:
    """Have every model of the catalogue loaded, also while nobody searches: a change to one of them finds it there.

    Asks by itself, since a look by `generation` would make a quiet replica's first search believe what is a second old.
    """
    while True:
        try:
            services.encoding.prepare((await services.readers.ask(index.state))[2])
        except (Temporary, psycopg.OperationalError) as error:
            log.warning("the models are not known: %s", error)
        await asyncio.sleep(PREPARE_EVERY_S)


def services_of(settings: Settings, make_encoding: Callable[[SearchSettings, Store], Encoding]) -> Services:
    """One replica's services, which know the database by the replicas' own role; nothing is connected yet."""
    url = logins.held(settings, SERVE)
    ends, search = runtime.endpoints(settings), settings.section(SearchSettings)
    redis = cache.async_client(ends.redis_url)
    store = Store(settings, redis, search.redis_calls_max)
    replicas = [Connections(url, search) for url in settings.postgres.replica_urls]
    readings = Readers(Connections(url, search), replicas, search)
    recall, gate, others = Recall(readings, search), gates.searches(search), gates.of(search)
    recorder = Recorder(settings)
    storage = Storage(ends.s3)
    storage.filesystem()  # its library takes a second to load: at the start, not in somebody's request
    means = Means(
        lambda: pool_states(readings.gauges()), lambda: gates.places(gate, others), lambda: recorder.set_aside
    )
    return Services(
        settings=settings,
        search=search,
        economics=settings.section(Economics),
        readers=readings,
        redis=redis,
        store=store,
        storage=storage,
        encoding=make_encoding(search, store),
        recorder=recorder,
        generation=Generation(readings, search),
        results=Results(store, search),
        feed=Feed(readings, search),
        limits=Limits(store, search),
        gate=gate,
        gates=others,
        recall=recall,
        warming=Warming(readings, search),
        metrics=Metrics(lambda: recall.means, means),
        remembered=Remembered(used=not search.variants),
        repeats=Repeats(store, search),
        cursor_key=runtime.secret(settings, "cursor_key").encode(),
        patience=Breaker("searching at full recall", failures_max=3, reset_s=2.0),
        threads=DatabaseThreads(url, search.threads_max, search.thread_wait_s, search.thread_timeout_s),
        objects=Threads(
            "calls to the object store", search.store_threads_max, search.thread_wait_s, search.store_timeout_s
        ),
        liveness=Liveness(readings, search.liveness_s),
        same_secrets=SameSecrets(settings, readings),
        tasks=Tasks("serve"),
    )


def application(settings: Settings, make_encoding: Callable[[SearchSettings, Store], Encoding] | None = None) -> Any:
    """The Serve application: the ingress `SearchApi`, and `QueryEncoder` behind it, unless something else encodes.

    Replicas are given the URL of their own role, and no other of the database.

    Raises:
        Rejected, Temporary: as `logins.url`.
    """
    from ray import serve as ray_serve

    settings = logins.only(settings, SERVE)
    search = settings.section(SearchSettings)

    def build_in_replica() -> FastAPI:
        telemetry.configure("serve")
        sockets.stay_on_node()
        gc.set_threshold(*GC_THRESHOLDS)
        made = build(services_of(settings, make_encoding or encoded_remotely), stamped=False)
        memory.freeze()
        return made

    # Serve's decorators are typed for classes only.
    deployment: Any = ray_serve.deployment
    ingress = deployment(
        ray_serve.ingress(build_in_replica)(Checked),
        name=INGRESS,
        **_scale(search, search.replicas, search.replicas_max, search.searches_max),
        max_ongoing_requests=search.ongoing_requests_max,
        max_queued_requests=search.queued_requests_max,
        health_check_period_s=2,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=5,
        # Serve makes a line for each request and throws it away when it has no access log, unless it is silent altogether.
        logging_config={"log_level": "WARNING", "enable_access_log": False},
        ray_actor_options={"num_cpus": search.replica_cpus},
    )
    return ingress.bind(_encoder(settings, search))


class Checked:
    """What Serve asks of a replica of the ingress, beside its requests; a replica that raises is replaced."""

    _asgi_app: FastAPI  # that `ray.serve.ingress` puts there

    def __init__(self, *_handles: object) -> None:
        """Take the deployments that are bound to this one, so that Serve runs them; who needs one asks for it by name."""

    async def check_health(self) -> None:
        self._asgi_app.state.same_secrets.check()
        self._asgi_app.state.liveness.check()


def encoded_remotely(search: SearchSettings, store: Store) -> encoding.RemoteEncoding:
    """By the application's own `QueryEncoder`; inside a replica of it."""
    from ray import serve as ray_serve

    return encoding.of_handle(search, store, ray_serve.get_deployment_handle(ENCODER, app_name=APP))


def _scale(search: SearchSettings, least: int, most: int, busy: int) -> dict[str, Any]:
    """How many replicas a deployment has: so many, or between two bounds, as many as keep each at `busy` calls or fewer.

    Serve's own delays of half a minute are longer than most bursts; what comes before a new replica is there is shed.
    """
    if most <= least:
        return {"num_replicas": least}
    return {
        "autoscaling_config": {
            "min_replicas": least,
            "max_replicas": most,
            "target_ongoing_requests": busy,
            "metrics_interval_s": search.scale_interval_s,
            "look_back_period_s": search.scale_interval_s * 2,
            "upscale_delay_s": search.scale_up_delay_s,
            "downscale_delay_s": search.scale_down_delay_s,
        }
    }


def _encoder(settings: Settings, search: SearchSettings) -> Any:
    from ray import serve as ray_serve

    class Batched(QueryEncoder):
        """`QueryEncoder` with its calls gathered into batches and kept off the event loop."""

        def __init__(self, *arguments: Any) -> None:
            sockets.stay_on_node()
            super().__init__(*arguments)
            self._threads = encoding.PictureThreads(search.images_decoded_max)
            memory.freeze()

        @ray_serve.batch(max_batch_size=search.encode_batch_max, batch_wait_timeout_s=0.002)
        async def text(self, asked: list[tuple[str, str]]) -> list[Vector]:
            """Vectors of (model, text): those of one model together."""
            found: dict[int, Vector] = {}
            for model in dict.fromkeys(model for model, _ in asked):
                places = [place for place, each in enumerate(asked) if each[0] == model]
                made = await asyncio.to_thread(self.texts, [asked[place][1] for place in places], model)
                found |= dict(zip(places, made, strict=True))
            return [found[place] for place in range(len(asked))]

        async def picture(self, data: bytes, model: str) -> Vector:
            """Few at once; one whose caller has gone while it waits is not begun, since Serve cancels this then."""
            return await self._threads.run(self.image, data, model)

        async def described(self, model: str) -> Facts:
            return await asyncio.to_thread(self.facts, model)

    model = settings.section(ModelSettings)
    deployment: Any = ray_serve.deployment
    made = deployment(
        Batched,
        name=ENCODER,
        **_scale(search, search.encoder_replicas, search.encoder_replicas_max, search.encode_batch_max),
        # As many texts as before are let in beside all pictures that the replicas of the ingress may have here.
        max_ongoing_requests=search.encode_batch_max * 2
        + search.images_max * max(search.replicas, search.replicas_max),
        health_check_period_s=2,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=2,
        ray_actor_options={"num_cpus": search.encoder_cpus},
    )
    return made.bind(model, search.image_pixels_max, search.image_jpeg_pixels_max)
