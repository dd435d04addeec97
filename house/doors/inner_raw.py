"""The entries that only the inside shows, by what 7812ba8 and later trees have in common. Run beside a running stack of the tree:

    PIXR_CONFIG=… PIXR_DATA_DIR=<the stack's> PYTHONPATH=<tree> PYTHON inner_raw.py

A database of its own is made in the stack's PostgreSQL, and removed. One line an entry: new-behaviour, OLD-FAULT or NOT-SHOWN.
"""

import asyncio, fcntl, inspect, os, resource, tempfile, threading, time, traceback
from collections import deque
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import psycopg
from psycopg import sql

from cluster import database, migrations, runtime, settings as settings_module
from cluster.errors import PixrError, Rejected, Temporary
from ledger import appearances, spool
from ledger.appearances import Appearance
from ledger.settings import LedgerSettings
from serve.settings import SearchSettings

try:
    from ledger.recorder import Recorder
except ImportError:
    from ledger.appearances import Recorder

OLD, NEW, UNSHOWN = "OLD-FAULT", "new-behaviour", "NOT-SHOWN"
STACK = settings_module.load()
NAME = f"inner_{os.getpid()}"
SERVER = runtime.postgres_url(STACK, "postgres")
URL = runtime.postgres_url(STACK, NAME)


def say(entry, verdict, detail):
    print(f"{entry:<12} {verdict:<13} {detail}", flush=True)


def own_settings():
    """Settings of a folder of its own over the stack's services and the database of this run."""
    ends = runtime.endpoints(STACK)
    folder = tempfile.mkdtemp(prefix="inner-")
    environ = {
        "PIXR_CONFIG": os.environ["PIXR_CONFIG"], "PIXR_DATA_DIR": folder, "PIXR_POSTGRES_URL": URL, "PIXR_REDIS_URL": ends.redis_url,
        "PIXR_S3_URL": ends.s3.url, "PIXR_S3_KEY": ends.s3.key, "PIXR_S3_SECRET": ends.s3.secret,
    }
    made = settings_module.load(environ=environ)
    (made.data_dir / "run").mkdir(parents=True, exist_ok=True)
    for name in ("solana", "ray", "ray-dashboard", "serve"):
        runtime.port(made, name, 20_000 + hash(name) % 5000)
    return made


def quick(settings, **more):
    return settings.with_section(replace(settings.section(LedgerSettings), flush_interval_ms=1, **more))


def shown(number):
    return Appearance(bytes(16), number, 1, 0, 500_000, 500)


async def until(condition, within=8.0):
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.02)
    return True


def connection():
    return psycopg.connect(URL, autocommit=True)


def own_of(recorder):
    """Id and spool of its present incarnation."""
    own = getattr(recorder, "_own", None)
    return (own.id, own.spool) if own is not None else (recorder._incarnation, recorder._spool)


async def b4():
    recorder = Recorder(quick(own_settings()))
    await recorder.start()
    recorder.record([shown(1)])
    await until(lambda: recorder.waiting == 0)
    with connection() as c:  # a failover to a standby that lagged: batch and incarnation are forgotten
        number = own_of(recorder)[0]
        c.execute("DELETE FROM ledger.appearance_batches WHERE incarnation = %s", (number,))
        c.execute("DELETE FROM ledger.incarnations WHERE id = %s", (number,))
    recorder.record([shown(2)])
    carried = await until(lambda: recorder.waiting == 0)
    task = getattr(recorder, "_task", None)
    dead = repr(task.exception()) if isinstance(task, asyncio.Task) and task.done() and not task.cancelled() else "no"
    with connection() as c:
        rows = c.execute("SELECT coalesce(sum(searches), 0) FROM ledger.appearance_batches").fetchone()[0]
    say("B4", NEW if carried else OLD, f"after the database forgot its incarnation: carried on {carried}, its task has ended: {dead}, searches in the database {rows} of 2")
    with suppress(Exception, asyncio.CancelledError):
        await asyncio.wait_for(recorder.close(), 8)


def free(folder):
    """How many spools another process could lock."""
    count = 0
    for path in folder.glob("*.spool"):
        descriptor = os.open(path, os.O_RDONLY)
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            count += 1
        os.close(descriptor)
    return count


async def b5():
    folder = own_settings().data_dir / "spool"
    paths = []
    for number in sorted((uuid4() for _ in range(3)), key=str):
        owner = spool.Spool(folder, number)
        owner.append(appearances.search_record([shown(1)], spool.NO_KEY, bytes(8), 1))
        owner.close()
        paths.append(owner.path)
    with psycopg.connect(URL) as other, connection() as mine:
        other.execute("INSERT INTO ledger.incarnations (id, spool) VALUES (%s, 'x')", (paths[0].stem,))
        mine.execute("SET lock_timeout = '100ms'")
        before, kept = len(os.listdir("/proc/self/fd")), None
        try:
            adopted = appearances.adopt(mine, folder)
        except psycopg.Error as error:
            adopted, kept = type(error).__name__, error  # `kept` as a log record or a debugger does; see below
        leaked = len(os.listdir("/proc/self/fd")) - before
        left, lockable = len(list(folder.glob("*.spool"))), free(folder)
        other.rollback()
        again = appearances.adopt(mine, folder)
        del kept
    still = len(list(folder.glob("*.spool")))
    say("B5", OLD if leaked or lockable < left else NEW, f"one of three spools cannot be recorded ({adopted}): {left} left, of which {lockable} can be locked; {leaked} descriptors kept; the next try adopts {again}, {still} left")


async def b14_b15():
    from serve import generation

    is_new = hasattr(generation.State, "of")

    class Fake:
        """Two replicas of which one lags, and the primary."""

        turn, told, lag = 0, [5, 4], True

        async def ask(self, *_a, **_k):
            self.turn += 1
            return self.row(self.told[self.turn % len(self.told)])

        async def primary(self, *_a, **_k):
            return self.row(max(self.told))

        def at_least(self, _generation):
            pass

        grown = 0

        def row(self, number):
            return (number, None, (), self.grown) if is_new else (number, None, ())

    search = replace(SearchSettings(), generation_interval_s=0.001)
    fake = Fake()
    looks = generation.Generation(fake, search)
    seen = []
    for _ in range(20):
        seen.append((await looks.now()).generation)
        await asyncio.sleep(0.005)
    back = sum(b < a for a, b in zip(seen, seen[1:]))
    say("B14", OLD if back else NEW, f"replicas at generations 5 and 4, asked in turn: {seen[:8]}… ({back} times backwards, each empties the caches)")
    fake = Fake()
    fake.told = [100]
    looks = generation.Generation(fake, search)
    await looks.now()
    seen = []
    for number in range(20):
        fake.told = [101 + number]
        fake.grown = number + 1
        await asyncio.sleep(0.02)
        seen.append((await looks.now()).generation)
    say("B15", OLD if len(set(seen)) > 10 else NEW, f"20 videos that were only added, one each 20 ms: {len(set(seen))} generations, each of which empties every cache")


async def b16():
    from pipelines import index
    from serve import readers as module

    search = replace(SearchSettings(), pool_max=1)
    if hasattr(module, "pool"):
        made = module.Readers(module.pool(URL, search), [], search)
    else:
        from serve.connections import Connections

        made = module.Readers(Connections(URL, search), [], search)
    await made.start()

    async def search_(c):
        await index.configure(c, {"statement_timeout": 77, "enable_seqscan": "off"})

    async def look(c):
        return await (await c.execute("SELECT current_setting('statement_timeout'), current_setting('enable_seqscan')")).fetchone()

    before = await made.ask(look)
    how = {"manner": "nearest"} if "manner" in inspect.signature(made.ask).parameters else {}
    await made.ask(search_, **how)
    after = await made.ask(look)
    await made.close()
    say("B16", OLD if after != before else NEW, f"statement_timeout, enable_seqscan of the next question of another kind: {before} before, {after} after a search")


async def b17():
    looked = 0

    class Counted(deque):
        def __iter__(self):
            nonlocal looked
            for each in super().__iter__():
                looked += 1
                yield each

    recorder = Recorder(quick(own_settings()))
    for number in range(2000):
        recorder.record([shown(number)])
    recorder._waiting = Counted(recorder._waiting)
    looked = 0
    await recorder.start()
    carried = await until(lambda: recorder.waiting == 0, 30)
    await asyncio.wait_for(recorder.close(), 8)
    say("B17", OLD if looked > 4000 else NEW, f"to carry a backlog of 2,000 searches (all carried: {carried}) {looked} are looked at")


async def b19():
    told, faults = [], 0
    given = [("40P01", "deadlock"), ("53100", "disk full"), ("55P03", "lock timeout"), ("57014", "statement timeout")]
    with connection() as c:
        for code, name in given:
            try:
                with database.translate(URL):
                    c.execute(f"DO $$ BEGIN RAISE EXCEPTION 'so it is' USING ERRCODE = '{code}'; END $$")
            except Exception as error:
                faults += "unreachable" in str(error)
                told.append(f"{name}: {type(error).__name__} {str(error)[:70]!r}")
    try:
        with database.translate(URL):
            psycopg.connect(URL.replace(":" + URL.split(":")[2].split("@")[0] + "@", ":wrong@"))
    except Exception as error:
        faults += isinstance(error, Temporary)
        told.append(f"wrong password: {type(error).__name__} {str(error)[-90:]!r}")
    say("B19", OLD if faults else NEW, "; ".join(told))


async def b20():
    recorder = Recorder(own_settings())
    recorder.record([shown(1)])
    path = own_of(recorder)[1].path
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, before[1]))
    try:
        recorder.record([shown(2)])
        told = None
    except Exception as error:
        told = error
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    say("B20", NEW if isinstance(told, Temporary) else OLD, f"no room for the spool: record raises {type(told).__mro__[0].__name__} ({told}), which the door answers {503 if isinstance(told, Temporary) else 500}")


async def b25():
    from serve import keys

    asked = []

    class Fake:
        async def ask(self, *_a, **_k):
            asked.append("any reader, replicas first")

        async def primary(self, *_a, **_k):
            asked.append("the primary")

    readers = Fake()
    try:
        await keys.identify(SimpleNamespace(readers=readers, pool=readers, search=SearchSettings()), "pixr_x")
    except Exception as error:
        asked.append(f"{type(error).__name__}: {error}")
    say("B25", OLD if "any" in str(asked) else NEW if "primary" in str(asked) else UNSHOWN, f"a key is looked up at: {asked}")


async def b27():
    from starlette.requests import Request
    from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

    seen = []

    async def app(scope, receive, send):
        try:
            from serve import origins

            seen.append(origins.bucket(origins.of(scope, b"the door's secret")))
        except ImportError:
            from serve import viewers

            seen.append(viewers.bucket(Request(scope), None)[1])

    for stranger in ("198.51.100.1", "203.0.113.2"):  # HAProxy of another node asks for two strangers
        headers = [(b"x-forwarded-for", stranger.encode()), (b"x-pixr-door", b"the door's secret")]
        await ProxyHeadersMiddleware(app)({"type": "http", "headers": headers, "client": ("10.0.0.9", 1), "scheme": "http"}, None, None)
    say("B27", OLD if len(set(seen)) == 1 else NEW, f"two strangers whom a door on another machine asks for have the buckets {seen}")


async def b30():
    from cluster.resilience import Breaker
    from cluster.storage import Storage
    from ledger import counters
    from pipelines import jobs

    with connection() as c:
        c.execute("INSERT INTO media.jobs (id, source) SELECT 'job-' || n, 's3://b/' FROM generate_series(1, 200) AS n")
        asked = 0

        class Counted(psycopg.Cursor):
            def execute(self, *a, **k):
                nonlocal asked
                asked += 1
                return super().execute(*a, **k)

        c.cursor_factory = Counted
        rows = len(jobs.listing(c, 200))
    say("B30 jobs", OLD if asked > 20 else NEW, f"a list of {rows} jobs costs {asked} questions")
    marked = "mark" in inspect.signature(counters.Counters).parameters
    say("B30 redis", NEW if marked else OLD, f"keys of the live counters: {counters.EARNED!r}, with a mark of the deployment before it: {marked}")
    together = threading.Barrier(2)

    def now():
        with suppress(threading.BrokenBarrierError):
            together.wait(0.3)
        return 100.0

    resting = Breaker("resting", failures_max=1, reset_s=60.0, clock=lambda: 0.0)
    resting.failure()
    resting.clock, trials = now, []
    threads = [threading.Thread(target=lambda: trials.append(resting.allow())) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    say("B30 breaker", OLD if trials.count(True) > 1 else NEW, f"two threads ask a resting breaker at once: {sorted(trials)}")
    storage = Storage(runtime.endpoints(STACK).s3)
    bucket = STACK.s3.bucket
    for number in range(7):
        storage.put_bytes(b"x", f"s3://{bucket}/inner/{number}.bin")
    filesystem, pages, pulled = storage.filesystem(), 0, 0
    call, iterdir = filesystem.call_s3, type(filesystem)._iterdir

    def paged(method, **a):
        nonlocal pages
        pages += 1
        return call(method, MaxKeys=2, **a)

    async def counted(self, *a, **k):
        nonlocal pulled
        async for each in iterdir(self, *a, **k):
            pulled += 1
            yield each

    filesystem.call_s3, type(filesystem)._iterdir = paged, counted
    filesystem.invalidate_cache()
    first = next(iter(storage.list(f"s3://{bucket}/inner")))
    type(filesystem)._iterdir = iterdir
    del filesystem.call_s3
    for number in range(7):
        storage.delete(f"s3://{bucket}/inner/{number}.bin")
    say("B30 list", OLD if pulled >= 7 else NEW, f"before the first of 7 objects is given ({first.uri[-5:]}), {pulled} were held; pages of two that were asked for: {pages}")


async def main():
    with psycopg.connect(SERVER, autocommit=True) as c:
        c.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(NAME)))
    try:
        migrations.migrate(URL)
        for check in (b4, b5, b14_b15, b16, b17, b19, b20, b25, b27, b30):
            try:
                async with asyncio.timeout(60):
                    await check()
            except Exception as error:
                say(check.__name__.upper(), UNSHOWN, f"the experiment itself failed: {type(error).__name__}: {error}")
                traceback.print_exc()
    finally:
        with psycopg.connect(SERVER, autocommit=True) as c:
            c.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(NAME)))


asyncio.run(main())
os._exit(0)
