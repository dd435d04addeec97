"""A replica is asked so much at once: what is beyond waits in the door, briefly, and a replica that is busy is not dead."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cluster.door import backends, service
from cluster.door.backends import Backend
from cluster.settings import DoorSettings
from serve.settings import SearchSettings
from tests.cluster.doors import FIRST, OwnDoor, Server, door, parsed, received
from tests.conftest import until

SEARCH = b"GET /v1/search?q=a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
MANY = [f"127.0.0.{number}" for number in range(20, 60)]


class OneByOne:
    """A replica that takes one connection after another, as an event loop with too much to do does."""

    def __init__(self, backlog: int, each_s: float) -> None:
        self.listener = socket.create_server((FIRST, 0), backlog=backlog)
        self.each_s = each_s
        self.taking = threading.Event()
        self.taking.set()
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def backend(self) -> Backend:
        return Backend("x", f"{FIRST}:{self.listener.getsockname()[1]}")

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.taking.wait()
                connection, _ = self.listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(1.0)
                    if connection.recv(65_536):
                        time.sleep(self.each_s)
                        connection.sendall(OK)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server("a").start()
    yield made
    made.stop()


def said(own: OwnDoor, room: str, server: str, figure: str) -> int:
    """A figure of HAProxy's own."""
    text = backends.ask(service.admin_socket(own.settings), "show stat")
    header, *rows = [line.split(",") for line in text.splitlines() if line]
    [row] = [each for each in rows if each[0] == room and each[1] == server]
    return int(row[header.index(figure)])


def test_a_flood_of_searches_waits_in_the_door_and_the_page_is_answered(tmp_path: Path) -> None:
    replica = OneByOne(backlog=200, each_s=0.005)
    with door(tmp_path, check_interval_s=1.0, queue_timeout_s=5.0, threads=2) as own:
        own.start()
        service.feed(own.settings, [replica.backend])
        ended, statuses = threading.Event(), list[tuple[int, str]]()

        def ask_all(source: str) -> None:
            while not ended.is_set():
                status, headers, body = own.raw(SEARCH, source, timeout_s=20.0)
                if status == 503:
                    assert int(headers["retry-after"]) >= 1
                statuses.append((status, json.loads(body)["code"] if status == 503 else ""))

        with ThreadPoolExecutor(400) as pool:
            asked = [pool.submit(ask_all, MANY[number % len(MANY)]) for number in range(400)]
            try:
                until(lambda: said(own, "searches", "BACKEND", "qcur") > 0, 10, "searches wait")
                for _ in range(5):
                    assert own.raw(SEARCH.replace(b"/v1/search?q=a", b"/"), timeout_s=10.0)[0] == 200
                    assert said(own, "searches", "r1", "scur") <= 128
            finally:
                ended.set()
            for each in asked:
                each.result()
        assert set(statuses) == {(200, ""), (503, "busy")}
        assert said(own, "pixr", "r1", "chkdown") == 0
    replica.listener.close()


def test_a_replica_whose_queue_of_connections_is_full_is_not_taken_for_dead(tmp_path: Path) -> None:
    """By what requests meet: many checks must fail here."""
    replica = OneByOne(backlog=1, each_s=0.0)
    with door(tmp_path, check_interval_s=1.0, check_failures_max=100) as own, contextlib.ExitStack() as stack:
        own.start()
        service.feed(own.settings, [replica.backend])
        assert own.get()[0] == 200
        replica.taking.clear()
        for source in MANY[:20]:
            stack.enter_context(own.connect(source)).sendall(SEARCH.replace(b"/v1/search?q=a", b"/v1/videos"))
        until(lambda: said(own, "pixr", "r1", "econ") + said(own, "pixr", "r1", "wretr") >= 3, 10, "connections fail")
        assert said(own, "pixr", "r1", "chkdown") == 0
        replica.taking.set()
        assert own.raw(SEARCH, timeout_s=20.0)[0] == 200
    replica.listener.close()


def test_who_has_many_searches_under_way_waits_behind_who_has_one(tmp_path: Path, server: Server) -> None:
    server.delay_s = 0.1
    bounds: dict[str, Any] = {"searches_per_replica_max": 2, "search_queue_timeout_s": 20.0}
    with door(tmp_path, **bounds) as own, contextlib.ExitStack() as stack:
        own.start()
        own.feed(server)
        for _ in range(80):
            stack.enter_context(own.connect(MANY[0])).sendall(SEARCH)
        until(lambda: said(own, "searches", "BACKEND", "qcur") > 40, 5, "they wait")
        reached = len(server.seen)
        assert own.raw(SEARCH)[0] == 200
        assert len(server.seen) - reached < 20
        assert said(own, "searches", "BACKEND", "qcur") > 10


@pytest.mark.parametrize("path", [b"/v1/search?q=a", b"/v1/videos"])
def test_who_waits_too_long_for_a_place_is_told_so(tmp_path: Path, server: Server, path: bytes) -> None:
    server.delay_s = 2.0
    bounds: dict[str, Any] = {"searches_per_replica_max": 1, "others_per_replica_max": 1}
    with (
        door(tmp_path, search_queue_timeout_s=0.3, queue_timeout_s=0.3, **bounds) as own,
        contextlib.ExitStack() as stack,
    ):
        own.start()
        own.feed(server)
        request = SEARCH.replace(b"/v1/search?q=a", path)
        held = stack.enter_context(own.connect())
        held.sendall(request)
        until(lambda: server.seen, 5, "it has a request")
        began = time.monotonic()
        status, headers, body = own.raw(request)
        assert time.monotonic() - began < 1.0
        assert (status, json.loads(body)["code"]) == (503, "busy")
        assert int(headers["retry-after"]) >= 1
        assert "no replica" not in json.loads(body)["detail"]
        assert parsed(received(held))[0] == 200


def test_who_gives_up_leaves_the_queue_and_no_replica_hears_of_it(tmp_path: Path, server: Server) -> None:
    server.delay_s = 0.5
    with door(tmp_path, searches_per_replica_max=1) as own:
        own.start()
        own.feed(server)
        with own.connect() as held:
            held.sendall(SEARCH)
            until(lambda: server.seen, 5, "it has a request")
            for source in MANY:
                with own.connect(source) as connection:
                    connection.sendall(SEARCH)
            until(lambda: said(own, "searches", "BACKEND", "qcur") == 0, 0.4, "nobody waits")
            assert parsed(received(held))[0] == 200
        assert own.raw(SEARCH)[0] == 200
        assert len(server.seen) <= 3


def test_what_the_door_asks_a_replica_at_once_a_replica_takes() -> None:
    wanted = DoorSettings()
    rooms = (
        wanted.searches_per_replica_max,
        wanted.others_per_replica_max,
        wanted.bodies_per_replica_max * 2,
        wanted.streams_per_replica_max,
    )
    search = SearchSettings()
    assert sum(rooms) <= search.ongoing_requests_max
    assert wanted.searches_per_replica_max >= search.searches_max + search.waiting_max
