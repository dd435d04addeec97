"""The wiring of Serve: one replica's services, the FastAPI application over them, and the two deployments on Ray Serve.

`build` makes the application from services that it is given, without Ray; `application` wraps it and the encoder, which are
plain classes, into deployments. Imported by replicas; importing it does nothing.
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

from cluster import cache, runtime
from cluster.database import logins
from cluster.errors import Rejected, Temporary
from cluster.observability import telemetry
from cluster.resilience import Breaker
from cluster.roles import SERVE
from cluster.settings import Settings
from cluster.storage import Storage
from cluster.tasks import Tasks
from ledger.appearances.recorder import Recorder
from ledger.settings import Economics
from pipelines.index import vectors
from pipelines.settings import ModelSettings
from serve import retention
from serve.access.admission import Admission
from serve.access.limits import Limits
from serve.access.transfer import Transfer
from serve.http import gates, problems, sockets
from serve.http.deadlines import Deadlines
from serve.http.manners import Manners
from serve.http.threads import DatabaseThreads, Threads
from serve.metrics import Metrics, ReplicaGauges, pool_states
from serve.replica import encoding, memory
from serve.replica.connections import Connections
from serve.replica.encoder import EncoderInfo, Encoding, Vector
from serve.replica.encoding import QueryEncoder
from serve.replica.generation import Generation
from serve.replica.liveness import Liveness
from serve.replica.readers import Readers
from serve.replica.recall import Recall
from serve.replica.repeats import Repeats
from serve.replica.results import Results
from serve.replica.same_secrets import SameSecrets
from serve.replica.store import Store
from serve.replica.warming import Warming
from serve.routes import creators, feed, jobs, keys, media, openapi, page, stream, videos
from serve.routes import search as routes_search
from serve.routes.services import Services
from serve.search.feed import Feed
from serve.search.kept import Shortcut
from serve.search.query import QueryCache
from serve.settings import SearchSettings

log = logging.getLogger(__name__)

APP = "pixr"
INGRESS, ENCODER = "SearchApi", "QueryEncoder"
ROUTERS = (
    routes_search,
    stream,
    feed,
    videos,
    jobs,
    creators,
    keys,
    media,
    page,
)
PREPARE_EVERY_S = 2.0
GC_THRESHOLDS = (20_000, 10, 10)  # a search makes hundreds of objects that die with it; 700 takes a twelfth of its CPU


def build(services: Services, *, stamped: bool = True) -> FastAPI:
    """Return the application over a replica's services; connections are opened when it starts and closed when it ends.

    With `stamped`, answers carry their request id. Behind Ray Serve `stamped` is False, since Serve adds the id.
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
    routers = [module.router(services) for module in ROUTERS]
    routes = [route for router in routers for route in router.routes]
    # Each middleware stands outside of those that were added before it.
    app.add_middleware(Shortcut, context=services, observe=services.metrics.observe)
    app.add_middleware(Manners, search=services.search, routes=routes)
    app.add_middleware(Transfer, search=services.search, gates=services.gates)
    app.add_middleware(Admission, services=services, routes=routes)
    app.add_middleware(Deadlines, search=services.search)
    problems.install(app, cors_origins=services.search.cors_origins, stamped=stamped)
    for router in routers:
        app.include_router(router)
    routes += openapi.install(app, services.search.limit_max)
    return app


def _lifespan(services: Services) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await services.readers.start()  # waits for no database, so that the replica can report that one is away
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
    """Close the services, each before those that it calls."""
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
    """Keep every model of the catalogue loaded, also while nobody searches, so that searches can switch to any of them.

    Asks the database directly. If it asked `generation`, a quiet replica would keep a state up to a second old, and its
    first search would use that state.
    """
    while True:
        try:
            services.encoding.prepare((await services.readers.ask(vectors.state))[2])
        except (Temporary, psycopg.OperationalError) as error:
            log.warning("the models are not known: %s", error)
        await asyncio.sleep(PREPARE_EVERY_S)


def services_of(settings: Settings, make_encoding: Callable[[SearchSettings, Store], Encoding]) -> Services:
    """Make one replica's services, which log in to the database in the role of the replicas; nothing connects yet."""
    url = logins.held(settings, SERVE)
    endpoints, search = runtime.endpoints(settings), settings.section(SearchSettings)
    redis = cache.async_client(endpoints.redis_url)
    store = Store(settings, redis, search.redis_calls_max)
    standbys = [Connections(url, search) for url in settings.postgres.replica_urls]
    readers = Readers(Connections(url, search), standbys, search)
    recall, gate, other_gates = Recall(readers, search), gates.searches(search), gates.of(search)
    recorder = Recorder(settings)
    storage = Storage(endpoints.s3)
    storage.filesystem()  # its library takes a second to load, which must not happen in a request
    gauges = ReplicaGauges(
        lambda: pool_states(readers.gauges()), lambda: gates.places(gate, other_gates), lambda: recorder.set_aside
    )
    return Services(
        settings=settings,
        search=search,
        economics=settings.section(Economics),
        readers=readers,
        redis=redis,
        store=store,
        storage=storage,
        encoding=make_encoding(search, store),
        recorder=recorder,
        generation=Generation(readers, search),
        results=Results(store, search),
        feed=Feed(readers, search),
        limits=Limits(store, search),
        gate=gate,
        picture_gate=other_gates.pictures,
        gates=other_gates,
        recall=recall,
        warming=Warming(readers, search),
        metrics=Metrics(lambda: recall.means, gauges),
        query_cache=QueryCache(used=not search.variants),
        repeats=Repeats(store, search),
        cursor_key=runtime.secret(settings, "cursor_key").encode(),
        patience=Breaker("searching at full recall", failures_max=3, reset_s=2.0),
        threads=DatabaseThreads(url, search.threads_max, search.thread_wait_s, search.thread_timeout_s),
        objects=Threads(
            "calls to the object store", search.store_threads_max, search.thread_wait_s, search.store_timeout_s
        ),
        liveness=Liveness(readers, search.liveness_s),
        same_secrets=SameSecrets(settings, readers),
        tasks=Tasks("serve"),
    )


def application(settings: Settings, make_encoding: Callable[[SearchSettings, Store], Encoding] | None = None) -> Any:
    """Return the application for Ray Serve: the ingress `SearchApi`, and `QueryEncoder` behind it.

    `make_encoding` makes the encoding of each replica; None means calls of `QueryEncoder`. Replicas are given only the
    database URL of their own role.

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
        # Below this level Serve formats a log line for each request, and throws it away where there is no access log.
        logging_config={"log_level": "WARNING", "enable_access_log": False},
        ray_actor_options={"num_cpus": search.replica_cpus},
    )
    return ingress.bind(_encoder(settings, search))


class Checked:
    """The class deployed as the ingress. FastAPI answers its requests; this adds the health check that Serve calls."""

    _asgi_app: FastAPI  # that `ray.serve.ingress` puts there

    def __init__(self, *_handles: object) -> None:
        """Take the handles of the deployments bound to this one, so that Serve runs them; they are called by name."""

    async def check_health(self) -> None:
        """Check this replica; Serve replaces a replica that raises."""
        self._asgi_app.state.same_secrets.check()
        self._asgi_app.state.liveness.check()


def encoded_remotely(search: SearchSettings, store: Store) -> encoding.RemoteEncoding:
    """Return an encoding that calls the application's own `QueryEncoder`. Works only inside one of its replicas."""
    from ray import serve as ray_serve

    return encoding.of_handle(search, store, ray_serve.get_deployment_handle(ENCODER, app_name=APP))


def _scale(search: SearchSettings, least: int, most: int, busy: int) -> dict[str, Any]:
    """Return the options of a deployment that say how many replicas it has.

    There are `least` replicas. If `most` is larger, Serve adds replicas up to `most` when they have more than `busy`
    calls each at a time. The delays are settings, since Serve's own, half a minute, are longer than most bursts.
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
        """`QueryEncoder` whose calls are gathered into batches and run in threads."""

        def __init__(self, *arguments: Any) -> None:
            sockets.stay_on_node()
            super().__init__(*arguments)
            self._threads = encoding.PictureThreads(search.images_decoded_max)
            memory.freeze()

        @ray_serve.batch(max_batch_size=search.encode_batch_max, batch_wait_timeout_s=0.002)
        async def text(self, asked: list[tuple[str, str]]) -> list[Vector]:
            """Encode pairs of (model, text), those of one model as one batch."""
            by_place: dict[int, Vector] = {}  # of `asked`
            for model in dict.fromkeys(model for model, _ in asked):
                places = [place for place, each in enumerate(asked) if each[0] == model]
                encoded = await asyncio.to_thread(self.texts, [asked[place][1] for place in places], model)
                by_place |= dict(zip(places, encoded, strict=True))
            return [by_place[place] for place in range(len(asked))]

        async def picture(self, data: bytes, model: str) -> Vector:
            """Encode a picture; few are encoded at once. Serve cancels the call, even a waiting one, if the caller has gone."""
            return await self._threads.run(self.image, data, model)

        async def described(self, model: str) -> EncoderInfo:
            """Return the facts of a model."""
            return await asyncio.to_thread(self.facts, model)

    model = settings.section(ModelSettings)
    deployment: Any = ray_serve.deployment
    made = deployment(
        Batched,
        name=ENCODER,
        **_scale(search, search.encoder_replicas, search.encoder_replicas_max, search.encode_batch_max),
        # Texts have as many places beside all pictures that the replicas of the ingress may have here as without any.
        max_ongoing_requests=search.encode_batch_max * 2
        + search.images_max * max(search.replicas, search.replicas_max),
        health_check_period_s=2,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=2,
        ray_actor_options={"num_cpus": search.encoder_cpus},
    )
    return made.bind(model, search.image_pixels_max, search.image_jpeg_pixels_max)
