"""Where videos come from: a prefix in S3, or a local folder that is first put there under the hash of its content.

A source is listed once a job. Words about the videos come from a manifest beside them. Only configured buckets are
read. Knows objects and manifests, not what is done with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from cluster import storage as store
from cluster.errors import Rejected
from cluster.storage import Storage, StoredObject
from pipelines import buckets, copies, lists, local_files, manifest, ownership, selection
from pipelines.handles import ANYBODY, Known, Rights, nobody
from pipelines.listed import Listed
from pipelines.lists import UPLOADS
from pipelines.local_files import ORDINARY, Extent
from pipelines.manifest import Entry
from pipelines.remarks import LEFT_OUT, Remark, Remarks, shown
from pipelines.selection import Manifest

CHANGING = "it was written to while it was read; ingest it once it is whole"

UNTOLD = "of what, is told to a job for any creator alone"
UNSAID = Entry("-")  # of an object that no row speaks of

Progress = Callable[[str, int, int], None]
RequireRoom = Callable[[int], None]  # raises Rejected where so many bytes more would fill the disk


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
        hint = "an address ends with its key; `?` and what follows count to it" if "?" in uri else "check the address"
        raise Rejected(f"nothing lies under {uri}", status=404, code="nothing-to-do", hint=hint)


@dataclass(frozen=True)
class Listing:
    """What a source holds: its videos, each address once, and what people should know of the rest."""

    videos: list[Listed]
    remarks: list[Remark]


def listed(
    uri: str,
    storage: Storage,
    *,
    creator: str = "",
    manifest_uri: str = "",
    rights: Rights = ANYBODY,
    is_known: Known = nobody,
    own_bucket: str = "",
) -> Listing:
    """The videos of a source, in the order of their keys; without those of creators that the job may not speak for.
    `own_bucket` is the one that holds uploads.

    Raises:
        Rejected: there is nothing there, or a manifest is none, or it is not the job's to list.
    """
    ownership.require_open(uri, rights, own_bucket)
    if manifest_uri:
        ownership.require_open(manifest_uri, rights, own_bucket, is_source=False)
    remarks = Remarks()
    if lists.is_list(uri):
        noted = Remarks()
        found = [_listed(seen, entry, creator) for seen, entry in lists.read(storage, uri, noted, is_known)]
        if rights.creators is None:
            remarks.extend(noted.rows())
        else:  # it may be another's folder
            remarks.extend_counted(noted.rows(), UNTOLD)
    else:
        top = buckets.folder_of(uri, storage)
        objects = {
            found.uri.removeprefix(f"{top}/"): found for found in buckets.seen(storage.list(uri), remarks, own_bucket)
        }
        if rights.creators is not None:
            around = ownership.around(uri, top, objects, storage, rights, is_known)
            others = ownership.others(store.split(uri)[0], list(objects.values()), around, rights)
            objects = ownership.without(objects, others, remarks)
        manifests = [ownership.covered(each, rights) for each in _manifests(objects, storage, manifest_uri, is_known)]
        if rights.creators is not None and manifest_uri:
            given = selection.refused(list(objects), manifests)
            objects = ownership.without(objects, {objects[path].uri: said for path, said in given.items()}, remarks)
        chosen = selection.select(list(objects), manifests, remarks).chosen
        found = [
            _listed(objects[path], said.entry if said else None, creator)
            for path, said in chosen
            if local_files.is_text(path, remarks)
        ]
    videos = _unique([video for video in found if ownership.is_covered(video, rights, remarks)], remarks)
    if not videos:
        raise _nothing(f"no video under {uri}", "check the address and the names", remarks)
    return Listing(videos, remarks.rows())


def _nothing(detail: str, hint: str, remarks: Remarks) -> Rejected:
    said = f" ({remarks.told()})" if remarks.told() else ""
    return Rejected(f"{detail}{said}", status=404, code="nothing-to-do", hint=hint)


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
        return [buckets.read_manifest(given, "", storage.size(given), storage, is_known)]
    return [
        buckets.read_manifest(found.uri, path.rpartition("/")[0], found.size, storage, is_known)
        for path, found in objects.items()
        if manifest.is_manifest(path)
    ]


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


@dataclass(frozen=True)
class Sent:
    """The source to ingest, and what people should know of the folder that it was made of."""

    uri: str
    remarks: list[Remark]


def upload(
    path: Path,
    storage: Storage,
    bucket: str,
    manifest_path: Path | None,
    progress: Progress,
    extent: Extent = ORDINARY,
    *,
    is_known: Known = nobody,
    require_room: RequireRoom = lambda _: None,
) -> Sent:
    """Put a local file or folder into S3 and return the list to ingest, once `lists.remember` has noted it. What is there
    already is not sent again. `require_room` is asked before each file, with its size in bytes.

    Raises:
        Rejected: there is no such path or no video in it, or no room for it.
    """
    remarks = Remarks()
    found = local_files.find(path, manifest_path, remarks, extent, is_known=is_known)
    storage.ensure_bucket(bucket)
    rows = list[lists.Row]()
    for done, file in enumerate(_each_once(found, path, bucket, remarks)):
        progress(shown(file.path.name), done, len(found))
        if _put(file, storage, require_room):
            rows.append(lists.Row(file.uri, file.entry))
        else:
            remarks.add(LEFT_OUT, CHANGING, file.name)
    if not rows:
        raise _nothing(f"no video in {path} can be read", "look at its files", remarks)
    progress("", len(found), len(found))
    return Sent(lists.write(storage, bucket, rows, remarks.rows()), remarks.rows())


def local(
    path: Path,
    bucket: str,
    manifest_path: Path | None,
    extent: Extent = ORDINARY,
    creator: str = "",
    *,
    is_known: Known = nobody,
) -> Listing:
    """The videos of a local path as `upload` would make them known, without sending any."""
    remarks, videos = Remarks(), list[Listed]()
    found = local_files.find(path, manifest_path, remarks, extent, is_known=is_known)
    for file in _each_once(found, path, bucket, remarks):
        videos.append(_listed(StoredObject(file.uri, file.state.size, ""), file.entry, creator))
    return Listing(videos, remarks.rows())


@dataclass(frozen=True)
class _State:
    """By which one sees that a file was written to."""

    device: int
    inode: int
    size: int
    written_ns: int

    @classmethod
    def of(cls, file: Path) -> Self:
        found = file.stat()
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


@dataclass(frozen=True)
class _Local:
    """A local file: its name in the folder, where it goes, and the state that its content was read in."""

    path: Path
    name: str
    uri: str
    state: _State
    entry: Entry

    def is_as_read(self) -> bool:
        try:
            return _State.of(self.path) == self.state
        except OSError:  # removed
            return False


def _each_once(found: list[tuple[Path, Entry]], path: Path, bucket: str, remarks: Remarks) -> Iterator[_Local]:
    """Local files with their addresses. The same content under the same name in two folders is one video."""
    top, first = path if path.is_dir() else path.parent, dict[str, str]()
    for file, said in found:
        name = str(file.relative_to(top))
        try:
            state = _State.of(file)
            uri = _uri_of(file, bucket)
            is_still = _State.of(file) == state
        except OSError as error:
            remarks.add(LEFT_OUT, local_files.why(error), name)
            continue
        if not is_still:
            remarks.add(LEFT_OUT, CHANGING, name)
        elif uri in first:
            remarks.add(LEFT_OUT, "the same file is there twice; the first one counts", f"{name} is {first[uri]}")
        else:
            first[uri] = name
            yield _Local(file, name, uri, state, said)


def _uri_of(file: Path, bucket: str) -> str:
    digest = copies.digest_of(file)
    return f"s3://{bucket}/{UPLOADS}/{digest[:2]}/{digest}/{copies.name_of(file.name)}"


def _put(file: _Local, storage: Storage, require_room: RequireRoom) -> bool:
    """Whether a file's content is in S3 under its hash. Where it was written to meanwhile, nothing is."""
    if storage.exists(file.uri) and storage.size(file.uri) == file.state.size:
        return True
    if not file.is_as_read():
        return False
    require_room(file.state.size)
    storage.put_file(file.path, file.uri)
    if file.is_as_read():
        return True
    storage.delete(file.uri)
    return False
