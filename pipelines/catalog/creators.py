"""The table of creators, `media.creators`: registering them, looking them up by handle or id, the wallets they claim.

Handles are compared character by character: two that differ in case, or in their Unicode form, are two creators with
earnings of their own. `alike` reports such pairs; nothing merges them. Knows SQL; knows neither manifests nor which
wallet the ledger pays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, LiteralString

from psycopg import Connection

from pipelines.sources.handles import Known, normal
from pipelines.sources.listed import Listed, Note
from pipelines.sources.manifest import DEFAULT_CREATOR, is_address, is_text
from pipelines.sources.remarks import CREATOR_ALIKE, WALLET_KEPT

KNOWN_MAX = 10_000  # handles whose lookup is cached
ALIKE_MAX = 200  # pairs of similar handles that are reported

# The ids of the creators that a row `k` of API keys (`creators`: handles) of a principal `p` (`creator_id`) speaks for.
# A fragment, so that checking a key stays one round trip.
IDS_OF_KEY: LiteralString = (
    "ARRAY(SELECT c.id FROM media.creators c WHERE c.handle = ANY(k.creators) OR c.id = p.creator_id)"
)


# SQL fragment: creators `c`, by id, with the wallet that a manifest claimed for them.
CLAIMED_WALLETS: LiteralString = "SELECT c.id, c.wallet FROM media.creators c WHERE c.wallet IS NOT NULL"


def register(connection: Connection, page: Sequence[Listed]) -> list[Note]:
    """Store the creators of a page of videos; return a remark for each claim of a wallet that was not stored.

    A claimed wallet is stored if its creator has no valid wallet yet.
    """
    claims = {video.creator: video.wallet for video in page if video.wallet and _is_theirs(video)}
    handles = list({video.creator: None for video in page})
    if claims:  # earlier releases stored any text as a wallet; an invalid one must not block a valid claim
        rows = connection.execute("SELECT handle, wallet FROM media.creators WHERE handle = ANY(%s)", (list(claims),))
        invalid = [handle for handle, wallet in rows.fetchall() if wallet and not is_address(wallet)]
        if invalid:
            connection.execute("UPDATE media.creators SET wallet = NULL WHERE handle = ANY(%s)", (invalid,))
    # The first claim stands: a manifest may set a missing wallet and never replaces one.
    rows = connection.execute(
        "INSERT INTO media.creators (handle, name, wallet) SELECT handle, handle, wallet"
        " FROM unnest(%s::text[], %s::text[]) AS given (handle, wallet)"
        " ON CONFLICT (handle) DO UPDATE SET wallet = coalesce(creators.wallet, excluded.wallet)"
        " RETURNING handle, wallet",
        (handles, [claims.get(handle) for handle in handles]),
    )
    stored: dict[str, str] = dict(rows.fetchall())
    return [
        Note(WALLET_KEPT, _why_kept(video), video)
        for video in page
        if video.wallet and not (_is_theirs(video) and stored[video.creator] == video.wallet)
    ]


def _is_theirs(video: Listed) -> bool:
    """Whether the video's row names a creator, who can then claim a wallet; the default creator cannot claim one."""
    return video.is_named and video.creator != DEFAULT_CREATOR


def _why_kept(video: Listed) -> str:
    """Return why the catalogue did not store a claimed wallet."""
    if not _is_theirs(video):
        return "its row names no creator whose wallet it would be"
    return f"an earlier row named another one for {video.creator}, and the first stands; their own key changes it"


def alike(connection: Connection, videos: Iterable[Listed]) -> list[Note]:
    """Return a remark for each listed creator whose handle differs from another creator's in case or Unicode form only.

    Each pair gets one remark, at the first video of the listed creator. It is a warning: a typing error in a handle
    makes a second creator with earnings of their own.
    """
    first_videos: dict[str, Listed] = {}
    for video in videos:
        first_videos.setdefault(video.creator, video)
    # Once for a whole listing, because it reads all creators: no index serves this comparison.
    rows = connection.execute(
        "SELECT c.handle, o.handle, exists(SELECT FROM media.videos v WHERE v.creator_id = o.id)"
        " FROM media.creators c JOIN media.creators o ON o.id <> c.id"
        " AND lower(normalize(o.handle, NFC)) = lower(normalize(c.handle, NFC))"
        " WHERE c.handle = ANY(%s) ORDER BY c.id, o.id LIMIT %s",
        (_storable(first_videos), ALIKE_MAX),
    ).fetchall()
    return [
        Note(CREATOR_ALIKE, _two(handle, other, has_videos=has_videos), first_videos[handle])
        for handle, other, has_videos in rows
    ]


def _two(handle: str, other: str, *, has_videos: bool) -> str:
    """Describe two similar handles, in ASCII escapes, since they may look the same on a screen."""
    sentence = f"{handle!a} and {other!a} are two creators, each with earnings of their own"
    return f"{sentence}; if they are one, name one alone and `--reassign`" if has_videos else sentence


def known_handles(connection: Connection, handles: Iterable[str]) -> frozenset[str]:
    """Return which of these handles, in the given or the normal form (`sources/handles.py`), belong to a creator."""
    forms = sorted({form for text in _storable(handles) for form in (text, normal(text))})
    rows = connection.execute("SELECT handle FROM media.creators WHERE handle = ANY(%s)", (forms,)).fetchall()
    return frozenset(handle for (handle,) in rows)


def _storable(handles: Iterable[str]) -> list[str]:
    """Return the handles that PostgreSQL can store as text; the others cannot belong to a creator."""
    return [handle for handle in handles if is_text(handle) and "\0" not in handle]


def knows(connection: Connection) -> Known:
    """Return a function that says whether a creator with a handle exists; answers are cached."""

    @lru_cache(KNOWN_MAX)
    def is_known(handle: str) -> bool:
        return handle in known_handles(connection, [handle])

    return is_known


def public_id(connection: Connection[Any], creator_id: int) -> str | None:
    """Return the public id of a creator, or None if the creator does not exist."""
    row = connection.execute("SELECT public_id FROM media.creators WHERE id = %s", (creator_id,)).fetchone()
    return None if row is None else str(row[0])


def handle(connection: Connection[Any], creator_id: int) -> str | None:
    """Return the handle of a creator, or None if the creator does not exist."""
    row = connection.execute("SELECT handle FROM media.creators WHERE id = %s", (creator_id,)).fetchone()
    return None if row is None else str(row[0])
