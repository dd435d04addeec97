"""Where videos come from: a prefix in S3, or a local folder that is first put there under the hash of its content.

A source is listed once a job. Words about the videos come from a manifest beside them. Only configured buckets are
read. Knows objects and manifests, not what is done with them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from cluster import storage as store
from cluster.errors import Rejected
from cluster.storage import Storage, StoredObject
from pipelines import lists, local_files, manifest, selection
from pipelines.handles import ANYBODY, Known, Rights, nobody
from pipelines.listed import Listed
from pipelines.lists import LISTS, UPLOADS
from pipelines.manifest import Entry, RefusedRow, Rows
from pipelines.remarks import LEFT_OUT, Remark, Remarks, shown
from pipelines.selection import Manifest
from pipelines.thumbnails import THUMBNAILS

OBJECTS_MAX = 1_000_000
NAME_MAX = 120

UNSAID = Entry("-")  # of an object that no row speaks of

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


@dataclass(frozen=True)
class Listing:
    """What a source holds: its videos, each address once, and what people should know of the rest."""

    videos: list[Listed]
    remarks: list[Remark]


def require_open(uri: str, rights: Rights) -> None:
    """Refuse uploads as a source where a job speaks for some creators only: whose they are stands in their list alone.

    Raises:
        Rejected: 403; or 422, its key has empty parts, by which some stores find what has another address.
    """
    if rights.creators is None or lists.is_list(uri):
        return
    key = store.split(uri)[1]
    if key.startswith("/") or "//" in key:
        raise Rejected(f"{uri!r} has empty parts", 422, "bad-address", "write one slash between the parts of a key")
    if _is_upload(uri):
        hint = "name the list that `pixr ingest` has made, or a folder of your own"
        raise Rejected(f"{uri} holds uploads of others too", status=403, code="not-yours", hint=hint)


def _is_upload(uri: str) -> bool:
    return f"{store.split(uri)[1]}/".startswith(f"{UPLOADS}/")


def listed(
    uri: str,
    storage: Storage,
    *,
    creator: str = "",
    manifest_uri: str = "",
    rights: Rights = ANYBODY,
    is_known: Known = nobody,
) -> Listing:
    """The videos of a source, in the order of their keys; without those of creators that the job may not speak for.

    Raises:
        Rejected: there is nothing there, or a manifest is none, or it is not the job's to list.
    """
    require_open(uri, rights)
    remarks = Remarks()
    if lists.is_list(uri):
        found = [_listed(seen, entry, creator) for seen, entry in lists.read(storage, uri, remarks, is_known)]
    else:
        top = _folder_of(uri, storage)
        objects = {found.uri.removeprefix(f"{top}/"): found for found in _seen(storage.list(uri), remarks)}
        if rights.creators is not None:
            around = _around(uri, top, objects, storage, is_known, is_given=bool(manifest_uri))
            others = _others(list(objects.values()), around, rights)
            objects = _without(objects, others, remarks)
        manifests = [_covered(each, rights) for each in _manifests(objects, storage, manifest_uri, is_known)]
        chosen = selection.select(list(objects), manifests, remarks)
        found = [_listed(objects[path], said, creator) for path, said in chosen if local_files.is_text(path, remarks)]
    videos = [video for video in _unique(found, remarks) if _is_covered(video, rights, remarks)]
    if not videos:
        raise _nothing(f"no video under {uri}", "check the address and the names", remarks)
    return Listing(videos, remarks.rows())


def _covered(each: Manifest, rights: Rights) -> Manifest:
    """A manifest whose rows for creators that the job may not speak for are refused."""
    refused = [
        RefusedRow(row.line, said, row.entry.file)
        for row in each.rows.good
        if row.entry.creator and (said := rights.refusal(row.entry.creator))
    ]
    lines = {row.line for row in refused}
    good = tuple(row for row in each.rows.good if row.line not in lines)
    return replace(each, rows=Rows(good, (*each.rows.refused, *refused)))


def _around(
    uri: str, top: str, objects: Mapping[str, StoredObject], storage: Storage, is_known: Known, *, is_given: bool
) -> Iterator[Manifest]:
    """Manifests of the bucket that speak of a source and are not applied to it: those of the folders above, and those
    in it in place of which another one is given. Neither a deeper source nor a manifest of one's own hides them.
    """
    found = [each for each in objects.values() if is_given and manifest.is_manifest(each.uri)]
    bucket, folder = store.split(top)
    folders = [folder] if top != uri.rstrip("/") else []  # one object: of its own folder nothing is listed
    while folder:
        folder = folder.rpartition("/")[0]
        folders.append(folder)
    for above in folders:
        for initial in manifest.INITIALS:
            begun = f"s3://{bucket}/{above}/{initial}" if above else f"s3://{bucket}/{initial}"
            found += [one for one in _bounded(storage.named(begun)) if manifest.is_manifest(one.uri)]
    for each in found:
        yield _read_manifest(each.uri, store.split(each.uri)[1].rpartition("/")[0], each.size, storage, is_known)


def _others(objects: Sequence[StoredObject], manifests: Iterable[Manifest], rights: Rights) -> dict[str, str]:
    """Addresses of objects that are not the job's, with the reason: uploads, and those given to other creators."""
    keys = {store.split(found.uri)[1]: found.uri for found in objects}
    given = selection.refused(list(keys), [_covered(each, rights) for each in manifests])
    others = {keys[key]: reason for key, reason in given.items()}
    return others | {uri: "whose an upload is stands in its list alone" for uri in keys.values() if _is_upload(uri)}


def _without(
    objects: Mapping[str, StoredObject], others: Mapping[str, str], remarks: Remarks
) -> dict[str, StoredObject]:
    for path, found in objects.items():
        if found.uri in others and manifest.is_video(path):
            remarks.add(LEFT_OUT, others[found.uri], path)
    return {path: found for path, found in objects.items() if found.uri not in others}


def _is_covered(video: Listed, rights: Rights, remarks: Remarks) -> bool:
    said = rights.refusal(video.creator)
    if said:
        remarks.add(LEFT_OUT, said, video.source_uri.rpartition("/")[2])
    return not said


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


def _manifests(objects: Mapping[str, StoredObject], storage: Storage, given: str, is_known: Known) -> list[Manifest]:
    """The manifest that is given, for the whole source; else each one in it, for its folder."""
    if given:
        return [_read_manifest(given, "", storage.size(given), storage, is_known)]
    return [
        _read_manifest(found.uri, path.rpartition("/")[0], found.size, storage, is_known)
        for path, found in objects.items()
        if manifest.is_manifest(path)
    ]


def _read_manifest(uri: str, folder: str, size: int, storage: Storage, is_known: Known) -> Manifest:
    if size > manifest.BYTES_MAX:
        raise Rejected(f"manifest {uri} is larger than {manifest.BYTES_MAX} bytes", hint="split the folder")
    name = PurePosixPath(uri).name
    rows = manifest.parse(manifest.text_of(storage.read(uri), uri), name.lower(), is_known)
    return Manifest(f"{folder}/{name}" if folder else name, folder, rows)


def _listed(found: StoredObject, entry: Entry | None, creator: str) -> Listed:
    said = entry or UNSAID
    file = entry.file if entry and "\\" not in entry.file else found.uri
    return Listed(
        source_uri=found.uri,
        etag=found.etag,
        size=found.size,
        creator=said.creator or creator or manifest.DEFAULT_CREATOR,
        title=said.title or manifest.title_of(PurePosixPath(file).name),
        description=said.description,
        tags=said.tags,
        wallet=said.wallet,
        visibility=said.visibility,
        language=said.language,
        is_titled=bool(said.title),
        is_named=bool(said.creator),
    )


def upload(
    path: Path,
    storage: Storage,
    bucket: str,
    manifest_path: Path | None,
    progress: Progress,
    *,
    follow_links: bool = False,
    is_known: Known = nobody,
) -> str:
    """Put a local file or folder into S3 and return the list to ingest, once `lists.remember` has noted it. What is there
    already is not sent again.

    Raises:
        Rejected: there is no such path or no video in it.
    """
    remarks = Remarks()
    found = local_files.find(path, manifest_path, remarks, follow_links=follow_links, is_known=is_known)
    storage.ensure_bucket(bucket)
    rows = list[lists.Row]()
    for done, (file, uri, said) in enumerate(_each_once(found, path, bucket, remarks)):
        progress(shown(file.name), done, len(found))
        _put(file, uri, storage)
        rows.append(lists.Row(uri, said))
    if not rows:
        raise _nothing(f"no video in {path} can be read", "look at its files", remarks)
    progress("", len(found), len(found))
    return lists.write(storage, bucket, rows, remarks.rows())


def local(
    path: Path,
    bucket: str,
    manifest_path: Path | None,
    creator: str = "",
    *,
    follow_links: bool = False,
    is_known: Known = nobody,
) -> Listing:
    """The videos of a local path as `upload` would make them known, without sending any."""
    remarks, videos = Remarks(), list[Listed]()
    found = local_files.find(path, manifest_path, remarks, follow_links=follow_links, is_known=is_known)
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
