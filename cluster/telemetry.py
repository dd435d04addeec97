"""JSON logs to standard error, one line an event, with secrets taken out wherever they stand.

`extra={"job_id": …}` adds fields. Redaction works on the finished line, so a secret inside an exception's text or a
third party's message goes too. A process whose standard error is Ray's, in a folder that few look into, also keeps its lines in
a file that is named to it.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from cluster import folders
from cluster.errors import Rejected

log = logging.getLogger(__name__)

# user:password@ in URLs, where a user or password may hold any sign that it should not; a path that a client's error
# quotes; key=value and "key": "value" pairs whose name tells; bearer tokens; PEM and byte-array keys.
_SECRETS = (
    (re.compile(r"(\b(?:https?|postgres(?:ql)?|rediss?|unix)://)[^\s\"'<>]*@"), r"\1***@"),
    (re.compile(r"(\w+://[^\s:/@]*:)[^\s@/]+@"), r"\1***@"),
    (re.compile(r"(\bfor url '\w+://[^/'\s]*)[^'\s]*'"), r"\1/***'"),
    (re.compile(r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=-]{8,}"), r"\1***"),
    (
        re.compile(
            r"(?i)(\b[\w-]*(?:password|secret|token|api[_-]?key|private[_-]?key)\b[\"']?\s*[=:]\s*[\"']?)[^\s\"',;}]+"
        ),
        r"\1***",
    ),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL), "***"),
    (re.compile(r"\[(?:\s*\d{1,3}\s*,){63}\s*\d{1,3}\s*\]"), "***"),
    (re.compile(r"\b(pixr_)[A-Za-z0-9_-]{16,}"), r"\1***"),
)
LINE_MAX = 500  # characters
LOG_BYTES_MAX = 16 << 20  # of a file, beside which the one before stays
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# Addresses of services (not s3://bucket/key, which who asked has named) and absolute paths.
_PLACES = (
    (re.compile(r"\b(?:https?|postgres(?:ql)?|rediss?)://[^\s'\")\]]+"), "…"),
    (re.compile(r"(?<![\w:/.~])~?/(?:[^\s/'\":,;()]+/)+[^\s/'\":,;()]*"), "…"),
    (re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?"), "…"),
)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def redact(text: str) -> str:
    """`text` without passwords, tokens and keys."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def public_line(text: str) -> str:
    """An error as whoever asked may see it: one line without colours, secrets, addresses of services and host paths."""
    plain = _COLOURS.sub("", redact(text))
    for pattern, replacement in _PLACES:
        plain = pattern.sub(replacement, plain)
    printable = "".join(character if character.isprintable() else " " for character in plain)
    return " ".join(printable.split())[:LINE_MAX]


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339 UTC), level, process, logger, message, extra fields."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        line |= {key: redact(value) if isinstance(value, str) else value for key, value in extra.items()}
        if record.exc_info:
            line["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(line, default=lambda value: redact(str(value)))


def configure(process: str, level: int = logging.INFO) -> None:
    """Send every logger's lines to standard error as JSON; called once, by a process's entry point."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("httpx", "httpcore", "httpx2", "httpcore2", "botocore", "aiobotocore", "psycopg.pool"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def keep(process: str, path: Path) -> None:
    """Also append every logger's lines to a file, beside other processes that append to it; after `configure`.

    Where it cannot be written, that is said once, and the lines are where they were.
    """
    try:
        handler = Appending(path)
    except (OSError, Rejected) as error:
        log.warning("lines are not kept in %s: %s", path, error)
        return
    handler.setFormatter(JsonFormatter(process))
    logging.getLogger().addHandler(handler)


class Appending(logging.Handler):
    """A line a write, at the end of a file that others append to as well.

    Each line opens the file, so that it goes where the name leads, whoever has moved the file away. From `LOG_BYTES_MAX` on
    what is there is copied beside it and the file emptied, rather than moved: another process keeps it open.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        folders.make_private(path.parent)
        self._append(b"")

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._append(self.format(record).encode(errors="backslashreplace") + b"\n")
        except Exception:  # noqa: BLE001  as every handler does: a line that cannot be written ends nothing
            self.handleError(record)

    def _append(self, line: bytes) -> None:
        with open(self._path, "ab", buffering=0, opener=folders.opener) as file:
            if file.tell() > LOG_BYTES_MAX:
                self._copy()
                file.truncate(0)
            file.write(line)

    def _copy(self) -> None:
        beside = self._path.with_name(f"{self._path.name}.1")
        with open(self._path, "rb") as source, open(beside, "wb", opener=folders.opener) as target:
            shutil.copyfileobj(source, target)
