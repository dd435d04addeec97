"""Errors keep all they carry when they cross a process border."""

from __future__ import annotations

import pickle

from cluster.errors import Rejected, Temporary


def test_errors_survive_pickling() -> None:
    rejected = pickle.loads(pickle.dumps(Rejected("no", 404, "gone", "look elsewhere")))
    temporary = pickle.loads(pickle.dumps(Temporary("host:1 is away", 3.0, public="later")))
    assert (rejected.detail, rejected.status, rejected.code, rejected.hint) == ("no", 404, "gone", "look elsewhere")
    assert (temporary.detail, temporary.retry_after_s, temporary.public) == ("host:1 is away", 3.0, "later")


def test_the_hint_is_part_of_the_line() -> None:
    assert str(Rejected("no such bucket", hint="create it")) == "no such bucket; create it"
