"""No secret reaches a log line, wherever in the record it stands."""

from __future__ import annotations

import json
import logging
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster import telemetry
from cluster.telemetry import JsonFormatter, redact

SECRET = "hunter2hunter2hunter2"


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://pixr:{SECRET}@127.0.0.1:5432/pixr",
        f"postgresql://pixr:a/{SECRET}@127.0.0.1:5432/pixr",
        f"redis://:a@{SECRET}@cache",
        f"https://{SECRET}@rpc.example",
        f"Client error '404 Not Found' for url 'https://rpc.example/v2/{SECRET}'",
        f"password={SECRET} host=db",
        f'{{"api_key": "{SECRET}"}}',
        f"Authorization: Bearer {SECRET}",
        f"pixr_{SECRET}",
        f"s3_secret = {SECRET}",
        "-----BEGIN PRIVATE KEY-----\nhunter2hunter2hunter2\n-----END PRIVATE KEY-----",
        str([int(byte) for byte in bytes(range(64))]),
    ],
)
def test_secrets_are_taken_out_of_text(text: str) -> None:
    assert SECRET not in redact(text)
    assert "***" in redact(text)


def test_what_is_no_secret_stays() -> None:
    assert redact("job 17 wrote 12 segments to s3://pixr/thumbnails/1.webp") == (
        "job 17 wrote 12 segments to s3://pixr/thumbnails/1.webp"
    )


def record(message: str, **extra: object) -> logging.LogRecord:
    try:
        raise ValueError(f"password={SECRET}")
    except ValueError:
        made = logging.LogRecord("test", logging.ERROR, __file__, 1, message, None, sys.exc_info())
    vars(made).update(extra)
    return made


def test_a_line_is_json_with_its_fields_and_without_secrets() -> None:
    line = JsonFormatter("test").format(record(f"token={SECRET}", job_id="j1", url=f"redis://:{SECRET}@h/0"))
    fields = json.loads(line)
    assert fields["job_id"] == "j1"
    assert fields["level"] == "error"
    assert fields["time"].endswith("Z")
    assert "ValueError" in fields["exception"]
    assert SECRET not in line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("only 3 of 4 frames, 1/2 s; a ratio 4:3", "only 3 of 4 frames, 1/2 s; a ratio 4:3"),
        ("no video under s3://pixr/a b/c.mp4", "no video under s3://pixr/a b/c.mp4"),
        ("model /srv/models/own is missing", "model … is missing"),
        ("~/models/own: no", "…: no"),
        ("at https://s3.internal:9000/x?X-Amz-Signature=1: no", "at … no"),
        ("redis://:pw@10.0.0.7:6379/0 and 10.0.0.7:6379", "… and …"),
        ("\x1b[31mred\x1b[0m\n  second\x07 line", "red second line"),
        ("x" * 5000, "x" * 500),
    ],
)
def test_a_public_line_is_one_line_without_places(text: str, line: str) -> None:
    assert telemetry.public_line(text) == line


@contextmanager
def root_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:], root.level = handlers, level


def test_lines_are_also_kept_in_a_file_that_others_append_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "LOG_BYTES_MAX", 2000)
    file = tmp_path / "logs" / "ledger.log"
    with root_as_it_was():
        telemetry.configure("ledger")
        telemetry.keep("ledger", file)
        with open(file, "ab", buffering=0) as beside:  # as a service's standard error is
            for number in range(40):
                logging.getLogger("ledger.stops").warning("frozen", extra={"number": number, "url": "http://a:b@c"})
                beside.write(b"a line of another process\n")
        logging.getLogger("httpx2").info("HTTP Request: POST http://node")
        file.rename(tmp_path / "moved")  # as a supervisor does at a service's start
        logging.getLogger("ledger").info("after")
    before, now = (file.parent / "ledger.log.1").read_bytes(), (tmp_path / "moved").read_bytes()
    assert len(before) < 2500
    assert b"a line of another process" in now
    assert b"HTTP Request" not in now
    assert b"http://a:b@c" not in now
    lines = [json.loads(line) for line in (before + now).splitlines() if line.startswith(b"{")]
    assert lines[-1]["number"] == 39
    assert {each["process"] for each in lines} == {"ledger"}
    assert json.loads(file.read_bytes())["message"] == "after"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_that_cannot_be_kept_is_said_and_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").write_text("no folder")
    with root_as_it_was():
        telemetry.configure("ledger")
        telemetry.keep("ledger", tmp_path / "logs" / "ledger.log")
    assert "lines are not kept in" in capsys.readouterr().err
