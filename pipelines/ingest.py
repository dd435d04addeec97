"""The ingest job: from the objects of a bucket to moments that can be searched. Ray runs `python -m pipelines.ingest`.

    video ids → Plan     begins an attempt, fetches the file, probes it, cuts it into chunks      → chunks
              → Decode   in a sandboxed child: measurements of every frame, candidates as tensors → decoded chunks
              → Embed    a pool of actors that hold the model                                      → vectors
              → Store    COPY into staging; the last chunk of a video makes it ready, whole

Rows are chunks, so one long video is spread over the workers like many short ones, with the same moments as the
result. A bad file is refused where it is found, by a row and never by an exception; Ray's retries are finite; what a
crash leaves undone is taken up again from PostgreSQL (see `catalog`), here in rounds and after a driver's death by `watch`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import psycopg

from cluster import database, logins, ray_cluster, runtime, telemetry
from cluster import settings as settings_module
from cluster.errors import PixrError, Rejected, Temporary
from cluster.resilience import backoff_s
from cluster.roles import JOBS
from cluster.settings import S3Settings, Settings
from cluster.storage import Storage
from pipelines import catalog, creators, index_admin, jobs, leases, lists, models, reposts, signs, source
from pipelines.gauges import Gauges
from pipelines.handles import ANYBODY, Rights
from pipelines.listed import Note
from pipelines.lists import UPLOADS
from pipelines.media import UNCONFINED
from pipelines.nodes import Survey
from pipelines.remarks import CREATOR_KEPT, REPOST, TAKEN_DOWN, WALLET_REFUSED, Remarks
from pipelines.settings import IngestSettings, ModelSettings
from pipelines.stages import AT_WORK, Decode, Embed, Place, Plan, Refused, Store

if TYPE_CHECKING:
    from psycopg import Connection
    from ray.data import Dataset

log = logging.getLogger(__name__)

DECODERS_A_PLANNER, PLANNERS_MIN = 8, 2
DECODERS_A_STORER, STORERS_MIN = 8, 2
CHUNKS_A_BATCH = 8  # what an encoder gets at once; their frames fill its batches together
TASK_RETRIES = 3  # of a task whose worker was killed
ACTOR_RESTARTS = 20
SIGNS_A_TIMEOUT = 4  # signs of life of a step, in the time in which none would end its round
ROUNDS_MAX = 60
ROUND_FACTOR = 4  # by which rounds shrink after one that was cut short, and grow again
WAIT_MAX_S = 5.0
STOP_MAX_S = 30.0  # for a driver that shall stop to come to the end of a batch
BEAT_TIMEOUT_MS = 20_000  # of one statement of a heartbeat

# What another start of the driver may mend, beside errors of ours.
RETRIED = (psycopg.OperationalError, psycopg.InterfaceError, OSError, MemoryError)

Row = dict[str, Any]


def pipeline(video_ids: list[int], place: Place, survey: Survey) -> Dataset:
    """The whole of it. What looks at files runs only on nodes that can confine a decoder."""
    import ray

    warnings.filterwarnings("ignore", message="`ray_remote_args`")  # finite retries have no other way yet
    ingest = place.ingest
    encoders = ray.data.ActorPoolStrategy(min_size=ingest.embedders_min, max_size=ingest.embedders_max)
    planners, decoders, storers = (ray.data.TaskPoolStrategy(size) for size in crews(ingest, survey.cpus()))
    return (
        ray.data.from_items([pack(video) for video in video_ids], override_num_blocks=len(video_ids))
        .flat_map(
            many(Plan(place), place), num_cpus=0.1, compute=planners, max_retries=TASK_RETRIES,
            ray_remote_args_fn=survey.placing,
        )
        .flat_map(
            one(Decode(place), place), num_cpus=ingest.decoder_cpus, compute=decoders,
            max_retries=TASK_RETRIES, ray_remote_args_fn=survey.placing,
        )
        .map_batches(
            EmbedBatches, fn_constructor_args=(place,), compute=encoders, batch_size=CHUNKS_A_BATCH,
            num_cpus=ingest.embedder_cpus, num_gpus=ingest.embedder_gpus,
            max_restarts=ACTOR_RESTARTS, max_task_retries=TASK_RETRIES,
        )
        .flat_map(one(Store(place), place), num_cpus=0.1, compute=storers, max_retries=TASK_RETRIES)
    )  # fmt: skip


def crews(ingest: IngestSettings, cpus: float) -> tuple[int, int | None, int]:
    """How many may plan, decode and store at once, where this many CPUs decode; None is as many as there are CPUs.

    A stage without a bound of its own takes an equal part of all CPUs from the others, whether it has work or not: only
    decoding may have none, so that it gets what the others leave.
    """
    decoders = ingest.decoders_max or int(cpus / ingest.decoder_cpus)
    planners, storers = decoders // DECODERS_A_PLANNER, decoders // DECODERS_A_STORER
    return max(PLANNERS_MIN, planners), ingest.decoders_max or None, max(STORERS_MIN, storers)


def one(stage: Callable[[Any], Any], place: Place) -> Callable[[Row], Iterator[Row]]:
    """A stage of one row to one row, as Ray wants it."""
    return many(lambda row: (stage(row),), place)


def many(stage: Callable[[Any], Iterable[Any]], place: Place) -> Callable[[Row], Iterator[Row]]:
    """A stage of one row to several. While it takes long, signs of life come first."""
    store = Store(place)

    def call(row: Row) -> Iterator[Row]:
        give_way(place.ingest.niceness)
        for given in alive(lambda: (settled(each, store) for each in stage(unpack(row["row"]))), place):
            yield pack(given)

    return call


def alive(step: Callable[[], Iterable[Any]], place: Place) -> Iterator[Any]:
    """What a step of this job gives, with signs of life that come often enough for `no_progress_timeout_s`."""
    ingest = place.ingest
    every_s = ingest.no_progress_timeout_s / SIGNS_A_TIMEOUT
    return signs.alive(step, AT_WORK, every_s, ingest.step_timeout_s)


def settled(row: Any, store: Store) -> Any:
    """Write a refusal down where it comes up: on the way to the end a model is loaded first, and a batch has to fill."""
    return store(row) if isinstance(row, Refused) else row


def give_way(niceness: int) -> None:
    """Have this thread, and the processes that it starts, leave the CPU to searches. A worker serves one job alone."""
    if os.getpriority(os.PRIO_PROCESS, 0) < niceness:
        os.setpriority(os.PRIO_PROCESS, 0, niceness)


def pack(row: Any) -> Row:
    """Rows travel as opaque bytes: nothing is converted on the way, and types stay what they are."""
    return {"row": pickle.dumps(row, protocol=5)}


def unpack(data: bytes) -> Any:
    return pickle.loads(data)  # noqa: S301  written by `pack`, in a worker of this job


class EmbedBatches:
    """`Embed` as an actor. It is there at once, and loads its model while videos are looked at."""

    def __init__(self, place: Place) -> None:
        give_way(place.ingest.niceness)
        self._place = place
        self._embed = signs.begin(lambda: Embed(place))

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        rows = [unpack(each) for each in batch["row"]]
        for row in alive(lambda: self._embed.result()(rows), self._place):
            yield {"row": [pack(row)["row"]]}


def run(settings: Settings, job_id: str, submission: int) -> int:
    """Drive a job to its end; 0 when every video is accounted for and none has failed."""
    url = logins.url(settings, JOBS)
    with database.connect(url, autocommit=True) as connection:
        job_source, options = jobs.begin(connection, job_id, submission)
        name, show = owner(job_id, submission), Gauges(settings, job_id).show
        with Heartbeat(url, job_id, submission, name, lease_s=10, also=show) as heart:
            try:
                survey = Survey(jobs.section(settings, options))
                place = prepare(settings, connection, job_id, submission, job_source, options, survey)
                heart.lease_s = place.ingest.lease_s
                rounds(connection, place, heart, survey)
                jobs.settle(connection, job_id, place.model.id)
                if job_source != jobs.CATALOGUE:
                    note_reposts(connection, job_id)
                error = jobs.reconcile(jobs.get(connection, job_id))
            except Rejected as refused:
                error = str(refused)
            except KeyboardInterrupt:  # of its heartbeat
                if not heart.stopped:
                    raise
            if heart.stopped:
                return 1
        jobs.finish(connection, job_id, submission, "failed" if error else "succeeded", error)
        if job_source != jobs.CATALOGUE:
            jobs.fill_followed(settings, connection, options.model or settings.section(ModelSettings).name)
    log.info("job finished: %s", error or "every video is accounted for", extra={"job_id": job_id})
    return 1 if error else 0


def prepare(
    settings: Settings,
    connection: Connection,
    job_id: str,
    submission: int,
    job_source: str,
    options: jobs.Options,
    survey: Survey,
) -> Place:
    """List the source once, take over from drivers that died, and learn what the model is. The nodes are asked meanwhile.

    Raises:
        Rejected: the source or the model cannot be used, or an error that another start would come to again.
        Temporary, psycopg.OperationalError, ray.exceptions.RayError, OSError: another start may mend it.
    """
    import ray

    try:
        return _prepared(settings, connection, job_id, submission, job_source, options, survey)
    except (PixrError, ray.exceptions.RayError, *RETRIED):
        raise
    except Exception as permanent:
        log.exception("job given up: another start would come to the same", extra={"job_id": job_id})
        detail = f"the source cannot be listed: {type(permanent).__name__}: {permanent}"
        raise Rejected(detail, status=500, code="bug", hint="see the job's log") from permanent


def _prepared(
    settings: Settings,
    connection: Connection,
    job_id: str,
    submission: int,
    job_source: str,
    options: jobs.Options,
    survey: Survey,
) -> Place:
    ends = runtime.endpoints(settings)
    ingest, named = survey.ingest, settings.section(ModelSettings)
    survey.begin()  # a node answers after some seconds, as does a model that nobody has registered
    named = dataclasses.replace(named, name=options.model or named.name)
    leases.release(connection, job_id, except_owner=owner(job_id, submission))
    model = models.register(connection, named, ingest.embedder_cpus)
    if job_source == jobs.CATALOGUE:  # what is ingested from now on comes after what is filled in
        index_admin.follow(connection, named.name)
    s3 = dataclasses.replace(ends.s3, buckets=(settings.s3.bucket, *settings.s3.ingest_buckets))
    if not jobs.is_listed(connection, job_id):
        list_source(connection, Storage(s3), settings.s3, job_id, job_source, options, model.id)
    name = owner(job_id, submission)
    return Place(job_id, name, logins.url(settings, JOBS), s3, settings.s3.bucket, ingest, named, model)


def list_source(
    connection: Connection,
    storage: Storage,
    s3: S3Settings,
    job_id: str,
    job_source: str,
    options: jobs.Options,
    model_id: int,
) -> None:
    """List a job's source, write down what is there, and delete what was taken down before.

    Raises:
        Rejected: the source may not be listed, or nothing in it can be kept.
    """
    lists.require_known(connection, job_source)
    rights = options.rights(s3.ingest_buckets)
    found = source.listed(
        job_source,
        storage,
        creator=options.creator,
        manifest_uri=options.manifest,
        rights=rights,
        is_known=creators.knows(connection),
        own_bucket=s3.bucket,
    )
    registered = list_videos(connection, job_id, found, model_id, rights)
    forget_removed(storage, s3.bucket, registered)
    jobs.mark_listed(connection, job_id)  # last: the driver that takes over does all of this again, or none of it


def list_videos(
    connection: Connection, job_id: str, found: source.Listing, model_id: int, rights: Rights = ANYBODY
) -> catalog.Registered:
    """Write down a job's videos, and what people should know of its source.

    Raises:
        Rejected: the database keeps none of them.
    """
    noted = Remarks()
    noted.extend(found.remarks)
    registered = catalog.register(connection, job_id, found.videos, model_id, rights)
    for note in (*registered.refused, *registered.notes):
        noted.add(note.kind, note.reason, name_of(note) if note.is_named else "")
    jobs.note(connection, job_id, {"remarks": noted.rows()})
    refused = registered.refused
    if len(refused) == len(found.videos):
        raise Rejected(f"no video of {len(refused)} could be registered: {refused[0].reason}", code="nothing-to-do")
    return registered


def note_reposts(connection: Connection, job_id: str) -> None:
    """Say which of a job's videos are reposts, beside what was said of its source."""
    noted = Remarks()
    noted.extend(row for row in jobs.get(connection, job_id)["remarks"] if row["kind"] not in (REPOST, WALLET_REFUSED))
    reposts.note(connection, job_id, noted)
    jobs.note(connection, job_id, {"remarks": noted.rows()})


def forget_removed(storage: Storage, bucket: str, registered: catalog.Registered) -> None:
    """Delete uploads of videos that were taken down: ingesting their folder again has sent them again."""
    for note in registered.notes:
        if note.kind == TAKEN_DOWN and note.video.source_uri.startswith(f"s3://{bucket}/{UPLOADS}/"):
            storage.delete(note.video.source_uri)


def name_of(note: Note) -> str:
    name = note.video.source_uri.rpartition("/")[2]
    return f"{name} for {note.video.creator}" if note.kind == CREATOR_KEPT else name


def owner(job_id: str, submission: int) -> str:
    return f"{job_id}/{submission}"


def rounds(connection: Connection, place: Place, heart: Heartbeat, survey: Survey) -> None:
    """Run the pipeline over what is open, again for what was put back, until nothing is; every wait is bounded.

    A round that was cut short is followed by smaller ones: what brought it down soon stands alone, and is refused when
    it has been begun too often, while its neighbours get on.

    Raises:
        Rejected: no node can confine a decoder.
    """
    size = 0  # videos of the next round; 0 is all
    for number in range(ROUNDS_MAX):
        ready = startable(connection, place, heart)
        if not ready:
            break
        chosen = ready[: size or len(ready)]
        try:
            whole = execute(chosen, place, heart, number, survey)
        except Rejected as refused:
            leases.give_up(connection, place.job_id, str(refused), place.owner)
            leases.put_back(connection, place.owner)  # videos that searches find stay as they are
            jobs.settle(connection, place.job_id, place.model.id)
            raise
        size = size * ROUND_FACTOR if whole else max(1, len(chosen) // ROUND_FACTOR)
        lost = leases.put_back(connection, place.owner)  # nobody works on them any more
        if lost:
            log.warning("%s videos were left behind by round %s", lost, number, extra={"job_id": place.job_id})
    if not heart.stopped:
        leases.give_up(connection, place.job_id)


def startable(connection: Connection, place: Place, heart: Heartbeat) -> list[int]:
    """Wait for videos that can be begun; none where all are finished, the job shall stop, or waiting comes to nothing.

    Waiting is no round: videos rest after a failure, and another job may be at them.
    """
    deadline = time.monotonic() + place.ingest.waited_max_s
    while not heart.stopped:
        jobs.settle(connection, place.job_id, place.model.id)
        ready, waiting, wait_s = jobs.open_videos(connection, place.job_id)
        if ready or not waiting or time.monotonic() > deadline:
            return ready
        time.sleep(min(max(wait_s, 0.1), WAIT_MAX_S))
    return []


def execute(video_ids: list[int], place: Place, heart: Heartbeat, number: int, survey: Survey) -> bool:
    """One run of the pipeline, and whether it came to its end. What it leaves behind, the next round takes up.

    Raises:
        Rejected: no node can confine a decoder. Ray works on nothing of the round any more.
    """
    import ray

    configure(place)
    counts: dict[str, int] = {}
    whole = True
    try:
        survey.require()
        batches = pipeline(video_ids, place, survey).iter_batches(batch_size=None, prefetch_batches=0)
        with contextlib.closing(iter(batches)) as running:  # type: ignore[type-var]  # a generator
            for done in (unpack(row) for batch in running for row in batch["row"]):
                if done != AT_WORK:
                    counts[done.outcome] = counts.get(done.outcome, 0) + 1
                if done.outcome == UNCONFINED:  # by a node that had not answered
                    survey.require()
                if heart.stopped:
                    break
    except (ray.exceptions.RayError, ray.data.exceptions.ExecutionTimeoutError) as error:
        whole = False
        log.warning("round %s was cut short: %s", number, str(error).splitlines()[0], extra={"job_id": place.job_id})
        time.sleep(backoff_s(number, 1.0, WAIT_MAX_S))
    log.info("round %s over %s videos: %s", number, len(video_ids), counts, extra={"job_id": place.job_id})
    return whole


def configure(place: Place) -> None:
    """Ray Data's settings for this driver; nothing may be retried for ever, dropped in silence or wait in vain."""
    import ray

    context = ray.data.DataContext.get_current()
    context.wait_for_min_actors_s = (
        place.ingest.start_timeout_s
    )  # nothing of a round is begun before, and no time counts
    context.execution_no_progress_timeout_s = place.ingest.no_progress_timeout_s
    context.max_errored_blocks = 0
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    context.target_max_block_size = 1  # byte: a block a row, for a row is a task's worth and larger than that
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    store_bytes = resources.get("object_store_memory", 0.0) * place.ingest.object_store_share
    context.execution_options.resource_limits = ray.data.ExecutionResources.for_limits(object_store_memory=store_bytes)


class Heartbeat(threading.Thread):
    """Keeps the job's and the videos' leases while the driver works, and learns when it shall stop.

    It goes on until the job is over, whatever goes wrong in it: a driver without one works on what others have taken over.
    One that shall stop and does not come to it within `stop_s` is ended, with the work that Ray does for it.
    """

    def __init__(
        self,
        postgres_url: str,
        job_id: str,
        submission: int,
        lease_owner: str,
        lease_s: int,
        also: Callable[[Connection], None],
        stop_s: float = STOP_MAX_S,
    ) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._url = database.with_statement_timeout(postgres_url, BEAT_TIMEOUT_MS)
        self._job, self._submission, self._owner = job_id, submission, lease_owner
        self.lease_s = lease_s
        self.stopped = False
        self._also, self._stop_s = also, stop_s
        self._over = threading.Event()

    def __enter__(self) -> Heartbeat:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(10)

    def run(self) -> None:
        while not self.stopped:
            if self._over.wait(max(0.5, min(self.lease_s / 4, 5.0))):
                return
            try:
                with database.session(self._url, autocommit=True) as connection:
                    self._beat(connection)
            except Temporary as error:
                log.warning("no heartbeat: %s", error, extra={"job_id": self._job})
            except Exception:
                log.exception("no heartbeat", extra={"job_id": self._job})
        if not self._over.wait(self._stop_s):
            log.error("the driver shall stop and works on: it is ended", extra={"job_id": self._job})
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _beat(self, connection: Connection) -> None:
        self.stopped = not jobs.beat(connection, self._job, self._submission)
        if self.stopped:
            return
        leases.renew(connection, self._owner, self.lease_s)
        try:  # what is shown is worth no lease
            self._also(connection)
        except Temporary as error:
            log.warning("the job's figures are not shown: %s", error, extra={"job_id": self._job})
        except Exception:
            log.exception("the job's figures are not shown", extra={"job_id": self._job})


def main() -> int:
    """The entry point of Ray's job: which job it is stands in the arguments, everything else in the settings."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.ingest")
    parser.add_argument("--job", required=True)
    parser.add_argument("--submission", type=int, required=True)
    arguments = parser.parse_args()
    telemetry.configure("ingest")
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # ignored where Ray was started in the background of a shell
    settings = settings_module.load()
    ray_cluster.connect(settings)
    try:
        return run(settings, arguments.job, arguments.submission)
    except Rejected as error:  # another driver has it, or it is over
        log.error("driver ended: %s", error, extra={"job_id": arguments.job})
        return 1


if __name__ == "__main__":
    from pipelines import ingest  # noqa: PLW0406  by its name, so that workers find what is sent to them

    raise SystemExit(ingest.main())
