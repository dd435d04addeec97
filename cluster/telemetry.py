"""JSON logs to standard error, one line an event, with secrets taken out wherever they stand.

`extra={"job_id": …}` adds fields. Redaction works on the finished line, so a secret inside an exception's text or a
third party's message goes too. Knows nothing of where logs are kept.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import Any

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
    for chatty in ("httpx", "httpcore", "botocore", "aiobotocore", "psycopg.pool"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
