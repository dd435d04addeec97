"""Where videos come from: what is listed, what is uploaded once, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import base58
import pytest

from cluster import database, telemetry
from cluster.errors import Rejected
from cluster.runtime import S3Endpoint
from cluster.storage import Storage, StoredObject
from pipelines import buckets, lists, local_files, manifest, ownership, remarks, source, stages
from pipelines.handles import ANYBODY, Rights
from pipelines.local_files import Extent
from pipelines.manifest import Entry
from pipelines.media import Video
from pipelines.scratch import Scratch
from pipelines.settings import IngestSettings
from tests.pipelines.conftest import ffmpeg

WALLET = base58.b58encode(bytes(range(32))).decode()


@pytest.fixture
def storage(s3: S3Endpoint) -> Storage:
    return Storage(s3)


def folder_of(path: Path) -> Path:
    (path / "sub").mkdir()
    (path / "one.mp4").write_bytes(b"1")
    (path / "sub" / "two words.mp4").write_bytes(b"22")
    (path / "notes.txt").write_bytes(b"no video")
    text = f"file,title,creator,wallet\none.mp4,The first,ana,{WALLET}\nsub/two words.mp4,,,\n"
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
    first = source.upload(folder, storage, bucket, None, silent).uri
    assert source.upload(folder, storage, bucket, None, silent).uri == first
    found = {video.title: video for video in source.listed(first, storage).videos}
    assert sorted(found) == ["The first", "Two words"]
    assert found["The first"].creator == "ana"
    assert storage.read(found["Two words"].source_uri) == b"22"


def test_a_single_file_is_a_source(storage: Storage, bucket: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    uri = source.upload(folder / "one.mp4", storage, bucket, None, silent).uri
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


@pytest.mark.parametrize("name", manifest.NAMES)
def test_a_manifest_of_no_bytes_is_named_and_harms_nobody(
    storage: Storage, bucket: str, tmp_path: Path, name: str
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"1")
    (tmp_path / name).touch()
    for each in ("a.mp4", name):
        storage.put_bytes((tmp_path / each).read_bytes(), f"s3://{bucket}/v/{each}")
    sent = source.upload(tmp_path, storage, bucket, None, silent)
    for found in (source.listed(f"s3://{bucket}/v", storage), source.listed(sent.uri, storage)):
        assert [video.title for video in found.videos] == ["A"]
        assert remarks.line(found.remarks[0]) == f"manifest empty: {name}: no row stands in it"


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
    found = source.listed(source.upload(folder, storage, bucket, None, silent).uri, storage)
    assert [video.title for video in found.videos] == ["Own"]
    assert kinds(found) == {local_files.LINK: ["leaks", "leak.mp4", "sub/up", "sub/manifest.csv"]}
    assert kinds(source.local(folder, bucket, None)) == kinds(found)
    (folder / "sub" / "manifest.csv").unlink()
    with_links = source.upload(folder, storage, bucket, None, silent, Extent(follow_links=True)).uri
    assert sorted(video.title for video in source.listed(with_links, storage).videos) == ["Leak", "Own", "Secret"]


def test_what_is_hidden_is_no_part_of_a_folder_unless_asked_for(storage: Storage, bucket: str, tmp_path: Path) -> None:
    hidden = (
        ".Trash-1000/files/a.mp4",
        ".git/b.mp4",
        "$RECYCLE.BIN/c.mp4",
        "sub/lost+found/d.mp4",
        "sub/.e.mp4",
        "._own.mp4",
    )
    for number, name in enumerate((*hidden, "own.mp4", ".DS_Store")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes([number]))
    (tmp_path / ".git" / "manifest.csv").write_text("no manifest", encoding="utf-8")
    found = source.listed(source.upload(tmp_path, storage, bucket, None, silent).uri, storage)
    assert [video.title for video in found.videos] == ["Own"]
    left_out = ["$RECYCLE.BIN", ".Trash-1000", "._own.mp4", ".git", "sub/.e.mp4", "sub/lost+found"]
    assert {reason: sorted(names) for reason, names in kinds(found).items()} == {local_files.HIDDEN: left_out}
    (tmp_path / ".git" / "manifest.csv").unlink()
    assert len(source.local(tmp_path, bucket, None, Extent(hidden=True)).videos) == len(hidden) + 1
    assert [video.title for video in source.local(tmp_path / ".git", bucket, None).videos] == ["B"]


@pytest.mark.parametrize("when", ["read", "about to be sent", "sent"])
def test_a_file_that_is_still_written_is_left_out_and_nothing_of_it_stays(
    storage: Storage, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    (tmp_path / "done.mp4").write_bytes(b"done")
    (recording := tmp_path / "recording.mp4").write_bytes(b"the beginning")

    def more() -> None:
        with recording.open("ab") as opened:
            opened.write(b" and more")

    digested, put_file = hashlib.file_digest, Storage.put_file

    def reads(opened: Any, name: str) -> Any:
        digest = digested(opened, name)
        if when == "read" and opened.name == str(recording):
            more()
        return digest

    def sends(self: Storage, path: Path, uri: str) -> None:
        if when == "sent" and path == recording:
            more()
        put_file(self, path, uri)

    def progress(name: str, _done: int, _total: int) -> None:
        if when == "about to be sent" and name == recording.name:
            more()

    monkeypatch.setattr(hashlib, "file_digest", reads)
    monkeypatch.setattr(Storage, "put_file", sends)
    sent = source.upload(tmp_path, storage, bucket, None, progress)
    found = source.listed(sent.uri, storage)
    assert [video.title for video in found.videos] == ["Done"]
    assert kinds(found) == {source.CHANGING: ["recording.mp4"]}
    assert sent.remarks == found.remarks
    assert not [each.uri for each in storage.list(f"s3://{bucket}/") if each.uri.endswith("recording.mp4")]


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
    found = source.listed(source.upload(tmp_path, storage, bucket, None, silent).uri, storage)
    assert sorted(video.title for video in found.videos) == ["Intro", "Mine"]
    assert kinds(found) == {
        "its name is not UTF-8": ["latin1_\\udce9.mp4"],
        "it is no regular file": ["pipe.mp4"],
        ".wmv is not among the endings that are taken": ["old.wmv"],
        "no file of this name is there": ["sub/Manifest.CSV, line 3: gone.mp4"],
        "the same file is there twice; the first one counts": ["s2/intro.mp4 is s1/intro.mp4"],
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="root reads everything; it becomes another user here")
@contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """While this lasts this process is an ordinary user, who comes as far as `folder`."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    folder.chmod(0o755)
    for parent in list(folder.parents)[:2]:
        parent.chmod(stat.S_IMODE(parent.stat().st_mode) | 0o011)  # one of everybody's stays so
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("named", "given"), [("shut", ""), ("shut/a.mp4", ""), ("unlisted/a.mp4", ""), ("b.mp4", "shut/m.csv")]
)
def test_a_path_that_may_not_be_read_is_refused_in_a_line(tmp_path: Path, named: str, given: str) -> None:
    (tmp_path / "b.mp4").write_bytes(b"b")
    for name, mode in (("shut", 0o000), ("unlisted", 0o711)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mp4").write_bytes(b"a")
        (tmp_path / name).chmod(mode)
    with as_nobody(tmp_path), pytest.raises(Rejected, match="permission denied"):
        source.local(tmp_path / named, "pixr", tmp_path / given if given else None)


def test_a_file_that_may_not_be_read_is_named_and_the_others_get_in(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"a")
    (tmp_path / "b.mp4").write_bytes(b"b")
    (tmp_path / "b.mp4").chmod(0)
    (tmp_path / "deep").mkdir(mode=0)
    with as_nobody(tmp_path):
        found = source.local(tmp_path, "pixr", None)
    assert [video.title for video in found.videos] == ["A"]
    assert kinds(found) == {"permission denied": ["deep", "b.mp4"]}


MUXERS = {
    ".qt": "mov", ".3g2": "3g2", ".3gp": "3gp", ".3gpp": "3gp", ".f4v": "f4v", ".mj2": "mov", ".mov": "mov",
    ".mkv": "matroska", ".webm": "webm", ".avi": "avi", ".divx": "avi", ".mpg": "mpeg", ".mpeg": "mpeg", ".vob": "vob",
    ".ts": "mpegts", ".m2t": "mpegts", ".mts": "mpegts", ".m2ts": "mpegts",
}  # fmt: skip
ENCODERS = {".webm": "libvpx", ".mj2": "jpeg2000", ".vob": "mpeg2video", ".mpg": "mpeg1video", ".divx": "mpeg4"}


def test_a_folder_takes_by_its_ending_what_decoders_read(tmp_path: Path) -> None:
    """Each ending that is taken is one of films that the probe opens; so are those of DVDs, phones and older QuickTime."""
    picture = ("-f", "lavfi", "-i", "testsrc2=s=176x144:r=25:d=1")
    for ending in manifest.VIDEO_ENDINGS:
        encoder = ("-c:v", ENCODERS.get(ending, "libx264"), "-pix_fmt", "yuv420p")
        ffmpeg(tmp_path / f"a{ending}", *picture, *encoder, "-f", MUXERS.get(ending, "mp4"))
    (tmp_path / "a.ps").write_bytes(b"%!PS-Adobe-3.0")
    found = source.local(tmp_path, "pixr", None)
    names = {path.suffix for path in tmp_path.iterdir()} - {".ps"}
    assert {video.source_uri[video.source_uri.rindex(".") :] for video in found.videos} == names
    assert names >= {".vob", ".3g2", ".f4v", ".qt", ".mp4", ".mkv"}
    assert kinds(found) == {".ps is not among the endings that are taken": ["a.ps"]}
    for ending in names:
        video = stages.probe(tmp_path / f"a{ending}", IngestSettings())
        assert isinstance(video, Video), (ending, video)
        assert abs(video.duration_ms - 1000) <= 60, ending


def test_a_prefix_says_what_is_left_out_too(storage: Storage, bucket: str) -> None:
    storage.put_bytes(b"1", f"s3://{bucket}/v/one.mp4")
    storage.put_bytes(b"2", f"s3://{bucket}/v/two.wmv")
    storage.put_bytes(b"file,visibility\none.mp4,secret\n", f"s3://{bucket}/v/manifest.csv")
    with pytest.raises(Rejected, match=r"no video under .*manifest\.csv, line 2: visibility 'secret'"):
        source.listed(f"s3://{bucket}/v", storage)
    storage.put_bytes(b"file,title\n.\\One.mp4,Mine\n", f"s3://{bucket}/v/manifest.csv")
    found = source.listed(f"s3://{bucket}/v", storage)
    assert [video.title for video in found.videos] == ["Mine"]
    assert kinds(found) == {".wmv is not among the endings that are taken": ["two.wmv"]}
    alone = source.listed(f"s3://{bucket}/v/one.mp4", storage, manifest_uri=f"s3://{bucket}/v/manifest.csv")
    assert [video.title for video in alone.videos] == ["Mine"]


def test_a_source_with_a_query_is_refused_with_what_is_wrong(storage: Storage, bucket: str) -> None:
    storage.put_bytes(b"1", f"s3://{bucket}/v/a.mp4")
    for query, words in (("?versionId=1", "leave out ?versionId="), ("?part=1", "`?` and what follows count to it")):
        for uri in (f"s3://{bucket}/v/a.mp4{query}", f"s3://{bucket}/v/{query}"):
            with pytest.raises(Rejected) as caught:
                source.check(uri, storage, (bucket,))
            assert words in caught.value.hint


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
    found = source.listed(source.upload(tmp_path, storage, bucket, None, silent).uri, storage)
    assert len(found.videos) == 4
    assert all(video.title.isprintable() for video in found.videos)
    for name in ("a\x1b[2J b.mp4", "good.mp4"):
        storage.filesystem().pipe_file(f"{bucket}/v/{name}", b"x")
    found = source.listed(f"s3://{bucket}/v", storage)
    assert [video.title for video in found.videos] == ["Good"]
    assert [row["count"] for row in found.remarks] == [1]


BO = Rights(frozenset({"bo", "cy"}))


def test_a_job_lists_only_videos_of_creators_that_it_may_speak_for(storage: Storage, bucket: str) -> None:
    for name in ("hers", "his", "unsaid"):
        storage.put_bytes(name.encode(), f"s3://{bucket}/v/{name}.mp4")
    rows = f"file,creator,wallet\nhers.mp4,ana,{WALLET}\nhis.mp4,bo,{WALLET}\n"
    storage.put_bytes(rows.encode(), f"s3://{bucket}/v/manifest.csv")
    found = source.listed(f"s3://{bucket}/v", storage, rights=BO)
    assert [(video.creator, video.wallet) for video in found.videos] == [("bo", WALLET)]
    assert (
        kinds(found)
        == {
            "it is another creator's; this job speaks for bo, cy": ["manifest.csv, line 2"],
            "its row (v/manifest.csv, line 2) is refused: it is another creator's; this job speaks for bo, cy": [],  # counted
            "no row of a manifest speaks of it": ["unsaid.mp4"],
            "no creator is named; this job speaks for bo, cy": ["unsaid.mp4"],
        }
    )
    own = source.listed(f"s3://{bucket}/v", storage, creator="cy", rights=BO)
    assert sorted(video.creator for video in own.videos) == ["bo", "cy"]
    with pytest.raises(Rejected, match=r"no video under .*it is another creator's"):
        source.listed(f"s3://{bucket}/v/hers.mp4", storage, manifest_uri=f"s3://{bucket}/v/manifest.csv", rights=BO)


def test_a_list_too_speaks_only_for_the_creators_of_the_job(storage: Storage, bucket: str, tmp_path: Path) -> None:
    uri = source.upload(folder_of(tmp_path), storage, bucket, None, silent).uri
    found = source.listed(uri, storage, creator="bo", rights=BO)
    assert [video.creator for video in found.videos] == ["bo"]
    assert (
        kinds(found)["it is another creator's; this job speaks for bo, cy"] == []
    )  # counted, and not named: it is another's
    assert "'notes.txt'" in str(source.listed(uri, storage).remarks)
    for secret in ("ana", "notes", "one.mp4"):  # of who made the list
        assert secret not in str(found.remarks)


def test_an_upload_that_is_gone_costs_the_others_of_its_list_nothing(
    storage: Storage, bucket: str, tmp_path: Path
) -> None:
    uri = source.upload(folder_of(tmp_path), storage, bucket, None, silent).uri
    gone = next(video for video in source.listed(uri, storage).videos if video.title == "The first")
    storage.delete(gone.source_uri)
    found = source.listed(uri, storage)
    assert [video.title for video in found.videos] == ["Two words"]
    assert kinds(found)[f"object {gone.source_uri} does not exist"] == ["one.mp4"]


def test_what_an_older_release_wrote_into_a_list_is_checked_as_a_row_is(storage: Storage, bucket: str) -> None:
    rows = []
    for number in range(2):
        uri = f"s3://{bucket}/uploads/00/{number:064x}/a.mp4"
        storage.put_bytes(b"1", uri)
        rows.append(lists.Row(uri, Entry(f"{number}.mp4", title=f"No. {number}", creator="ana", wallet=WALLET)))
    body = storage.read(lists.write(storage, bucket, rows, []))
    odd = body.replace(WALLET.encode(), b"W1", 1)
    uri = f"s3://{bucket}/uploads/lists/{hashlib.sha256(odd).hexdigest()[:32]}.jsonl"
    storage.put_bytes(odd, uri)
    found = source.listed(uri, storage)
    assert [video.title for video in found.videos] == ["No. 1"]
    assert list(kinds(found).values()) == [["0.mp4"]]


def test_a_list_is_pixrs_own_when_the_database_knows_it(
    storage: Storage, bucket: str, tmp_path: Path, postgres_url: str
) -> None:
    """Whoever can write into the bucket can name an object by its digest."""
    uri = source.upload(folder_of(tmp_path), storage, bucket, None, silent).uri
    with database.connect(postgres_url, autocommit=True) as connection:
        lists.require_known(connection, f"s3://{bucket}/v/")
        with pytest.raises(Rejected, match="no list that Pixr has written") as caught:
            lists.require_known(connection, uri)
        assert caught.value.status == 403
        for _ in range(2):
            lists.remember(connection, uri)
        lists.require_known(connection, uri)


def test_the_objects_of_a_list_are_looked_at_side_by_side(storage: Storage, bucket: str) -> None:
    busy, most, lock = 0, 0, threading.Lock()

    class Slow(Storage):
        def info(self, uri: str) -> StoredObject:
            nonlocal busy, most
            with lock:
                busy, most = busy + 1, max(most, busy + 1)
            time.sleep(0.2)
            with lock:
                busy -= 1
            return StoredObject(uri, 1, "e")

    rows = [lists.Row(f"s3://{bucket}/uploads/00/{n:064x}/a.mp4", Entry(f"{n}.mp4")) for n in range(20)]
    uri = lists.write(storage, bucket, rows, [])
    found = source.listed(uri, Slow(storage.endpoint))
    assert [video.source_uri for video in found.videos] == [row.uri for row in rows]
    assert most > 4


def test_a_source_of_too_many_objects_is_refused_before_the_rest_of_them_is_listed(
    storage: Storage, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        storage.put_bytes(b"x", f"s3://{bucket}/many/{number}.mp4")
    asked: list[str] = []
    call = storage.filesystem().call_s3

    def paged(method: str, **arguments: Any) -> Any:
        asked.append(method)
        return call(method, MaxKeys=2, **arguments)

    monkeypatch.setattr(storage.filesystem(), "call_s3", paged)
    monkeypatch.setattr(buckets, "OBJECTS_MAX", 3)
    with pytest.raises(Rejected, match="more than 3 objects"):
        list(buckets.bounded(storage.list(f"s3://{bucket}/many")))
    assert len(asked) == 2  # of five pages
    with pytest.raises(Rejected, match="more than 3 objects"):
        source.listed(f"s3://{bucket}/many", storage)


def test_a_manifest_is_read_up_to_a_size(
    storage: Storage, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "BYTES_MAX", 20)
    folder_of(tmp_path)
    storage.put_bytes(b"1", f"s3://{bucket}/v/one.mp4")
    storage.put_bytes(b"file,title\n" + b"x" * 20, f"s3://{bucket}/m/manifest.csv")
    with pytest.raises(Rejected, match="larger than 20 bytes"):
        source.listed(f"s3://{bucket}/v", storage, manifest_uri=f"s3://{bucket}/m/manifest.csv")
    with pytest.raises(Rejected, match="larger than 20 bytes"):
        source.local(tmp_path, bucket, None)


def test_a_job_touches_no_bucket_but_those_of_the_settings(storage: Storage, bucket: str, tmp_path: Path) -> None:
    """Where bytes are fetched, whatever address stands in the database."""
    storage.ensure_bucket(f"{bucket}-other")
    storage.put_bytes(b"secret", f"s3://{bucket}-other/a.mp4")
    kept_in = Storage(dataclasses.replace(storage.endpoint, buckets=(bucket,)))
    kept_in.put_bytes(b"1", f"s3://{bucket}/a.mp4")
    fetched = Scratch(tmp_path / "s", 10_000, 0, 8)
    with fetched.file(kept_in, f"s3://{bucket}/a.mp4", "e", 1) as path:
        assert path.read_bytes() == b"1"
    with pytest.raises(Rejected) as caught, fetched.file(kept_in, f"s3://{bucket}-other/a.mp4", "e", 6):
        pass
    assert caught.value.code == "bucket-not-allowed"


ANA = Rights(frozenset({"ana"}))


@pytest.fixture
def hers(storage: Storage, bucket: str) -> str:
    """The address of a folder with films of bob, ana and nobody, as the manifest says that lies beside or above them."""
    for name in ("bob/film.mp4", "bob/deep/Part 2.mp4", "ana/own.mp4", "nobodys.mp4"):
        storage.put_bytes(name.encode(), f"s3://{bucket}/incoming/{name}")
    rows = "file,creator\nbob/film.mp4,bob\nbob\\deep\\part 2.mp4,bob\nana/own.mp4,ana\n"
    storage.put_bytes(rows.encode(), f"s3://{bucket}/incoming/Manifest.CSV")
    storage.put_bytes(b"file,title,creator\nfilm.mp4,Mine,ana\nPart 2.mp4,Mine,ana\n", f"s3://{bucket}/ana.csv")
    return f"s3://{bucket}/incoming"


@pytest.mark.parametrize("given", ["", "ana.csv"])
@pytest.mark.parametrize("source_of", ["bob/film.mp4", "bob", "bob/", "bob/deep", "bob/deep/Part 2.mp4"])
def test_neither_a_deeper_source_nor_a_manifest_of_ones_own_makes_a_video_ones_own(
    storage: Storage, bucket: str, hers: str, source_of: str, given: str
) -> None:
    uri, beside = f"{hers}/{source_of}", f"s3://{bucket}/{given}" if given else ""
    found = source.listed(uri, storage, creator="ana", manifest_uri=beside)
    assert {video.creator for video in found.videos} == {"ana"}
    with pytest.raises(
        Rejected, match=r"its row \(incoming/Manifest\.CSV, line \d\) is refused: it is another creator's"
    ):
        source.listed(uri, storage, creator="ana", manifest_uri=beside, rights=ANA)


def test_a_manifest_in_the_source_counts_beside_the_one_that_is_given(storage: Storage, bucket: str, hers: str) -> None:
    storage.put_bytes(b"file,creator\nbob/film.mp4,ana\n", f"s3://{bucket}/ana.csv")
    found = source.listed(hers, storage, creator="ana", manifest_uri=f"s3://{bucket}/ana.csv", rights=ANA)
    assert [video.title for video in found.videos] == ["Own", "Nobodys"]
    assert [
        video.title for video in source.listed(f"{hers}/ana/own.mp4", storage, creator="ana", rights=ANA).videos
    ] == ["Own"]


@pytest.mark.parametrize("source_of", ["", "/bob"])
def test_a_deeper_manifest_takes_no_video_from_whom_an_outer_one_gives_it_to(
    storage: Storage, bucket: str, hers: str, source_of: str
) -> None:
    """Whichever folder of the two a job names."""
    storage.put_bytes(b"file,creator\nfilm.mp4,ana\n", f"{hers}/bob/manifest.csv")
    found = source.listed(f"{hers}{source_of}", storage)
    assert "ana" in {video.creator for video in found.videos if video.source_uri.endswith("bob/film.mp4")}
    try:
        titles = [video.title for video in source.listed(f"{hers}{source_of}", storage, rights=ANA).videos]
    except Rejected as refused:
        assert "it is another creator's" in refused.detail
    else:
        assert titles == ["Own"]


BROKEN = {"columns": b"file,titel\na.mp4,A\n", "quote": b'file,title\na.mp4,"A\n', "text": b"file\n\xff.mp4\n"}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("place", ["Manifest.csv", "incoming/ana/manifest.csv"])
def test_a_manifest_that_cannot_be_read_stops_who_speaks_for_some_and_says_where_it_lies(
    storage: Storage, bucket: str, hers: str, place: str, broken: bytes
) -> None:
    """Nobody knows what it gives to others; jobs for any creator go on."""
    assert source.listed(hers, storage, rights=ANA).videos
    storage.put_bytes(broken, f"s3://{bucket}/{place}")
    beside = f"{hers}/Manifest.CSV"
    with pytest.raises(Rejected) as caught:
        source.listed(hers, storage, manifest_uri=beside, rights=ANA)
    line = telemetry.public_line(str(caught.value))
    assert line.startswith(f"manifest s3://{bucket}/{place}, line ")
    assert "; it may give files to others: mend it" in line
    assert caught.value.code == "bad-manifest"
    assert len(source.listed(hers, storage, manifest_uri=beside).videos) == 4


def test_uploads_are_no_source_where_a_job_speaks_for_some_creators_only(
    storage: Storage, bucket: str, tmp_path: Path
) -> None:
    of_list = source.upload(folder_of(tmp_path), storage, bucket, None, silent).uri
    upload = next(video for video in source.listed(of_list, storage).videos if video.title == "Two words").source_uri
    for uri in (f"s3://{bucket}/uploads", f"s3://{bucket}/uploads/", upload, upload.rpartition("/")[0]):
        assert source.listed(uri, storage).videos
        with pytest.raises(Rejected) as caught:
            source.listed(uri, storage, creator="ana", rights=ANA)
        assert (caught.value.status, caught.value.code) == (403, "not-yours")
    for odd in (f"s3://{bucket}//uploads", upload.replace("uploads/", "uploads//")):
        for rights in (ANA, ANYBODY):
            with pytest.raises(Rejected, match="empty parts"):
                ownership.require_open(odd, rights)
    for whole in (f"s3://{bucket}", f"s3://{bucket}/"):
        with pytest.raises(Rejected, match="holds uploads of others too"):
            source.listed(whole, storage, creator="ana", rights=ANA, own_bucket=bucket)
        with pytest.raises(Rejected, match="stands in its list alone") as caught:
            source.listed(
                whole, storage, creator="ana", rights=ANA
            )  # a bucket of somebody else's, with a folder of that name
        assert "mp4" not in caught.value.detail
    for each in (upload, of_list):
        with pytest.raises(Rejected, match="holds uploads of others too"):
            source.listed(f"s3://{bucket}/hers", storage, manifest_uri=each, rights=ANA)
    assert len(source.listed(of_list, storage, creator="ana", rights=ANA).videos) == 2


def test_what_is_left_out_as_others_is_counted_and_not_named(storage: Storage, bucket: str, hers: str) -> None:
    found = source.listed(hers, storage, creator="ana", rights=ANA)
    said = [remark for remark in found.remarks if "it is another creator's" in remark["reason"]]
    assert sum(remark["count"] for remark in said if remark["kind"] == "left out") == 2
    assert [video.title for video in found.videos] == ["Own", "Nobodys"]
    for secret in ("film.mp4", "Part 2.mp4", "bob"):
        assert secret not in str(found.remarks)
    with pytest.raises(Rejected) as caught:
        source.listed(f"{hers}/bob", storage, creator="ana", rights=ANA)
    assert "mp4" not in caught.value.detail


SECRETS = ("bruno", "acme", "merger", "q3", "Manifest.CSV", "line ")  # of the manifest above, and of others' rows


def ana_in(bucket: str, *folders: str) -> Rights:
    return dataclasses.replace(ANA, folders=tuple(f"s3://{bucket}/{folder}" for folder in folders))


@pytest.fixture
def plans(storage: Storage, bucket: str) -> str:
    """The address of a folder that is shared, with a manifest in which others' rows are wrong in several ways."""
    for name in ("ana/own.mp4", "ana/hers.mp4", "ana/unsaid.mp4", "bruno/q3.mp4"):
        storage.put_bytes(name.encode(), f"s3://{bucket}/shared/{name}")
    rows = (
        "file,title,creator,language\nana/hers.mp4,Merger with acme,bruno,\nbruno/q3.mp4,Plans,bruno,the merger\n"
        "bruno/gone-q3.mp4,Plans,bruno,\nana/own.mp4,Own,ana,\nana/lost.mp4,Mine,ana,\nana/typed.mp4,Mine,ana,klingonish\n"
    )
    storage.put_bytes(rows.encode(), f"s3://{bucket}/shared/Manifest.CSV")
    return f"s3://{bucket}/shared"


@pytest.mark.parametrize("given", ["", "ana/own.csv"])
def test_a_manifest_above_the_folders_of_a_job_says_whose_a_file_is_and_nothing_else(
    storage: Storage, bucket: str, plans: str, given: str
) -> None:
    storage.put_bytes(b"file,title\nunsaid.mp4,Said\n", f"{plans}/ana/own.csv")
    found = source.listed(
        f"{plans}/ana",
        storage,
        creator="ana",
        manifest_uri=given and f"{plans}/{given}",
        rights=ana_in(bucket, "shared/ana/"),
    )
    assert [video.title for video in found.videos] == ["Own", "Said" if given else "Unsaid"]
    assert {ownership.GIVEN_ABOVE: []}.items() <= kinds(found).items()
    for secret in SECRETS:
        assert secret not in str(found)


def test_a_manifest_above_that_cannot_be_read_is_named_in_the_log_alone(
    storage: Storage, bucket: str, plans: str, caplog: pytest.LogCaptureFixture
) -> None:
    storage.put_bytes(b"file,merger with acme\nq3.mp4,bruno\n", f"{plans}/Manifest.CSV")
    with pytest.raises(Rejected) as caught:
        source.listed(f"{plans}/ana", storage, creator="ana", rights=ana_in(bucket, "shared/ana/"))
    assert caught.value.code == "bad-manifest"
    for secret in SECRETS:
        assert secret not in str(caught.value)
    assert "shared/Manifest.CSV, line 1: unknown column 'merger with acme'" in caplog.text
    with pytest.raises(Rejected, match="unknown column"):  # of one's own folder all is said
        source.listed(f"{plans}/ana", storage, creator="ana", rights=ana_in(bucket, "shared/"))


def test_rows_that_name_others_are_counted_in_a_shared_folder_and_not_quoted(
    storage: Storage, bucket: str, plans: str
) -> None:
    found = source.listed(plans, storage, creator="ana", rights=ana_in(bucket, "shared/"))
    assert [video.title for video in found.videos] == ["Own", "Unsaid"]
    said = kinds(found)
    assert said["it is another creator's; this job speaks for ana"] == [
        f"Manifest.CSV, line {line}" for line in (3, 2, 4)
    ]
    assert said["no file of this name is there"] == ["Manifest.CSV, line 6: ana/lost.mp4"]
    assert "klingonish" in str(found.remarks)  # one's own row
    for secret in SECRETS[:-2]:
        assert secret not in str(found.remarks)


def test_a_manifest_that_is_named_gives_others_what_it_says_and_names_none_of_it(
    storage: Storage, bucket: str, plans: str
) -> None:
    storage.put_bytes(b"file,title,creator\nunsaid.mp4,Merger,bruno\n", f"s3://{bucket}/ana/own.csv")
    manifest_uri, rights = f"s3://{bucket}/ana/own.csv", ana_in(bucket, "shared/ana/", "ana/")
    found = source.listed(f"{plans}/ana", storage, creator="ana", manifest_uri=manifest_uri, rights=rights)
    assert [video.title for video in found.videos] == ["Own"]
    assert "unsaid" not in str(found.remarks)


@pytest.mark.parametrize("uri", ["shared", "shared/", "shared/anabel", "shared/bruno/q3.mp4", "not-there", ""])
def test_source_and_manifest_are_in_a_folder_of_the_job(storage: Storage, bucket: str, plans: str, uri: str) -> None:
    rights = ana_in(bucket, "shared/ana/")
    for asked, manifest_uri in ((f"s3://{bucket}/{uri}", ""), (f"{plans}/ana", f"s3://{bucket}/{uri}")):
        with pytest.raises(Rejected) as caught:
            source.listed(asked, storage, creator="ana", manifest_uri=manifest_uri, rights=rights)
        assert (caught.value.status, caught.value.code) == (403, "not-yours")
        assert "is in none of the folders that this key's jobs may name" in caught.value.detail


def test_pixrs_own_objects_are_no_files_of_its_bucket(storage: Storage, bucket: str) -> None:
    for name in ("ledger/heads/1.json", "frames/1/measurements.parquet", "thumbnails/1/0.webp", "v/frames/one.mp4"):
        storage.put_bytes(b"1", f"s3://{bucket}/{name}")
    found = source.listed(f"s3://{bucket}", storage, own_bucket=bucket)
    assert ([video.title for video in found.videos], found.remarks) == (["One"], [])


def test_a_wallet_is_that_of_the_creator_whom_its_row_names(storage: Storage, bucket: str) -> None:
    storage.put_bytes(b"1", f"s3://{bucket}/v/one.mp4")
    storage.put_bytes(f"file,wallet\none.mp4,{WALLET}\n".encode(), f"s3://{bucket}/v/manifest.csv")
    [video] = source.listed(f"s3://{bucket}/v", storage, creator="ana").videos
    assert (video.creator, video.wallet, video.is_named) == ("ana", WALLET, False)
