"""Where videos come from: what is listed, what is uploaded once, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from cluster.errors import Rejected
from cluster.runtime import S3Endpoint
from cluster.storage import Storage
from pipelines import local_files, source


@pytest.fixture
def storage(s3: S3Endpoint) -> Storage:
    return Storage(s3)


def folder_of(path: Path) -> Path:
    (path / "sub").mkdir()
    (path / "one.mp4").write_bytes(b"1")
    (path / "sub" / "two words.mp4").write_bytes(b"22")
    (path / "notes.txt").write_bytes(b"no video")
    text = "file,title,creator,wallet\none.mp4,The first,ana,W1\nsub/two words.mp4,,,\n"
    (path / "manifest.csv").write_text(text, encoding="utf-8")
    return path


def silent(_name: str, _done: int, _total: int) -> None:
    return None


def test_a_prefix_is_listed_with_the_words_of_its_manifest(storage: Storage, bucket: str) -> None:
    storage.put_bytes(b"1", f"s3://{bucket}/v/one.mp4")
    storage.put_bytes(b"2", f"s3://{bucket}/v/deep/two.MKV")
    storage.put_bytes(b"3", f"s3://{bucket}/v/readme.txt")
    storage.put_bytes(b"4", f"s3://{bucket}/thumbnails/1/0.webp")
    storage.put_bytes(b'{"file": "one.mp4", "title": "The first", "creator": "ana"}', f"s3://{bucket}/v/manifest.jsonl")
    found = {video.source_uri: video for video in source.listed(f"s3://{bucket}/v", storage, creator="bo").videos}
    assert sorted(uri.rpartition("/")[2] for uri in found) == ["one.mp4", "two.MKV"]
    first, second = found[f"s3://{bucket}/v/one.mp4"], found[f"s3://{bucket}/v/deep/two.MKV"]
    assert (first.title, first.creator, first.size) == ("The first", "ana", 1)
    assert (second.title, second.creator) == ("Two", "bo")


def test_a_local_folder_is_sent_once_and_found_again(storage: Storage, bucket: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    first = source.upload(folder, storage, bucket, None, silent)
    assert source.upload(folder, storage, bucket, None, silent) == first
    found = {video.title: video for video in source.listed(first, storage).videos}
    assert sorted(found) == ["The first", "Two words"]
    assert found["The first"].creator == "ana"
    assert storage.read(found["Two words"].source_uri) == b"22"


def test_a_single_file_is_a_source(storage: Storage, bucket: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    uri = source.upload(folder / "one.mp4", storage, bucket, None, silent)
    assert [video.title for video in source.listed(uri, storage).videos] == ["The first"]


@pytest.mark.parametrize("name", ["nowhere", "notes", "pipe.mp4"])
def test_nothing_to_upload_is_refused(storage: Storage, bucket: str, tmp_path: Path, name: str) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.mp4")  # whoever opens it waits for a writer
    with pytest.raises(Rejected):
        source.upload(tmp_path / name, storage, bucket, None, silent)


def test_only_configured_buckets_are_read(storage: Storage, bucket: str) -> None:
    storage.put_bytes(b"1", f"s3://{bucket}/x/one.mp4")
    source.check(f"s3://{bucket}/x", storage, (bucket,))
    source.check(f"s3://{bucket}/x/one.mp4", storage, (bucket,))
    with pytest.raises(Rejected, match="nothing lies under"):
        source.check(f"s3://{bucket}/y", storage, (bucket,))
    for uri, code in (
        (f"s3://{bucket}", "bucket-not-allowed"),
        ("s3://none-such", "not-found"),
        ("/etc", "bad-request"),
    ):
        with pytest.raises(Rejected) as caught:
            source.check(uri, storage, ("none-such",))
        assert caught.value.code == code


def test_an_empty_prefix_is_refused(storage: Storage, bucket: str) -> None:
    with pytest.raises(Rejected, match="no video under"):
        source.listed(f"s3://{bucket}/none", storage)


def kinds(listing: source.Listing) -> dict[str, list[str]]:
    """The names of remarks by their reasons."""
    return {row["reason"]: row["names"] for row in listing.remarks}


def test_a_folder_is_what_lies_in_it_and_links_are_followed_only_when_asked(
    storage: Storage, bucket: str, tmp_path: Path
) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    for made in (outside, folder, folder / "sub"):
        made.mkdir()
    (outside / "secret.mp4").write_bytes(b"secret")
    (folder / "own.mp4").write_bytes(b"own")
    (folder / "leak.mp4").symlink_to(outside / "secret.mp4")
    (folder / "leaks").symlink_to(outside)
    (folder / "sub" / "up").symlink_to(folder)  # a circle
    (folder / "sub" / "manifest.csv").symlink_to("/etc/passwd")
    found = source.listed(source.upload(folder, storage, bucket, None, silent), storage)
    assert [video.title for video in found.videos] == ["Own"]
    assert kinds(found) == {local_files.LINK: ["leaks", "leak.mp4", "sub/up", "sub/manifest.csv"]}
    assert kinds(source.local(folder, bucket, None)) == kinds(found)
    (folder / "sub" / "manifest.csv").unlink()
    with_links = source.upload(folder, storage, bucket, None, silent, follow_links=True)
    assert sorted(video.title for video in source.listed(with_links, storage).videos) == ["Leak", "Own", "Secret"]


def test_one_row_that_cannot_be_kept_is_named_and_the_others_get_in(
    storage: Storage, bucket: str, tmp_path: Path
) -> None:
    for name in ("s1", "s2", "sub"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "intro.mp4").write_bytes(b"the same" if name != "sub" else b"another")
    (tmp_path / os.fsdecode(b"latin1_\xe9.mp4")).write_bytes(b"odd")
    (tmp_path / "old.wmv").write_bytes(b"old")
    (tmp_path / "sub" / "Manifest.CSV").write_text("file,title\n./INTRO.mp4,Mine\ngone.mp4,x\n", encoding="utf-8")
    os.mkfifo(tmp_path / "pipe.mp4")
    found = source.listed(source.upload(tmp_path, storage, bucket, None, silent), storage)
    assert sorted(video.title for video in found.videos) == ["Intro", "Mine"]
    assert kinds(found) == {
        "its name is not UTF-8": ["latin1_\\udce9.mp4"],
        "it is no regular file": ["pipe.mp4"],
        ".wmv is no ending of a video": ["old.wmv"],
        "no file of this name is there": ["sub/Manifest.CSV, line 3: gone.mp4"],
        "the same file is there twice; the first one counts": ["s2/intro.mp4 is s1/intro.mp4"],
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="root reads everything; it becomes another user here")
def test_a_file_that_may_not_be_read_is_named_and_the_others_get_in(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for parent in list(tmp_path.parents)[:2]:
        parent.chmod(0o711)
    (tmp_path / "a.mp4").write_bytes(b"a")
    (tmp_path / "b.mp4").write_bytes(b"b")
    (tmp_path / "b.mp4").chmod(0)
    (tmp_path / "deep").mkdir(mode=0)
    os.seteuid(65534)
    try:
        found = source.local(tmp_path, "pixr", None)
    finally:
        os.seteuid(0)
    assert [video.title for video in found.videos] == ["A"]
    assert kinds(found) == {"permission denied": ["deep", "b.mp4"]}


def test_a_prefix_says_what_is_left_out_too(storage: Storage, bucket: str) -> None:
    storage.put_bytes(b"1", f"s3://{bucket}/v/one.mp4")
    storage.put_bytes(b"2", f"s3://{bucket}/v/two.wmv")
    storage.put_bytes(b"file,visibility\none.mp4,secret\n", f"s3://{bucket}/v/manifest.csv")
    with pytest.raises(Rejected, match=r"no video under .*manifest\.csv, line 2: visibility 'secret'"):
        source.listed(f"s3://{bucket}/v", storage)
    storage.put_bytes(b"file,title\n.\\One.mp4,Mine\n", f"s3://{bucket}/v/manifest.csv")
    found = source.listed(f"s3://{bucket}/v", storage)
    assert [video.title for video in found.videos] == ["Mine"]
    assert kinds(found) == {".wmv is no ending of a video": ["two.wmv"]}
    alone = source.listed(f"s3://{bucket}/v/one.mp4", storage, manifest_uri=f"s3://{bucket}/v/manifest.csv")
    assert [video.title for video in alone.videos] == ["Mine"]


def test_only_lists_that_pixr_wrote_are_lists_and_they_lead_nowhere_else(storage: Storage, bucket: str) -> None:
    entry = {"file": "film.mp4", "title": "Film", "tags": [], "creator": "mallory"}
    for target in (
        "s3://secret/private/film.mp4",
        f"s3://{bucket}/private/film.mp4",
        f"s3://{bucket}/uploads/../x.mp4",
    ):
        body = (json.dumps({"uri": target, "entry": entry}) + "\n").encode()
        storage.put_bytes(body, f"s3://{bucket}/uploads/lists/evil.jsonl")
        with pytest.raises(Rejected, match="no list that Pixr has written"):
            source.listed(f"s3://{bucket}/uploads/lists/evil.jsonl", storage)
        named = f"s3://{bucket}/uploads/lists/{hashlib.sha256(body).hexdigest()[:32]}.jsonl"
        storage.put_bytes(body, named)
        with pytest.raises(Rejected, match="names an object that was not uploaded"):
            source.listed(named, storage)


def test_a_name_that_would_command_a_terminal_costs_nobody_else(storage: Storage, bucket: str, tmp_path: Path) -> None:
    for number, name in enumerate(("a\x1b[2J b.mp4", "two\nlines.mp4", "line\u2028sep.mp4", "good.mp4")):
        (tmp_path / name).write_bytes(b"%d" % number)
    found = source.listed(source.upload(tmp_path, storage, bucket, None, silent), storage)
    assert len(found.videos) == 4
    assert all(video.title.isprintable() for video in found.videos)
    for name in ("a\x1b[2J b.mp4", "good.mp4"):
        storage.filesystem().pipe_file(f"{bucket}/v/{name}", b"x")
    found = source.listed(f"s3://{bucket}/v", storage)
    assert [video.title for video in found.videos] == ["Good"]
    assert [row["count"] for row in found.remarks] == [1]
