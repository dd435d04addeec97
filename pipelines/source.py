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
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cluster import storage as store
from cluster.errors import Rejected
from cluster.storage import Storage, StoredObject
from pipelines import local_files, manifest, selection
from pipelines.catalog import Listed
from pipelines.manifest import Entry
from pipelines.remarks import LEFT_OUT, Remark, Remarks, shown
from pipelines.selection import Manifest

UPLOADS, LISTS, THUMBNAILS = "uploads", "uploads/lists", "thumbnails"
MANIFEST_BYTES_MAX = 256 * 1024 * 1024
OBJECTS_MAX = 1_000_000
NAME_MAX = 120
UPLOADED = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}/[^/]+")  # below UPLOADS: what `_uri_of` makes

UNSAID = Entry("-")  # of an object that no row speaks of

Progress = Callable[[str, int, int], None]


def check(uri: str, storage: Storage, buckets: tuple[str, ...]) -> None:
    """Refuse a source that cannot be read, before a job is made of it.

    Raises:
        Rejected: it is no S3 address, its bucket is not configured or does not exist, or nothing lies there.
    """
    check_bucket(uri, buckets)
    bucket, _ = store.split(uri)
    if not storage.exists(f"s3://{bucket}"):
        hint = "create it, or name another"
        raise Rejected(f"bucket {bucket!r} does not exist", status=404, code="not-found", hint=hint)
    if not storage.exists(uri):
        raise Rejected(f"nothing lies under {uri}", status=404, code="nothing-to-do", hint="check the address")


def check_bucket(uri: str, buckets: tuple[str, ...]) -> None:
    """Refuse an address outside the configured buckets; asked again where bytes are fetched.

    Raises:
        Rejected: it is no S3 address, or its bucket is not configured.
    """
    bucket, _ = store.split(uri)
    if bucket not in buckets:
        hint = f"ingest reads {', '.join(buckets)}; add it to [s3] ingest_buckets"
        detail = f"bucket {bucket!r} is not among those that are read"
        raise Rejected(detail, status=403, code="bucket-not-allowed", hint=hint)


@dataclass(frozen=True)
class Listing:
    """What a source holds: its videos, each address once, and what people should know of the rest."""

    videos: list[Listed]
    remarks: list[Remark]


def listed(uri: str, storage: Storage, *, creator: str = "", manifest_uri: str = "") -> Listing:
    """The videos of a source, in the order of their keys.

    Raises:
        Rejected: there is nothing there, or a manifest is none.
    """
    _, key = store.split(uri)
    if key.startswith(LISTS) and key.endswith(".jsonl"):
        return _from_list(storage.read(uri), uri, storage, creator)
    remarks, top = Remarks(), _folder_of(uri, storage)
    objects = {found.uri.removeprefix(f"{top}/"): found for found in _seen(storage.list(uri), remarks)}
    manifests = _manifests(objects, storage, manifest_uri)
    chosen = selection.select(list(objects), manifests, remarks)
    videos = [_listed(objects[path], said, creator) for path, said in chosen if local_files.is_text(path, remarks)]
    if not videos:
        raise _nothing(f"no video under {uri}", "check the address and the names", remarks)
    return Listing(_unique(videos, remarks), remarks.rows())


def _folder_of(uri: str, storage: Storage) -> str:
    """The address that paths are relative to: the prefix, or the folder of the one object that it names."""
    stripped = uri.rstrip("/")
    names_object = manifest.is_video(stripped) and next(storage.list(stripped), None) == storage.info(stripped)
    return stripped.rpartition("/")[0] if names_object else stripped


def _nothing(detail: str, hint: str, remarks: Remarks) -> Rejected:
    said = f" ({remarks.first()})" if remarks.first() else ""
    return Rejected(f"{detail}{said}", status=404, code="nothing-to-do", hint=hint)


def _bounded(objects: Iterator[StoredObject]) -> Iterator[StoredObject]:
    for count, found in enumerate(objects):
        if count >= OBJECTS_MAX:
            raise Rejected(f"more than {OBJECTS_MAX} objects", hint="ingest its folders one by one")
        yield found


def _seen(objects: Iterator[StoredObject], remarks: Remarks) -> Iterator[StoredObject]:
    """Objects but for what Pixr itself keeps in the bucket, and for those whose key is no address that is read."""
    for found in _bounded(objects):
        try:
            _, key = store.split(found.uri)
        except Rejected:
            remarks.add(LEFT_OUT, "its key holds control characters or leads elsewhere", found.uri)
            continue
        if not key.startswith((THUMBNAILS + "/", LISTS + "/")):
            yield found


def _unique(videos: list[Listed], remarks: Remarks) -> list[Listed]:
    """Each address once; the same content under the same name in two folders is one video."""
    first: dict[str, Listed] = {}
    for video in videos:
        if video.source_uri in first:
            remarks.add(LEFT_OUT, "the same object is there twice; its first row counts", video.source_uri)
        first.setdefault(video.source_uri, video)
    return list(first.values())


def _manifests(objects: Mapping[str, StoredObject], storage: Storage, given: str) -> list[Manifest]:
    """The manifest that is given, for the whole source; else each one in it, for its folder."""
    if given:
        return [_read_manifest(given, "", storage.size(given), storage)]
    return [
        _read_manifest(found.uri, path.rpartition("/")[0], found.size, storage)
        for path, found in objects.items()
        if manifest.is_manifest(path)
    ]


def _read_manifest(uri: str, folder: str, size: int, storage: Storage) -> Manifest:
    if size > MANIFEST_BYTES_MAX:
        raise Rejected(f"manifest {uri} is larger than {MANIFEST_BYTES_MAX} bytes")
    name = PurePosixPath(uri).name
    rows = manifest.parse(_text(storage.read(uri), uri), name.lower())
    return Manifest(f"{folder}/{name}" if folder else name, folder, rows)


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Rejected(f"manifest {name} is not UTF-8: {error}") from error


def _listed(found: StoredObject, entry: Entry | None, creator: str) -> Listed:
    said = entry or UNSAID
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


def _from_list(data: bytes, uri: str, storage: Storage, creator: str) -> Listing:
    """A list that `upload` has written: what is there is looked up, so that a changed object is noticed.

    Raises:
        Rejected: Pixr has not written it, or it leads out of what was uploaded.
    """
    if uri != _list_uri(store.split(uri)[0], data):
        raise Rejected(f"{uri} is no list that Pixr has written", status=403, code="bad-list")
    uploads, remarks, videos = f"s3://{store.split(uri)[0]}/{UPLOADS}/", Remarks(), list[Listed]()
    for line in data.decode().splitlines():
        row = json.loads(line)
        if "remark" in row:
            remarks.extend([row["remark"]])
            continue
        if not UPLOADED.fullmatch(str(row["uri"]).removeprefix(uploads)):
            raise Rejected(f"{uri} names an object that was not uploaded", status=403, code="bad-list")
        said = {**row["entry"], "tags": tuple(row["entry"]["tags"])}
        videos.append(_listed(storage.info(row["uri"]), Entry(**said), creator))
    return Listing(_unique(videos, remarks), remarks.rows())


def _list_uri(bucket: str, data: bytes) -> str:
    return f"s3://{bucket}/{LISTS}/{hashlib.sha256(data).hexdigest()[:32]}.jsonl"


def upload(
    path: Path,
    storage: Storage,
    bucket: str,
    manifest_path: Path | None,
    progress: Progress,
    *,
    follow_links: bool = False,
) -> str:
    """Put a local file or folder into S3 and return the source to ingest. What is there already is not sent again.

    Raises:
        Rejected: there is no such path or no video in it.
    """
    remarks = Remarks()
    found = local_files.find(path, manifest_path, remarks, follow_links=follow_links)
    storage.ensure_bucket(bucket)
    rows: list[dict[str, Any]] = []
    for done, (file, uri, said) in enumerate(_each_once(found, path, bucket, remarks)):
        progress(shown(file.name), done, len(found))
        _put(file, uri, storage)
        rows.append({"uri": uri, "entry": dataclasses.asdict(said)})
    if not rows:
        raise _nothing(f"no video in {path} can be read", "look at its files", remarks)
    progress("", len(found), len(found))
    rows += [{"remark": row} for row in remarks.rows()]
    body = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode()
    uri = _list_uri(bucket, body)
    storage.put_bytes(body, uri, "application/jsonl")
    return uri


def local(
    path: Path, bucket: str, manifest_path: Path | None, creator: str = "", *, follow_links: bool = False
) -> Listing:
    """The videos of a local path as `upload` would make them known, without sending any."""
    remarks, videos = Remarks(), list[Listed]()
    found = local_files.find(path, manifest_path, remarks, follow_links=follow_links)
    for file, uri, said in _each_once(found, path, bucket, remarks):
        videos.append(_listed(StoredObject(uri, file.stat().st_size, ""), said, creator))
    return Listing(videos, remarks.rows())


def _each_once(
    found: list[tuple[Path, Entry]], path: Path, bucket: str, remarks: Remarks
) -> Iterator[tuple[Path, str, Entry]]:
    """Local files with their addresses. The same content under the same name in two folders is one video."""
    top, first = path if path.is_dir() else path.parent, dict[str, str]()
    for file, said in found:
        name = str(file.relative_to(top))
        try:
            uri = _uri_of(file, bucket)
        except OSError as error:
            remarks.add(LEFT_OUT, local_files.why(error), name)
            continue
        if uri in first:
            remarks.add(LEFT_OUT, "the same file is there twice; the first one counts", f"{name} is {first[uri]}")
        else:
            first[uri] = name
            yield file, uri, said


def _uri_of(file: Path, bucket: str) -> str:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    name = re.sub(r"[^\w.-]+", "_", file.name)[-NAME_MAX:]
    return f"s3://{bucket}/{UPLOADS}/{digest[:2]}/{digest}/{name}"


def _put(file: Path, uri: str, storage: Storage) -> None:
    if not storage.exists(uri) or storage.size(uri) != file.stat().st_size:
        storage.put_file(file, uri)
