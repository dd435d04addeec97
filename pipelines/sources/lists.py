"""Lists of uploads: which local files `pixr ingest` has put into S3, and what their manifests say.

A list is an object under `uploads/lists/`, named by the digest of its content and noted in `media.lists`; what is not
noted there is no list, whoever has put it where. Its rows are checked like a source all the same: they name uploads of
their own bucket and nothing else. Knows objects and rows, not what is done with them.
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
from pipelines.sources.handles import Known, nobody
from pipelines.sources.manifest import Entry, require_creator
from pipelines.sources.remarks import LEFT_OUT, Remark, Remarks

UPLOADS, LISTS = "uploads", "uploads/lists"
UPLOADED = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}/[^/]+")  # below UPLOADS: as `source` puts files there
LIST_BYTES_MAX = 1024 * 1024 * 1024
LOOKS_MAX = 16  # at objects, side by side
PAGE_ROWS = 1000


@dataclass(frozen=True)
class UploadRow:
    """An upload, and what is said of it."""

    uri: str
    entry: Entry


def is_list(uri: str) -> bool:
    """Whether an address is one of a list, by its name."""
    _, key = store.split(uri)
    return key.startswith(f"{LISTS}/") and key.endswith(".jsonl")


def write(storage: Storage, bucket: str, rows: Iterable[UploadRow], remarks: Iterable[Remark]) -> str:
    """Put a list into S3 and return its address; `remember` makes it one that jobs read."""
    lines: list[dict[str, Any]] = [{"uri": row.uri, "entry": dataclasses.asdict(row.entry)} for row in rows]
    lines += [{"remark": row} for row in remarks]
    body = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines).encode()
    uri = _uri_of(bucket, body)
    storage.put_bytes(body, uri, "application/jsonl")
    return uri


def remember(connection: Connection[Any], uri: str) -> None:
    """Note that this list is Pixr's own; again, it changes nothing."""
    connection.execute("INSERT INTO media.lists (uri) VALUES (%s) ON CONFLICT DO NOTHING", (uri,))


def require_known(connection: Connection[Any], uri: str) -> None:
    """Refuse a list that Pixr has not written; other sources pass.

    Raises:
        Rejected: 403.
    """
    if not is_list(uri):
        return
    if connection.execute("SELECT FROM media.lists WHERE uri = %s", (uri,)).fetchone() is None:
        raise _none_of_ours(uri)


def read(storage: Storage, uri: str, remarks: Remarks, is_known: Known = nobody) -> list[tuple[StoredObject, Entry]]:
    """The objects of a list, as they are now, with what is said of each; what is gone or may not be said is remarked.

    Raises:
        Rejected: Pixr has not written it, or it leads out of what was uploaded.
    """
    if storage.size(uri) > LIST_BYTES_MAX:
        raise Rejected(f"{uri} is larger than {LIST_BYTES_MAX} bytes", code="bad-list")
    data, bucket = storage.read(uri), store.split(uri)[0]
    if uri != _uri_of(bucket, data):
        raise _none_of_ours(uri)
    rows = [
        row for line in data.decode().splitlines() if (row := _row(json.loads(line), uri, bucket, remarks, is_known))
    ]
    found = list[tuple[StoredObject, Entry]]()
    with ThreadPoolExecutor(LOOKS_MAX) as pool:
        for start in range(0, len(rows), PAGE_ROWS):
            page = rows[start : start + PAGE_ROWS]
            for row, seen in zip(page, pool.map(lambda row: _look(storage, row.uri), page), strict=True):
                if isinstance(seen, StoredObject):
                    found.append((seen, row.entry))
                else:
                    remarks.add(LEFT_OUT, seen, row.entry.file)
    return found


def _row(line: dict[str, Any], uri: str, bucket: str, remarks: Remarks, is_known: Known) -> UploadRow | None:
    if "remark" in line:
        remarks.extend([line["remark"]])
        return None
    if not UPLOADED.fullmatch(str(line["uri"]).removeprefix(f"s3://{bucket}/{UPLOADS}/")):
        raise Rejected(f"{uri} names an object that was not uploaded", status=403, code="bad-list")
    said = {**line["entry"], "tags": tuple(line["entry"]["tags"])}
    said["creator"] = handles.meant(said.get("creator", ""), is_known)  # an earlier release left it as it was written
    try:
        said["language"] = languages.named(said.get("language", ""))  # an earlier release left it as it was written
        return UploadRow(line["uri"], require_creator(Entry(**said), is_known))
    except ValueError as error:  # a release before this one took more
        remarks.add(LEFT_OUT, str(error), str(said["file"]))
        return None


def _look(storage: Storage, uri: str) -> StoredObject | str:
    """The object, or why there is none: its neighbours are no worse for that."""
    try:
        return storage.info(uri)
    except Rejected as error:
        return error.detail


def _none_of_ours(uri: str) -> Rejected:
    return Rejected(
        f"{uri} is no list that Pixr has written", status=403, code="bad-list", hint="`pixr ingest` makes one"
    )


def _uri_of(bucket: str, data: bytes) -> str:
    return f"s3://{bucket}/{LISTS}/{hashlib.sha256(data).hexdigest()[:32]}.jsonl"
