"""Which objects of a bucket belong to a job that may speak for some creators only.

An object is excluded if any manifest of the bucket gives it to another creator, also if the source does not hold that
manifest. Uploads are excluded too, since only an upload list says to whom an upload belongs. Knows objects and
manifests, not what is done with them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from cluster import storage as store
from cluster.errors import Rejected
from cluster.storage import Storage, StoredObject
from pipelines.sources import buckets, lists, manifest, prefixes, selection
from pipelines.sources.handles import UNKNOWN, Known, Rights
from pipelines.sources.listed import Listed
from pipelines.sources.manifest import RefusedRow, Rows
from pipelines.sources.remarks import LEFT_OUT, Remarks
from pipelines.sources.selection import Manifest

log = logging.getLogger(__name__)

GIVEN_ABOVE = "a manifest outside of this key's folders gives it to another creator, or may do so"
UNREAD_ABOVE = "a manifest in a folder above cannot be read, and may give files to others"
ASK = "it is outside of this key's folders: ask who runs this Pixr, whose log of the job names it"


def require_open(uri: str, rights: Rights, own_bucket: str = "", *, is_source: bool = True) -> None:
    """Refuse an address as a source or as a manifest, if the job speaks for some creators only and may not name it.

    The job may name addresses in its folders, except what Pixr itself keeps in `own_bucket`. It may name an upload list
    as its source, but not the uploads, since only the list says to whom they belong.

    Args:
        uri: The address.
        rights: Creators that the job may speak for, and its folders.
        own_bucket: The bucket that Pixr itself writes to.
        is_source: Whether the address is named as a source, rather than as a manifest.

    Raises:
        Rejected: 403; or, whatever the rights, 422 for a key with empty parts, which some stores resolve to another
            object.
    """
    prefixes.require_whole(uri)
    if rights.creators is None or (is_source and lists.is_list(uri)):
        return
    prefixes.require_foreign(uri, own_bucket, is_source=is_source)
    bucket, key = store.split(uri)
    if prefixes.is_upload(uri) or (bucket == own_bucket and not key):
        raise Rejected(f"{uri} holds uploads of others too", status=403, code="not-yours", hint=prefixes.HINT)
    prefixes.require_in(uri, rights.folders)


def covered(read: Manifest, rights: Rights) -> Manifest:
    """Return the manifest; rows that name creators the job may not speak for are among its refused rows.

    The reason of an invalid row is withheld if the row names another creator.
    """
    refused = [
        RefusedRow(row.line, reason, row.entry.file)
        for row in read.rows.good
        if row.entry.creator and (reason := rights.refusal(row.entry.creator))
    ]
    lines = {row.line for row in refused}
    good = tuple(row for row in read.rows.good if row.line not in lines)
    return replace(read, rows=Rows(good, (*(_reworded(row, rights) for row in read.rows.refused), *refused)))


def _reworded(row: RefusedRow, rights: Rights) -> RefusedRow:
    """Return an invalid row without its reason if it names a creator that the job may not speak for."""
    reason = rights.refusal(row.creator) if row.creator else ""
    return replace(row, reason=reason) if reason else row


def manifests_around(
    uri: str, top: str, objects: Mapping[str, StoredObject], storage: Storage, rights: Rights, is_known: Known
) -> Iterator[Manifest]:
    """Yield all manifests of the bucket that may describe a source: those in it, and those in the folders above it.

    So a manifest in a folder above the source counts too, also if a manifest in the source has a row for the same file.

    Args:
        uri: The source.
        top: The URI that the paths of the source are relative to (`buckets.folder_of`).
        objects: The objects of the source by path.
        storage: Object store to read from.
        rights: The folders of the job; errors quote no manifest outside of them.
        is_known: Whether a creator with a handle exists.

    Yields:
        The manifests; the folder of each is a key of the bucket.

    Raises:
        Rejected: a manifest cannot be read, so it is unknown which files it gives to others. If it is outside of the
            job's folders, only the log says which one and why.
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
        yield _read(stored, storage, rights, is_known)


def _read(stored: StoredObject, storage: Storage, rights: Rights, is_known: Known) -> Manifest:
    """Read a manifest of the bucket; its folder is given as a key of the bucket.

    Raises:
        Rejected: 422, it cannot be read.
    """
    folder = store.split(stored.uri)[1].rpartition("/")[0]
    try:
        return buckets.read_manifest(stored.uri, folder, stored.size, storage, is_known)
    except Rejected as error:
        hint = "it may give files to others: mend it, split it, or delete it; a job for any creator does without it"
        if not prefixes.is_in_any(stored.uri, rights.folders):
            log.warning("a manifest above the folders of a job cannot be read: %s", error)
            raise Rejected(UNREAD_ABOVE, status=422, code="bad-manifest", hint=ASK) from error
        raise Rejected(error.detail, status=422, code="bad-manifest", hint=hint) from error


def others(
    bucket: str, objects: Sequence[StoredObject], manifests: Iterable[Manifest], rights: Rights
) -> dict[str, str]:
    """Return why objects do not belong to the job, by URI: they are uploads, or given to other creators by a manifest.

    Args:
        bucket: The bucket of the objects.
        objects: The objects of a source.
        manifests: All manifests that may give the objects to a creator (`manifests_around`).
        rights: Creators that the job may speak for, and its folders; no reason quotes a manifest outside of them.

    Returns:
        The reason by URI, only for objects that are not the job's.
    """
    keys = {store.split(stored.uri)[1]: stored.uri for stored in objects}
    inside, above = list[Manifest](), list[Manifest]()
    for each in manifests:
        is_inside = prefixes.is_in_any(f"s3://{bucket}/{each.name}", rights.folders)
        (inside if is_inside else above).append(covered(each, rights))
    paths = list(keys)
    refused_keys = dict.fromkeys(selection.refused(paths, above), GIVEN_ABOVE) | selection.refused(paths, inside)
    reasons = {keys[key]: reason for key, reason in refused_keys.items()}
    return reasons | {
        uri: "whose an upload is stands in its list alone" for uri in keys.values() if prefixes.is_upload(uri)
    }


def without(
    objects: Mapping[str, StoredObject], reasons: Mapping[str, str], remarks: Remarks
) -> dict[str, StoredObject]:
    """Return the objects without those in `reasons`; excluded videos are only counted, as the job may not know their names."""
    for path, stored in objects.items():
        if stored.uri in reasons and manifest.is_video(path):
            remarks.add(LEFT_OUT, reasons[stored.uri])
    return {path: stored for path, stored in objects.items() if stored.uri not in reasons}


def is_covered(video: Listed, rights: Rights, remarks: Remarks) -> bool:
    """Whether the job may speak for a video's creator; if not, add a remark.

    The remark names the video only if its creator is unknown.
    """
    reason = rights.refusal(video.creator)
    if reason:
        remarks.add(LEFT_OUT, reason, video.source_uri.rpartition("/")[2] if video.creator == UNKNOWN else "")
    return not reason
