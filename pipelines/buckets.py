"""What lies in a bucket, as sources see it: objects up to a number, without Pixr's own; manifests up to a size.

Knows objects and manifests, not which of them a job may use.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from cluster import storage as store
from cluster.errors import Rejected
from cluster.storage import Storage, StoredObject
from pipelines import manifest, prefixes
from pipelines.handles import Known
from pipelines.lists import LISTS
from pipelines.remarks import LEFT_OUT, Remarks
from pipelines.selection import Manifest
from pipelines.thumbnails import THUMBNAILS

OBJECTS_MAX = 1_000_000


def folder_of(uri: str, storage: Storage) -> str:
    """The address that paths are relative to: the prefix, or the folder of the one object that it names."""
    stripped = uri.rstrip("/")
    names_object = manifest.is_video(stripped) and next(storage.list(stripped), None) == storage.info(stripped)
    return stripped.rpartition("/")[0] if names_object else stripped


def bounded(objects: Iterator[StoredObject]) -> Iterator[StoredObject]:
    """Objects, refused where there are too many."""
    for count, found in enumerate(objects):
        if count >= OBJECTS_MAX:
            raise Rejected(f"more than {OBJECTS_MAX} objects", hint="ingest its folders one by one")
        yield found


def seen(objects: Iterator[StoredObject], remarks: Remarks, own_bucket: str = "") -> Iterator[StoredObject]:
    """Objects but for what Pixr itself keeps in its bucket beside uploads, and for those whose key is no address that is
    read.
    """
    for found in bounded(objects):
        try:
            _, key = store.split(found.uri)
        except Rejected:
            remarks.add(LEFT_OUT, "its key holds control characters or leads elsewhere", found.uri)
            continue
        is_own = prefixes.is_own(found.uri, own_bucket) and not prefixes.is_upload(found.uri)
        if not is_own and not key.startswith((THUMBNAILS + "/", LISTS + "/")):
            yield found


def read_manifest(uri: str, folder: str, size: int, storage: Storage, is_known: Known) -> Manifest:
    """A manifest that applies to a folder ("" for the top).

    Raises:
        Rejected: it is too large, or no manifest.
    """
    if size > manifest.BYTES_MAX:
        raise Rejected(f"manifest {uri} is larger than {manifest.BYTES_MAX} bytes", hint="split the folder")
    name = PurePosixPath(uri).name
    rows = manifest.parse(manifest.text_of(storage.read(uri), uri), uri, is_known)
    return Manifest(f"{folder}/{name}" if folder else name, folder, rows)
