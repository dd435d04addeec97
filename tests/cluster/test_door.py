"""The door is the real HAProxy: strangers, slow ones too, take nobody's place, and what it says is what the API says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import stat
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from cluster.door import backends, config, service
from cluster.door.backends import Backend
from cluster.errors import Rejected
from cluster.settings import DoorSettings
from tests.cluster.doors import FIRST, OwnDoor, Server, ask_all, door, half_open, parsed, received
from tests.conftest import until

ATTACKER = "127.0.0.2"
HEAD = b"POST /v1/search HTTP/1.1\r\nHost: pixr.test\r\nContent-Length: 1000\r\n"
SEARCH = b"GET /v1/search?q=a HTTP/1.1\r\nHost: pixr.test\r\n\r\n"
POSTED = b'POST /v1/search HTTP/1.1\r\nHost: pixr.test\r\nContent-Length: 12\r\n\r\n{"text":"a"}'


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server("a").start()
    yield made
    made.stop()


@pytest.fixture
def other() -> Iterator[Server]:
    made = Server("b").start()
    yield made
    made.stop()


@pytest.fixture
def running(tmp_path: Path, server: Server) -> Iterator[OwnDoor]:
    """A door with one replica and short deadlines."""
    with door(
        tmp_path, request_timeout_s=0.5, client_timeout_s=2.0, search_timeout_s=0.5, answer_timeout_s=8.0
    ) as made:
        made.start()
        made.feed(server)
        yield made


def hang_up(own: OwnDoor, source: str, request: bytes, is_reset: bool = True) -> None:
    """Send a request, and reset or close the connection a little later."""
    connection = own.connect(source)
    connection.sendall(request)
    time.sleep(0.02)
    if is_reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def problem(answer: tuple[int, dict[str, str], bytes], status: int) -> dict[str, str]:
    """The problem document of an answer, which must be one."""
    assert answer[0] == status, answer
    assert answer[1]["content-type"] == "application/problem+json"
    document: dict[str, str] = json.loads(answer[2])
    assert set(document) == {"type", "title", "status", "detail", "request_id", "code"}
    assert document["status"] == status
    assert document["request_id"] == answer[1]["x-request-id"]
    if status in (408, 429, 503):
        assert int(answer[1]["retry-after"]) >= 1
    return document


# ── No backend ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "path", ["/v1/search?q=a", "/v1/videos/7", "/media/videos/1", "/", "/v1/search/stream", "/healthz"]
)
def test_without_a_replica_every_path_is_a_503_that_says_when_to_ask_again(tmp_path: Path, path: str) -> None:
    with door(tmp_path) as own:
        own.start()
        assert problem(own.get(path), 503)["code"] == "unavailable"
        answer = own.raw(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 20000\r\n\r\n".encode()
            + b"x" * 20000
        )
        problem(answer, 503)


def test_a_replica_that_is_killed_costs_503_and_its_return_is_seen_within_a_second(
    running: OwnDoor, server: Server
) -> None:
    port = server.port
    server.stop()
    problem(running.get(), 503)
    server.start(port)
    assert until(lambda: running.get()[0] == 200, 3, "the replica is back") < 1.5


def test_a_replica_that_ends_before_it_answers_is_asked_no_second_time_for_a_post(running: OwnDoor) -> None:
    calls = []
    listener = socket.create_server((FIRST, 0))

    def hang_up() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                data = connection.recv(65_536)
                if b"/-/healthz" in data:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                else:
                    calls.append(data.split(b" ", 1)[0])
                connection.close()

    threading.Thread(target=hang_up, daemon=True).start()
    service.feed(running.settings, [Backend("x", f"{FIRST}:{listener.getsockname()[1]}")])
    problem(running.post("/v1/search", b"{}"), 503)
    assert calls == [b"POST"]
    problem(running.get("/v1/x"), 503)
    assert calls.count(b"GET") > 1
    listener.close()


def test_what_serve_says_in_plain_text_is_said_as_a_problem(running: OwnDoor, server: Server) -> None:
    for status, said in ((503, 503), (408, 503), (499, 503), (500, 500)):
        server.text = status
        problem(running.get(), said)


def test_a_search_that_is_late_is_given_up_before_anything_else_is(running: OwnDoor, server: Server) -> None:
    server.delay_s = 1.6  # between `search_timeout_s` and `answer_timeout_s`
    problem(running.get("/v1/search?q=a"), 503)
    assert running.get("/v1/videos/1")[0] == 200


# ── Requests that are not right ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("request_line", "headers", "status"),
    [
        ("GET /" + "a" * 20_000 + " HTTP/1.1", "", 414),
        ("GET /v1/search?q=" + "a" * 9_000 + " HTTP/1.1", "", 414),
        ("GET / HTTP/1.1", "X-Long: " + "a" * 17_000 + "\r\n", 431),
        ("GET / HTTP/1.1", "".join(f"X-{number}: 1\r\n" for number in range(101)), 431),
        ("GET / HTTP/1.1", "".join(f"X-{number}: 1\r\n" for number in range(900)), 431),
        ("GET /v1/search?q=caf\u00e9 HTTP/1.1", "", 400),
        ("GET /#a HTTP/1.1", "", 400),
        ("GET / HTTP/9.9", "", 400),
    ],
)
def test_what_is_too_long_or_malformed_is_a_problem(
    running: OwnDoor, request_line: str, headers: str, status: int
) -> None:
    data = f"{request_line}\r\nHost: x\r\nConnection: close\r\n{headers}\r\n".encode()
    problem(running.raw(data), status)


def test_lines_that_end_in_a_line_feed_alone_are_lines_and_come_through_as_one_request(
    running: OwnDoor, server: Server
) -> None:
    """A choice: RFC 9112 (2.2) leaves it to us, and the replica is sent lines as they should be."""
    data = b"POST /v1/search HTTP/1.1\nHost: x\nConnection: close\nX-Own: a\nContent-Length: 2\n\n{}"
    assert running.raw(data)[0] == 200
    [(method, path, headers)] = server.seen
    assert (method, path) == ("POST", "/v1/search")
    assert {name.lower(): value for name, value in headers.items()}["x-own"] == "a"


def test_no_answer_says_which_server_made_it(running: OwnDoor, server: Server) -> None:
    """The server behind it does, as the one that replicas have."""
    assert "server" not in running.get()[1]
    server.text = 503
    assert "server" not in running.get()[1]
    server.stop()
    assert "server" not in running.get()[1]


def test_a_request_without_host_is_a_problem(running: OwnDoor) -> None:
    problem(running.raw(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"), 400)


@pytest.mark.parametrize(
    "data",
    [
        b"NONSENSE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 100_000,
    ],
)
def test_what_cannot_be_read_at_all_is_closed_without_a_word_and_never_answered_in_html(
    running: OwnDoor, server: Server, data: bytes
) -> None:
    with running.connect() as connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(data)
        assert received(connection) == b""
    assert server.seen == []


def test_header_names_that_others_would_read_differently_do_not_come_through(running: OwnDoor, server: Server) -> None:
    assert running.get(headers="X_Under: 1\r\nserve_multiplexed_model_id: x\r\nTransfer-Encoding : chunked\r\n")[0] in (
        0,
        200,
    )
    names = {name.lower() for _, _, headers in server.seen for name in headers}
    assert not {"x_under", "serve_multiplexed_model_id", "transfer-encoding", "transfer-encoding "} & names


# ── Slow clients ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_half_a_request_is_closed_at_the_deadline_however_it_trickles(running: OwnDoor, server: Server) -> None:
    with running.connect() as connection:
        began = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for byte in HEAD:
                connection.sendall(bytes([byte]))
                time.sleep(0.05)
        received(connection)
        assert time.monotonic() - began < 5
    assert server.seen == []


def test_half_a_head_is_no_request_and_is_closed_at_the_deadline_without_an_answer(running: OwnDoor) -> None:
    with running.connect() as connection:
        connection.sendall(HEAD)
        began = time.monotonic()
        assert received(connection) == b""
        assert time.monotonic() - began < 1.9  # of the two seconds of `client_timeout_s`


def test_who_asks_nothing_keeps_no_connection_neither_before_an_answer_nor_after_it(
    tmp_path: Path, server: Server
) -> None:
    with door(tmp_path, request_timeout_s=0.5, idle_timeout_s=0.5, client_timeout_s=1.0) as own:
        own.start()
        own.feed(server)
        with own.connect() as silent, own.connect() as satisfied:
            satisfied.sendall(b"GET /v1/x HTTP/1.1\r\nHost: pixr.test\r\n\r\n")
            began = time.monotonic()
            assert parsed(received(satisfied))[0] == 200
            received(silent)
            assert time.monotonic() - began < 4  # and `received` waits until the door has closed


def test_a_body_that_does_not_come_is_a_408_and_no_replica_hears_of_it(running: OwnDoor, server: Server) -> None:
    began = time.monotonic()
    problem(running.raw(HEAD + b"\r\n{"), 408)
    assert time.monotonic() - began < 5
    assert server.seen == []


def test_large_bodies_that_stall_wait_in_a_room_of_their_own(tmp_path: Path, server: Server) -> None:
    with door(tmp_path, bodies_per_replica_max=2, client_timeout_s=20.0) as own:
        own.start()
        own.feed(server)
        head = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n"
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(own.connect()).sendall(head + b"x" * 90_000)
            time.sleep(0.5)
            assert own.get("/v1/search?q=a")[0] == 200
            assert _current(own, "bodies") <= 2


def _current(own: OwnDoor, room: str) -> int:
    """Requests of a room that are with replicas."""
    text = backends.ask(service.admin_socket(own.settings), "show stat")
    header, *rows = [line.split(",") for line in text.splitlines() if line]
    return max(int(row[header.index("scur")]) for row in rows if row[0] == room and row[1].startswith("r"))


def test_a_client_that_does_not_read_is_cut_off(running: OwnDoor, server: Server) -> None:
    server.size = 50 << 20
    with running.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /v1/x HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: server.seen, 3, "it has the request")
        until(lambda: server.cut, 6, "the replica is free again")
        assert running.get("/healthz")[0] == 200


# ── One address ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_ten_thousand_half_open_connections_of_one_address_keep_nobody_else_out(
    tmp_path: Path, server: Server
) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with door(tmp_path, connections_max=2000, connections_per_address_max=100, request_timeout_s=5.0) as own:
        own.start()
        own.feed(server)
        attackers = asyncio.create_task(half_open(own.port, 10_000, ATTACKER, b"GET / HTTP/1.1\r\nHost"))
        took = []
        while not attackers.done():
            began = time.monotonic()
            assert (await asyncio.to_thread(own.get))[0] == 200
            took.append(time.monotonic() - began)
            await asyncio.sleep(0.02)
        held = [reader for reader, _ in attackers.result()]
        await asyncio.sleep(0.2)
        assert sum(not reader.at_eof() and reader.exception() is None for reader in held) <= 100
        assert own.process is not None
        assert psutil.Process(own.process.pid).memory_info().rss < 200 << 20
        for _, writer in attackers.result():
            writer.close()
    assert len(took) > 10
    assert sorted(took)[int(len(took) * 0.95)] < 1.0


def test_an_address_that_makes_connections_all_the_time_is_cut_off_and_may_come_back(
    tmp_path: Path, server: Server
) -> None:
    """Who sends a request and resets the connection a thousand times a second would keep a replica from all others."""
    with door(tmp_path, new_connections_per_address_per_s=2.0) as own:
        own.start()
        own.feed(server)
        statuses = [own.get(source=ATTACKER)[0] for _ in range(60)]
        assert statuses[:20] == [200] * 20
        assert statuses[20:].count(0) > 20  # for as long as these are counted
        assert own.get()[0] == 200  # another address
        until(lambda: own.get(source=ATTACKER)[0] == 200, 40, "it may come back, though it never stops to ask")


@pytest.mark.parametrize("is_reset", [True, False])
@pytest.mark.parametrize("request_", [SEARCH, POSTED])
def test_an_address_that_hangs_up_all_the_time_is_refused_until_it_waits_for_answers(
    tmp_path: Path, server: Server, request_: bytes, is_reset: bool
) -> None:
    """What is asked and not waited for is work of a replica all the same, and no bound on what is under way holds for it."""
    with door(tmp_path, hang_ups_per_address_per_s=2.0) as own:
        own.start()
        own.feed(server)
        server.delay_s = 0.2
        for _ in range(60):
            hang_up(own, ATTACKER, request_, is_reset)
        until(lambda: own.get(source=ATTACKER)[0] == 429, 5, "its requests are refused")
        assert problem(own.get(source=ATTACKER), 429)["code"] == "too-many-hang-ups"
        assert own.get()[0] == 200  # another address
        reached = len(server.seen)
        for _ in range(60):
            hang_up(own, ATTACKER, request_, is_reset)
        assert len(server.seen) - reached <= 10  # of those that a decade of hang-ups leaves
        until(lambda: own.get(source=ATTACKER)[0] == 200, 40, "it may come back, though it asks all the time")


def test_who_waits_for_answers_is_never_taken_for_one_who_hangs_up(tmp_path: Path, server: Server) -> None:
    """However many they ask side by side, and whatever they are answered."""
    with door(tmp_path, hang_ups_per_address_per_s=0.1) as own:
        own.start()
        own.feed(server)
        server.delay_s = 0.5
        with ThreadPoolExecutor(50) as pool:
            assert {status for status, *_ in pool.map(lambda _: own.get(), range(100))} == {200}
        server.text = 503
        assert {own.get(source=FIRST)[0] for _ in range(20)} == {503}
        assert {own.get("/-/hidden", source=FIRST)[0] for _ in range(20)} == {404}
        server.text = 0
        assert own.get(source=FIRST)[0] == 200


def test_who_asks_one_request_after_another_never_hangs_up_however_their_answers_came(
    tmp_path: Path, server: Server
) -> None:
    """A slow answer first, a burst of quick ones later: rates whose periods begin apart would make hang-ups of it."""
    with door(tmp_path) as own, httpx.Client(base_url=own.url, timeout=10.0) as client:
        own.start()
        own.feed(server)
        began = time.monotonic()
        server.delay_s = 0.3
        statuses = [client.get("/v1/x").status_code]
        server.delay_s = 0.005
        time.sleep(max(0.0, began + 3.05 - time.monotonic()))
        statuses += [client.get("/v1/x").status_code for _ in range(24)]
        time.sleep(max(0.0, began + 5.8 - time.monotonic()))
        assert [*statuses, client.get("/v1/x").status_code] == [200] * 26


def test_connections_that_are_kept_open_pay_for_no_hang_up(tmp_path: Path, server: Server) -> None:
    with door(tmp_path, hang_ups_per_address_per_s=2.0) as own, contextlib.ExitStack() as stack:
        own.start()
        own.feed(server)
        for _ in range(100):
            stack.enter_context(own.connect(ATTACKER)).sendall(SEARCH)
        until(lambda: len(server.seen) == 100, 10, "they are answered")
        server.delay_s = 0.2
        for _ in range(60):
            hang_up(own, ATTACKER, SEARCH)
        assert len(server.seen) < 100 + 30
        assert problem(own.get(source=ATTACKER), 429)["code"] == "too-many-hang-ups"


@pytest.mark.parametrize("status", [400, 422])
def test_what_a_replica_refuses_is_no_hang_up(tmp_path: Path, server: Server, status: int) -> None:
    with door(tmp_path, hang_ups_per_address_per_s=0.1) as own:
        own.start()
        own.feed(server)
        server.text = status
        for size in (2, 20_000):
            assert {own.post("/v1/search", b"x" * size)[0] for _ in range(10)} == {400}
        server.text = 0
        assert own.get()[0] == 200


def test_of_those_whom_a_load_balancer_speaks_for_each_is_judged_by_their_own_hang_ups(
    tmp_path: Path, server: Server
) -> None:
    def asks(client: str) -> bytes:
        return SEARCH.replace(b"\r\n\r\n", f"\r\nConnection: close\r\nX-Forwarded-For: {client}\r\n\r\n".encode())

    with door(tmp_path, hang_ups_per_address_per_s=2.0, forwarded_from=(f"{ATTACKER}/32",)) as own:
        own.start()
        own.feed(server)
        server.delay_s = 0.2
        for _ in range(40):
            hang_up(own, ATTACKER, asks("203.0.113.7"))
        assert problem(own.raw(asks("203.0.113.7"), ATTACKER), 429)["code"] == "too-many-hang-ups"
        assert own.raw(asks("198.51.100.9"), ATTACKER)[0] == 200


def test_where_many_addresses_hang_up_each_of_them_is_refused_and_nobody_else(tmp_path: Path, server: Server) -> None:
    """A few of each are as much work as many of one."""
    with door(tmp_path, hang_ups_per_s=5.0) as own:
        own.start()
        own.feed(server)
        server.delay_s = 0.2
        for _ in range(2):
            for number in range(30, 60):
                hang_up(own, f"127.0.1.{number}", SEARCH)
        assert len(server.seen) < 50
        assert problem(own.get(source="127.0.1.30"), 429)["code"] == "too-many-hang-ups"
        assert own.get()[0] == 200


def test_an_address_may_come_back_when_its_connections_have_ended(tmp_path: Path, server: Server) -> None:
    with door(tmp_path, connections_per_address_max=3) as own:
        own.start()
        own.feed(server)
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(own.connect(ATTACKER))
            until(lambda: own.get(source=ATTACKER)[0] == 0, 10, "the door has heard of its connections")
            assert own.get()[0] == 200
        until(lambda: own.get(source=ATTACKER)[0] == 200, 10, "its connections are forgotten")


def test_the_check_of_the_supervisor_passes_while_the_door_is_full(tmp_path: Path) -> None:
    with door(tmp_path, connections_max=8, connections_per_address_max=4) as own:
        own.start()
        with contextlib.ExitStack() as stack:
            for source in (FIRST, ATTACKER, "127.0.0.3"):
                for _ in range(6):
                    with contextlib.suppress(ConnectionResetError):
                        stack.enter_context(own.connect(source))
            for _ in range(5):
                own.service.check()


def test_fewer_descriptors_than_connections_are_taken_into_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    with door(tmp_path) as own:
        assert service._connections_max(own.settings) * 2 < 1024
        own.start()


# ── Who asks ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_replica_learns_the_peers_address_and_a_secret_that_no_client_can_say(
    running: OwnDoor, server: Server
) -> None:
    said = (
        "X-Pixr-Door: guess\r\nX-Forwarded-For: 11.9.8.7\r\nForwarded: for=11.9.8.7\r\nX-Real-Ip: 11.9.8.7\r\n"
        "X-Forwarded-Proto: https\r\nX-Pixr-Viewer: me\r\nX-Request-Timeout-Seconds: 0\r\n"
    )
    assert running.get(headers=said, source=ATTACKER)[0] == 200
    headers = {name.lower(): value for name, value in server.seen[-1][2].items()}
    secret = (running.settings.data_dir / "secrets" / "door").read_text()
    assert headers["x-forwarded-for"] == ATTACKER
    assert headers["x-pixr-door"] == secret
    assert not {"forwarded", "x-real-ip", "x-forwarded-proto", "x-pixr-viewer", "x-request-timeout-seconds"} & set(
        headers
    )


@pytest.mark.parametrize(
    ("source", "said", "address"),
    [
        (ATTACKER, "198.51.100.9, 203.0.113.7", "203.0.113.7"),
        (ATTACKER, "nonsense", ATTACKER),
        (FIRST, "203.0.113.7", FIRST),
    ],
)
def test_only_a_load_balancer_that_is_named_may_say_who_asks_and_its_last_word_counts(
    tmp_path: Path, server: Server, source: str, said: str, address: str
) -> None:
    with door(tmp_path, forwarded_from=("127.0.0.2/32", "10.0.0.0/8")) as own:
        own.start()
        own.feed(server)
        assert own.get(headers=f"X-Forwarded-For: {said}\r\n", source=source)[0] == 200
    assert server.seen[-1][2]["x-forwarded-for"] == address


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("X-Request-Id: a-name.of_mine\r\n", True),
        ("X-Request-Id: two words\r\n", False),
        ("X-Request-Id: a,b\r\n", False),
        ("X-Request-Id: a\r\nX-Request-Id: b\r\n", False),
        ("", False),
    ],
)
def test_a_request_has_one_well_formed_id(running: OwnDoor, server: Server, said: str, kept: bool) -> None:
    assert running.get(headers=said)[0] == 200
    found = server.seen[-1][2]["x-request-id"]
    assert (found == "a-name.of_mine") is kept
    assert len(found) >= 12


@pytest.mark.parametrize(
    ("path", "unwatched"),
    [("/v1/search", True), ("/v1/search/stream", False), ("/v1/searches", False), ("/v1/x", False)],
)
def test_only_searches_are_finished_without_their_caller_whatever_the_client_says(
    running: OwnDoor, server: Server, path: str, unwatched: bool
) -> None:
    assert running.get(f"{path}?q=a", headers="X-Request-Disconnect-Disabled: ?1\r\n")[0] == 200
    assert ("x-request-disconnect-disabled" in server.seen[-1][2]) is unwatched


# ── Objects ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def store() -> Iterator[Server]:
    made = Server("s3").start()
    yield made
    made.stop()


@pytest.fixture
def with_store(tmp_path: Path, server: Server, store: Server) -> Iterator[OwnDoor]:
    with door(tmp_path, objects_connections_max=4, objects_per_address_max=2) as made:
        ports = made.settings.data_dir / "run" / "ports.json"
        ports.write_text(json.dumps({**json.loads(ports.read_text()), "s3": store.port}))
        made.start()
        made.feed(server)
        yield made


SIGNED = "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=abc"


def test_a_presigned_read_goes_to_the_object_store_as_it_came_but_without_the_callers_keys(
    with_store: OwnDoor, store: Server, server: Server
) -> None:
    said = "Authorization: Bearer secret\r\nCookie: pixr_viewer=1\r\nRange: bytes=0-5\r\n"
    assert json.loads(with_store.get(f"/pixr/videos/a%20b.mp4{SIGNED}", headers=said)[2])["server"] == "s3"
    assert with_store.get(f"/pixr/videos/a.mp4{SIGNED}", method="HEAD")[0] == 200
    (_, path, headers), _ = store.seen
    headers = {name.lower(): value for name, value in headers.items()}
    assert path == f"/pixr/videos/a%20b.mp4{SIGNED}"
    assert headers["host"] == "pixr.test:8000"
    assert headers["range"] == "bytes=0-5"
    assert not {"authorization", "cookie", "x-pixr-door", "x-forwarded-for"} & set(headers)
    assert server.seen == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/pixr/videos/a.mp4"),
        ("GET", f"/other/a.mp4{SIGNED}"),
        ("GET", f"/pixrs/a.mp4{SIGNED}"),
        ("GET", f"/{SIGNED}"),
        ("PUT", f"/pixr/a.mp4{SIGNED}"),
        ("GET", "/pixr/a.mp4?x=X-Amz-Signature=1"),
    ],
)
def test_nothing_else_reaches_the_object_store(with_store: OwnDoor, store: Server, method: str, path: str) -> None:
    with_store.get(path, method=method)
    assert store.seen == []


def test_media_never_take_the_room_of_a_search(with_store: OwnDoor, store: Server) -> None:
    store.delay_s = 2.0
    with contextlib.ExitStack() as stack:
        for source in (FIRST, ATTACKER, "127.0.0.3", "127.0.0.4"):
            for _ in range(2):
                connection = stack.enter_context(with_store.connect(source))
                connection.sendall(f"GET /pixr/a.mp4{SIGNED} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        time.sleep(0.3)
        problem(with_store.get(f"/pixr/a.mp4{SIGNED}"), 429)
        began = time.monotonic()
        assert with_store.get("/v1/search?q=a")[0] == 200
        assert time.monotonic() - began < 1.9


def test_a_bucket_whose_name_would_be_read_as_a_rule_is_refused(tmp_path: Path) -> None:
    import dataclasses

    with door(tmp_path) as own:
        odd = own.settings.with_section(dataclasses.replace(own.settings.s3, ingest_buckets=("a b' || always_true",)))
        with pytest.raises(Rejected, match="no bucket's name"):
            service.DoorService(odd).prepare()


# ── Replicas that come and go ──────────────────────────────────────────────────────────────────────────────────────


def test_replicas_come_and_go_without_a_request_that_fails(running: OwnDoor, server: Server, other: Server) -> None:
    server.delay_s = other.delay_s = 0.02
    ended, statuses = threading.Event(), list[int]()
    threads = [ask_all(running, ended, statuses) for _ in range(4)]
    for _ in range(10):
        running.feed(server, other)
        time.sleep(0.1)
        running.feed(other)
        time.sleep(0.1)
        running.feed(other, server)
        time.sleep(0.1)
        running.feed(server)
        time.sleep(0.1)
    ended.set()
    for thread in threads:
        thread.join(5)
    assert set(statuses) == {200}
    assert len(statuses) > 200
    assert {len(server.seen) > 20, len(other.seen) > 20} == {True}


def test_a_replica_that_drains_gets_nothing_new_and_finishes_what_it_has(
    running: OwnDoor, server: Server, other: Server
) -> None:
    server.delay_s = 0.8
    answers: list[tuple[int, dict[str, str], bytes]] = []
    asking = threading.Thread(target=lambda: answers.append(running.get("/v1/videos/1")))
    asking.start()
    until(lambda: server.seen, 3, "it has a request")
    running.feed(other)
    for _ in range(5):
        assert json.loads(running.get()[2])["server"] == "b"
    asking.join(5)
    assert json.loads(answers[0][2])["server"] == "a"


def test_what_is_known_already_takes_no_command(running: OwnDoor, server: Server, other: Server) -> None:
    admin = service.admin_socket(running.settings)
    assert not backends.apply(admin, [server.backend])
    assert backends.apply(admin, [server.backend, other.backend])
    assert not backends.apply(admin, [other.backend, server.backend])


def test_a_door_that_starts_again_serves_at_once_from_the_file(running: OwnDoor, server: Server) -> None:
    running.stop()
    assert backends.read(service.backends_path(running.settings)) == (server.backend,)
    running.start()
    assert running.get()[0] == 200


def test_a_door_started_from_a_stale_file_is_told_by_the_next_feed(
    running: OwnDoor, server: Server, other: Server
) -> None:
    running.stop()
    backends.write(service.backends_path(running.settings), [other.backend])
    running.start()
    running.feed(server)
    assert json.loads(running.get()[2])["server"] == "a"


def test_a_file_that_is_spoiled_keeps_no_door_from_starting(running: OwnDoor, server: Server) -> None:
    running.stop()
    service.backends_path(running.settings).write_text("{")
    running.start()
    problem(running.get(), 503)
    running.feed(server)
    assert running.get()[0] == 200


def test_more_replicas_than_slots_are_served_by_those_that_have_one(
    tmp_path: Path, server: Server, other: Server
) -> None:
    with door(tmp_path, replicas_max=1) as own:
        own.start()
        own.feed(server, other)
        assert {json.loads(own.get()[2])["server"] for _ in range(5)} == {"a"}


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:0", "a b:1", "127.0.0.1:1;shutdown sessions"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is not an address"):
        Backend("x", address)


# ── Where it listens, and who may command it ───────────────────────────────────────────────────────────────────────


def listening(own: OwnDoor) -> set[tuple[str, int]]:
    assert own.process is not None
    found = psutil.Process(own.process.pid).net_connections("inet")
    return {(each.laddr.ip, each.laddr.port) for each in found if each.status == psutil.CONN_LISTEN}


@pytest.mark.parametrize(("host", "bound"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "0.0.0.0"), ("::", "::")])  # noqa: S104
def test_the_door_listens_where_it_was_told_and_nowhere_else(tmp_path: Path, host: str, bound: str) -> None:
    with door(tmp_path, host=host) as own:
        own.start()
        assert listening(own) == {(bound, own.port)}
        own.get()
        if host != FIRST:
            with socket.create_connection(("127.0.0.9", own.port), timeout=3):
                pass


def test_commands_and_figures_are_the_owners_alone(running: OwnDoor) -> None:
    folder = running.settings.data_dir / "run" / "door"
    for path in (service.admin_socket(running.settings), service._own_socket(running.settings), folder / "haproxy.cfg"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(service._own_socket(running.settings)))) as client:
        assert "haproxy_process_start_time_seconds" in client.get("http://door/metrics").text


def test_told_to_end_it_lets_an_answer_come_to_its_end(running: OwnDoor, server: Server) -> None:
    server.delay_s = 0.8
    with running.connect() as connection:
        connection.sendall(b"GET /v1/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        until(lambda: server.seen, 3, "it has a request")
        assert running.process is not None
        running.process.send_signal(running.service.command().stop_signal)
        assert parsed(received(connection))[0] == 200
    assert running.process.wait(8) == 0


def test_a_secret_or_path_with_a_quote_is_one_word() -> None:
    from cluster.door.answers import quoted

    assert quoted("a'b") == "'a'\\''b'"
    assert config.bind_addresses("::1", 8000) == ("ipv6@[::1]:8000",)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"request_timeout_s": 0.0}, "request_timeout_s must be above 0"),
        ({"connections_per_address_max": 5000}, "at most half"),
        ({"forwarded_from": ("10.0.0.0/33",)}, "forwarded_from"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused(said: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        DoorSettings(**said)  # type: ignore[arg-type]
