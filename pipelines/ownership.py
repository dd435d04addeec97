"""Which objects of a bucket a job may use that speaks for some creators only.

What a manifest of the bucket gives to another creator is not the job's, however the source is cut; whose an upload is
stands in its list alone. Knows objects and manifests, not what is done with them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from cluster import storage as store
from cluster.errors import Rejected
from cluster.storage import Storage, StoredObject
from pipelines import buckets, lists, manifest, prefixes, selection
from pipelines.handles import UNKNOWN, Known, Rights
from pipelines.listed import Listed
from pipelines.manifest import RefusedRow, Rows
from pipelines.remarks import LEFT_OUT, Remarks
from pipelines.selection import Manifest

log = logging.getLogger(__name__)

GIVEN_ABOVE = "a manifest outside of this key's folders gives it to another creator, or may do so"
UNREAD_ABOVE = "a manifest in a folder above cannot be read, and may give files to others"
ASK = "it is outside of this key's folders: ask who runs this Pixr, whose log of the job names it"


def require_open(uri: str, rights: Rights, own_bucket: str = "", *, is_source: bool = True) -> None:
    """Refuse an address as a source, or as a manifest, where a job speaks for some creators only and it is not in the job's
    folders, or holds what Pixr itself keeps in `own_bucket`. Of uploads only lists are sources: whose an upload is stands
    in its list alone.

    Raises:
        Rejected: 403; or 422 to everybody, its key has empty parts.
    """
    prefixes.require_whole(uri)
    if rights.creators is None or (is_source and lists.is_list(uri)):
        return
    prefixes.require_foreign(uri, own_bucket, is_source=is_source)
    bucket, key = store.split(uri)
    if prefixes.is_upload(uri) or (bucket == own_bucket and not key):
        raise Rejected(f"{uri} holds uploads of others too", status=403, code="not-yours", hint=prefixes.HINT)
    prefixes.require_in(uri, rights.folders)


def covered(each: Manifest, rights: Rights) -> Manifest:
    """A manifest whose rows for creators that the job may not speak for are refused. What is wrong with one that cannot be
    read is not the job's to know where it names another creator.
    """
    refused = [
        RefusedRow(row.line, said, row.entry.file)
        for row in each.rows.good
        if row.entry.creator and (said := rights.refusal(row.entry.creator))
    ]
    lines = {row.line for row in refused}
    good = tuple(row for row in each.rows.good if row.line not in lines)
    return replace(each, rows=Rows(good, (*(_told(row, rights) for row in each.rows.refused), *refused)))


def _told(row: RefusedRow, rights: Rights) -> RefusedRow:
    said = rights.refusal(row.creator) if row.creator else ""
    return replace(row, reason=said) if said else row


def around(
    uri: str, top: str, objects: Mapping[str, StoredObject], storage: Storage, rights: Rights, is_known: Known
) -> Iterator[Manifest]:
    """All manifests of the bucket that speak of a source: those in it and those of the folders above. Neither a deeper
    source nor a deeper manifest nor one of one's own hides what another says.

    Raises:
        Rejected: one cannot be read. What it gives to others cannot be told from what is the job's. What is wrong with one
            that is outside of the job's folders, and where it is, the log says alone.
    """
    found = [each for each in objects.values() if manifest.is_manifest(each.uri)]
    bucket, folder = store.split(top)
    folders = [folder] if top != uri.rstrip("/") else []  # one object: of its own folder nothing is listed
    while folder:
        folder = folder.rpartition("/")[0]
        folders.append(folder)
    for above in folders:
        for initial in manifest.INITIALS:
            begun = f"s3://{bucket}/{above}/{initial}" if above else f"s3://{bucket}/{initial}"
            found += [one for one in buckets.bounded(storage.named(begun)) if manifest.is_manifest(one.uri)]
    for each in found:
        yield _read(each, storage, rights, is_known)


def _read(found: StoredObject, storage: Storage, rights: Rights, is_known: Known) -> Manifest:
    folder = store.split(found.uri)[1].rpartition("/")[0]
    try:
        return buckets.read_manifest(found.uri, folder, found.size, storage, is_known)
    except Rejected as error:
        hint = "it may give files to others: mend it, split it, or delete it; a job for any creator does without it"
        if not prefixes.is_in_any(found.uri, rights.folders):
            log.warning("a manifest above the folders of a job cannot be read: %s", error)
            raise Rejected(UNREAD_ABOVE, status=422, code="bad-manifest", hint=ASK) from error
        raise Rejected(error.detail, status=422, code="bad-manifest", hint=hint) from error


def others(
    bucket: str, objects: Sequence[StoredObject], manifests: Iterable[Manifest], rights: Rights
) -> dict[str, str]:
    """Addresses of objects of a bucket that are not the job's, with the reason: uploads, and those given to other creators.
    Of what stands in manifests outside of the job's folders no reason tells anything.
    """
    keys = {store.split(found.uri)[1]: found.uri for found in objects}
    inside, above = list[Manifest](), list[Manifest]()
    for each in manifests:
        is_inside = prefixes.is_in_any(f"s3://{bucket}/{each.name}", rights.folders)
        (inside if is_inside else above).append(covered(each, rights))
    paths = list(keys)
    given = dict.fromkeys(selection.refused(paths, above), GIVEN_ABOVE) | selection.refused(paths, inside)
    named = {keys[key]: reason for key, reason in given.items()}
    return named | {
        uri: "whose an upload is stands in its list alone" for uri in keys.values() if prefixes.is_upload(uri)
    }


def without(
    objects: Mapping[str, StoredObject], reasons: Mapping[str, str], remarks: Remarks
) -> dict[str, StoredObject]:
    """Objects by their paths but for those of `others`, whose videos are counted: their names are not the job's to know."""
    for path, found in objects.items():
        if found.uri in reasons and manifest.is_video(path):
            remarks.add(LEFT_OUT, reasons[found.uri])
    return {path: found for path, found in objects.items() if found.uri not in reasons}


def is_covered(video: Listed, rights: Rights, remarks: Remarks) -> bool:
    """Whether the job may speak for a video's creator; one that it may not list is counted, and named if it is nobody's."""
    said = rights.refusal(video.creator)
    if said:
        remarks.add(LEFT_OUT, said, video.source_uri.rpartition("/")[2] if video.creator == UNKNOWN else "")
    return not said
