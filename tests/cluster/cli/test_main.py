"""The command line says in one line what is wrong and what to do, with exit code 2 and no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import runtime
from cluster.settings import ROOT, Settings


def pixr(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the console script as a user would, in an empty data folder."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PIXR_")}
    return subprocess.run(
        (str(Path(sys.executable).with_name("pixr")), *arguments),
        env=environment | {"PIXR_DATA_DIR": str(folder)} | environ,
        capture_output=True,
        text=True,
        timeout=90,
        cwd=ROOT,
        check=False,
    )


def test_commands_load_neither_the_web_framework_nor_the_client_of_s3() -> None:
    """Each takes about a second, of every command that a person waits for."""
    commands = (
        "cluster.cli.stack, ledger.audit.audit, ledger.payouts.listing, pipelines.index.admin, pipelines.jobs.jobs"
    )
    commands += ", serve.client, serve.access.keys"
    script = f"import sys, {commands}; print(*({{'fastapi', 'ray', 's3fs', 'torch'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def assert_refused(done: subprocess.CompletedProcess[str], said: str) -> None:
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert said in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("serch", "cat"), "No such command"),
        (("search",), "say what to look for"),
        (("search", "--image", "nowhere.png"), "nowhere.png: No such file"),
        (("search", "--image=nowhere="), "nowhere=: No such file"),
        (("ingest",), "Missing argument"),
        (("ingest", ""), "what follows `ingest` is empty; is a variable of the shell not set?"),
        (("ingest", "videos/", "--creator", ""), "what follows `--creator` is empty"),
        (("keys", "create", "studio", "--for="), "--for= is empty"),
        (("up", "--fast"), "No such option"),
        (("--config", "none.toml", "status"), "does not exist"),
        (("status",), "never started"),
        (("search", "cat"), "never started"),
        (("ingest", "s3://bucket/videos"), "never started"),
        (("payouts",), "never started"),
        (("audit",), "never started"),
        (("bench", "nothing"), "no benchmark"),
    ],
)
def test_a_wrong_call_is_refused(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    assert_refused(pixr(tmp_path, *arguments), said)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PIXR_POSTGRES_URL", "postgresql://nobody@127.0.0.1:1/none", "127.0.0.1:1/none is unreachable"),
        ("PIXR_POSTGRES_URL", "not a url", "[postgres] url"),
        ("PIXR_REDIS_URL", "redis://127.0.0.1:1/0", "Redis at 127.0.0.1:1/0 is unreachable"),
        ("PIXR_S3_URL", "http://127.0.0.1:1", "S3 at http://127.0.0.1:1"),
        ("PIXR_SOLANA_URLS", "http://127.0.0.1:1", "Solana RPC at http://127.0.0.1:1"),
        ("PIXR_SERVE_CERTIFICATE", "/nowhere/pixr.pem", "[serve] certificate /nowhere/pixr.pem cannot be used"),
        ("PIXR_SERVE_CERTIFICATE", "pixr.pem", "expected the whole path of a file"),
        ("PIXR_NO_SUCH", "1", "unknown variable PIXR_NO_SUCH"),
    ],
)
def test_up_and_config_check_refuse_what_cannot_be_reached(
    tmp_path: Path, variable: str, value: str, said: str
) -> None:
    assert_refused(pixr(tmp_path, "up", **{variable: value}), said)
    assert_refused(pixr(tmp_path, "config", "check", **{variable: value}), said)


@pytest.mark.parametrize(
    "url", ["postgresql://u:hunter2@[bad/db", "postgres//u:hunter2@h/db", "postgresql://u:hunt%er2@h/db"]
)
def test_no_password_is_said_of_a_url_that_is_none(tmp_path: Path, url: str) -> None:
    done = pixr(tmp_path, "config", "check", PIXR_POSTGRES_URL=url)
    assert_refused(done, "[postgres] url")
    assert "hunt" not in done.stdout + done.stderr


def test_config_check_accepts_the_shipped_settings(tmp_path: Path) -> None:
    done = pixr(tmp_path, "config", "check")
    assert done.returncode == 0, done.stderr
    assert "is valid" in done.stdout


def test_help_names_every_command_of_the_design(tmp_path: Path) -> None:
    said = pixr(tmp_path, "--help").stdout
    wanted = "up down status migrate config ingest jobs search samples index keys payouts audit bench demo"
    assert [name for name in wanted.split() if f"\n  {name} " not in said] == []


def test_a_pixr_that_is_down_takes_nobody_else_for_itself(ground: Settings, tmp_path: Path) -> None:
    """Another one has the ports by now that it had."""
    ports = {name: runtime.known_port(ground, name) for name in ("postgres", "redis", "s3")}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "ports.json").write_text(json.dumps(ports), encoding="ascii")
    done = pixr(tmp_path, "status", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["phase"]) == (1, "down")
    assert {(row["healthy"], row["reason"], row["pid"]) for row in found["services"].values()} == {
        (False, "not running", None)
    }
    assert set(ports) < set(found["services"])
    for arguments in (("search", "cat"), ("jobs",), ("payouts",)):
        assert_refused(pixr(tmp_path, *arguments), f"Pixr is down in {tmp_path}")


def test_down_without_up_is_no_error(tmp_path: Path) -> None:
    done = pixr(tmp_path, "down")
    assert (done.returncode, done.stdout.strip()) == (0, "Pixr was not running")
