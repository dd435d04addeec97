"""Which objects of a bucket a job may use that speaks for some creators only.

What a manifest of the bucket gives to another creator is not the job's, however the source is cut; whose an upload is
stands in its list alone. Knows objects and manifests, not what is done with them.
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
    """Refuse uploads as a source where a job speaks for some creators only: whose they are stands in their list alone.
    What lies in the folder of uploads is refused, and the whole of `own_bucket`, where Pixr puts them.

    Raises:
        Rejected: 403; or 422 to everybody, its key has empty parts, by which some stores find what has another address.
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
    return f"{store.split(uri)[1]}/".startswith(f"{UPLOADS}/")


def covered(each: Manifest, rights: Rights) -> Manifest:
    """A manifest whose rows for creators that the job may not speak for are refused."""
    refused = [
        RefusedRow(row.line, said, row.entry.file)
        for row in each.rows.good
        if row.entry.creator and (said := rights.refusal(row.entry.creator))
    ]
    lines = {row.line for row in refused}
    good = tuple(row for row in each.rows.good if row.line not in lines)
    return replace(each, rows=Rows(good, (*each.rows.refused, *refused)))


def around(
    uri: str, top: str, objects: Mapping[str, StoredObject], storage: Storage, is_known: Known
) -> Iterator[Manifest]:
    """All manifests of the bucket that speak of a source: those in it and those of the folders above. Neither a deeper
    source nor a deeper manifest nor one of one's own hides what another says.

    Raises:
        Rejected: one cannot be read. What it gives to others cannot be told from what is the job's.
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
        yield _read(each, storage, is_known)


def _read(found: StoredObject, storage: Storage, is_known: Known) -> Manifest:
    folder = store.split(found.uri)[1].rpartition("/")[0]
    try:
        return buckets.read_manifest(found.uri, folder, found.size, storage, is_known)
    except Rejected as error:
        hint = "it may give files to others: mend it, split it, or delete it; a job for any creator does without it"
        raise Rejected(error.detail, status=422, code="bad-manifest", hint=hint) from error


def others(objects: Sequence[StoredObject], manifests: Iterable[Manifest], rights: Rights) -> dict[str, str]:
    """Addresses of objects that are not the job's, with the reason: uploads, and those given to other creators."""
    keys = {store.split(found.uri)[1]: found.uri for found in objects}
    given = selection.refused(list(keys), [covered(each, rights) for each in manifests])
    named = {keys[key]: reason for key, reason in given.items()}
    return named | {uri: "whose an upload is stands in its list alone" for uri in keys.values() if _is_upload(uri)}


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
