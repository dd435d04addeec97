#!/usr/bin/env python
"""What a stranger sees of a running Pixr, entry by entry of the faults found from outside on 7812ba8.

    doors_raw.py --url http://127.0.0.1:8000 --data FOLDER --tree CHECKOUT --python PYTHON [--only S1,S2] [--seconds 480]

Speaks HTTP and plain sockets, SQL to PostgreSQL, signals to processes. Imports nothing of Pixr. For each entry it prints one
line `ENTRY new-behaviour|OLD-FAULT|NOT-SHOWN detail`. The catalogue holds a few sample videos, one of them above 40 MB.
"""

import argparse, asyncio, base64, collections, json, os, random, re, resource, socket, statistics, struct, subprocess, sys, time, zlib
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

import psutil, psycopg

P = argparse.ArgumentParser()
for name in ("url", "data", "tree", "python"):
    P.add_argument("--" + name, required=True)
P.add_argument("--only", default="")
P.add_argument("--skip", default="")
P.add_argument("--seconds", type=float, default=480)
A = P.parse_args()
HOST, PORT = urlsplit(A.url).hostname, urlsplit(A.url).port
BEGAN = time.monotonic()
RNG = random.Random(7812)
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
PORTS = json.load(open(f"{A.data}/run/ports.json"))
ADMIN = {"Authorization": "Bearer " + open(f"{A.data}/secrets/api_admin_key").read().strip()}
PG = f"postgresql://pixr:{open(f'{A.data}/secrets/postgres').read().strip()}@127.0.0.1:{PORTS['postgres']}/pixr"
OLD, NEW, UNSHOWN = "OLD-FAULT", "new-behaviour", "NOT-SHOWN"


def say(entry, verdict, detail):
    print(f"{entry:<8} {verdict:<13} {detail}   [{time.monotonic() - BEGAN:.0f} s]", flush=True)


def note(text):
    print(f"  # {text}   [{time.monotonic() - BEGAN:.0f} s]", flush=True)


# ── HTTP over plain sockets ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Answer:
    status: int = 0  # 0: none
    headers: dict = field(default_factory=dict)
    body: bytes = b""
    took: float = 0.0
    kind: str = ""  # refused, reset, timeout

    @property
    def problem(self):
        return self.headers.get("content-type", "").startswith("application/problem+json")

    def json(self):
        return json.loads(self.body)

    @property
    def told(self):
        return self.kind or f"{self.status} {self.headers.get('content-type', '-').split(';')[0]}"


def request(method, path, headers=None, body=b"", keep=False, host=None):
    named = {"Host": host or f"{HOST}:{PORT}", "Connection": "keep-alive" if keep else "close"} | (headers or {})
    if body:
        named.setdefault("Content-Type", "application/json")
        named.setdefault("Content-Length", str(len(body)))
    return f"{method} {path} HTTP/1.1\r\n{''.join(f'{k}: {v}' + chr(13) + chr(10) for k, v in named.items())}\r\n".encode() + body


async def connect(source="127.0.0.1", host=None, port=None, rcvbuf=0, timeout=6.0):
    sock = socket.socket()
    sock.setblocking(False)
    if rcvbuf:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
    sock.bind((source, 0))
    try:
        await asyncio.wait_for(asyncio.get_running_loop().sock_connect(sock, (host or HOST, port or PORT)), timeout)
        return await asyncio.open_connection(sock=sock, limit=rcvbuf or 1 << 16)
    except BaseException:
        sock.close()
        raise


async def read(reader, head_only=False):
    line = await reader.readuntil(b"\r\n")
    status, headers = int(line.split()[1]), {}
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        k, _, v = line.decode("latin-1").partition(":")
        headers[k.strip().lower()] = v.strip()
    if head_only or status in (204, 304):
        return Answer(status, headers)
    if headers.get("transfer-encoding", "").lower() == "chunked":
        got = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            got += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
        return Answer(status, headers, got)
    if "content-length" in headers:
        return Answer(status, headers, await reader.readexactly(int(headers["content-length"])))
    return Answer(status, headers, await reader.read())


async def ask(method, path, headers=None, body=b"", source="127.0.0.1", timeout=15.0, host=None, port=None):
    began, writer = time.monotonic(), None
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await connect(source, host, port, timeout=timeout)
            writer.write(request(method, path, headers, body))
            sending = asyncio.ensure_future(writer.drain())
            found = await read(reader, head_only=method == "HEAD")
            sending.cancel()
    except TimeoutError:
        found = Answer(kind="timeout")
    except ConnectionRefusedError:
        found = Answer(kind="refused")
    except (OSError, EOFError, asyncio.IncompleteReadError, ValueError, IndexError) as error:
        found = Answer(kind=f"reset ({type(error).__name__})")
    finally:
        if writer:
            writer.transport.abort()
    found.took = time.monotonic() - began
    return found


async def get(path, headers=None, source="127.0.0.1", timeout=15.0, **more):
    return await ask("GET", path, headers, source=source, timeout=timeout, **more)


async def post(path, document, headers=None, source="127.0.0.1", timeout=15.0, **more):
    return await ask("POST", path, headers, json.dumps(document).encode(), source, timeout, **more)


async def side_by_side(count, at_once, path, headers=None, source="127.0.0.1", stop_at=0, unlike=None):
    """So many requests over kept connections; (number, status) in the order of their answers."""
    numbers, found = iter(range(count)), []
    ended = False

    async def client():
        nonlocal ended
        reader = writer = None
        for number in numbers:
            if ended:
                break
            try:
                async with asyncio.timeout(15):
                    if writer is None:
                        reader, writer = await connect(source, timeout=15)
                    writer.write(request("GET", path if unlike is None else unlike(number)[0], headers if unlike is None else unlike(number)[1], keep=True))
                    answer = await read(reader)
                found.append(answer.status)
                if answer.headers.get("connection") == "close":
                    writer.transport.abort()
                    writer = None
            except (TimeoutError, OSError, EOFError, ValueError, IndexError) as error:
                found.append(type(error).__name__)
                if writer:
                    writer.transport.abort()
                writer = None
            if stop_at and found[-1] == stop_at:
                ended = True
        if writer:
            writer.transport.abort()

    await asyncio.gather(*(client() for _ in range(at_once)))
    return found


# ── The stack from outside ──────────────────────────────────────────────────────────────────────────────────────────


def status():
    return json.load(open(f"{A.data}/run/status.json"))


def family():
    found = []
    for each in psutil.Process(status()["pid"]).children(recursive=True):
        try:
            found.append((each, " ".join(each.cmdline()), each.name()))
        except psutil.Error:
            pass
    return found


def processes(word):
    return [p for p, line, name in family() if word in line or name == word]


def killed(found):
    for each in found:
        try:
            each.kill()
        except psutil.Error:
            pass
    psutil.wait_procs(found, timeout=5)


def rss_mb(word):
    total = 0
    for each in processes(word):
        try:
            total += each.memory_info().rss
        except psutil.Error:
            pass
    return total / 1e6


def sql(text, *arguments):
    with psycopg.connect(PG, autocommit=True) as connection:
        return connection.execute(text, arguments).fetchall()


def pixr(*arguments, timeout=60):
    env = {k: v for k, v in os.environ.items()} | {"PYTHONPATH": A.tree}
    return subprocess.run([A.python, "-m", "cluster.cli", *arguments], env=env, cwd=A.tree, capture_output=True, text=True, timeout=timeout)


def fresh():
    return f"{CATALOGUE['text']} {RNG.getrandbits(40):x}"


def searched(text, **more):
    return "/v1/search?" + "&".join(f"{k}={quote(str(v))}" for k, v in {"q": text, "intent": "typing", "relevance_min_ppm": 0, **more}.items())


async def is_whole(source="127.0.9.1"):
    alive = await get("/healthz", source=source, timeout=4)
    found = await get(searched(fresh()), source=source, timeout=6)
    return alive.status == 200 and found.status == 200 and found.json()["degraded"] == []


async def until_whole(within, source="127.0.9.1"):
    began = time.monotonic()
    while time.monotonic() - began < within:
        if await is_whole(source):
            return time.monotonic() - began
        await asyncio.sleep(0.3)
    return None


async def mend(within=30):
    """Whole by itself within so long? Else as an operator would: kill the replica."""
    took = await until_whole(within)
    if took is None:
        killed(processes("ServeReplica:pixr:SearchApi"))
        again = await until_whole(90)
        note(f"not whole by itself within {within} s; after kill -9 of SearchApi: {again and round(again, 1)} s")
    return took


async def probes(source, count=5, timeout=6.0):
    """A stranger beside it: a look at health and a search; how many of both were answered 200 in time."""
    good, told = 0, []
    for _ in range(count):
        a, b = await asyncio.gather(get("/healthz", source=source, timeout=timeout), get(searched(fresh()), source=source, timeout=timeout))
        good += a.status == 200 and b.status == 200
        told += [f"{a.told} {a.took:.1f}s", f"{b.told} {b.took:.1f}s"]
    return good, collections.Counter(re.sub(r" [\d.]+s", "", each) for each in told), max(float(each.split()[-1][:-1]) for each in told)


async def creators():
    return sorted(CATALOGUE["creators"])


async def units(settle=3.0, most=25.0):
    """What all creators of the catalogue have accrued, once it has stood still."""
    last, since, began = None, time.monotonic(), time.monotonic()
    while time.monotonic() - began < most:
        now = 0
        for each in await creators():
            found = await get(f"/v1/creators/{each}/earnings", ADMIN)
            if found.status != 200:
                break
            now += int(found.json()["accrued"])
        else:
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since >= settle:
                return last
        await asyncio.sleep(0.5)
    return last


CATALOGUE = {"text": "a"}


async def furnish():
    """What is there: texts that find something, videos, creators, a link to the large video."""
    texts = [t for (t,) in sql("SELECT title FROM media.videos WHERE status = 'ready' ORDER BY id")]
    CATALOGUE["text"] = texts[0]
    rows = sql("SELECT v.id, v.title, v.creator_id FROM media.videos v WHERE v.status = 'ready' ORDER BY v.id")
    CATALOGUE["videos"] = [{"id": r[0], "title": r[1], "creator": r[2]} for r in rows]
    CATALOGUE["creators"] = {r[2] for r in rows if r[2] is not None}
    CATALOGUE["segments"] = [r[0] for r in sql("SELECT id FROM media.segments ORDER BY id LIMIT 20")]
    found = (await get(searched(texts[0], limit=50))).json()
    CATALOGUE["links"] = {}
    for each in found["moments"]:
        CATALOGUE["links"].setdefault(each["title"], each["play_url"].partition("#")[0])
    made = await post("/v1/keys", {"name": f"raw{RNG.getrandbits(30)}{time.time():.0f}", "scopes": ["search"]}, ADMIN)
    for _ in range(5):
        if made.status == 201: break
        print("keys:", made.status, made.body[:200], flush=True); await asyncio.sleep(5)
        made = await post("/v1/keys", {"name": f"raw{RNG.getrandbits(30)}{time.time():.0f}", "scopes": ["search"]}, ADMIN)
    CATALOGUE["key"] = {"Authorization": "Bearer " + made.json()["key"]}
    note(f"{len(rows)} videos, creators {CATALOGUE['creators']}, titles {texts}, {len(CATALOGUE['links'])} links")


# ── The entries ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def b26():
    link = next(iter(CATALOGUE["links"].values()))
    path = link if link.startswith("/") else urlsplit(link).path + "?" + urlsplit(link).query
    found = await get(path, {"Range": "bytes=0-1023"})
    if found.status in (301, 302, 303, 307, 308):
        where = urlsplit(found.headers["location"])
        say("B26", NEW, f"play_url is {found.status} to {where.netloc or 'the door'}{where.path[:40]}… (presigned: {'X-Amz-Signature' in where.query})")
    else:
        say("B26", OLD, f"play_url answers {found.status} with {len(found.body)} bytes of the video: the replica sends them itself")


async def s32():
    found = {intent: (await get(f"/v1/search?q={quote(CATALOGUE['text'])}&intent={intent}", source="127.0.11.1")).status for intent in ("admin", "probe", "benchmark")}
    say("S32", OLD if 200 in found.values() else NEW, f"a stranger's intent=admin|probe|benchmark: {found}")
    segment = CATALOGUE["segments"][0]
    await post("/v1/events", {"segment_id": str(segment), "kind": "like", "watched_ms": 86_400_000}, source="127.0.11.2")
    await asyncio.sleep(0.3)
    (kept,) = sql("SELECT max(watched_ms) FROM app.watch_events WHERE segment_id = %s", segment)[0]
    say("S32 like", OLD if kept == 86_400_000 else NEW, f"a stranger's `like` with watched_ms of a day is kept as {kept} ms")


async def s33():
    port = PORTS["solana"]
    call = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "getHealth"}).encode()
    plain = await ask("POST", "/", {"Content-Type": "text/plain", "Host": "evil.example"}, call, port=port, host="127.0.0.1")
    origin = await ask("POST", "/", {"Content-Type": "application/json", "Origin": "http://evil.example"}, call, port=port, host="127.0.0.1")
    fault = plain.status == 200 or origin.status == 200
    say("S33 rpc", OLD if fault else NEW, f"localnet to a page's text/plain with Host evil.example: {plain.told} {plain.body[:40]}; with Origin: {origin.told}")
    ports = {}
    for each in processes("ServeReplica:pixr:SearchApi"):
        for c in each.net_connections("inet"):
            if c.raddr and c.raddr.port == PORTS["postgres"]:
                ports[c.laddr.port] = each.pid
    rows = sql("SELECT a.client_port, a.usename, r.rolsuper FROM pg_stat_activity a JOIN pg_roles r ON r.rolname = a.usename WHERE a.client_port IS NOT NULL")
    seen = collections.Counter((name, power) for client, name, power in rows if client in ports)
    say("S33 role", OLD if any(power for _, power in seen) else NEW if seen else UNSHOWN, f"the replica's connections to PostgreSQL (role, superuser): {dict(seen)}")


async def s18():
    ports = {c.laddr.port for p in processes("ServeReplica:pixr:SearchApi") for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    ports |= {PORTS[name] for name in ("ray-fallback",) if name in PORTS}
    inner = []
    for port in sorted(ports):
        found = await get("/healthz", port=port, timeout=3)
        if found.status == 200 and b"ok" in found.body.lower() + b"ok" * (found.headers.get("content-type", "").startswith("application/json")):
            inner.append(port)
    if not inner:
        say("S18", NEW, f"no inner server answers (listening: {sorted(ports)})")
        return
    results, fault = {}, False
    for nth, port in enumerate(inner):
        q = f"/v1/search?q={quote(CATALOGUE['videos'][nth % len(CATALOGUE['videos'])]['title'])}"
        before = await units()
        first = await get(q, {"X-Forwarded-For": f"11.{nth}.8.1"}, port=port)
        one = await units() - before
        for number in range(2, 6):
            await get(q, {"X-Forwarded-For": f"11.{nth}.{number}.1"}, port=port)
        five = await units() - before
        results[port] = f"first {first.status}: {one} units, with four other X-Forwarded-For: {five}"
        fault = fault or five > max(one, 1) * 2
    say("S18", OLD if fault else NEW, f"inner servers asked past the door: {results}")


async def s4():
    video = CATALOGUE["videos"][0]
    word = max(re.findall(r"[A-Za-z]+", video["title"]), key=len)
    only = {"video_id": [str(video["id"])]}

    async def earns(body, source):
        before = await units()
        found = await post("/v1/search", body, source=source)
        shown = {m["segment_id"]: m["relevance_ppm"] for m in found.json()["moments"]} if found.status == 200 else found.told
        return await units() - before, shown

    plain, by = await earns({"text": word, "filters": only}, "127.0.41.1")
    cheat, by_words = await earns({"text": word, "filters": only, "weights": {"vector": 0}}, "127.0.42.1")
    say("S4", OLD if cheat > plain * 1.02 + 2 else NEW, f"search {word!r}: {plain} units; with weights.vector=0: {cheat} units; relevance {by} → {by_words}")
    changed = await ask("PATCH", f"/v1/videos/{video['id']}", ADMIN, json.dumps({"title": f"iphone {video['title']}"}).encode())
    await asyncio.sleep(2.5)
    plain, by = await earns({"text": "iphone", "filters": only}, "127.0.43.1")
    cheat, by_words = await earns({"text": "iphone", "filters": only, "weights": {"vector": 0}}, "127.0.44.1")
    await ask("PATCH", f"/v1/videos/{video['id']}", ADMIN, json.dumps({"title": video["title"]}).encode())
    await asyncio.sleep(1.5)
    say("S4 title", OLD if cheat > plain * 1.02 + 2 else NEW, f"a word that no picture shows, put into a title ({changed.status}): {plain} units; with weights.vector=0: {cheat}; relevance {by} → {by_words}")


async def s8():
    q = f"/v1/search?q={quote(CATALOGUE['videos'][-1]['title'])}"
    before, growth, many = await units(), [], 40
    for block in range(2):
        for _ in range(many // 2):
            page = await get("/", source="127.0.60.1")
            cookie = page.headers.get("set-cookie", "").split(";")[0]
            await get(q, {"Cookie": cookie}, source="127.0.60.1")
        growth.append(await units() - before)
    bound = os.environ.get("PIXR_ECONOMICS_ADDRESS_DAY_MAX_PIX")
    linear = growth[1] > growth[0] * 1.8
    say("S8", OLD if linear else NEW, f"fresh cookies of one address: {growth[0]} units after {many // 2}, {growth[1]} after {many} (bound of a network: {bound or 'no such setting'})")


async def s5():
    path = searched(CATALOGUE["text"])
    await get(path)
    for entry, headers, source, count in (("S5/B6 key", CATALOGUE["key"], "127.0.21.1", 1500), ("S5/B6 adr", None, "127.0.22.1", 800)):
        began = time.monotonic()
        found = await side_by_side(count, 32, path, headers, source)
        refused = found.count(429)
        first = found.index(429) if refused else None
        burst = "500/s, burst 2000" if headers else "100/s, burst 1000"
        say(entry, OLD if refused else NEW if found.count(200) == count else UNSHOWN, f"32 at once, {burst}: {dict(collections.Counter(found))}, first 429 at {first}, {count / (time.monotonic() - began):.0f}/s")


async def s7_routes():
    source, found = "127.0.51.1", {}
    for path in ("/v1/videos/7", "/readyz", "/metrics", "/openapi.json", "/media/videos/7?expires=1&signature=x", "/v1/keys", "/nowhere"):
        count = 1700 if path == "/v1/videos/7" else 350
        statuses = await side_by_side(count, 24, path, None, source, stop_at=429)
        found[path.partition("?")[0]] = f"{len(statuses)}th 429" if 429 in statuses else f"{len(statuses)} without ({dict(collections.Counter(statuses))})"
    unlimited = [path for path, told in found.items() if "without" in told]
    # `media` has a bucket of 3000 of its own in later versions: a header tells of it
    media = await get("/media/videos/7?expires=1&signature=x", source="127.0.52.1")
    if "ratelimit" in media.headers:
        unlimited = [path for path in unlimited if not path.startswith("/media")]
    say("S7 routes", OLD if unlimited else NEW, f"requests until a 429: {found}; media tells its bucket: {media.headers.get('ratelimit-policy')}")


async def s7_bodies():
    big = b"[" * 11_000_000
    before = rss_mb("ServeReplica:pixr:SearchApi")
    answer = await ask("POST", "/v1/keys", {}, big, "127.0.53.1", 30)
    early = answer.status in (401, 413, 429) or answer.kind.startswith("reset")
    say("S7 key", NEW if early else OLD, f"11 MB of `[` to POST /v1/keys without a key: {answer.told} in {answer.took:.1f} s {answer.body[:90]!r}")
    calm = [(await get("/healthz", source="127.0.54.1")).took for _ in range(20)]
    body = b'{"text":"a","filters":{"video_id":[' + b"1," * 5_900_000 + b"1]}}"
    numbers, told = iter(range(12)), collections.Counter()

    async def stranger():
        for _ in numbers:
            told[(await ask("POST", "/v1/search", {}, body, "127.0.53.1", 60)).told] += 1

    crowd, waits = asyncio.gather(*(stranger() for _ in range(4))), []
    while not crowd.done():
        one = await get("/healthz", source="127.0.54.1", timeout=20)
        waits.append(one.took)
        await asyncio.sleep(0.02)
    p95 = statistics.quantiles(waits, n=20)[-1] if len(waits) > 1 else waits[0]
    grown = rss_mb("ServeReplica:pixr:SearchApi") - before
    say("S7 json", OLD if p95 > 0.5 and p95 > 10 * statistics.median(calm) else NEW, f"beside 12 anonymous JSON bodies of 12 MB, 4 at once ({dict(told)}): /healthz p95 {p95 * 1000:.0f} ms, max {max(waits) * 1000:.0f} ms, alone {statistics.median(calm) * 1000:.0f} ms; SearchApi {before:.0f} MB, {grown:+.0f} MB after")


async def s7_wrong():
    def unlike(number):
        return "/v1/videos/7", {"Authorization": f"Bearer pixr_{RNG.getrandbits(200):x}"}

    found = collections.Counter(await side_by_side(3000, 16, "", None, "127.0.55.1", unlike=unlike))
    say("S7/B7", NEW if found[429] else OLD, f"3000 wrong keys of one address: {dict(found)}")


async def b7_events():
    """Sessions of PostgreSQL that 100 events begin, beside those that begin by themselves."""
    count = "SELECT sessions FROM pg_stat_database WHERE datname = 'pixr'"
    (a,), began = sql(count)[0], time.monotonic()
    await asyncio.sleep(4)
    (b,), rate = sql(count)[0], 0
    rate = (b - a) / (time.monotonic() - began)
    began, told = time.monotonic(), collections.Counter()
    for number in range(100):
        answer = await post("/v1/events", {"segment_id": str(CATALOGUE["segments"][number % len(CATALOGUE["segments"])]), "kind": "play"}, source=f"127.0.56.{number + 1}")
        told[answer.status] += 1
    await asyncio.sleep(1.5)
    (c,) = sql(count)[0]
    own = c - b - rate * (time.monotonic() - began)
    say("B7 events", OLD if own > 60 else NEW, f"100 events ({dict(told)}) begin {own:.0f} sessions of PostgreSQL (beside {rate:.1f} a second that begin by themselves)")


def picture():
    w, h = 8000, 5000
    packer, line = zlib.compressobj(9), b"\0" + bytes((200, 30, 0)) * w
    rows = b"".join(packer.compress(line) for _ in range(h)) + packer.flush()

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)) + chunk(b"IDAT", rows)
    return lambda: head + chunk(b"tEXt", b"Comment\0" + f"{RNG.getrandbits(80):x}".encode()) + chunk(b"IEND", b"")


async def s9():
    made = picture()
    before = rss_mb("ServeReplica:pixr:QueryEncoder")
    found = [await post("/v1/search", {"image": base64.b64encode(made()).decode(), "intent": "typing"}, source="127.0.61.1") for _ in range(2)]

    async def more():
        return await post("/v1/search", {"image": base64.b64encode(made()).decode(), "intent": "typing"}, source="127.0.61.1", timeout=30)

    crowd, waits = asyncio.gather(*(more() for _ in range(12))), []
    while not crowd.done():
        waits.append((await get(searched(fresh()), source="127.0.62.1", timeout=20)).took)
    found += await crowd
    highest = rss_mb("ServeReplica:pixr:QueryEncoder")
    told = collections.Counter(f"{each.told}" + (f" {len(each.json()['moments'])} moments, degraded {each.json()['degraded']}" if each.status == 200 else "") for each in found)
    say("S9", OLD if any(each.status == 200 for each in found) else NEW, f"a PNG of 40 million pixels, {len(made()) // 1000} kB: {dict(told)}; encoder {before:.0f} → {highest:.0f} MB; others' searches meanwhile up to {max(waits, default=0):.1f} s")




async def s2_players():
    big = sql("SELECT title FROM media.videos WHERE status = 'ready' ORDER BY source_bytes DESC, id LIMIT 1")[0][0]
    shown = (await get(searched(big, limit=50))).json()["moments"]
    link = next(each["play_url"].partition("#")[0] for each in shown if each["title"] == big)
    host, port, path = HOST, PORT, link if link.startswith("/") else urlsplit(link).path + "?" + urlsplit(link).query
    held, told = [], collections.Counter()
    for _ in range(66):
        for _hop in range(3):
            try:
                reader, writer = await connect("127.0.81.1", host, port, rcvbuf=4096, timeout=5)
                writer.write(request("GET", path, {"Host": f"{host}:{port}"}, keep=True))
                answer = await asyncio.wait_for(read(reader, head_only=True), 5)
            except (TimeoutError, OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
                told[type(error).__name__] += 1
                held.append(writer)
                break
            if answer.status in (302, 307):
                to = urlsplit(answer.headers["location"])
                host, port, path = to.hostname or host, to.port or port, to.path + "?" + to.query
                writer.transport.abort()
                continue
            told[f"{answer.status} {answer.headers.get('content-length')} bytes"] += 1
            held.append(writer)
            break
    await asyncio.sleep(1)
    good, seen, worst = await probes("127.0.82.1", 4)
    say("S2 play", OLD if good < 3 else NEW, f"66 paused players ({dict(told)}): {good} of 4 looks from elsewhere answered, {dict(seen)}, slowest {worst:.1f} s")
    for each in held:
        each.transport.abort()
    await mend(20)


async def s2_bodies():
    held = []
    for _ in range(70):
        reader, writer = await connect("127.0.83.1")
        writer.write(request("POST", "/v1/search", {"Content-Length": "1000", "Content-Type": "application/json"}, keep=True) + b"{")
        held.append((reader, writer))
    await asyncio.sleep(1.5)
    good, seen, worst = await probes("127.0.84.1", 3)
    await asyncio.sleep(max(0.0, 12 - 3 * worst))
    still = sum(not r.at_eof() and not r._buffer for r, _ in held)
    say("S2 body", OLD if good < 2 or still > 35 else NEW, f"70 bodies of which one byte came: {good} of 3 looks from elsewhere answered, {dict(seen)}, slowest {worst:.1f} s; {still} of 70 still waited for after some 12 s")
    for _, each in held:
        each.transport.abort()
    await mend(20)


async def s3():
    held, refused = [], 0
    for start in range(0, 4700, 100):
        async def one():
            nonlocal refused
            try:
                reader, writer = await connect("127.0.71.1", timeout=3)
                writer.write(b"GET /v1/sea")
                held.append((reader, writer))
            except (OSError, TimeoutError):
                refused += 1
        await asyncio.gather(*(one() for _ in range(100)))
    await asyncio.sleep(0.5)
    good, seen, worst = await probes("127.0.72.1", 3)
    await asyncio.sleep(9)
    still = sum(not r.at_eof() and r.exception() is None for r, _ in held)
    say("S3", OLD if good < 2 or still > 1000 else NEW, f"4,700 half request lines of one address ({refused} not taken): {good} of 3 looks from elsewhere answered, {dict(seen)}, slowest {worst:.1f} s; {still} still open 9 s and more later")
    for _, each in held:
        each.transport.abort()
    await asyncio.sleep(1)
    await mend(30)


async def s1():
    rounds, began = 0, time.monotonic()

    async def hangs_up():
        try:
            _, writer = await connect("127.0.31.1", timeout=3)
            path = RNG.choice(("/v1/videos/7", searched(fresh()), "/v1/search?q=a"))
            writer.write(request("GET", path, {"Authorization": f"Bearer {RNG.getrandbits(200):x}"}))
            await asyncio.sleep(RNG.uniform(0, 0.4))
            writer.transport.abort()
        except (OSError, TimeoutError):
            pass

    for rounds in range(1, 41):
        round_began = time.monotonic()
        await asyncio.gather(*(hangs_up() for _ in range(96)))
        await asyncio.sleep(max(0, 1.2 - (time.monotonic() - round_began)))
        if time.monotonic() - began > 75:
            break
    spent = time.monotonic() - began
    await asyncio.sleep(10)
    after = [await get("/v1/videos/" + str(CATALOGUE["videos"][0]["id"]), source="127.0.32.1", timeout=6) for _ in range(4)]
    search = [await get(searched(fresh()), source="127.0.32.1", timeout=6) for _ in range(4)]
    ready = await get("/readyz", source="127.0.32.1", timeout=6)
    dead = sum(each.status != 200 for each in after) >= 3 or sum(each.status != 200 for each in search) >= 3
    waits = json.dumps({k: v["reason"][:60] for k, v in ready.json().get("dependencies", {}).items() if not v["ok"]}) if ready.status in (200, 503) and ready.headers.get("content-type", "").startswith("application/json") else ready.told
    say("S1", OLD if dead else NEW, f"{rounds} rounds of 96 who hang up within 0.4 s ({spent:.0f} s), 10 s later: /v1/videos/N {[e.told for e in after]}, search {[e.told for e in search]}, readyz lacks {waits}")
    await mend(20)


def wrong(answer):
    """An answer that tells a client something false: neither a result nor a problem 503 that says when to come again."""
    return answer.status and not 200 <= answer.status < 300 and not (answer.status == 503 and answer.problem and "retry-after" in answer.headers)


async def under_load(what, victims, watch=45.0, rate=20.0, extra=None, calm=3.0):
    """Kill under an open loop of searches; rows of (seconds after the kill, answer); seconds until whole; what `extra` saw."""
    rows, tasks, ended, origin = [], [], asyncio.Event(), time.monotonic() + calm
    video = CATALOGUE["videos"][0]["id"]

    async def one(number):
        at = time.monotonic() - origin
        path = f"/v1/videos/{video}" if number % 4 == 3 else searched(fresh())
        rows.append((at, await get(path, source=f"127.0.{91 + number % 8}.1", timeout=15)))

    async def load():
        number = 0
        while not ended.is_set():
            tasks.append(asyncio.ensure_future(one(number)))
            number += 1
            await asyncio.sleep(1 / rate)

    loading = asyncio.ensure_future(load())
    await asyncio.sleep(calm)
    found = victims()
    if not found:
        note(f"{what}: no such process")
    origin = time.monotonic()
    killed(found)
    beside = asyncio.ensure_future(extra()) if extra else None
    await asyncio.sleep(0.3)
    # three in a row, so that a moment between two states is not taken for the end
    whole, run = None, 0
    while time.monotonic() - origin < watch:
        if await is_whole():
            run += 1
            whole = whole if whole is not None else time.monotonic() - origin
            if run >= 3:
                break
        else:
            run, whole = 0, None
        await asyncio.sleep(0.3)
    whole = whole if run >= 3 else None
    seen = await beside if beside else None
    ended.set()
    await loading
    await asyncio.gather(*tasks)
    return rows, whole, seen


def told_of(rows):
    after = [(at, a) for at, a in rows if at > -0.2]
    kinds = collections.Counter(a.told for _, a in after)
    late = [a.took for _, a in after if a.took > 4]
    wrongs = collections.Counter(f"{a.told} {a.body[:30]!r}" for _, a in after if wrong(a))
    refused = [at for at, a in after if a.kind == "refused" or a.kind.startswith("reset")]
    return after, kinds, late, wrongs, refused


async def s6():
    rows, whole, _ = await under_load("door", lambda: processes("haproxy"), watch=40)
    after, kinds, late, wrongs, refused = told_of(rows)
    away = f"{min(refused):.1f} to {max(refused):.1f} s" if refused else "never"
    say("S6", OLD if wrongs or (refused and max(refused) > 4) else NEW, f"HAProxy killed: {dict(kinds)}; refused or reset {len(refused)} ({away}); false answers {dict(wrongs)}; whole after {whole and round(whole, 1)} s")


async def d_s3_b29():
    reasons = set()

    async def ready():
        end = time.monotonic() + 6
        while time.monotonic() < end:
            found = await get("/readyz", source="127.0.1.1", timeout=5)
            try:
                reasons.update(v["reason"] for v in found.json()["dependencies"].values() if not v["ok"])
            except (ValueError, KeyError):
                pass
            await asyncio.sleep(0.05)

    def victims(name):
        return lambda: [psutil.Process(status()["services"][name]["pid"])]

    for name in ("s3", "redis"):
        rows, whole, _ = await under_load(name, victims(name), watch=30, rate=10, extra=ready)
        after, kinds, late, wrongs, refused = told_of(rows)
        bad = len(wrongs) + len(refused) + len(late)
        say(f"D {name}", OLD if bad or whole is None else NEW, f"{name} killed: {dict(kinds)}, {len(late)} later than 4 s; searches whole after {whole and round(whole, 1)} s")
    shown = [each for each in reasons if re.search(r"127\.0\.0\.1|localhost|https?://|:\d{4,5}\b", each)]
    say("B29", OLD if shown else NEW if reasons else UNSHOWN, f"/readyz gives a stranger these reasons: {sorted(reasons)}")


async def d_encoder_s35():
    async def look():
        said = []
        for _ in range(2):
            began = time.monotonic()
            done = await asyncio.to_thread(pixr, "status", "--json")
            try:
                serve = json.loads(done.stdout)["services"]["serve"]
                said.append(f"healthy {serve['healthy']} {serve.get('reason', '')!r} degraded {serve.get('degraded', 'no such word')}")
            except (ValueError, KeyError):
                said.append(f"rc {done.returncode} {done.stderr[-80:]}")
            search = await get(searched(fresh()), source="127.0.35.1")
            said.append(f"search then: {search.told} degraded {search.json()['degraded'] if search.status == 200 else '-'} ({time.monotonic() - began:.1f} s)")
        return said

    rows, whole, said = await under_load("encoder", lambda: processes("ServeReplica:pixr:QueryEncoder"), watch=75, rate=10, extra=look)
    after, kinds, late, wrongs, refused = told_of(rows)
    degraded = sum(a.status == 200 and b'"degraded":[]' not in a.body.replace(b" ", b"") and b"degraded" in a.body for _, a in after)
    say("D enc", OLD if whole is None or whole > 30 or late or wrongs or refused else NEW, f"encoder killed: {dict(kinds)}, {degraded} degraded, {len(late)} later than 4 s; whole after {whole and round(whole, 1)} s")
    tells = any("encoder" in each for each in said if not each.startswith("search"))
    away = any("vector" in each for each in said if each.startswith("search"))
    say("S35", NEW if tells else OLD if away else UNSHOWN, f"pixr status beside it: {said}")


async def s16():
    rows, whole, _ = await under_load("postgres", lambda: [psutil.Process(status()["services"]["postgres"]["pid"])], watch=100)
    after, kinds, late, wrongs, refused = told_of(rows)
    busy = [at for at, a in after if a.status == 503]
    unanswered = sum(a.kind == "timeout" for _, a in after)
    say("S16", OLD if late or unanswered or whole is None or whole > 30 else NEW, f"PostgreSQL killed: {dict(kinds)}; {len(late)} of {len(after)} later than 4 s (slowest {max((a.took for _, a in after), default=0):.1f} s), {unanswered} without an answer in 15 s, last 503 after {max(busy, default=0):.0f} s; false answers {dict(wrongs)}; whole after {whole and round(whole, 1)} s")


async def s16_replica():
    rows, whole, _ = await under_load("replica", lambda: processes("ServeReplica:pixr:SearchApi"), watch=60)
    after, kinds, late, wrongs, refused = told_of(rows)
    say("S16 repl", OLD if late or wrongs or refused else NEW, f"SearchApi killed: {dict(kinds)}; {len(late)} of {len(after)} later than 4 s (slowest {max((a.took for _, a in after), default=0):.1f} s); refused {len(refused)}, false {dict(wrongs)}; whole after {whole and round(whole, 1)} s")


async def s6_ray(word, entry):
    rows, whole, _ = await under_load(word, lambda: [p for p, _, name in family() if name == word], watch=130, rate=10)
    after, kinds, late, wrongs, refused = told_of(rows)
    say(entry, OLD if wrongs or refused or whole is None or whole > 60 else NEW, f"{word} killed: {dict(kinds)}; refused or reset {len(refused)}, the last after {max(refused, default=0):.0f} s; false answers {dict(wrongs)}; whole after {whole and round(whole, 1)} s")


CHECKS = {
    "B26": b26, "S32": s32, "S33": s33, "B7e": b7_events, "S4": s4, "S18": s18, "S8": s8, "S5": s5, "S9": s9, "S7r": s7_routes,
    "S7b": s7_bodies, "DS3": d_s3_b29, "S35": d_encoder_s35, "S2p": s2_players, "S2b": s2_bodies, "S3": s3, "S7w": s7_wrong,
    "S1": s1, "S6": s6, "S16r": s16_replica, "S16": s16, "S6gcs": lambda: s6_ray("gcs_server", "S6 gcs"),
}


async def main():
    took = await until_whole(60)
    note(f"{A.tree} at {A.url}: whole {took is not None}; load {os.getloadavg()}")
    await furnish()
    only, skip = set(filter(None, A.only.split(","))), set(filter(None, A.skip.split(",")))
    for name, check in CHECKS.items():
        if (only and name not in only) or name in skip:
            continue
        if time.monotonic() - BEGAN > A.seconds:
            say(name, UNSHOWN, "no time was left")
            continue
        try:
            async with asyncio.timeout(170):
                await check()
        except Exception as error:  # a check that fails is said, and the next one is made
            say(name, UNSHOWN, f"the check itself failed: {type(error).__name__}: {error}")
            import traceback; traceback.print_exc()
        await mend(25)
    note(f"end; load {os.getloadavg()}")


asyncio.run(main())
