"""Serve as a service: asked at its replicas, whatever the door does; and what of Ray's inside the door relies on."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster import ray_cluster, runtime
from cluster.cli import stack
from cluster.door import backends, direct, service
from cluster.errors import Rejected, Temporary
from cluster.settings import Settings
from serve.replicas import Replicas, _backends
from serve.service import Serve
from tests.cluster.doors import Server, door
from tests.conftest import throwaway_settings, until


def readyz(**reasons: str) -> dict[str, object]:
    return {"ready": True, "dependencies": {name: {"ok": not why, "reason": why} for name, why in reasons.items()}}


@pytest.fixture
def replica() -> Iterator[Server]:
    made = Server("a", documents={"/readyz": readyz(postgres="", encoder="")}).start()
    yield made
    made.stop()


@pytest.fixture
def plain(tmp_path: Path) -> Settings:
    made = throwaway_settings(tmp_path)
    runtime.port(made, "serve", 8000)
    return made


def test_replicas_that_answer_are_well_while_the_door_is_away(plain: Settings, replica: Server) -> None:
    with pytest.raises(Temporary, match="no replica"):
        Serve(plain).check_alive()
    backends.write(service.backends_path(plain), [replica.backend])
    Serve(plain).check_alive()
    replica.stop()
    with pytest.raises(Temporary, match="unreachable"):
        Serve(plain).check_alive()


def test_a_start_waits_for_the_door_and_what_replicas_need(tmp_path: Path, replica: Server) -> None:
    with door(tmp_path) as own:
        own.start()
        made = Serve(own.settings)
        backends.write(service.backends_path(own.settings), [replica.backend])
        with pytest.raises(Temporary):
            made.check()
        own.feed(replica)
        replica.documents["/readyz"] = readyz(postgres="", encoder="TimeoutError")
        with pytest.raises(Temporary, match="waits for encoder"):
            made.check()
        replica.documents["/readyz"] = readyz(postgres="", encoder="")
        made.check()
        replica.documents["/readyz"] = readyz(postgres="", encoder="TimeoutError")
        made.check()  # started once, it is not ended for what it lacks


def test_status_names_what_is_degraded_and_calls_it_healthy(plain: Settings, replica: Server) -> None:
    backends.write(service.backends_path(plain), [replica.backend])
    assert Serve(plain).degraded() == ()
    replica.documents["/readyz"] = readyz(postgres="", encoder="TimeoutError", redis="away")
    assert Serve(plain).degraded() == ("encoder", "redis")
    row = {"healthy": True, "reason": "", "degraded": ["encoder", "redis"]}
    assert stack._state(row) == "[yellow]degraded: encoder, redis[/]"
    assert stack._state(row | {"degraded": []}) == "[green]healthy[/]"


def test_a_door_that_gives_up_before_the_search_does_is_refused(plain: Settings) -> None:
    hasty = plain.with_section(dataclasses.replace(plain.door, search_timeout_s=2.0))
    with pytest.raises(Rejected, match="search_timeout_s"):
        Serve(hasty).prepare()


def test_a_replica_that_comes_or_goes_is_known_to_file_and_door(tmp_path: Path, replica: Server) -> None:
    with door(tmp_path) as own:
        replicas = Replicas(own.settings, "pixr", "SearchApi")
        replicas._change([replica.backend])  # while the door is away
        assert backends.read(service.backends_path(own.settings)) == (replica.backend,)
        own.start()
        assert own.get()[0] == 200
        replicas._change([])
        assert own.get()[0] == 503
        assert backends.read(service.backends_path(own.settings)) == ()


def test_a_door_that_was_told_nothing_learns_it_from_the_next_look(tmp_path: Path, replica: Server) -> None:
    with door(tmp_path) as own:
        own.start()
        replicas = Replicas(own.settings, "pixr", "SearchApi")
        replicas.feed()
        assert not service.backends_path(own.settings).exists()  # nothing is known yet: the file of before stays
        replicas._backends = [replica.backend]
        feeding = threading.Thread(target=replicas.feed)
        feeding.start()
        until(lambda: own.get()[0] == 200, 3, "the door was told")
        feeding.join(3)


def test_replicas_without_an_http_server_are_left_out() -> None:
    def running(name: str, port: int | None) -> SimpleNamespace:
        replica_id = SimpleNamespace(unique_id=name)
        return SimpleNamespace(replica_id=replica_id, node_ip="127.0.0.1", backend_http_port=port)

    found = _backends([running("b", 23002), running("c", None), running("a", 23001)])
    assert [(each.name, each.address) for each in found] == [("a", "127.0.0.1:23001"), ("b", "127.0.0.1:23002")]


def test_a_controller_that_calls_back_starts_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.serve._private import proxy_state

    manager = proxy_state.ProxyStateManager
    monkeypatch.setattr(manager, "_get_target_nodes", manager._get_target_nodes)
    direct.without_proxies()
    assert manager._get_target_nodes(None, None) == []


def test_the_headers_by_which_serve_would_be_told_its_limits_are_those_that_the_door_removes() -> None:
    from ray.serve._private import constants

    assert constants.SERVE_HTTP_REQUEST_TIMEOUT_S_HEADER == "x-request-timeout-seconds"
    assert constants.SERVE_HTTP_REQUEST_DISCONNECT_DISABLED_HEADER == "x-request-disconnect-disabled"


def test_deployments_of_a_machine_draw_their_ports_and_no_server_believes_a_header(tmp_path: Path) -> None:
    first, drawn = "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT", set()
    for number in range(10):  # two of them have the same ninetieth of all ports by chance, all of them never
        (tmp_path / str(number)).mkdir()
        one = ray_cluster.environment(throwaway_settings(tmp_path / str(number)))
        drawn.add(one[first])
        assert 22_999 < int(one[first]) < 32_000
        assert one["FORWARDED_ALLOW_IPS"] == "none"
        assert "RAY_SERVE_ENABLE_HA_PROXY" not in one
    assert len(drawn) > 5
