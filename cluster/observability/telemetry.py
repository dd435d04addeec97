"""JSON logs to standard error, one line per event, with secrets removed wherever they appear.

`extra={"job_id": …}` adds fields. Redaction works on the finished text, so that a secret inside an exception's message
or a third party's log line is removed too. Does not know where logs are stored.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import Any

# user:password@ in URLs, where a user or password may hold any sign that it should not; a path that a client's error
# quotes; bearer tokens; key=value and "key": "value" pairs with a telling name; PEM keys; keys as arrays of
# 64 bytes; Pixr's own API keys.
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
# Addresses of services and absolute paths; not s3://bucket/key, which the caller has named.
_PLACES = (
    (re.compile(r"\b(?:https?|postgres(?:ql)?|rediss?)://[^\s'\")\]]+"), "…"),
    (re.compile(r"(?<![\w:/.~])~?/(?:[^\s/'\":,;()]+/)+[^\s/'\":,;()]*"), "…"),
    (re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?"), "…"),
)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def redact(text: str) -> str:
    """Return `text` without passwords, tokens and keys."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def public_line(text: str) -> str:
    """Return an error's text as its caller may see it: one line without colours, secrets, addresses and host paths."""
    plain = _COLOURS.sub("", redact(text))
    for pattern, replacement in _PLACES:
        plain = pattern.sub(replacement, plain)
    printable = "".join(character if character.isprintable() else " " for character in plain)
    return " ".join(printable.split())[:LINE_MAX]


class JsonFormatter(logging.Formatter):
    """A formatter for one JSON object a line: time (RFC 3339 UTC), level, process, logger, message, extra fields."""

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
    """Send all log lines of this process to standard error as JSON. Called once, by the process's entry point.

    Args:
        process: The process's name in each line.
        level: The lowest level that is written.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("httpx", "httpcore", "botocore", "aiobotocore", "psycopg.pool"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
