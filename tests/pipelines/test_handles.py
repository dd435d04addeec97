"""Two creators never look alike, as far as Unicode's tables say what looks alike."""

from __future__ import annotations

import json
import unicodedata

import pytest

from cluster.errors import Rejected
from pipelines import handles, manifest
from pipelines.jobs import Options

GOOD = (
    "Alice", "ana-1", "Zoë Müller", "\u0418\u0432\u0430\u043d \u041f\u0435\u0442\u0440\u043e\u0432", "\u0394\u03b7\u03bc\u03ae",
    "田中さん Studio", "محمد", "박지성", "DJ محمد", "Café 24", "🦍 videos",
)  # fmt: skip
ALIKE = (
    "Alice\u200b", "Al\u200dice", "\ufeffAlice", "Al\u00adice", "Ali\u034fce", "Alice\u3164", "Alice\u2800", "Alice\ufe0f",
    "Alice\U000e0041", "\u202eecilA", "\u0410lice", "Ali\u0441e", "\u0391lice", "\uff21lice", "\U0001d400lice", "\ufb01lm",
    "Room 1\u0662", "Ali\nce", "Ali\x00ce", "A" * 201,
)  # fmt: skip


@pytest.mark.parametrize("handle", GOOD)
def test_names_of_people_everywhere_are_handles(handle: str) -> None:
    assert handles.fault(handles.normal(handle)) == ""


@pytest.mark.parametrize("handle", ALIKE, ids=ascii)
def test_a_handle_that_looks_like_another_is_refused_wherever_one_is_given(handle: str) -> None:
    assert handles.fault(handle)
    with pytest.raises(Rejected) as caught:
        Options(creator=handle)
    assert caught.value.code == "bad-creator"
    assert not manifest.parse(json.dumps({"file": "a.mp4", "creator": handle}), "manifest.jsonl").good


def test_one_way_of_writing_is_one_creator() -> None:
    written = ("Zoë Müller", unicodedata.normalize("NFD", "Zoë Müller"), " Zoë\u00a0 Müller ", "Zoë\u2003Müller")
    assert {handles.normal(each) for each in written} == {"Zoë Müller"}
    assert Options(creator=written[1]).creator == "Zoë Müller"
    [row] = manifest.parse(json.dumps({"file": "a.mp4", "creator": written[1]}), "manifest.jsonl").good
    assert row.entry.creator == "Zoë Müller"


def test_rights_name_whom_they_are_for() -> None:
    rights = handles.Rights(frozenset({"ana", "bo"}))
    assert (rights.covers("ana"), rights.covers("unknown"), handles.ANYBODY.covers("unknown")) == (True, False, True)
    assert rights.refusal("eve") == "the creator is 'eve'; this job speaks for ana, bo"
    assert rights.refusal("unknown") == "no creator is named; this job speaks for ana, bo"
    with pytest.raises(Rejected, match="speaks for ana") as caught:
        Options(creator="eve", speaks_for=["ana"])
    assert caught.value.status == 403
