"""The errors of Pixr, sorted by what the caller can do about them.

PixrError
├── Temporary   try again, with backoff and a bound
└── Rejected    the caller's fault: HTTP 4xx as problem+json, exit code 2 with one clear line

Anything else is a bug and is allowed to crash its process. All of them survive pickling, because they cross
process borders inside Ray.
"""

from __future__ import annotations


class PixrError(Exception):
    """What Pixr itself raises."""


class Temporary(PixrError):
    """A dependency is away or busy; the same call may succeed later.

    `public` says it to callers over HTTP where `detail` names an address, which is for who runs Pixr alone.
    """

    def __init__(self, detail: str, retry_after_s: float = 1.0, public: str = "") -> None:
        super().__init__(detail, retry_after_s, public)
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.public = public or detail

    def __str__(self) -> str:
        return self.detail


class Rejected(PixrError):
    """The request cannot be served as it stands. `hint` says what to do instead."""

    def __init__(self, detail: str, status: int = 400, code: str = "bad-request", hint: str = "") -> None:
        super().__init__(detail, status, code, hint)
        self.detail = detail
        self.status = status
        self.code = code
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.detail}; {self.hint}" if self.hint else self.detail
