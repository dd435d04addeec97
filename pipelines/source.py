"""Where videos come from: a prefix in S3, or a local folder that is first put there under the hash of its content.

A source is listed once a job. Words about the videos come from a manifest beside them. Only configured buckets are
read. Knows objects and manifests, not what is done with them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from cluster import storage as store
from cluster.errors import Rejected
from cluster.storage import Storage, StoredObject
from pipelines import manifest
from pipelines.catalog import Listed
from pipelines.manifest import Entry

UPLOADS, LISTS, THUMBNAILS = "uploads", "uploads/lists", "thumbnails"
MANIFEST_BYTES_MAX = 256 * 1024 * 1024
OBJECTS_MAX = 1_000_000
NAME_MAX = 120

Progress = Callable[[str, int, int], None]


def check(uri: str, storage: Storage, buckets: tuple[str, ...]) -> None:
    """Refuse a source that cannot be read, before a job is made of it.

    Raises:
        Rejected: it is no S3 address, its bucket is not configured or does not exist, or nothing lies there.
    """
    bucket, _ = store.split(uri)
    if bucket not in buckets:
        hint = f"ingest reads {', '.join(buckets)}; add it to [s3] ingest_buckets"
        detail = f"bucket {bucket!r} is not among those that are read"
        raise Rejected(detail, status=403, code="bucket-not-allowed", hint=hint)
    if not storage.exists(f"s3://{bucket}"):
        hint = "create it, or name another"
        raise Rejected(f"bucket {bucket!r} does not exist", status=404, code="not-found", hint=hint)
    if not storage.exists(uri):
        raise Rejected(f"nothing lies under {uri}", status=404, code="nothing-to-do", hint="check the address")


def listed(uri: str, storage: Storage, *, creator: str = "", manifest_uri: str = "") -> list[Listed]:
    """The videos of a source, in the order of their keys.

    Raises:
        Rejected: there is nothing there, or a manifest is wrong.
    """
    _, key = store.split(uri)
    if key.startswith(LISTS) and key.endswith(".jsonl"):
        return _from_list(storage.read(uri).decode(), storage, creator)
    objects = {found.uri: found for found in _bounded(storage.list(uri))}
    entries = _entries(uri, objects, storage, manifest_uri)
    videos = [_listed(found, entries.get(found.uri), creator) for found in objects.values() if _wanted(found, entries)]
    if not videos:
        hint = "check the address and the names"
        raise Rejected(f"no video under {uri}", status=404, code="nothing-to-do", hint=hint)
    return videos


def _bounded(objects: Iterator[StoredObject]) -> Iterator[StoredObject]:
    for count, found in enumerate(objects):
        if count >= OBJECTS_MAX:
            raise Rejected(f"more than {OBJECTS_MAX} objects", hint="ingest its folders one by one")
        yield found


def _wanted(found: StoredObject, entries: Mapping[str, Entry]) -> bool:
    key = store.split(found.uri)[1]
    if key.startswith((THUMBNAILS + "/", LISTS + "/")):
        return False
    return found.uri in entries or manifest.is_video(key)


def _entries(uri: str, objects: Mapping[str, StoredObject], storage: Storage, given: str) -> dict[str, Entry]:
    """Manifest rows by the URI they speak of."""
    names = [given] if given else [each for each in objects if PurePosixPath(each).name in manifest.NAMES]
    entries: dict[str, Entry] = {}
    for name in names:
        if name in objects and objects[name].size > MANIFEST_BYTES_MAX:
            raise Rejected(f"manifest {name} is larger than {MANIFEST_BYTES_MAX} bytes")
        folder = uri.rstrip("/") if given else name.rpartition("/")[0]
        rows = manifest.parse(_text(storage.read(name), name), PurePosixPath(name).name)
        entries |= {f"{folder}/{file}": entry for file, entry in rows.items()}
    return entries


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Rejected(f"manifest {name} is not UTF-8: {error}") from error


def _listed(found: StoredObject, entry: Entry | None, creator: str) -> Listed:
    said = entry or Entry(PurePosixPath(found.uri).name)
    return Listed(
        source_uri=found.uri,
        etag=found.etag,
        size=found.size,
        creator=said.creator or creator or manifest.DEFAULT_CREATOR,
        title=said.title or manifest.title_of(PurePosixPath(found.uri).name),
        description=said.description,
        tags=said.tags,
        wallet=said.wallet,
        visibility=said.visibility,
        language=said.language,
    )


def _from_list(text: str, storage: Storage, creator: str) -> list[Listed]:
    """A list that `upload` has written: what is there is looked up, so that a changed object is noticed."""
    videos = []
    for line in text.splitlines():
        row = json.loads(line)
        found = storage.info(row["uri"])
        said = {**row["entry"], "tags": tuple(row["entry"]["tags"])}
        videos.append(_listed(found, Entry(**said), creator))
    return videos


def upload(path: Path, storage: Storage, bucket: str, manifest_path: Path | None, progress: Progress) -> str:
    """Put a local file or folder into S3 and return the source to ingest. What is there already is not sent again.

    Raises:
        Rejected: there is no such path or no video in it.
    """
    found = _local(path, manifest_path)
    storage.ensure_bucket(bucket)
    rows = []
    for done, (file, said) in enumerate(found):
        progress(file.name, done, len(found))
        rows.append({"uri": _put(file, storage, bucket), "entry": dataclasses.asdict(said)})
    progress("", len(found), len(found))
    body = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode()
    uri = f"s3://{bucket}/{LISTS}/{hashlib.sha256(body).hexdigest()[:32]}.jsonl"
    storage.put_bytes(body, uri, "application/jsonl")
    return uri


def local(path: Path, bucket: str, manifest_path: Path | None, creator: str = "") -> list[Listed]:
    """The videos of a local path as `upload` would make them known, without sending any."""
    return [
        _listed(StoredObject(_uri_of(file, bucket), file.stat().st_size, ""), said, creator)
        for file, said in _local(path, manifest_path)
    ]


def _local(path: Path, manifest_path: Path | None) -> list[tuple[Path, Entry]]:
    if not path.exists():
        raise Rejected(f"{path} does not exist", code="not-found", hint="name a file, a folder or s3://bucket/prefix")
    folder = path if path.is_dir() else path.parent
    entries = _local_entries(folder, manifest_path)
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    if path.is_dir():
        files = [file for file in files if manifest.is_video(file.name) or str(file.relative_to(folder)) in entries]
    if not files:
        hint = f"known endings: {' '.join(manifest.VIDEO_ENDINGS)}"
        raise Rejected(f"no video in {path}", code="nothing-to-do", hint=hint)
    plain = {file: Entry(file.name, title=manifest.title_of(file.name)) for file in files}
    return [(file, entries.get(str(file.relative_to(folder))) or plain[file]) for file in files]


def _local_entries(folder: Path, given: Path | None) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    paths = [given] if given else [folder / name for name in manifest.NAMES if (folder / name).is_file()]
    for path in paths:
        if not path.is_file():
            raise Rejected(f"manifest {path} does not exist", code="not-found")
        entries |= manifest.parse(_text(path.read_bytes(), str(path)), path.name)
    return entries


def _uri_of(file: Path, bucket: str) -> str:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    name = re.sub(r"[^\w.-]+", "_", file.name)[-NAME_MAX:]
    return f"s3://{bucket}/{UPLOADS}/{digest[:2]}/{digest}/{name}"


def _put(file: Path, storage: Storage, bucket: str) -> str:
    uri = _uri_of(file, bucket)
    if not storage.exists(uri) or storage.size(uri) != file.stat().st_size:
        storage.put_file(file, uri)
    return uri
