"""Folders of buckets: Pixr's own, which no job over HTTP may name, and those that a key's jobs may name.

Addresses are compared by whole parts of their keys. The store is not asked, so that a refusal does not tell whether an object
exists.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cluster import storage as store
from cluster.errors import Rejected
from cluster.settings import S3Settings
from pipelines.media import THUMBNAILS
from pipelines.sources import lists
from pipelines.sources.lists import UPLOADS

FRAMES = "frames"
LEDGER = "ledger"  # heads and the archive of the journal
OWN = (THUMBNAILS, FRAMES, LEDGER, UPLOADS)  # at the top of `[s3] bucket`
FOLDERS_MAX = 100  # of a key
TOLD_MAX = 10  # folders, on one line
HINT = "name a folder of videos, or the list that `pixr ingest` has made"


def require_whole(uri: str) -> None:
    """Refuse an address that is invalid, or has empty parts, which some stores resolve to another object.

    Raises:
        Rejected: 422.
    """
    _, key = store.split(uri)
    if key.startswith("/") or "//" in key:
        raise Rejected(f"{uri!r} has empty parts", 422, "bad-address", "write one slash between the parts of a key")


def is_in(uri: str, folder: str) -> bool:
    """Whether an address is that of a folder or of something in it."""
    return f"{uri.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")


def is_in_any(uri: str, folders: Collection[str] | None) -> bool:
    """Whether an address is in one of the folders; None stands for all folders."""
    return folders is None or any(is_in(uri, folder) for folder in folders)


def is_upload(uri: str) -> bool:
    """Whether an address is in a folder of uploads, in any bucket: Pixr may have used another bucket before."""
    return store.split(uri)[1].partition("/")[0] == UPLOADS


def is_own(uri: str, own_bucket: str) -> bool:
    """Whether an address is in a folder of `own_bucket` that Pixr itself writes."""
    bucket, key = store.split(uri)
    return bucket == own_bucket and key.partition("/")[0] in OWN


def require_foreign(uri: str, own_bucket: str, *, is_source: bool) -> None:
    """Refuse an address in a folder that Pixr itself writes; lists of uploads may be sources.

    Raises:
        Rejected: 403.
    """
    if is_own(uri, own_bucket) and not (is_source and lists.is_list(uri)):
        raise Rejected(f"{uri} is in a folder of Pixr's own", status=403, code="not-yours", hint=HINT)


def require_in(uri: str, folders: Collection[str] | None) -> None:
    """Refuse an address that is in none of a key's folders.

    Raises:
        Rejected: 403.
    """
    if not is_in_any(uri, folders):
        told = sorted(folders or ("there are none",))
        named = ", ".join(told[:TOLD_MAX]) + (", …" if len(told) > TOLD_MAX else "")
        hint = f"its folders: {named}; a key is given others when it is made"
        detail = f"{uri} is in none of the folders that this key's jobs may name"
        raise Rejected(detail, status=403, code="not-yours", hint=hint)


def usual(creators: Sequence[str], buckets: Sequence[str]) -> tuple[str, ...]:
    """Return the folders of a key that names none: one for each creator, named by handle, in the first bucket.

    A handle that is not a single part of a key has no folder: `ana/films` would lie in the folder of `ana`.
    """
    return tuple(f"s3://{buckets[0]}/{handle}/" for handle in creators if _is_part(handle)) if buckets else ()


def _is_part(handle: str) -> bool:
    try:
        store.split(f"s3://a/{handle}")
    except Rejected:
        return False
    return bool(handle) and "/" not in handle


def checked(folders: Sequence[str], s3: S3Settings) -> tuple[str, ...]:
    """Return the folders for a new key in normal form, without duplicates.

    Raises:
        Rejected: a folder is not in a bucket that jobs read, or holds what Pixr itself keeps there.
    """
    for each in folders:
        require_whole(each)
        bucket, key = store.split(each)
        if bucket not in s3.ingest_buckets:
            hint = f"ingest reads {', '.join(s3.ingest_buckets)}; add it to [s3] ingest_buckets"
            raise Rejected(f"bucket {bucket!r} is not among those that are read", 422, "bad-folders", hint)
        if is_own(each, s3.bucket) or is_upload(each) or (bucket == s3.bucket and not key):
            hint = "name a folder of videos in it"
            raise Rejected(f"{each} holds what Pixr itself keeps there", status=422, code="bad-folders", hint=hint)
    return tuple(dict.fromkeys(f"{each.rstrip('/')}/" for each in folders))
