"""Which objects of a bucket belong to a job that may speak for some creators only.

Objects that any manifest of the bucket gives to another creator are excluded, however the source is cut; whose an
upload is stands in its upload list alone. Knows objects and manifests, not what is done with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from cluster import storage as store
from cluster.errors import Rejected
from cluster.storage import Storage, StoredObject
from pipelines.sources import buckets, lists, manifest, selection
from pipelines.sources.handles import UNKNOWN, Known, Rights
from pipelines.sources.listed import Listed
from pipelines.sources.lists import UPLOADS
from pipelines.sources.manifest import RefusedRow, Rows
from pipelines.sources.remarks import LEFT_OUT, Remarks
from pipelines.sources.selection import Manifest


def require_open(uri: str, rights: Rights, own_bucket: str = "") -> None:
    """Refuse a source that could hold other creators' uploads, if the job speaks for some creators only.

    That is the folder of uploads, and the whole of `own_bucket`, which contains it. Only an upload list says whose an
    upload is.

    Raises:
        Rejected: 403; or, whatever the rights, 422 for a key with empty parts, which some stores resolve to another
            object.
    """
    bucket, key = store.split(uri)
    if key.startswith("/") or "//" in key:
        raise Rejected(f"{uri!r} has empty parts", 422, "bad-address", "write one slash between the parts of a key")
    if rights.creators is None or lists.is_list(uri):
        return
    if _is_upload(uri) or (bucket == own_bucket and not key):
        hint = "name the list that `pixr ingest` has made, or a folder of your own"
        raise Rejected(f"{uri} holds uploads of others too", status=403, code="not-yours", hint=hint)


def _is_upload(uri: str) -> bool:
    """Whether a URI is in the folder of uploads."""
    return f"{store.split(uri)[1]}/".startswith(f"{UPLOADS}/")


def covered(read: Manifest, rights: Rights) -> Manifest:
    """Return the manifest with rows refused that name creators the job may not speak for."""
    refused = [
        RefusedRow(row.line, reason, row.entry.file)
        for row in read.rows.good
        if row.entry.creator and (reason := rights.refusal(row.entry.creator))
    ]
    lines = {row.line for row in refused}
    good = tuple(row for row in read.rows.good if row.line not in lines)
    return replace(read, rows=Rows(good, (*read.rows.refused, *refused)))


def manifests_around(
    uri: str, top: str, objects: Mapping[str, StoredObject], storage: Storage, is_known: Known
) -> Iterator[Manifest]:
    """Yield all manifests of the bucket that may describe a source: those in it, and those in the folders above it.

    So neither a deeper source, nor a deeper manifest, nor one's own manifest hides what another one says.

    Args:
        uri: The source.
        top: The URI that the paths of the source are relative to (`buckets.folder_of`).
        objects: The objects of the source by path.
        storage: Object store to read from.
        is_known: Whether a creator with a handle exists.

    Yields:
        The manifests; the folder of each is a key of the bucket.

    Raises:
        Rejected: a manifest cannot be read, so it is unknown which files it gives to others.
    """
    manifests = [stored for stored in objects.values() if manifest.is_manifest(stored.uri)]
    bucket, folder = store.split(top)
    folders = [folder] if top != uri.rstrip("/") else []  # a source of one object: its own folder was not listed
    while folder:
        folder = folder.rpartition("/")[0]
        folders.append(folder)
    for parent in folders:
        for initial in manifest.INITIALS:
            prefix = f"s3://{bucket}/{parent}/{initial}" if parent else f"s3://{bucket}/{initial}"
            manifests += [
                stored for stored in buckets.bounded(storage.named(prefix)) if manifest.is_manifest(stored.uri)
            ]
    for stored in manifests:
        yield _read(stored, storage, is_known)


def _read(stored: StoredObject, storage: Storage, is_known: Known) -> Manifest:
    """Read a manifest whose folder is a key of the bucket; one that cannot be read is refused with 422."""
    folder = store.split(stored.uri)[1].rpartition("/")[0]
    try:
        return buckets.read_manifest(stored.uri, folder, stored.size, storage, is_known)
    except Rejected as error:
        hint = "it may give files to others: mend it, split it, or delete it; a job for any creator does without it"
        raise Rejected(error.detail, status=422, code="bad-manifest", hint=hint) from error


def others(objects: Sequence[StoredObject], manifests: Iterable[Manifest], rights: Rights) -> dict[str, str]:
    """Return the objects that are not the job's, by URI, with the reason: uploads, and those given to other creators."""
    keys = {store.split(stored.uri)[1]: stored.uri for stored in objects}
    refused_keys = selection.refused(list(keys), [covered(each, rights) for each in manifests])
    reasons = {keys[key]: reason for key, reason in refused_keys.items()}
    return reasons | {uri: "whose an upload is stands in its list alone" for uri in keys.values() if _is_upload(uri)}


def without(
    objects: Mapping[str, StoredObject], reasons: Mapping[str, str], remarks: Remarks
) -> dict[str, StoredObject]:
    """Return the objects without those in `reasons`; excluded videos are only counted, as the job may not know their names."""
    for path, stored in objects.items():
        if stored.uri in reasons and manifest.is_video(path):
            remarks.add(LEFT_OUT, reasons[stored.uri])
    return {path: stored for path, stored in objects.items() if stored.uri not in reasons}


def is_covered(video: Listed, rights: Rights, remarks: Remarks) -> bool:
    """Whether the job may speak for a video's creator; a refused video is counted, and named only if its creator is unknown."""
    reason = rights.refusal(video.creator)
    if reason:
        remarks.add(LEFT_OUT, reason, video.source_uri.rpartition("/")[2] if video.creator == UNKNOWN else "")
    return not reason
