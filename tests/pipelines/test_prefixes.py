"""Folders of buckets: which are Pixr's own, which a key's jobs may name, and how addresses are compared."""

from __future__ import annotations

import pytest

from cluster.errors import Rejected
from cluster.settings import S3Settings
from ledger import anchors
from ledger.archive import shelf
from pipelines import frame_vectors, lists, prefixes, thumbnails


def test_whatever_pixr_writes_into_its_bucket_is_in_a_folder_of_its_own() -> None:
    written = (thumbnails.THUMBNAILS, frame_vectors.FRAMES, lists.UPLOADS, lists.LISTS, anchors.FOLDER, shelf.FOLDER)
    for folder in written:
        assert prefixes.is_own(f"s3://pixr/{folder}/x", "pixr"), folder
        assert not prefixes.is_own(f"s3://other/{folder}/x", "pixr")


@pytest.mark.parametrize(
    "key", ["thumbnails", "thumbnails/14/", "ledger/heads/1.json", "frames/1/", "uploads/ab/x.mp4"]
)
def test_an_own_folder_is_refused_by_whole_parts_of_a_key(key: str) -> None:
    for is_source in (True, False):
        with pytest.raises(Rejected) as caught:
            prefixes.require_foreign(f"s3://pixr/{key}", "pixr", is_source=is_source)
        assert (caught.value.status, caught.value.code) == (403, "not-yours")
        prefixes.require_foreign(f"s3://pixr/my-{key}", "pixr", is_source=is_source)
        prefixes.require_foreign(f"s3://pixr/my/{key}", "pixr", is_source=is_source)


def test_a_list_of_uploads_is_a_source_and_no_manifest() -> None:
    uri = f"s3://pixr/uploads/lists/{'0' * 32}.jsonl"
    prefixes.require_foreign(uri, "pixr", is_source=True)
    with pytest.raises(Rejected, match="Pixr's own"):
        prefixes.require_foreign(uri, "pixr", is_source=False)


@pytest.mark.parametrize(
    ("uri", "is_there"),
    [
        ("s3://b/ana", True),
        ("s3://b/ana/", True),
        ("s3://b/ana/x.mp4", True),
        ("s3://b/anabel/x.mp4", False),
        ("s3://b/an", False),
        ("s3://b/", False),
        ("s3://b/Ana/", False),
        ("s3://c/ana/", False),
    ],
)
def test_an_address_is_in_a_folder_by_whole_parts(uri: str, is_there: bool) -> None:
    for folder in ("s3://b/ana", "s3://b/ana/"):
        assert prefixes.is_in(uri, folder) is is_there
    assert prefixes.is_in_any(uri, None)
    assert not prefixes.is_in_any(uri, ())


def test_usual_folders_are_called_as_creators_whose_handle_is_one_part_of_a_key() -> None:
    creators = ("ana", "Zoë B", "ana/films", "..", "a?versionId=1")
    assert prefixes.usual(creators, ("first", "second")) == ("s3://first/ana/", "s3://first/Zoë B/")
    assert prefixes.usual(creators, ()) == ()


def test_folders_of_a_key_are_in_buckets_that_are_read_and_hold_nothing_of_pixrs() -> None:
    s3 = S3Settings(bucket="pixr", ingest_buckets=("pixr", "films"))
    given = ("s3://pixr/incoming/ana", "s3://pixr/incoming/ana/", "s3://films/")
    assert prefixes.checked(given, s3) == ("s3://pixr/incoming/ana/", "s3://films/")
    wrong = (
        "s3://pixr",
        "s3://pixr/ledger/heads",
        "s3://pixr/uploads",
        "s3://films/uploads/",
        "s3://other/x",
        "incoming",
    )
    for each in (*wrong, "s3://pixr//ana", "s3://pixr/ana//b", "s3://pixr/../x"):
        with pytest.raises(Rejected):
            prefixes.checked((each,), s3)


def test_a_refusal_names_some_folders_of_the_key() -> None:
    many = tuple(f"s3://pixr/{number:03}/" for number in range(prefixes.FOLDERS_MAX))
    for folders, told in (
        (many[:2], "s3://pixr/000/, s3://pixr/001/;"),
        (many, "s3://pixr/009/, …;"),
        ((), "there are none;"),
    ):
        with pytest.raises(Rejected) as caught:
            prefixes.require_in("s3://pixr/x/", folders)
        assert told in str(caught.value)
        assert "s3://pixr/010/" not in str(caught.value)
