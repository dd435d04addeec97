"""Objects in S3, by URI (`s3://bucket/key`), through s3fs. Knows buckets and bytes, not what they mean.

s3fs takes a second to import, so it is imported at first use: most commands need addresses only.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import urls
from cluster.errors import Rejected, Temporary
from cluster.runtime import S3Endpoint

if TYPE_CHECKING:
    import s3fs
    from aiobotocore.session import AioSession

CONNECT_TIMEOUT_S = 5
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
VERSION = "?versionId="  # refused: s3fs cuts it off with everything behind it and would read another object
READ_TIMEOUT_S = 60
ATTEMPTS_MAX = 3
STREAMS = 1  # per file: several take three times the CPU, and callers fetch several files in parallel anyway


@dataclass(frozen=True)
class StoredObject:
    """One object of a listing; `size` in bytes, `etag` changes with the content.

    Some gateways list no ETag; then `etag` is made of the size and the time of the last change.
    """

    uri: str
    size: int
    etag: str


def split(uri: str) -> tuple[str, str]:
    """Split `s3://bucket/key` into `(bucket, key)`.

    Raises:
        Rejected: it is not such a URI, or its key would be read as another one (`..`, a version of an object).
    """
    scheme, _, path = uri.partition("://")
    bucket, _, key = path.partition("/")
    if scheme != "s3" or not bucket:
        raise Rejected(f"{uri!r} is not an S3 address", hint="write it as s3://bucket/key")
    if not BUCKET.fullmatch(bucket) or CONTROL.search(key) or {".", ".."} & set(key.split("/")):
        raise Rejected(f"{uri!r} is not the address of an object", 422, "bad-address", "write it as s3://bucket/key")
    if VERSION in key:
        hint = f"objects are read as they are at present: leave out {VERSION}…"
        raise Rejected(f"{uri!r} names a version of an object", 422, "bad-address", hint)
    return bucket, key


@functools.cache
def _session() -> AioSession:
    """Return the session that all clients of this process share: parsing S3's service description takes 0.1 s of CPU."""
    from aiobotocore.session import get_session

    return get_session()


class Storage:
    """A client of one S3 endpoint.

    Safe to share between threads. It is pickled as its endpoint and connects again at its first use.
    """

    def __init__(self, endpoint: S3Endpoint) -> None:
        self.endpoint = endpoint
        self._made: s3fs.S3FileSystem | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Storage], tuple[S3Endpoint]]:
        return Storage, (self.endpoint,)

    def filesystem(self) -> s3fs.S3FileSystem:
        """Return the s3fs filesystem, created on first use."""
        import s3fs

        with self._lock:
            if self._made is None:
                self._made = s3fs.S3FileSystem(
                    session=_session(),
                    key=self.endpoint.key,
                    secret=self.endpoint.secret,
                    endpoint_url=self.endpoint.url or None,
                    client_kwargs={"region_name": self.endpoint.region},
                    config_kwargs={
                        "connect_timeout": CONNECT_TIMEOUT_S,
                        "read_timeout": READ_TIMEOUT_S,
                        "retries": {"max_attempts": ATTEMPTS_MAX, "mode": "standard"},
                        "s3": {"addressing_style": "path"},
                    },
                    use_listings_cache=False,
                    skip_instance_cache=True,
                )
            return self._made

    def ensure_bucket(self, name: str) -> None:
        """Create a bucket unless it exists."""
        with _translated_errors(f"s3://{name}", self.endpoint):
            if not self.filesystem().exists(name):
                self.filesystem().mkdir(name)

    def put_file(self, path: Path, uri: str) -> None:
        """Upload a local file (in several parts when it is large)."""
        with _translated_errors(uri, self.endpoint):
            self.filesystem().put_file(str(path), uri)

    def put_bytes(self, data: bytes, uri: str, content_type: str = "application/octet-stream") -> None:
        """Upload bytes."""
        with _translated_errors(uri, self.endpoint):
            self.filesystem().pipe_file(uri, data, ContentType=content_type)

    def get_file(self, uri: str, path: Path) -> None:
        """Download an object to a local file."""
        with _translated_errors(uri, self.endpoint):
            self.filesystem().get_file(uri, str(path), max_concurrency=STREAMS)

    def read(self, uri: str, start: int = 0, end: int | None = None) -> bytes:
        """Return the bytes from `start` to `end` (exclusive; None: to the end) of an object, by one ranged request."""
        with _translated_errors(uri, self.endpoint):
            # Without a range for the whole object: stores refuse a range of an empty one.
            data: bytes = self.filesystem().cat_file(uri, start=start or None, end=end)
            return data

    def size(self, uri: str) -> int:
        """Return the size of an object in bytes."""
        return self.info(uri).size

    def info(self, uri: str) -> StoredObject:
        """Return the size and ETag of an object."""
        with _translated_errors(uri, self.endpoint):
            return _stored(self.filesystem().info(uri))

    def exists(self, uri: str) -> bool:
        """Return whether an object or a folder of objects exists."""
        with _translated_errors(uri, self.endpoint):
            exists: bool = self.filesystem().exists(uri)
            return exists

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield every object under a prefix, ordered by key; if the prefix is an object's own URI, yield that object.

        Raises:
            Rejected: the bucket does not exist.
        """
        bucket, key = split(prefix)
        with _translated_errors(f"s3://{bucket}", self.endpoint):
            if not self.filesystem().exists(bucket):
                raise FileNotFoundError(bucket)
        is_empty = True
        folder = f"{key.rstrip('/')}/" if key.strip("/") else ""
        for page in self._pages({"Bucket": bucket, "Prefix": folder}):
            is_empty = is_empty and not page
            yield from page
        if is_empty and folder and self.exists(prefix):
            yield self.info(prefix)

    def named(self, beginning: str) -> Iterator[StoredObject]:
        """Yield the objects whose URI begins with `beginning`, without those in folders below it."""
        bucket, key = split(beginning)
        for page in self._pages({"Bucket": bucket, "Prefix": key, "Delimiter": "/"}):
            yield from page

    def _pages(self, request: dict[str, str]) -> Iterator[tuple[StoredObject, ...]]:
        """Yield the pages of a listing (ListObjectsV2), ordered by key; only one page is held in memory."""
        bucket = request["Bucket"]
        while True:
            with _translated_errors(f"s3://{bucket}/{request['Prefix']}", self.endpoint):
                page: dict[str, Any] = self.filesystem().call_s3("list_objects_v2", **request)
            rows = ({**row, "name": f"{bucket}/{row['Key']}", "size": row["Size"]} for row in page.get("Contents", []))
            yield tuple(_stored(row) for row in rows if not row["name"].endswith("/"))
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def delete(self, uri: str) -> None:
        """Remove one object; does nothing when it is gone already."""
        with _translated_errors(uri, self.endpoint):
            if self.filesystem().exists(uri):
                self.filesystem().rm_file(uri)


def _stored(info: dict[str, Any]) -> StoredObject:
    """Return the `StoredObject` for a row of a listing."""
    etag = str(info.get("ETag", "")).strip('"') or f"{info['size']}-{info.get('LastModified', '')}"
    return StoredObject(f"s3://{info['name']}", int(info["size"]), etag)


@contextmanager
def _translated_errors(uri: str, endpoint: S3Endpoint) -> Iterator[None]:
    """Turn the exceptions of s3fs into `Temporary` or `Rejected`, and refuse buckets that this endpoint may not use."""
    from botocore.exceptions import BotoCoreError

    bucket, key = split(uri)
    if endpoint.buckets and bucket not in endpoint.buckets:
        detail = f"bucket {bucket!r} is not among those that are read here"
        raise Rejected(detail, 403, "bucket-not-allowed", f"these are: {', '.join(sorted(set(endpoint.buckets)))}")
    what = f"object {uri}" if key else f"bucket {bucket!r}"
    try:
        yield
    except FileNotFoundError as error:
        hint = "check the address" if key else "create it, or name another"
        raise Rejected(f"{what} does not exist", status=404, code="not-found", hint=hint) from error
    except PermissionError as error:
        hint = "check [s3] key and secret in the settings"
        raise Rejected(f"{what} may not be accessed: {error}", status=403, code="forbidden", hint=hint) from error
    except (BotoCoreError, ConnectionError, TimeoutError) as error:
        detail = f"S3 at {urls.shown(endpoint.url)} does not answer: {type(error).__name__}"
        raise Temporary(detail, public="the object store does not answer") from error
    except OSError as error:
        detail = f"S3 at {urls.shown(endpoint.url)} failed on {what}: {error}"
        raise Temporary(detail, public="the object store failed") from error
