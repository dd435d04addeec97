"""A mended manifest takes effect on the next run, and takes nothing away that people have changed or that was earned."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Iterator
from typing import Any

import base58
import pytest
from psycopg import Connection

from cluster.database import database
from pipelines.catalog import catalog
from pipelines.catalog.catalog import Registered
from pipelines.media import PIPELINE_VERSION
from pipelines.sources import manifest
from pipelines.sources.handles import ANY_CREATOR, Rights
from pipelines.sources.listed import Listed
from pipelines.sources.remarks import (
    CREATOR_ALIKE,
    CREATOR_CHANGED,
    CREATOR_KEPT,
    LEFT_OUT,
    TAKEN_DOWN,
    WALLET_KEPT,
    WORDS_CHANGED,
    WORDS_KEPT,
)

WALLETS = [base58.b58encode(bytes([number] * 32)).decode() for number in (1, 2)]
VIDEO = Listed("s3://b/red_car.mp4", "etag", 10, "ana", "A red car", tags=("night", "car"))
UNNAMED = Listed("s3://b/red_car.mp4", "etag", 10, "unknown", "Red car", is_titled=False)
ONLY_BO = Rights(frozenset({"bo"}))


@pytest.fixture
def connection(postgres_url: str) -> Iterator[Connection]:
    with database.connect(postgres_url, autocommit=True) as opened:
        opened.execute("SELECT media.register_model('m', 3, 'f')")
        yield opened


def listing(connection: Connection, *videos: Listed, rights: Rights = ANY_CREATOR) -> Registered:
    """One job over these."""
    row = connection.execute("SELECT 'j' || count(*) FROM media.jobs").fetchone()
    assert row is not None
    connection.execute("INSERT INTO media.jobs (id, source) VALUES (%s, 's3://b')", row)
    return catalog.register(connection, row[0], videos, 1, rights)


def said(done: Registered) -> list[tuple[str, str]]:
    return [(note.kind, note.reason) for note in done.notes]


def make_ready(connection: Connection) -> None:
    """As a finished job leaves every video: shown, with a moment and its vector."""
    connection.execute(
        "UPDATE media.videos SET status = 'ready', ready_at = now(), pipeline_version = %s", (PIPELINE_VERSION,)
    )
    connection.execute(
        "INSERT INTO media.segments (video_id, creator_id, start_ms, end_ms, best_frame_ms, search, pipeline_version)"
        " SELECT id, creator_id, 0, 1, 0, '', 1 FROM media.videos"
    )
    connection.execute(
        "INSERT INTO media.embeddings (model_id, segment_id, video_id, creator_id, start_ms, end_ms, embedding)"
        " SELECT 1, id, video_id, creator_id, 0, 1, '[1,0,0]' FROM media.segments"
    )


def one(connection: Connection, columns: str) -> Any:
    row = connection.execute(
        f"SELECT {columns} FROM media.videos v JOIN media.creators c ON c.id = v.creator_id"
        " LEFT JOIN media.segments s ON s.video_id = v.id LEFT JOIN media.embeddings e ON e.segment_id = s.id"
    ).fetchone()
    assert row is not None
    return row[0] if len(row) == 1 else row


def generation(connection: Connection) -> int:
    row = connection.execute("SELECT value FROM media.generation").fetchone()
    assert row is not None
    return int(row[0])


def test_mended_words_of_a_ready_video_take_effect_and_search_finds_them(connection: Connection) -> None:
    listing(connection, VIDEO)
    make_ready(connection)
    before = generation(connection)
    mended = dataclasses.replace(VIDEO, title="Ein blaues Boot", tags=("car",), language="german", description="See")
    done = listing(connection, mended)
    assert said(done) == [(WORDS_CHANGED, "title, description, tags, language")]
    assert one(connection, "title, v.tags, language, v.description, status, v.visibility") == (
        "Ein blaues Boot", ["car"], "german", "See", "ready", "public")  # fmt: skip
    found = (
        "SELECT count(*) FROM media.segments WHERE search @@ plainto_tsquery('german', 'Boote') AND description = 'See'"
    )
    assert connection.execute(found).fetchone() == (1,)
    assert generation(connection) == before + 1
    assert connection.execute("SELECT outcome FROM media.job_videos ORDER BY job_id").fetchall()[1] == ("skipped",)


def test_the_same_manifest_again_changes_nothing_and_leaves_alone_what_people_changed(connection: Connection) -> None:
    listing(connection, VIDEO)
    make_ready(connection)
    catalog.change(connection, 1, title="My own title", visibility="private")
    before = generation(connection)
    assert said(listing(connection, VIDEO)) == []
    assert one(connection, "title, v.visibility") == ("My own title", "private")
    assert generation(connection) == before
    assert said(listing(connection, dataclasses.replace(VIDEO, tags=("day",)))) == [(WORDS_CHANGED, "tags")]
    assert one(connection, "title, v.tags, v.visibility") == ("My own title", ["day"], "private")


def test_words_that_an_older_release_noted_with_direction_marks_are_no_others(connection: Connection) -> None:
    """They are left out now where texts come in: the same manifest would overwrite what people have changed since."""
    rtl = "\u200f"
    marked = dataclasses.replace(VIDEO, title=f"A red{rtl} car", description=f"Red{rtl}", tags=("night", f"car{rtl}"))
    listing(connection, marked)
    make_ready(connection)
    catalog.change(connection, 1, title="My own title", tags=["own"])
    clean = dataclasses.replace(marked, title="A red car", description="Red", tags=("night", "car"))
    assert said(listing(connection, clean)) == []
    assert one(connection, "title, v.tags") == ("My own title", ["own"])
    assert said(listing(connection, dataclasses.replace(clean, tags=("day",)))) == [(WORDS_CHANGED, "tags")]
    assert one(connection, "title, v.tags") == ("My own title", ["day"])


def test_what_a_manifest_no_longer_says_stays_and_what_it_takes_back_returns(connection: Connection) -> None:
    listing(connection, VIDEO)
    make_ready(connection)
    listing(connection, UNNAMED)  # the folder without its manifest
    assert one(connection, "title, v.tags, handle") == ("A red car", ["night", "car"], "ana")
    listing(connection, dataclasses.replace(VIDEO, title="Other"))
    assert said(listing(connection, VIDEO)) == [(WORDS_CHANGED, "title")]
    assert one(connection, "title") == "A red car"


def test_a_video_that_nobody_was_named_for_goes_to_who_is_named_now(connection: Connection) -> None:
    listing(connection, UNNAMED)
    make_ready(connection)
    done = listing(connection, dataclasses.replace(VIDEO, title="Mine"))
    assert said(done) == [(CREATOR_CHANGED, "from unknown to ana"), (WORDS_CHANGED, "title, tags")]
    assert one(connection, "handle, s.creator_id = c.id, e.creator_id = c.id, title") == ("ana", True, True, "Mine")


def test_a_creator_who_may_have_earned_is_replaced_only_where_the_job_was_told_to(connection: Connection) -> None:
    listing(connection, VIDEO)
    make_ready(connection)
    moved = dataclasses.replace(VIDEO, creator="bo")
    for _ in range(2):  # it is said each time
        [(kind, reason)] = said(listing(connection, moved))
        assert (kind, one(connection, "handle")) == (CREATOR_KEPT, "ana")
        assert "--reassign" in reason
    assert said(listing(connection, moved, rights=Rights(reassign=True))) == [(CREATOR_CHANGED, "from ana to bo")]
    assert one(connection, "handle, s.creator_id = c.id, e.creator_id = c.id") == ("bo", True, True)


def test_creators_whose_handles_are_almost_the_same_are_said_and_stay_two(connection: Connection) -> None:
    """By case, or in a way of writing that an older release kept: nobody's earnings are moved for them."""
    composed, decomposed = unicodedata.normalize("NFC", "Zoë"), unicodedata.normalize("NFD", "Zoë")
    for handle in ("Ana", "ANA", decomposed):
        connection.execute("INSERT INTO media.creators (handle, name) VALUES (%s, '')", (handle,))
    zoes = dataclasses.replace(VIDEO, source_uri="s3://b/own.mp4", creator=decomposed)
    listing(connection, zoes)
    for _ in range(2):  # it is said each time
        done = listing(connection, VIDEO, dataclasses.replace(zoes, creator=composed))
        found = [(note.reason, note.video.source_uri) for note in done.notes if note.kind == CREATOR_ALIKE]
        two = "are two creators, each with earnings of their own"
        assert found[:2] == [(f"'ana' and '{other}' {two}", VIDEO.source_uri) for other in ("Ana", "ANA")]
        assert found[2][0].startswith(f"'Zo\\xeb' and 'Zoe\\u0308' {two}")
    assert [note.kind for note in listing(connection, VIDEO, rights=Rights(frozenset({"ana"}))).notes] == []


def test_what_a_twin_has_is_moved_by_reassign(connection: Connection) -> None:
    decomposed = unicodedata.normalize("NFD", "Zoë")
    listing(connection, dataclasses.replace(VIDEO, creator=decomposed))
    make_ready(connection)
    row = manifest.parse("file,creator\nred_car.mp4,Zoe\u0308\n", "manifest.csv").good[0].entry
    moved = dataclasses.replace(VIDEO, creator=row.creator)
    [kept, alike] = listing(connection, moved).notes
    assert (kept.kind, alike.kind, one(connection, "handle")) == (CREATOR_KEPT, CREATOR_ALIKE, decomposed)
    assert alike.reason.endswith("name one alone and `--reassign`")
    listing(connection, moved, rights=Rights(reassign=True))
    assert one(connection, "handle, s.creator_id = c.id, e.creator_id = c.id") == ("Zoë", True, True)


def test_a_video_that_was_never_shown_goes_to_who_is_named_now(connection: Connection) -> None:
    listing(connection, VIDEO)
    assert said(listing(connection, dataclasses.replace(VIDEO, creator="bo"))) == [(CREATOR_CHANGED, "from ana to bo")]
    assert one(connection, "handle") == "bo"


@pytest.mark.parametrize("owner", [VIDEO, UNNAMED])
@pytest.mark.parametrize("is_shown", [True, False])
@pytest.mark.parametrize("reassign", [True, False])
def test_who_does_not_speak_for_the_creator_changes_nothing_of_theirs(
    connection: Connection, owner: Listed, is_shown: bool, reassign: bool
) -> None:
    listing(connection, owner)
    if is_shown:
        make_ready(connection)
    claimed = dataclasses.replace(VIDEO, creator="bo", title="Taken", visibility="private")
    connection.execute("UPDATE media.videos SET status = 'failed' WHERE status = 'queued'")
    done = listing(connection, claimed, rights=dataclasses.replace(ONLY_BO, reassign=reassign))
    assert (said(done), [(note.kind, note.video) for note in done.refused]) == ([], [(LEFT_OUT, claimed)])
    assert "does not speak for" in done.refused[0].reason
    status = "ready" if is_shown else "failed"
    assert one(connection, "handle, title, v.visibility, status") == (owner.creator, owner.title, "public", status)
    assert connection.execute("SELECT count(*) FROM media.job_videos").fetchone() == (1,)


def test_of_a_video_of_an_older_release_only_what_nobody_had_said_is_filled_in(connection: Connection) -> None:
    """What its manifest said was not noted: words that are there may be what people have changed."""
    listing(connection, UNNAMED)
    make_ready(connection)
    connection.execute("UPDATE media.videos SET manifest_words = NULL, tags = '{own}', visibility = 'private'")
    mended = dataclasses.replace(VIDEO, visibility="public")
    kinds = [kind for kind, _ in said(listing(connection, mended))]
    assert kinds == [CREATOR_CHANGED, WORDS_CHANGED, WORDS_KEPT]
    assert one(connection, "title, v.tags, v.visibility") == ("A red car", ["own"], "private")
    assert said(listing(connection, mended)) == []
    assert said(listing(connection, dataclasses.replace(mended, tags=("day",)))) == [(WORDS_CHANGED, "tags")]


def test_a_wallet_fills_what_is_empty_or_none_and_another_one_is_said(connection: Connection) -> None:
    connection.execute("INSERT INTO media.creators (handle, name, wallet) VALUES ('ana', 'ana', 'not-a-wallet')")
    assert said(listing(connection, dataclasses.replace(VIDEO, wallet=WALLETS[0]))) == []
    for _ in range(2):
        [(kind, reason)] = said(listing(connection, dataclasses.replace(VIDEO, wallet=WALLETS[1])))
        assert kind == WALLET_KEPT
        assert "an earlier row named another one for ana" in reason
    assert one(connection, "wallet") == WALLETS[0]


def test_a_wallet_without_a_creator_is_nobodys(connection: Connection) -> None:
    """It would be paid for every video that nobody was named for."""
    [(kind, _)] = said(listing(connection, dataclasses.replace(UNNAMED, wallet=WALLETS[0])))
    assert (kind, one(connection, "wallet")) == (WALLET_KEPT, None)


def test_a_wallet_is_not_that_of_the_creator_whom_only_the_job_names(connection: Connection) -> None:
    for _ in range(2):
        claim = dataclasses.replace(VIDEO, wallet=WALLETS[0], is_named=False)
        [(kind, reason)] = said(listing(connection, claim))
        assert (kind, one(connection, "wallet")) == (WALLET_KEPT, None)
        assert "names no creator" in reason
    assert said(listing(connection, dataclasses.replace(claim, is_named=True))) == []
    assert one(connection, "wallet") == WALLETS[0]


def test_what_was_taken_down_stays_so_and_is_said(connection: Connection) -> None:
    listing(connection, VIDEO)
    make_ready(connection)
    catalog.remove(connection, 1)
    assert said(listing(connection, dataclasses.replace(VIDEO, title="Back"))) == [(TAKEN_DOWN, "it stays so")]
    assert one(connection, "status, title") == ("removed", "A red car")
