"""Ports and secrets are made once, kept, readable by their owner alone, and safe against several processes."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster import runtime
from cluster import settings as settings_module
from cluster.errors import Rejected
from tests.conftest import free_port, throwaway_settings


def test_a_port_is_kept_and_no_two_services_share_one(tmp_path: Path) -> None:
    settings = throwaway_settings(tmp_path)
    first, second = runtime.port(settings, "a", 15000), runtime.port(settings, "b", 15000)
    assert first != second
    assert runtime.port(settings, "a", 17000) == first


def test_the_door_s_port_is_that_of_the_settings_whoever_asks_for_it_first(tmp_path: Path) -> None:
    wanted = free_port()
    settings = settings_module.load(environ={"PIXR_DATA_DIR": str(tmp_path), "PIXR_SERVE_PORT": str(wanted)})
    runtime.port(settings, "redis", 15000)  # what tells how all are asks while only the first of them are up
    assert runtime.known_port(settings, "serve") == wanted


def test_many_askers_get_one_secret_that_only_its_owner_reads(tmp_path: Path) -> None:
    settings = throwaway_settings(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        secrets = set(threads.map(lambda _: runtime.secret(settings, "it"), range(16)))
    assert len(secrets) == 1
    assert len(secrets.pop()) >= 43  # 32 random bytes
    assert stat.S_IMODE(runtime.secret_path(settings, "it").stat().st_mode) == 0o600


def test_a_data_folder_that_was_never_started_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="never started"):
        runtime.endpoints(throwaway_settings(tmp_path))


def test_addresses_never_show_passwords(tmp_path: Path) -> None:
    settings = throwaway_settings(tmp_path)
    runtime.port(settings, "serve", 8000)
    ends = runtime.endpoints(settings)
    assert runtime.secret(settings, "redis") in ends.redis_url
    assert runtime.secret(settings, "redis") not in repr(ends)
