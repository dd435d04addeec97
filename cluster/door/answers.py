"""The door's own responses: problem documents of the same shape as everywhere in the interface (`serve.http.problems`).

HAProxy 2.8 makes errors in two places. A request that it cannot parse is refused before any rule runs, in HTML; the
only remedy is to close the connection without a response (`UNREAD`). Every other error passes through rules, which know
the request's id. Does not know where in the configuration the responses are used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

MEDIA_TYPE = "application/problem+json"
REQUEST_ID = "%[var(txn.request_id)]"  # replaced by HAProxy


@dataclass(frozen=True)
class Answer:
    """A problem document. `status` is what the client sees; with `retried` the response has a Retry-After header."""

    status: int
    title: str
    detail: str
    code: str
    retried: bool = False

    def document(self) -> str:
        """Return the JSON body, with a placeholder for the request's id."""
        document = {
            "type": f"urn:pixr:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "request_id": REQUEST_ID,
            "code": self.code,
        }
        return json.dumps(document)

    def rule(self, retry_after_s: int) -> str:
        """Return the arguments that follow the status in HAProxy's directives `http-error` and `http-request return`."""
        retry = f" hdr Retry-After {retry_after_s}" if self.retried else ""
        return (
            f"content-type {MEDIA_TYPE} lf-string {quoted(self.document())}"
            f" hdr Cache-Control no-store hdr X-Request-Id {REQUEST_ID}{retry}"
        )


def quoted(value: object) -> str:
    """Return a value as one quoted word of HAProxy's configuration, whatever characters it has."""
    return "'" + str(value).replace("'", "'\\''") + "'"


_AWAY = "Service Unavailable"
UNAVAILABLE = Answer(503, _AWAY, "no replica of Pixr can answer at present; ask again", "unavailable", retried=True)
ENDED = Answer(503, _AWAY, "the replica ended before it had answered; ask again", "unavailable", retried=True)
LATE = Answer(503, _AWAY, "there was no answer in time; ask again", "unavailable", retried=True)
BUSY = Answer(503, _AWAY, "Pixr is busy; ask again", "unavailable", retried=True)
REPLICAS_FULL = Answer(
    503, _AWAY, "the replica does not answer, or too many requests wait for it; ask again", "busy", retried=True
)
TOO_MANY = Answer(
    429, "Too Many Requests", "this address has too many connections", "too-many-connections", retried=True
)
TOO_MANY_HANG_UPS = Answer(
    429,
    "Too Many Requests",
    "this address, or its network, has ended too many requests before they were answered; wait for the answers",
    "too-many-hang-ups",
    retried=True,
)
TOO_MANY_BODIES = Answer(
    429,
    "Too Many Requests",
    "this address, or its network, has too many large bodies on their way in",
    "too-many-bodies",
    retried=True,
)
BODIES_FULL = Answer(
    503,
    _AWAY,
    "the replica does not answer, or all places for large bodies are taken; ask again, or send a smaller body",
    "bodies-full",
    retried=True,
)
STREAMS_FULL = Answer(
    503,
    _AWAY,
    "the replica does not answer, or all places for streams are taken; ask again",
    "streams-full",
    retried=True,
)
STORE_AWAY = Answer(
    503,
    _AWAY,
    "the object store does not answer, or all places for it are taken; ask again",
    "unavailable",
    retried=True,
)
STORE_ENDED = Answer(
    503, _AWAY, "the object store ended before it had answered; ask again", "unavailable", retried=True
)
NO_UPGRADE = Answer(
    400, "Bad Request", "the interface speaks HTTP/1.1 alone: a connection becomes nothing else", "no-upgrade"
)
NOT_FOUND = Answer(404, "Not Found", "there is nothing here", "not-found")
NO_METHOD = Answer(405, "Method Not Allowed", "the interface knows no such method", "method-not-allowed")
URL_TOO_LONG = Answer(414, "URI Too Long", "the request line is too long", "url-too-long")
HEADERS_TOO_LARGE = Answer(
    431, "Request Header Fields Too Large", "the request's headers are too large", "headers-too-large"
)

# Requests that cannot be parsed, or do not arrive in time. Until its headers are complete, a request gets no response.
UNREAD: dict[int, Answer] = {
    400: Answer(400, "Bad Request", "the request cannot be read", "bad-request"),
    408: Answer(408, "Request Timeout", "the request did not come in time", "request-timeout", retried=True),
    413: Answer(413, "Content Too Large", "the request's body is too large", "too-large"),
    422: Answer(422, "Unprocessable Content", "the request cannot be understood", "bad-request"),
    501: Answer(501, "Not Implemented", "the request asks for something that is not implemented", "not-implemented"),
}
# HAProxy's own errors. Callers know one status for "ask again", so 502 and 504 are sent as 503.
FAILED: dict[int, Answer] = {
    403: Answer(403, "Forbidden", "the request is not allowed", "forbidden"),
    429: TOO_MANY,
    500: Answer(500, "Internal Server Error", "something unexpected happened", "internal"),
    502: ENDED,
    503: UNAVAILABLE,
    504: LATE,
}
# All statuses that HAProxy has a text of its own for, including those that no rule of ours leads to.
ALL: dict[int, Answer] = {
    401: Answer(401, "Unauthorized", "the request needs a key", "unauthorized"),
    404: NOT_FOUND,
    405: NO_METHOD,
    407: Answer(407, "Proxy Authentication Required", "the request needs a key", "unauthorized"),
    410: Answer(410, "Gone", "there is nothing here any more", "gone"),
    421: Answer(421, "Misdirected Request", "the request is meant for another host", "misdirected"),
    425: Answer(425, "Too Early", "the request came too early; ask again", "too-early", retried=True),
    **UNREAD,
    **FAILED,
}
# Plain-text errors of Ray Serve and uvicorn, by status: a request that cannot be parsed, too many that wait, one that took
# too long or was cancelled with its replica, or a failure whose details callers must not see.
OF_SERVE: dict[int, Answer] = {503: BUSY, 408: LATE, 499: ENDED, 404: NOT_FOUND, 405: NO_METHOD, 500: FAILED[500]}
OTHERS_OF_SERVE = {"400:499": UNREAD[400], "500:599": BUSY}
