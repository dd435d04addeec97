"""Objects on the real S3 gateway: what is put comes back, ranges are exact, and what is missing is said plainly."""

from __future__ import annotations

import pickle
import secrets
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import Rejected, Temporary
from cluster.runtime import S3Endpoint
from cluster.storage import Storage, split


@pytest.fixture
def storage(s3: S3Endpoint) -> Storage:
    return Storage(s3)


@pytest.fixture
def bucket(storage: Storage) -> str:
    name = f"test-{secrets.token_hex(6)}"
    storage.ensure_bucket(name)
    return name


def test_bytes_come_back_whole_and_by_range(storage: Storage, bucket: str) -> None:
    uri = f"s3://{bucket}/some folder/ümlaut.bin"
    storage.put_bytes(bytes(range(256)), uri)
    assert storage.read(uri) == bytes(range(256))
    assert storage.read(uri, 10, 20) == bytes(range(10, 20))
    assert storage.size(uri) == 256
    storage.put_bytes(b"", uri)
    assert storage.read(uri) == b""


def test_a_file_goes_up_and_comes_down(storage: Storage, bucket: str, tmp_path: Path) -> None:
    content = secrets.token_bytes(6 << 20)  # large enough for several parts
    (tmp_path / "up").write_bytes(content)
    storage.put_file(tmp_path / "up", f"s3://{bucket}/file")
    storage.get_file(f"s3://{bucket}/file", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == content


def test_a_listing_is_ordered_and_names_sizes(storage: Storage, bucket: str) -> None:
    for name in ("b", "a/2", "a/1"):
        storage.put_bytes(name.encode(), f"s3://{bucket}/in/{name}")
    found = list(storage.list(f"s3://{bucket}/in"))
    assert [each.uri.removeprefix(f"s3://{bucket}/in/") for each in found] == ["a/1", "a/2", "b"]
    assert [each.size for each in found] == [3, 3, 1]
    assert all(each.etag for each in found)


def test_deleting_twice_is_no_error(storage: Storage, bucket: str) -> None:
    storage.put_bytes(b"x", f"s3://{bucket}/x")
    storage.delete(f"s3://{bucket}/x")
    storage.delete(f"s3://{bucket}/x")
    assert not storage.exists(f"s3://{bucket}/x")


def test_a_missing_bucket_and_a_missing_object_are_told_apart(storage: Storage, bucket: str) -> None:
    with pytest.raises(Rejected, match="bucket 'no-such-bucket' does not exist"):
        list(storage.list("s3://no-such-bucket/videos"))
    with pytest.raises(Rejected, match=f"object s3://{bucket}/none does not exist"):
        storage.read(f"s3://{bucket}/none")


def test_a_wrong_key_is_refused(s3: S3Endpoint, bucket: str) -> None:
    stranger = Storage(S3Endpoint(s3.url, "pixr", "wrong-secret"))
    with pytest.raises(Rejected, match="may not be accessed"):
        stranger.put_bytes(b"x", f"s3://{bucket}/x")


def test_an_endpoint_that_is_away_is_temporary() -> None:
    with pytest.raises(Temporary, match="does not answer"):
        Storage(S3Endpoint("http://127.0.0.1:1", "k", "s")).read("s3://bucket/key")


def test_a_storage_pickles_as_its_endpoint(storage: Storage, bucket: str) -> None:
    storage.put_bytes(b"x", f"s3://{bucket}/x")
    assert pickle.loads(pickle.dumps(storage)).read(f"s3://{bucket}/x") == b"x"


@pytest.mark.parametrize("uri", ["bucket/key", "http://bucket/key", "s3://", "s3:///key"])
def test_what_is_no_s3_address_is_refused(uri: str) -> None:
    with pytest.raises(Rejected, match="not an S3 address"):
        split(uri)


@pytest.mark.parametrize("uri", ["s3://b/a.mp4?versionId=1", "s3://b/folder/?versionId=", "s3://b/?versionId=1"])
def test_a_version_of_an_object_is_no_address(uri: str) -> None:
    with pytest.raises(Rejected, match="names a version of an object") as caught:
        split(uri)
    assert (caught.value.status, caught.value.code) == (422, "bad-address")


def test_no_object_is_read_in_place_of_one_whose_key_is_longer(storage: Storage, bucket: str) -> None:
    storage.put_bytes(b"hers", f"s3://{bucket}/a.mp4")
    with pytest.raises(Rejected):
        storage.read(f"s3://{bucket}/a.mp4?versionId=1")
    storage.put_bytes(b"his", f"s3://{bucket}/a.mp4?x=1")  # a key like any other
    assert storage.read(f"s3://{bucket}/a.mp4?x=1") == b"his"


def test_an_endpoint_never_shows_its_secret(s3: S3Endpoint) -> None:
    assert s3.secret not in repr(s3)


def test_a_listing_holds_no_more_than_a_page(storage: Storage, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"in/{number:02}" for number in range(7)]
    for name in names:
        storage.put_bytes(b"x", f"s3://{bucket}/{name}")
    storage.put_bytes(b"x", f"s3://{bucket}/inside")  # of no folder "in"
    asked: list[str] = []
    call = storage.filesystem().call_s3

    def paged(method: str, **arguments: Any) -> Any:
        asked.append(method)
        return call(method, MaxKeys=3, **arguments)

    monkeypatch.setattr(storage.filesystem(), "call_s3", paged)
    listing = storage.list(f"s3://{bucket}/in")
    assert next(listing).uri == f"s3://{bucket}/in/00"
    assert len(asked) == 1
    assert [each.uri for each in listing] == [f"s3://{bucket}/{name}" for name in names[1:]]
    assert len(asked) == 3
    assert [each.uri for each in storage.list(f"s3://{bucket}/inside")] == [f"s3://{bucket}/inside"]
