"""Listing a source's videos: a prefix in S3, an upload list, or a local folder, which is uploaded first.

Uploads are stored under the hash of their content. A job lists its source once, and only configured buckets are read.
Knows objects and manifests, not what is done with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from cluster import storage as store
from cluster.errors import Rejected
from cluster.storage import Storage, StoredObject
from pipelines.sources import buckets, copies, lists, local_files, manifest, ownership, selection
from pipelines.sources.handles import ANY_CREATOR, Known, Rights, no_creator
from pipelines.sources.listed import Listed
from pipelines.sources.lists import UPLOADS
from pipelines.sources.local_files import ORDINARY, Extent
from pipelines.sources.manifest import Entry
from pipelines.sources.remarks import LEFT_OUT, Remark, Remarks, shown
from pipelines.sources.selection import Manifest

CHANGING = "it was written to while it was read; ingest it once it is whole"

UNTOLD = "of what, is told to a job for any creator alone"
UNSAID = Entry("-")  # stands for the row of an object without one

Progress = Callable[[str, int, int], None]  # name of the file, files done, files in all
RequireRoom = Callable[[int], None]  # takes a size in bytes; raises Rejected if the store has no room for it


def check(uri: str, storage: Storage, buckets: tuple[str, ...]) -> None:
    """Refuse a source that cannot be read, before a job is created for it.

    Raises:
        Rejected: it is not an S3 URI, its bucket is not configured or does not exist, or the prefix is empty.
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
    """The videos of a source, one for each URI, and remarks on the rest."""

    videos: list[Listed]
    remarks: list[Remark]


def listed(
    uri: str,
    storage: Storage,
    *,
    creator: str = "",
    manifest_uri: str = "",
    rights: Rights = ANY_CREATOR,
    is_known: Known = no_creator,
    own_bucket: str = "",
) -> Listing:
    """List the videos of an S3 prefix or an upload list.

    Args:
        uri: The prefix, the object or the upload list.
        storage: Object store to read from.
        creator: Handle of the creator of videos whose row names none.
        manifest_uri: Manifest for the whole source; "" takes those in its folders.
        rights: Creators that the job may speak for, and its folders; videos of others are left out.
        is_known: Whether a creator with a handle exists.
        own_bucket: The bucket that Pixr itself writes to.

    Returns:
        The videos in the order of their keys, and remarks.

    Raises:
        Rejected: it holds no videos, a manifest is invalid, or the source is not the job's to list.
    """
    ownership.require_open(uri, rights, own_bucket)
    if manifest_uri:
        ownership.require_open(manifest_uri, rights, own_bucket, is_source=False)
    remarks = Remarks()
    if lists.is_list(uri):
        list_remarks = Remarks()
        videos = [_listed(seen, entry, creator) for seen, entry in lists.read(storage, uri, list_remarks, is_known)]
        if rights.creators is None:
            remarks.extend(list_remarks.rows())
        else:  # the list may be of another creator's folder
            remarks.extend_counted(list_remarks.rows(), UNTOLD)
    else:
        top = buckets.folder_of(uri, storage)
        objects = {
            stored.uri.removeprefix(f"{top}/"): stored
            for stored in buckets.source_objects(storage.list(uri), remarks, own_bucket)
        }
        if rights.creators is not None:
            around = ownership.manifests_around(uri, top, objects, storage, rights, is_known)
            reasons = ownership.others(store.split(uri)[0], list(objects.values()), around, rights)
            objects = ownership.without(objects, reasons, remarks)
        manifests = [ownership.covered(each, rights) for each in _manifests(objects, storage, manifest_uri, is_known)]
        if rights.creators is not None and manifest_uri:
            refused = selection.refused(list(objects), manifests)
            reasons = {objects[path].uri: reason for path, reason in refused.items()}
            objects = ownership.without(objects, reasons, remarks)
        chosen = selection.select(list(objects), manifests, remarks).chosen
        videos = [
            _listed(objects[path], row.entry if row else None, creator)
            for path, row in chosen
            if local_files.is_text(path, remarks)
        ]
    videos = _unique([video for video in videos if ownership.is_covered(video, rights, remarks)], remarks)
    if not videos:
        raise _nothing(f"no video under {uri}", "check the address and the names", remarks)
    return Listing(videos, remarks.rows())


def _nothing(detail: str, hint: str, remarks: Remarks) -> Rejected:
    """Return the error of a source without videos, with the first remarks on why."""
    reasons = f" ({remarks.summary()})" if remarks.summary() else ""
    return Rejected(f"{detail}{reasons}", status=404, code="nothing-to-do", hint=hint)


def _unique(videos: list[Listed], remarks: Remarks) -> list[Listed]:
    """Return the first video of each URI, and add a remark on each further one."""
    first: dict[str, Listed] = {}
    for video in videos:
        if video.source_uri in first:
            remarks.add(LEFT_OUT, "the same object is there twice; its first row counts", video.source_uri)
        first.setdefault(video.source_uri, video)
    return list(first.values())


def _manifests(
    objects: Mapping[str, StoredObject], storage: Storage, manifest_uri: str, is_known: Known
) -> list[Manifest]:
    """Read the given manifest, which applies to the whole source, or else all manifests in it, each for its folder."""
    if manifest_uri:
        return [buckets.read_manifest(manifest_uri, "", storage.size(manifest_uri), storage, is_known)]
    return [
        buckets.read_manifest(stored.uri, path.rpartition("/")[0], stored.size, storage, is_known)
        for path, stored in objects.items()
        if manifest.is_manifest(path)
    ]


def _listed(stored: StoredObject, entry: Entry | None, creator: str) -> Listed:
    """Return the listed video of an object and its manifest row."""
    row = entry or UNSAID
    file = entry.file if entry and "\\" not in entry.file else stored.uri
    return Listed(
        source_uri=stored.uri,
        etag=stored.etag,
        size=stored.size,
        creator=row.creator or creator or manifest.DEFAULT_CREATOR,
        title=row.title or manifest.title_of(PurePosixPath(file).name),
        description=row.description,
        tags=row.tags,
        wallet=row.wallet,
        visibility=row.visibility,
        language=row.language,
        is_titled=bool(row.title),
        is_named=bool(row.creator),
    )


@dataclass(frozen=True)
class UploadedSource:
    """The upload list to ingest, and remarks on the folder that it was made from."""

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
    is_known: Known = no_creator,
    require_room: RequireRoom = lambda _: None,
) -> UploadedSource:
    """Upload the videos of a local path and write the list of them; files that are in S3 already are not sent again.

    Args:
        path: A video file or a folder.
        storage: Object store to write to.
        bucket: Bucket of the uploads; created if it does not exist.
        manifest_path: Manifest for the whole path; None takes those beside the videos.
        progress: Called before each file and once at the end.
        extent: Whether to take hidden files and the targets of symbolic links too.
        is_known: Whether a creator with a handle exists.
        require_room: Called before each file with its size in bytes.

    Returns:
        The list to ingest, which `lists.remember` must note before a job can read it, and remarks.

    Raises:
        Rejected: the path does not exist, holds no video, or its files do not fit into the store.
    """
    remarks = Remarks()
    files = local_files.find(path, manifest_path, remarks, extent, is_known=is_known)
    storage.ensure_bucket(bucket)
    rows = list[lists.UploadRow]()
    for done, file in enumerate(_each_once(files, path, bucket, remarks)):
        progress(shown(file.path.name), done, len(files))
        if _put(file, storage, require_room):
            rows.append(lists.UploadRow(file.uri, file.entry))
        else:
            remarks.add(LEFT_OUT, CHANGING, file.name)
    if not rows:
        raise _nothing(f"no video in {path} can be read", "look at its files", remarks)
    progress("", len(files), len(files))
    return UploadedSource(lists.write(storage, bucket, rows, remarks.rows()), remarks.rows())


def local(
    path: Path,
    bucket: str,
    manifest_path: Path | None,
    extent: Extent = ORDINARY,
    creator: str = "",
    *,
    is_known: Known = no_creator,
) -> Listing:
    """List the videos of a local path as `upload` would, without sending any.

    Args:
        path: A video file or a folder.
        bucket: Bucket that uploads would go to.
        manifest_path: Manifest for the whole path; None takes those beside the videos.
        extent: Whether to take hidden files and the targets of symbolic links too.
        creator: Handle of the creator of videos whose row names none.
        is_known: Whether a creator with a handle exists.

    Returns:
        The videos with the URIs that they would have, and remarks.
    """
    remarks, videos = Remarks(), list[Listed]()
    files = local_files.find(path, manifest_path, remarks, extent, is_known=is_known)
    for file in _each_once(files, path, bucket, remarks):
        videos.append(_listed(StoredObject(file.uri, file.state.size, ""), file.entry, creator))
    return Listing(videos, remarks.rows())


@dataclass(frozen=True)
class _State:
    """The file attributes by which a write is noticed."""

    device: int
    inode: int
    size: int
    written_ns: int

    @classmethod
    def of(cls, file: Path) -> Self:
        """Return the present state of a file."""
        state = file.stat()
        return cls(state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)


@dataclass(frozen=True)
class _Local:
    """A local file: its name in the folder, its URI, and its state when the content was hashed."""

    path: Path
    name: str
    uri: str
    state: _State
    entry: Entry

    def is_as_read(self) -> bool:
        """Whether the file was neither written to nor removed since its content was hashed."""
        try:
            return _State.of(self.path) == self.state
        except OSError:  # removed
            return False


def _each_once(files: list[tuple[Path, Entry]], path: Path, bucket: str, remarks: Remarks) -> Iterator[_Local]:
    """Yield local files with their URIs; of files with equal content and equal names only the first."""
    top, first_names = path if path.is_dir() else path.parent, dict[str, str]()
    for file, entry in files:
        name = str(file.relative_to(top))
        try:
            state = _State.of(file)
            uri = _uri_of(file, bucket)
            is_unchanged = _State.of(file) == state
        except OSError as error:
            remarks.add(LEFT_OUT, local_files.reason_of(error), name)
            continue
        if not is_unchanged:
            remarks.add(LEFT_OUT, CHANGING, name)
        elif uri in first_names:
            remarks.add(LEFT_OUT, "the same file is there twice; the first one counts", f"{name} is {first_names[uri]}")
        else:
            first_names[uri] = name
            yield _Local(file, name, uri, state, entry)


def _uri_of(file: Path, bucket: str) -> str:
    """Return the URI that a local file is uploaded to: the hash of its content, and its name."""
    digest = copies.digest_of(file)
    return f"s3://{bucket}/{UPLOADS}/{digest[:2]}/{digest}/{copies.name_of(file.name)}"


def _put(file: _Local, storage: Storage, require_room: RequireRoom) -> bool:
    """Upload a file unless it is in S3 already; return False, and store nothing, if it was written to meanwhile."""
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
