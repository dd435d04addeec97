"""Reading a bucket as a source: a bounded list of its objects without Pixr's own, and manifests up to a size.

Knows objects and manifests, not which of them a job may use.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from cluster import storage as store
from cluster.errors import Rejected
from cluster.storage import Storage, StoredObject
from pipelines.media import THUMBNAILS
from pipelines.sources import manifest, prefixes
from pipelines.sources.handles import Known
from pipelines.sources.lists import LISTS
from pipelines.sources.remarks import LEFT_OUT, Remarks
from pipelines.sources.selection import Manifest

OBJECTS_MAX = 1_000_000


def folder_of(uri: str, storage: Storage) -> str:
    """Return the URI that paths of a source are relative to: its prefix, or the folder of the one object it names."""
    stripped = uri.rstrip("/")
    names_object = manifest.is_video(stripped) and next(storage.list(stripped), None) == storage.info(stripped)
    return stripped.rpartition("/")[0] if names_object else stripped


def bounded(objects: Iterator[StoredObject]) -> Iterator[StoredObject]:
    """Yield the objects.

    Raises:
        Rejected: there are more than `OBJECTS_MAX`.
    """
    for count, stored in enumerate(objects):
        if count >= OBJECTS_MAX:
            raise Rejected(f"more than {OBJECTS_MAX} objects", hint="ingest its folders one by one")
        yield stored


def source_objects(objects: Iterator[StoredObject], remarks: Remarks, own_bucket: str = "") -> Iterator[StoredObject]:
    """Yield the objects of a source, except those that Pixr itself has made and those with an invalid key.

    Uploaded videos are yielded.
    """
    for stored in bounded(objects):
        try:
            _, key = store.split(stored.uri)
        except Rejected:
            remarks.add(LEFT_OUT, "its key holds control characters or leads elsewhere", stored.uri)
            continue
        is_own = prefixes.is_own(stored.uri, own_bucket) and not prefixes.is_upload(stored.uri)
        if not is_own and not key.startswith((THUMBNAILS + "/", LISTS + "/")):
            yield stored


def read_manifest(uri: str, folder: str, size: int, storage: Storage, is_known: Known) -> Manifest:
    """Read and parse a manifest.

    Args:
        uri: Where the manifest is; its name decides between CSV and JSON lines.
        folder: Folder of the source that it applies to, relative to the top; "" for the top.
        size: Size of the object in bytes.
        storage: Object store to read from.
        is_known: Whether a creator with a handle exists.

    Returns:
        The manifest with its valid and refused rows.

    Raises:
        Rejected: it is larger than `manifest.BYTES_MAX`, or cannot be parsed as a manifest.
    """
    if size > manifest.BYTES_MAX:
        raise Rejected(f"manifest {uri} is larger than {manifest.BYTES_MAX} bytes", hint="split the folder")
    name = PurePosixPath(uri).name
    rows = manifest.parse(manifest.text_of(storage.read(uri), uri), uri, is_known)
    return Manifest(f"{folder}/{name}" if folder else name, folder, rows)
