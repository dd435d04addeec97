"""The ingest job: from the objects of a bucket to searchable moments. Ray runs `python -m pipelines.ingest`.

    video ids → Plan     begins an attempt, fetches the file, probes it, cuts it into chunks      → chunks
              → Decode   in a sandboxed child: measurements of every frame, candidates as tensors → decoded chunks
              → Embed    a pool of actors that hold the model                                     → vectors
              → Store    COPY into staging; the last chunk of a video makes it ready, whole

Rows are chunks, so one long video is spread over the workers like many short ones, and gives the same moments. A bad
file becomes a refused row and raises nothing; Ray's retries are finite. What a crash leaves unfinished is taken up
again from PostgreSQL: here in rounds, and after a driver's death by `jobs/watch.py`.
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

from cluster import ray_cluster, runtime
from cluster import settings as settings_module
from cluster.database import database, logins
from cluster.errors import PixrError, Rejected, Temporary
from cluster.observability import telemetry
from cluster.resilience import backoff_s
from cluster.roles import JOBS
from cluster.settings import S3Settings, Settings
from cluster.storage import Storage
from pipelines.catalog import catalog, creators, reposts
from pipelines.index import admin as index_admin
from pipelines.jobs import jobs, leases, signs
from pipelines.jobs.gauges import Gauges
from pipelines.media import UNCONFINED
from pipelines.models import registry
from pipelines.nodes import Survey
from pipelines.settings import IngestSettings, ModelSettings
from pipelines.sources import lists, source
from pipelines.sources.handles import ANY_CREATOR, Rights
from pipelines.sources.listed import Note
from pipelines.sources.lists import UPLOADS
from pipelines.sources.remarks import CREATOR_KEPT, REPOST, TAKEN_DOWN, Remarks
from pipelines.stages import AT_WORK, Decode, Embed, JobContext, Plan, Refused, Store

if TYPE_CHECKING:
    from psycopg import Connection
    from ray.data import Dataset

log = logging.getLogger(__name__)

DECODERS_A_PLANNER, PLANNERS_MIN = 8, 2
DECODERS_A_STORER, STORERS_MIN = 8, 2
CHUNKS_A_BATCH = 8  # given to an encoder at once, which fills its batches with frames of all of them
TASK_RETRIES = 3  # of a task whose worker was killed
ACTOR_RESTARTS = 20
SIGNS_A_TIMEOUT = 4  # signs of life that a step gives within `no_progress_timeout_s`
ROUNDS_MAX = 60
ROUND_FACTOR = 4  # by which rounds shrink after one that was cut short, and grow again
WAIT_MAX_S = 5.0  # between checks for videos that can be started
STOP_MAX_S = 30.0  # for a stopped driver to finish a batch
BEAT_TIMEOUT_MS = 20_000  # of one statement of a heartbeat

# Errors that another start of the driver may not meet again, besides Pixr's own.
RETRIED = (psycopg.OperationalError, psycopg.InterfaceError, OSError, MemoryError)

Row = dict[str, Any]


def pipeline(video_ids: list[int], context: JobContext, survey: Survey) -> Dataset:
    """Compose the stages; those that read files run only on nodes that can confine a decoder."""
    import ray

    warnings.filterwarnings("ignore", message="`ray_remote_args`")  # Ray has no other way to bound retries yet
    ingest = context.ingest
    encoders = ray.data.ActorPoolStrategy(min_size=ingest.embedders_min, max_size=ingest.embedders_max)
    planners, decoders, storers = (ray.data.TaskPoolStrategy(size) for size in pool_sizes(ingest, survey.cpus()))
    return (
        ray.data.from_items([pack(video) for video in video_ids], override_num_blocks=len(video_ids))
        .flat_map(
            one_to_many(Plan(context), context), num_cpus=0.1, compute=planners, max_retries=TASK_RETRIES,
            ray_remote_args_fn=survey.placing,
        )
        .flat_map(
            one_to_one(Decode(context), context), num_cpus=ingest.decoder_cpus, compute=decoders,
            max_retries=TASK_RETRIES, ray_remote_args_fn=survey.placing,
        )
        .map_batches(
            EmbedBatches, fn_constructor_args=(context,), compute=encoders, batch_size=CHUNKS_A_BATCH,
            num_cpus=ingest.embedder_cpus, num_gpus=ingest.embedder_gpus,
            max_restarts=ACTOR_RESTARTS, max_task_retries=TASK_RETRIES,
        )
        .flat_map(one_to_one(Store(context), context), num_cpus=0.1, compute=storers, max_retries=TASK_RETRIES)
    )  # fmt: skip


def pool_sizes(ingest: IngestSettings, cpus: float) -> tuple[int, int | None, int]:
    """Return how many tasks may plan, decode and store at once, given the CPUs for decoding; None means no bound.

    Ray reserves an equal part of all CPUs for each stage without a bound, whether it has work or not. So only decoding
    may be without one: it gets the CPUs that the other stages leave.
    """
    decoders = ingest.decoders_max or int(cpus / ingest.decoder_cpus)
    planners, storers = decoders // DECODERS_A_PLANNER, decoders // DECODERS_A_STORER
    return max(PLANNERS_MIN, planners), ingest.decoders_max or None, max(STORERS_MIN, storers)


def one_to_one(stage: Callable[[Any], Any], context: JobContext) -> Callable[[Row], Iterator[Row]]:
    """Return a function that Ray can map over rows, from a stage that returns one row for each row."""
    return one_to_many(lambda row: (stage(row),), context)


def one_to_many(stage: Callable[[Any], Iterable[Any]], context: JobContext) -> Callable[[Row], Iterator[Row]]:
    """Return a function that Ray can map over rows, from a stage that yields several rows for each row.

    While the stage works, the function yields signs of life (`jobs/signs.py`) as further rows.
    """
    store = Store(context)

    def call(row: Row) -> Iterator[Row]:
        give_way(context.ingest.niceness)
        for result in with_signs(
            lambda: (recorded(result_row, store) for result_row in stage(unpack(row["row"]))), context
        ):
            yield pack(result)

    return call


def with_signs(step: Callable[[], Iterable[Any]], context: JobContext) -> Iterator[Any]:
    """Run a step and yield its rows, with signs of life often enough for `no_progress_timeout_s`."""
    ingest = context.ingest
    every_s = ingest.no_progress_timeout_s / SIGNS_A_TIMEOUT
    return signs.alive(step, AT_WORK, every_s, ingest.step_timeout_s)


def recorded(row: Any, store: Store) -> Any:
    """Return the row; if it is a refusal, record it in the database first and return the outcome.

    Later stages could record it only after a model was loaded and a batch was full.
    """
    return store(row) if isinstance(row, Refused) else row


def give_way(niceness: int) -> None:
    """Lower the priority of this thread, and of the processes that it starts, so that searches go first.

    The priority is never raised again, because a worker serves a single job.
    """
    if os.getpriority(os.PRIO_PROCESS, 0) < niceness:
        os.setpriority(os.PRIO_PROCESS, 0, niceness)


def pack(row: Any) -> Row:
    """Wrap a row as opaque bytes, so that Ray converts nothing and types stay what they are."""
    return {"row": pickle.dumps(row, protocol=5)}


def unpack(data: bytes) -> Any:
    """Return a wrapped row."""
    return pickle.loads(data)  # noqa: S301  written by `pack`, in a worker of this job


class EmbedBatches:
    """`Embed` as an actor, which starts at once and loads its model while videos are being probed."""

    def __init__(self, context: JobContext) -> None:
        give_way(context.ingest.niceness)
        self._context = context
        self._embed = signs.begin(lambda: Embed(context))

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        rows = [unpack(packed) for packed in batch["row"]]
        for row in with_signs(lambda: self._embed.result()(rows), self._context):
            yield {"row": [pack(row)["row"]]}


def run(settings: Settings, job_id: str, submission: int) -> int:
    """Drive a job to its end; return 0 if every video is accounted for and none has failed, else 1."""
    url = logins.url(settings, JOBS)
    with database.connect(url, autocommit=True) as connection:
        job_source, options = jobs.begin(connection, job_id, submission)
        name, show = owner(job_id, submission), Gauges(settings, job_id).show
        with Heartbeat(url, job_id, submission, name, lease_s=10, also=show) as heart:
            try:
                survey = Survey(jobs.section(settings, options))
                context = prepare(settings, connection, job_id, submission, job_source, options, survey)
                heart.lease_s = context.ingest.lease_s
                rounds(connection, context, heart, survey)
                jobs.settle(connection, job_id, context.model.id)
                if job_source != jobs.CATALOGUE:
                    note_reposts(connection, job_id)
                error = jobs.reconcile(jobs.get(connection, job_id))
            except Rejected as refused:
                error = str(refused)
            except KeyboardInterrupt:  # sent by the heartbeat
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
) -> JobContext:
    """List the source once, end the leases of drivers that died, and register the model.

    Meanwhile the nodes of the cluster are asked whether they can confine a decoder.

    Args:
        settings: All settings.
        connection: Connection to the primary, in autocommit mode.
        job_id: The job.
        submission: Number of this driver's submission.
        job_source: S3 prefix, upload list, or CATALOGUE.
        options: What to do, besides the source.
        survey: Asks the nodes whether they can confine a decoder; this function starts it.

    Returns:
        What the stages need.

    Raises:
        Rejected: the source or the model cannot be used, or an error occurred that another start would meet again.
        Temporary, psycopg.OperationalError, ray.exceptions.RayError, OSError: another start may succeed.
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
) -> JobContext:
    """Do the work of `prepare`, which turns unexpected errors of this function into `Rejected`."""
    endpoints = runtime.endpoints(settings)
    ingest, model_settings = survey.ingest, settings.section(ModelSettings)
    survey.begin()  # nodes take some seconds to answer, as does loading a model that is not registered
    model_settings = dataclasses.replace(model_settings, name=options.model or model_settings.name)
    leases.release(connection, job_id, except_owner=owner(job_id, submission))
    model = registry.register(connection, model_settings, ingest.embedder_cpus)
    if job_source == jobs.CATALOGUE:  # videos ingested from now on must get this model's vectors too
        index_admin.follow(connection, model_settings.name)
    s3 = dataclasses.replace(endpoints.s3, buckets=(settings.s3.bucket, *settings.s3.ingest_buckets))
    if not jobs.is_listed(connection, job_id):
        list_source(connection, Storage(s3), settings.s3, job_id, job_source, options, model.id)
    name = owner(job_id, submission)
    return JobContext(job_id, name, logins.url(settings, JOBS), s3, settings.s3.bucket, ingest, model_settings, model)


def list_source(
    connection: Connection,
    storage: Storage,
    s3: S3Settings,
    job_id: str,
    job_source: str,
    options: jobs.Options,
    model_id: int,
) -> None:
    """List a job's source, register its videos, and delete uploads of videos that were taken down before.

    Args:
        connection: Connection to the primary.
        storage: Object store to read from.
        s3: Names Pixr's own bucket, and the buckets that jobs may read.
        job_id: The job.
        job_source: S3 prefix or upload list.
        options: What to do, besides the source.
        model_id: Number of the job's model.

    Raises:
        Rejected: the source may not be listed, or none of its videos can be stored.
    """
    lists.require_known(connection, job_source)
    rights = options.rights(s3.ingest_buckets)
    listing = source.listed(
        job_source,
        storage,
        creator=options.creator,
        manifest_uri=options.manifest,
        rights=rights,
        is_known=creators.knows(connection),
        own_bucket=s3.bucket,
    )
    registered = list_videos(connection, job_id, listing, model_id, rights)
    forget_removed(storage, s3.bucket, registered)
    jobs.mark_listed(connection, job_id)  # last, so that a driver that takes over does all of this again, or nothing


def list_videos(
    connection: Connection, job_id: str, listing: source.Listing, model_id: int, rights: Rights = ANY_CREATOR
) -> catalog.Registered:
    """Register a job's videos, and store the remarks on its source in the job.

    Args:
        connection: Connection to the primary.
        job_id: The job.
        listing: The listed source.
        model_id: Number of the job's model.
        rights: Creators that the job may speak for.

    Returns:
        The videos that were not stored, and remarks on others.

    Raises:
        Rejected: none of the videos can be stored.
    """
    remarks = Remarks()
    remarks.extend(listing.remarks)
    registered = catalog.register(connection, job_id, listing.videos, model_id, rights)
    for note in (*registered.refused, *registered.notes):
        remarks.add(note.kind, note.reason, name_of(note) if note.is_named else "")
    jobs.note(connection, job_id, {"remarks": remarks.rows()})
    refused = registered.refused
    if len(refused) == len(listing.videos):
        raise Rejected(f"no video of {len(refused)} could be registered: {refused[0].reason}", code="nothing-to-do")
    return registered


def note_reposts(connection: Connection, job_id: str) -> None:
    """Store in a job which of its videos are reposts, besides the remarks on its source."""
    remarks = Remarks()
    remarks.extend(row for row in jobs.get(connection, job_id)["remarks"] if row["kind"] != REPOST)
    reposts.note(connection, job_id, remarks)
    jobs.note(connection, job_id, {"remarks": remarks.rows()})


def forget_removed(storage: Storage, bucket: str, registered: catalog.Registered) -> None:
    """Delete uploads of videos that were taken down; `pixr ingest` of their folder has just uploaded them again."""
    for note in registered.notes:
        if note.kind == TAKEN_DOWN and note.video.source_uri.startswith(f"s3://{bucket}/{UPLOADS}/"):
            storage.delete(note.video.source_uri)


def name_of(note: Note) -> str:
    """Return how a remark names its video: by file name, followed by the creator if the remark is about the creator."""
    name = note.video.source_uri.rpartition("/")[2]
    return f"{name} for {note.video.creator}" if note.kind == CREATOR_KEPT else name


def owner(job_id: str, submission: int) -> str:
    """Return the name under which a driver owns leases."""
    return f"{job_id}/{submission}"


def rounds(connection: Connection, context: JobContext, heart: Heartbeat, survey: Survey) -> None:
    """Run the pipeline over the open videos, and again over those put back, until none are left; every wait is bounded.

    After a round that was cut short, the next rounds take fewer videos. So a video that brings rounds down is soon
    alone in a round, and is refused after too many attempts, while the others proceed.

    Args:
        connection: Connection to the primary, in autocommit mode.
        context: What the stages need.
        heart: Says when to stop.
        survey: The nodes.

    Raises:
        Rejected: no node can confine a decoder.
    """
    size = 0  # videos of the next round; 0: all
    for number in range(ROUNDS_MAX):
        ready = startable(connection, context, heart)
        if not ready:
            break
        chosen = ready[: size or len(ready)]
        try:
            is_complete = execute(chosen, context, heart, number, survey)
        except Rejected as refused:
            leases.give_up(connection, context.job_id, str(refused), context.owner)
            leases.put_back(connection, context.owner)  # those still leased are searchable, and stay so
            jobs.settle(connection, context.job_id, context.model.id)
            raise
        size = size * ROUND_FACTOR if is_complete else max(1, len(chosen) // ROUND_FACTOR)
        lost = leases.put_back(connection, context.owner)  # the round is over, so these are not worked on
        if lost:
            log.warning("%s videos were left behind by round %s", lost, number, extra={"job_id": context.job_id})
    if not heart.stopped:
        leases.give_up(connection, context.job_id)


def startable(connection: Connection, context: JobContext, heart: Heartbeat) -> list[int]:
    """Wait for videos that can be started; return none if all are finished, the job must stop, or the wait is too long.

    A video cannot be started while it rests after a failure or another job holds its lease. Waiting does not count as a
    round.
    """
    deadline = time.monotonic() + context.ingest.waited_max_s
    while not heart.stopped:
        jobs.settle(connection, context.job_id, context.model.id)
        ready, waiting, wait_s = jobs.open_videos(connection, context.job_id)
        if ready or not waiting or time.monotonic() > deadline:
            return ready
        time.sleep(min(max(wait_s, 0.1), WAIT_MAX_S))
    return []


def execute(video_ids: list[int], context: JobContext, heart: Heartbeat, number: int, survey: Survey) -> bool:
    """Run the pipeline once over some videos; what it leaves unfinished is taken up by the next round.

    Args:
        video_ids: The videos.
        context: What the stages need.
        heart: The heartbeat, which knows when to stop.
        number: The number of the round.
        survey: The nodes.

    Returns:
        False if Ray cut the round short.

    Raises:
        Rejected: no node can confine a decoder. Ray has then stopped all work of the round.
    """
    import ray

    configure(context)
    counts: dict[str, int] = {}
    is_complete = True
    try:
        survey.require()
        batches = pipeline(video_ids, context, survey).iter_batches(batch_size=None, prefetch_batches=0)
        with contextlib.closing(iter(batches)) as running:  # type: ignore[type-var]  # a generator
            for done in (unpack(row) for batch in running for row in batch["row"]):
                if done != AT_WORK:
                    counts[done.outcome] = counts.get(done.outcome, 0) + 1
                if done.outcome == UNCONFINED:  # from a node that had not answered yet
                    survey.require()
                if heart.stopped:
                    break
    except (ray.exceptions.RayError, ray.data.exceptions.ExecutionTimeoutError) as error:
        is_complete = False
        log.warning("round %s was cut short: %s", number, str(error).splitlines()[0], extra={"job_id": context.job_id})
        time.sleep(backoff_s(number, 1.0, WAIT_MAX_S))
    log.info("round %s over %s videos: %s", number, len(video_ids), counts, extra={"job_id": context.job_id})
    return is_complete


def configure(context: JobContext) -> None:
    """Set Ray Data's options for this driver, so that nothing is retried for ever, dropped silently, or waited for in vain."""
    import ray

    data_context = ray.data.DataContext.get_current()
    # No video of a round is started, and no time counted, before the encoders have a process each.
    data_context.wait_for_min_actors_s = context.ingest.start_timeout_s
    data_context.execution_no_progress_timeout_s = context.ingest.no_progress_timeout_s
    data_context.max_errored_blocks = 0
    data_context.enable_progress_bars = False
    data_context.execution_options.preserve_order = False
    data_context.target_max_block_size = 1  # byte: one row a block, since a row is as much as a task should get
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    store_bytes = resources.get("object_store_memory", 0.0) * context.ingest.object_store_share
    limits = ray.data.ExecutionResources.for_limits(object_store_memory=store_bytes)
    data_context.execution_options.resource_limits = limits


class Heartbeat(threading.Thread):
    """Thread that renews the leases of a job's videos while the driver works, and learns when the driver must stop.

    It continues after any error: without heartbeats, others would take over videos that this driver still works on. If
    the driver must stop and does not within `stop_s`, it is interrupted, with the work that Ray does for it.
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
        """Prepare the thread; it starts with the `with` block.

        Args:
            postgres_url: Where to connect.
            job_id: The job.
            submission: Number of the driver's submission.
            lease_owner: Owner of the videos' leases.
            lease_s: Length of a lease in seconds.
            also: Called with each beat, to show the job's figures.
            stop_s: Seconds that the driver has to stop.
        """
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
        """Beat until the job is over or the driver must stop; interrupt a driver that does not stop in time."""
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
        """Note that the job is alive, renew its leases and store its figures; or learn that the driver must stop."""
        self.stopped = not jobs.beat(connection, self._job, self._submission)
        if self.stopped:
            return
        leases.renew(connection, self._owner, self.lease_s)
        try:  # the leases must not depend on showing figures
            self._also(connection)
        except Temporary as error:
            log.warning("the job's figures are not shown: %s", error, extra={"job_id": self._job})
        except Exception:
            log.exception("the job's figures are not shown", extra={"job_id": self._job})


def main() -> int:
    """Run the job named by the arguments; everything else is in the settings. This is the entry point of Ray's job."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.ingest")
    parser.add_argument("--job", required=True)
    parser.add_argument("--submission", type=int, required=True)
    arguments = parser.parse_args()
    telemetry.configure("ingest")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if Ray was started in the background of a shell
    settings = settings_module.load()
    ray_cluster.connect(settings)
    try:
        return run(settings, arguments.job, arguments.submission)
    except Rejected as error:  # another driver has taken over, or the job is over
        log.error("driver ended: %s", error, extra={"job_id": arguments.job})
        return 1


if __name__ == "__main__":
    from pipelines import ingest  # noqa: PLW0406  by its name, so that workers find what is sent to them

    raise SystemExit(ingest.main())
