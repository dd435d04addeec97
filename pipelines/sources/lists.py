"""Upload lists: which local files `pixr ingest` has put into S3, with the rows of their manifests.

A list is an object under `uploads/lists/`, named by the digest of its content and noted in `media.lists`; a list that
is not noted there is refused, because anyone who can write to the bucket could have put it there. Its rows are checked
too: they may name uploads of the same bucket and nothing else. Knows objects and rows, not what is done with them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from cluster import storage as store
from cluster.errors import Rejected
from cluster.storage import Storage, StoredObject
from pipelines.sources import handles, languages
from pipelines.sources.handles import Known, no_creator
from pipelines.sources.manifest import Entry, require_creator
from pipelines.sources.remarks import LEFT_OUT, Remark, Remarks

UPLOADS, LISTS = "uploads", "uploads/lists"
UPLOADED = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}/[^/]+")  # a key below UPLOADS, as `source.upload` makes it
LIST_BYTES_MAX = 1024 * 1024 * 1024
LOOKS_MAX = 16  # objects that are looked up at once
PAGE_ROWS = 1000


@dataclass(frozen=True)
class UploadRow:
    """An uploaded object, and the manifest's row for it."""

    uri: str
    entry: Entry


def is_list(uri: str) -> bool:
    """Whether a URI has the form of an upload list's; this does not say whether Pixr wrote the list."""
    _, key = store.split(uri)
    return key.startswith(f"{LISTS}/") and key.endswith(".jsonl")


def write(storage: Storage, bucket: str, rows: Iterable[UploadRow], remarks: Iterable[Remark]) -> str:
    """Store an upload list in S3; `remember` must note it before jobs accept it.

    Args:
        storage: Object store to write to.
        bucket: Bucket of the uploads.
        rows: The uploads with their manifest rows.
        remarks: Remarks on the folder, which the job shows.

    Returns:
        The URI of the list.
    """
    lines: list[dict[str, Any]] = [{"uri": row.uri, "entry": dataclasses.asdict(row.entry)} for row in rows]
    lines += [{"remark": row} for row in remarks]
    body = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines).encode()
    uri = _uri_of(bucket, body)
    storage.put_bytes(body, uri, "application/jsonl")
    return uri


def remember(connection: Connection[Any], uri: str) -> None:
    """Note that Pixr wrote this list; idempotent."""
    connection.execute("INSERT INTO media.lists (uri) VALUES (%s) ON CONFLICT DO NOTHING", (uri,))


def require_known(connection: Connection[Any], uri: str) -> None:
    """Refuse an upload list that Pixr did not write; URIs of other sources pass.

    Raises:
        Rejected: 403.
    """
    if not is_list(uri):
        return
    if connection.execute("SELECT FROM media.lists WHERE uri = %s", (uri,)).fetchone() is None:
        raise _none_of_ours(uri)


def read(
    storage: Storage, uri: str, remarks: Remarks, is_known: Known = no_creator
) -> list[tuple[StoredObject, Entry]]:
    """Read an upload list and look up its objects as they are now.

    Args:
        storage: Object store to read from.
        uri: URI of the list.
        remarks: Collects objects that are gone and rows that are invalid.
        is_known: Whether a creator with a handle exists.

    Returns:
        The objects with their manifest rows, in the order of the list.

    Raises:
        Rejected: the list was not written by Pixr, is too large, or names an object that was not uploaded.
    """
    if storage.size(uri) > LIST_BYTES_MAX:
        raise Rejected(f"{uri} is larger than {LIST_BYTES_MAX} bytes", code="bad-list")
    data, bucket = storage.read(uri), store.split(uri)[0]
    if uri != _uri_of(bucket, data):
        raise _none_of_ours(uri)
    rows = [
        row for line in data.decode().splitlines() if (row := _row(json.loads(line), uri, bucket, remarks, is_known))
    ]
    uploads = list[tuple[StoredObject, Entry]]()
    with ThreadPoolExecutor(LOOKS_MAX) as pool:
        for start in range(0, len(rows), PAGE_ROWS):
            page = rows[start : start + PAGE_ROWS]
            for row, looked_up in zip(page, pool.map(lambda row: _look(storage, row.uri), page), strict=True):
                if isinstance(looked_up, StoredObject):
                    uploads.append((looked_up, row.entry))
                else:
                    remarks.add(LEFT_OUT, looked_up, row.entry.file)
    return uploads


def _row(line: dict[str, Any], uri: str, bucket: str, remarks: Remarks, is_known: Known) -> UploadRow | None:
    """Parse a line of a list.

    If the line is a remark, or a row that is invalid by now, add it to `remarks` and return None.
    """
    if "remark" in line:
        remarks.extend([line["remark"]])
        return None
    if not UPLOADED.fullmatch(str(line["uri"]).removeprefix(f"s3://{bucket}/{UPLOADS}/")):
        raise Rejected(f"{uri} names an object that was not uploaded", status=403, code="bad-list")
    fields = {**line["entry"], "tags": tuple(line["entry"]["tags"])}
    fields["creator"] = handles.resolve(fields.get("creator", ""), is_known)  # earlier releases stored it as written
    try:
        fields["language"] = languages.named(fields.get("language", ""))  # earlier releases stored it as written
        return UploadRow(line["uri"], require_creator(Entry(**fields), is_known))
    except ValueError as error:  # earlier releases accepted more
        remarks.add(LEFT_OUT, str(error), str(fields["file"]))
        return None


def _look(storage: Storage, uri: str) -> StoredObject | str:
    """Return the object, or the reason why it cannot be looked up, so that one missing object fails no other."""
    try:
        return storage.info(uri)
    except Rejected as error:
        return error.detail


def _none_of_ours(uri: str) -> Rejected:
    """Return the refusal of a list that Pixr did not write."""
    return Rejected(
        f"{uri} is no list that Pixr has written", status=403, code="bad-list", hint="`pixr ingest` makes one"
    )


def _uri_of(bucket: str, data: bytes) -> str:
    """Return the URI of a list with this content."""
    return f"s3://{bucket}/{LISTS}/{hashlib.sha256(data).hexdigest()[:32]}.jsonl"
