"""Two creators never look alike, as far as Unicode's tables say what looks alike."""

from __future__ import annotations

import json
import sys
import unicodedata

import pytest

from cluster import database, migrations
from cluster.errors import Rejected
from pipelines import creators, handles, lists, manifest
from pipelines.jobs import Options
from pipelines.manifest import Entry
from pipelines.remarks import Remarks

GOOD = (
    "Alice", "ana-1", "Zoë Müller", "\u0418\u0432\u0430\u043d \u041f\u0435\u0442\u0440\u043e\u0432", "\u0394\u03b7\u03bc\u03ae",
    "田中さん Studio", "محمد", "박지성", "DJ محمد", "Café 24", "🦍 videos",
    "น้ำผึ้ง", "Արև", "ໝາ", "Para\u0140lel", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "پیاده\u200cروی", "Mª José",
    "Nº 1", "x²", "½ price", "Acme™", "ㅋㅋ", "\u3007", "Łódź 2024", "Nguyễn Văn Á", "🇩🇪 Köln",
    "D.ª Ana", "2º de abril", "Paral·lel", "ⴰⴳⵯⵯⴰⵍ", "ໜູ", "Дмитрий", "Straße", "IJsbrand",
)  # fmt: skip
ALIKE = (
    "Alice\u200b", "Al\u200dice", "\ufeffAlice", "Al\u00adice", "Ali\u034fce", "Alice\u3164", "Alice\u2800", "Alice\ufe0f",
    "Alice\U000e0041", "\u202eecilA", "\u0410lice", "Ali\u0441e", "\u0391lice", "\uff21lice", "\U0001d400lice", "\ufb01lm",
    "Room 1\u0662", "Ali\nce", "Ali\x00ce", "A" * 201,
    "\u2174era", "iv\u2173", "\u24b6lice", "ali\u2461", "\U0001f150lice", "\U0001f130lice", "\u2121", "\U0001d7cf",
    "Room \uff11", "No \u2488", "No \u2474", "No \u2776", "\ufe8d", "\uff8a\uff9d", "\u062f\u0627\u062f\u200c\u0627",
    "A\u200cB", "\u0633\u0644\u0627\u0645\u200c", "\u00b5Torrent", "\u02b0i",
    "D\u0133kstra", "\u0132sbrand", "\u01c9ubav", "\u01c8ubav", "\u01ccegos", "\u01c4amonja", "\u01c6ep", "\u01f3eta",
    "Jo\u017fé", "\u1e9b", "\u03f0\u03b1\u03b9", "\u03d1\u03b5\u03cc\u03c2", "\u03d5\u03c9\u03c2", "\u03f2\u03bf\u03c6",
    "\u03d2\u03b3\u03b5\u03af\u03b1", "al\u1d62ce", "b\u2092b", "\u0675\u062d\u0645\u062f", "\u110f\u110f", "\u0f77",
    "\u00aana", "an\u00aa", "b\u00ba", "\u00aa", "M\u00aaria", "Ana J\u00ba2", "\u1d04hidi", "\u0299o", "\ua731am",
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


@pytest.mark.parametrize(
    ("usual", "other"),
    [("น้ำผึ้ง", "น้ํา\u0e1cึ้ง"), ("น้ำ", "นํ\u0e49า"), ("ນ້ຳ", "ນ້ໍາ"), ("Paral·lel", "Para\u0140lel"), ("L·L", "\u013fL")],
)
def test_two_ways_of_writing_that_look_the_same_are_one_creator(usual: str, other: str) -> None:
    assert other != usual
    assert handles.checked([usual, other]) == (usual,)
    assert handles.normal(usual) == usual


def test_no_letter_that_stands_for_others_is_taken_unless_it_is_named() -> None:
    letters = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] in "LM"]
    forms = {form for letter in letters if (form := handles.normal(letter)) != unicodedata.normalize("NFKC", form)}
    taken = {form for form in forms if not handles.fault(form)}
    korean = {chr(code) for code in range(0x3131, 0x318F)} - {"\u3164"}
    assert taken == {*korean, *"\u0587\u0e33\u0eb3\u0edc\u0edd\u2d6f"}


def test_rights_name_whom_they_are_for() -> None:
    rights = handles.Rights(frozenset({"ana", "bo"}))
    assert (rights.covers("ana"), rights.covers("unknown"), handles.ANYBODY.covers("unknown")) == (True, False, True)
    assert rights.refusal("eve") == "it is another creator's; this job speaks for ana, bo"
    assert rights.refusal("unknown") == "no creator is named; this job speaks for ana, bo"
    with pytest.raises(Rejected, match="speaks for ana") as caught:
        Options(creator="eve", speaks_for=["ana"])
    assert caught.value.status == 403


def test_no_spelling_is_advised_that_would_be_refused_too() -> None:
    for handle in ALIKE:
        _, _, advised = handles.fault(handle).partition("write ")
        assert not advised or handles.fault(advised.strip("'")) == ""
    assert handles.fault("\uff21lice").endswith("write 'Alice'")


def test_a_creator_who_is_there_may_be_named_whatever_their_handle_holds(postgres_url: str) -> None:
    row = json.dumps({"file": "a.mp4", "creator": "Al\u200bice"})
    with database.connect(postgres_url, autocommit=True) as connection:
        assert not manifest.parse(row, "manifest.jsonl", creators.knows(connection)).good
        connection.execute("INSERT INTO media.creators (handle, name) VALUES (%s, '')", ("Al\u200bice",))
        assert manifest.parse(row, "manifest.jsonl", creators.knows(connection)).good
        known = creators.known_handles(connection, ["Al\u200bice", "half \ud800", "zero \0"])
    assert Options(creator="Al\u200bice", known=known).creator == "Al\u200bice"
    assert handles.checked(["Al\u200bice", "bo"], known) == ("Al\u200bice", "bo")


def test_a_key_names_its_own_creator_as_they_are_kept() -> None:
    decomposed = unicodedata.normalize("NFD", "Zoë")
    assert Options(creator=decomposed, speaks_for=[decomposed]).creator == decomposed
    assert handles.checked([decomposed], [decomposed, "Zoë"]) == ("Zoë",)


HANDLES = (
    unicodedata.normalize("NFD", "Zoë"), " Ana\u00a0\u2003 Lee\t", "bo", unicodedata.normalize("NFD", "Ñandú"), "Ñandú",
    "two  spaces", "two\u3000spaces", "\u00a0", "\u0958" * 150,
)  # fmt: skip


def test_handles_of_older_releases_are_brought_into_their_one_way_of_writing(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where that makes no two creators one; those are named."""
    with database.connect(postgres_url, autocommit=True) as connection:
        for handle in HANDLES:
            connection.execute("INSERT INTO media.creators (handle, name) VALUES (%s, '')", (handle,))
        connection.execute("DELETE FROM pixr.migrations WHERE name = '0014_handles.sql'")
    assert [each.name for each in migrations.migrate(postgres_url)] == ["0014_handles.sql"]
    with database.connect(postgres_url) as connection:
        now = [row[0] for row in connection.execute("SELECT handle FROM media.creators ORDER BY id").fetchall()]
    assert now == ["Zoë", "Ana Lee", *HANDLES[2:]]
    said = [record.getMessage() for record in caplog.records if record.name == "cluster.migrations"]
    assert [line.split(" ", 2)[1] for line in said] == ["4", "6", "7", "8", "9"]


KEPT = ("two  spaces", "two\u3000spaces", unicodedata.normalize("NFD", "Zoë"), "\u00a0", "Para\u0140lel")


@pytest.mark.parametrize("handle", KEPT, ids=ascii)
def test_a_creator_whose_handle_is_not_in_its_one_way_of_writing_is_named_as_it_is(
    postgres_url: str, handle: str
) -> None:
    """In manifests and lists as in keys and jobs; else a further creator would get their videos and money."""
    with database.connect(postgres_url, autocommit=True) as connection:
        connection.execute("INSERT INTO media.creators (handle, name) VALUES (%s, '')", (handle,))
        known, is_known = creators.known_handles(connection, [handle]), creators.knows(connection)
        assert named(handle, is_known) == {handle}
        assert handles.checked([handle], known) == (handle,)
        usual = handles.normal(handle) or "-"
        connection.execute("INSERT INTO media.creators (handle, name) VALUES (%s, '')", (usual,))
        # Two are written alike: the usual way of writing names its own, unless it is one that came later.
        is_older = handle in ("\u00a0", "Para\u0140lel")
        assert named(handle, creators.knows(connection)) == {handle if is_older else usual}
        assert named(usual, creators.knows(connection)) == {usual}


def named(handle: str, is_known: handles.Known) -> set[str]:
    """Whom a row of a manifest, of either kind, and one of a list name by a handle."""
    rows = [
        manifest.parse(json.dumps({"file": "a.mp4", "creator": handle}), "manifest.jsonl", is_known).good,
        manifest.parse(f'file,creator\na.mp4,"{handle}"\n', "manifest.csv", is_known).good,
    ]
    line = {"uri": f"s3://b/uploads/00/{0:064x}/a.mp4", "entry": {"file": "a.mp4", "tags": [], "creator": handle}}
    row = lists._row(line, "s3://b/uploads/lists/x.jsonl", "b", Remarks(), is_known)
    assert row is not None
    return {row.entry.creator, *(each.entry.creator for found in rows for each in found)}


def test_a_list_that_an_older_release_wrote_names_creators_in_their_one_way_of_writing() -> None:
    entry = {"file": "a.mp4", "tags": [], "creator": unicodedata.normalize("NFD", "Zoë ")}
    line = {"uri": f"s3://b/uploads/00/{0:064x}/a.mp4", "entry": entry}
    row = lists._row(line, "s3://b/uploads/lists/x.jsonl", "b", Remarks(), handles.nobody)
    assert row is not None
    assert row.entry == Entry("a.mp4", creator="Zoë")
