"""Where videos come from: what is listed, what is uploaded once, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import Rejected
from cluster.runtime import S3Endpoint
from cluster.storage import Storage
from pipelines import source


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
    found = {video.source_uri: video for video in source.listed(f"s3://{bucket}/v", storage, creator="bo")}
    assert sorted(uri.rpartition("/")[2] for uri in found) == ["one.mp4", "two.MKV"]
    first, second = found[f"s3://{bucket}/v/one.mp4"], found[f"s3://{bucket}/v/deep/two.MKV"]
    assert (first.title, first.creator, first.size) == ("The first", "ana", 1)
    assert (second.title, second.creator) == ("Two", "bo")


def test_a_local_folder_is_sent_once_and_found_again(storage: Storage, bucket: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    first = source.upload(folder, storage, bucket, None, silent)
    assert source.upload(folder, storage, bucket, None, silent) == first
    found = {video.title: video for video in source.listed(first, storage)}
    assert sorted(found) == ["The first", "Two words"]
    assert found["The first"].creator == "ana"
    assert storage.read(found["Two words"].source_uri) == b"22"


def test_a_single_file_is_a_source(storage: Storage, bucket: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    uri = source.upload(folder / "one.mp4", storage, bucket, None, silent)
    assert [video.title for video in source.listed(uri, storage)] == ["The first"]


@pytest.mark.parametrize("name", ["nowhere", "notes"])
def test_nothing_to_upload_is_refused(storage: Storage, bucket: str, tmp_path: Path, name: str) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_bytes(b"")
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
