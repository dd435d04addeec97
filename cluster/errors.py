"""The exceptions of Pixr, sorted by what the caller can do about them.

PixrError
├── Temporary   try again, with backoff and a bound
└── Rejected    the caller's fault: HTTP 4xx as problem+json, exit code 2 with one clear line

Any other exception is a bug and may crash its process. Exceptions here can be pickled (they pass all arguments to
`super().__init__`), because they cross process borders inside Ray.
"""

from __future__ import annotations


class PixrError(Exception):
    """Base class of the exceptions that Pixr raises itself."""


class Temporary(PixrError):
    """A dependency is away or busy; the same call may succeed later.

    `detail` goes to logs and operators and may name an address. `public` is what HTTP callers read instead (default:
    `detail`).
    """

    def __init__(self, detail: str, retry_after_s: float = 1.0, public: str = "") -> None:
        super().__init__(detail, retry_after_s, public)
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.public = public or detail

    def __str__(self) -> str:
        return self.detail


class Rejected(PixrError):
    """The request cannot be carried out as it stands; `hint` says what to do instead."""

    def __init__(self, detail: str, status: int = 400, code: str = "bad-request", hint: str = "") -> None:
        """Make a refusal.

        Args:
            detail: What is wrong, as a sentence without a full stop.
            status: The HTTP status that it becomes, 4xx.
            code: The last part of the problem's `type` URI, in kebab case.
            hint: What the caller can do; empty when there is nothing to suggest.
        """
        super().__init__(detail, status, code, hint)
        self.detail = detail
        self.status = status
        self.code = code
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.detail}; {self.hint}" if self.hint else self.detail
