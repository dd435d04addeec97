"""Objects in S3, by URI (`s3://bucket/key`), through s3fs. Knows buckets and bytes, not what is in them.

s3fs takes a second to load, so that it is loaded by the first use: most commands only know addresses.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
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
VERSION = "?versionId="  # s3fs leaves it out with all behind it, and would read another object than is named
READ_TIMEOUT_S = 60
ATTEMPTS_MAX = 3
STREAMS = 1  # a file: several take three times the CPU, and who fetches many files fetches some side by side


@dataclass(frozen=True)
class StoredObject:
    """One listed object; `size` in bytes, `etag` changes with the content, `changed_s` since 1970 by the store's clock.

    Where a listing carries no ETag (some gateways), size and time of the last change stand for it.
    """

    uri: str
    size: int
    etag: str
    changed_s: float = field(default=0.0, compare=False)  # 0: it is not said


def split(uri: str) -> tuple[str, str]:
    """`s3://bucket/key` → `(bucket, key)`.

    Raises:
        Rejected: it is not such a URI, or its key leads elsewhere than it says (`..`, a version of an object).
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
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
    """What the process's clients share: S3's own description, which takes each that reads it a tenth of a second of CPU."""
    from aiobotocore.session import get_session

    return get_session()


class Storage:
    """One endpoint. Safe to share between threads; pickles as its endpoint and reconnects."""

    def __init__(self, endpoint: S3Endpoint) -> None:
        self.endpoint = endpoint
        self._made: s3fs.S3FileSystem | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Storage], tuple[S3Endpoint]]:
        return Storage, (self.endpoint,)

    def filesystem(self) -> s3fs.S3FileSystem:
        """The s3fs filesystem behind it, made on first use."""
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
        with _sorted(f"s3://{name}", self.endpoint):
            if not self.filesystem().exists(name):
                self.filesystem().mkdir(name)

    def put_file(self, path: Path, uri: str) -> None:
        """Upload a local file (multipart when large)."""
        with _sorted(uri, self.endpoint):
            self.filesystem().put_file(str(path), uri)

    def put_bytes(self, data: bytes, uri: str, content_type: str = "application/octet-stream") -> None:
        with _sorted(uri, self.endpoint):
            self.filesystem().pipe_file(uri, data, ContentType=content_type)

    def get_file(self, uri: str, path: Path) -> None:
        """Download to a local file."""
        with _sorted(uri, self.endpoint):
            self.filesystem().get_file(uri, str(path), max_concurrency=STREAMS)

    def read(self, uri: str, start: int = 0, end: int | None = None) -> bytes:
        """Bytes `start` to `end` (exclusive), as one ranged request."""
        with _sorted(uri, self.endpoint):
            # No range where the whole is meant: an empty object has none, and its store would refuse it.
            data: bytes = self.filesystem().cat_file(uri, start=start or None, end=end)
            return data

    def size(self, uri: str) -> int:
        """Bytes."""
        return self.info(uri).size

    def info(self, uri: str) -> StoredObject:
        with _sorted(uri, self.endpoint):
            return _stored(self.filesystem().info(uri))

    def exists(self, uri: str) -> bool:
        with _sorted(uri, self.endpoint):
            found: bool = self.filesystem().exists(uri)
            return found

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object under a prefix, or the one object it names, ordered by key.

        Raises:
            Rejected: the bucket does not exist.
        """
        bucket, _ = split(prefix)
        with _sorted(f"s3://{bucket}", self.endpoint):
            if not self.filesystem().exists(bucket):
                raise FileNotFoundError(bucket)
        is_empty = True
        for found in self._pages(prefix):
            is_empty = is_empty and not found
            yield from found
        if is_empty and split(prefix)[1].strip("/") and self.exists(prefix):
            yield self.info(prefix)

    def _pages(self, prefix: str) -> Iterator[tuple[StoredObject, ...]]:
        """A folder's objects a page at a time, in the order of keys; no more than a page is held."""
        bucket, key = split(prefix)
        return self._asked({"Bucket": bucket, "Prefix": f"{key.rstrip('/')}/" if key.strip("/") else ""})

    def named(self, beginning: str) -> Iterator[StoredObject]:
        """Objects whose address begins so and goes on without a slash: in one folder, not below it."""
        bucket, key = split(beginning)
        for found in self._asked({"Bucket": bucket, "Prefix": key, "Delimiter": "/"}):
            yield from found

    def _asked(self, asked: dict[str, str]) -> Iterator[tuple[StoredObject, ...]]:
        bucket = asked["Bucket"]
        while True:
            with _sorted(f"s3://{bucket}/{asked['Prefix']}", self.endpoint):
                page: dict[str, Any] = self.filesystem().call_s3("list_objects_v2", **asked)
            rows = ({**row, "name": f"{bucket}/{row['Key']}", "size": row["Size"]} for row in page.get("Contents", []))
            yield tuple(_stored(row) for row in rows if not row["name"].endswith("/"))
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def delete(self, uri: str) -> None:
        """Remove one object; removing what is gone already is no error."""
        with _sorted(uri, self.endpoint):
            if self.filesystem().exists(uri):
                self.filesystem().rm_file(uri)


def _stored(info: dict[str, Any]) -> StoredObject:
    etag = str(info.get("ETag", "")).strip('"') or f"{info['size']}-{info.get('LastModified', '')}"
    changed = info.get("LastModified")
    changed_s = changed.timestamp() if isinstance(changed, datetime) else 0.0
    return StoredObject(f"s3://{info['name']}", int(info["size"]), etag, changed_s)


@contextmanager
def _sorted(uri: str, endpoint: S3Endpoint) -> Iterator[None]:
    """Sort what s3fs raises by what the caller can do."""
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
