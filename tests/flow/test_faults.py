"""What happens when a process is killed: everything is back by itself within 30 seconds, and nothing is lost."""

from __future__ import annotations

import psutil
import pytest

from tests.conftest import until
from tests.stack import Stack, all_healthy, any_title, family, finds

BACK_WITHIN_S = 30.0


@pytest.mark.parametrize("service", ["redis", "s3", "solana", "postgres"])
def test_a_killed_service_is_back_and_nothing_is_lost(stack: Stack, catalogue: None, service: str) -> None:
    before = stack.counts()
    process = psutil.Process(stack.pids[service])
    process.kill()
    psutil.wait_procs([process], timeout=5)
    until(lambda: all_healthy(stack), BACK_WITHIN_S, f"{service} healthy again")
    until(lambda: finds(stack, any_title(stack)), BACK_WITHIN_S, "search whole again")
    after = stack.counts()
    assert {table: after[table] for table in before if table.startswith("media")} == {
        table: before[table] for table in before if table.startswith("media")
    }
    assert stack.json("audit")["clean"]


@pytest.mark.parametrize("word", ["ServeReplica", "/haproxy -db", "ServeController"])
def test_killed_processes_of_serve_are_back(stack: Stack, catalogue: None, word: str) -> None:
    killed = family(stack, word)
    assert killed
    for process in killed:
        process.kill()
    psutil.wait_procs(killed, timeout=5)
    until(lambda: finds(stack, any_title(stack)), BACK_WITHIN_S, "search answers again")
    assert stack.json("audit")["clean"]


def test_status_names_the_encoder_that_is_away_and_calls_serve_well(stack: Stack, catalogue: None) -> None:
    until(lambda: finds(stack, any_title(stack)), BACK_WITHIN_S, "whole at the start")
    for process in family(stack, "QueryEncoder"):
        process.kill()
    until(lambda: stack.services["serve"]["degraded"] == ["encoder"], 8, "status names the encoder")
    assert stack.services["serve"]["healthy"]
    for process in family(stack, "QueryEncoder"):
        process.kill()  # once more: it may be back within the time that a command takes
    until(lambda: "degraded: encoder" in stack.run("status").stdout, 20, "the table names the encoder")
    until(lambda: stack.services["serve"]["degraded"] == [], 90, "the encoder is back")


def test_serve_runs_no_proxy_of_its_own(stack: Stack, catalogue: None) -> None:
    assert family(stack, "ServeReplica")
    assert family(stack, "ProxyActor") + family(stack, "HAProxyManager") == []


def test_every_socket_listens_on_the_loopback_address(stack: Stack, catalogue: None) -> None:
    family = [stack.supervisor(), *stack.supervisor().children(recursive=True)]
    listening = {
        (process.name(), *socket.laddr)
        for process in family
        if process.is_running()
        for socket in process.net_connections("inet")
        if socket.status == psutil.CONN_LISTEN
    }
    assert len({port for _, _, port in listening}) >= len(stack.services) - 1  # the watch over jobs listens nowhere
    assert {row for row in listening if row[1].removeprefix("::ffff:") != "127.0.0.1"} == set()


@pytest.mark.parametrize(("given", "kept"), [("a-name.of_mine", True), ("two words", False)])
def test_a_request_has_one_name_in_its_answer(stack: Stack, given: str, kept: bool) -> None:
    names = stack.anonymous.get("/v1/search", headers={"X-Request-Id": given}).headers.get_list("x-request-id")
    assert len(names) == 1
    assert (names[0] == given) is kept


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ingest", "s3://no-such-bucket/videos"), "ingest_buckets"),
        (("ingest", "s3://pixr/no-such-prefix/"), "nothing lies under"),
        (("ingest", "no-such-folder"), "does not exist"),
        (("jobs", "show", "no-such-job"), "no job"),
        (("search", "--", "-banana"), "a search needs something to look for"),
    ],
)
def test_a_wrong_call_to_a_running_stack_is_refused_in_one_line(
    stack: Stack, arguments: tuple[str, ...], said: str
) -> None:
    done = stack.run(*arguments)
    assert (done.returncode, done.stderr.strip().count("\n")) == (2, 0), done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert said in done.stderr
