"""The table of creators, as jobs see it: who is there, and whose wallet is whose.

Handles are compared as they are: two that differ in case, or in a way of writing that an older release kept, are two
creators with earnings of their own. That is said, and never mended by itself. Knows SQL and no manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from psycopg import Connection

from pipelines.handles import Known, normal
from pipelines.listed import Listed, Note
from pipelines.manifest import DEFAULT_CREATOR, is_address, is_text
from pipelines.remarks import CREATOR_ALIKE, WALLET_KEPT, WALLET_REFUSED, Remarks

KNOWN_MAX = 10_000  # handles of which an answer is remembered
ALIKE_MAX = 200  # pairs that are spoken of
REFUSED_MAX = 1000  # wallets, of the jobs that are shown together
WAITS = "the creator's earnings wait until their own key, or the next manifest, names another"


def register(connection: Connection, page: Sequence[Listed]) -> list[Note]:
    """Make the creators of a page known, with their wallets where they have none; the wallets that are not taken."""
    claims = {video.creator: video.wallet for video in page if video.wallet and _is_theirs(video)}
    handles = list({video.creator: None for video in page})
    if claims:  # releases before this one took any text, and what is none keeps no wallet out
        rows = connection.execute("SELECT handle, wallet FROM media.creators WHERE handle = ANY(%s)", (list(claims),))
        wrong = [handle for handle, wallet in rows.fetchall() if wallet and not is_address(wallet)]
        if wrong:
            connection.execute(
                "UPDATE media.creators SET wallet = NULL, wallet_refused = NULL WHERE handle = ANY(%s)", (wrong,)
            )
    # The first wallet stands: a manifest may fill an empty one, or mend one that the ledger has refused, and replaces no other.
    rows = connection.execute(
        "INSERT INTO media.creators (handle, name, wallet) SELECT handle, handle, wallet"
        " FROM unnest(%s::text[], %s::text[]) AS given (handle, wallet)"
        " ON CONFLICT (handle) DO UPDATE SET"
        "   wallet = CASE WHEN creators.wallet_refused IS NULL THEN coalesce(creators.wallet, excluded.wallet)"
        "                 ELSE coalesce(excluded.wallet, creators.wallet) END,"
        "   wallet_refused = CASE WHEN excluded.wallet <> creators.wallet THEN NULL ELSE creators.wallet_refused END"
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
    """Whether a row says whose its wallet is: the job's creator is only whose video it is."""
    return video.is_named and video.creator != DEFAULT_CREATOR


def _why_kept(video: Listed) -> str:
    """Of the catalogue's wallets alone: where a creator is paid is the ledger's to know."""
    if not _is_theirs(video):
        return "its row names no creator whose wallet it would be"
    return f"an earlier row named another one for {video.creator}, and the first stands; their own key changes it"


def refused(connection: Connection, job_ids: Sequence[str]) -> dict[str, Remarks]:
    """By job the creators of its videos whom the ledger knows no wallet of, since it refuses the one that a manifest named.

    Asked whenever a job is shown: the ledger may have refused it after the job's end, and a better one ends the remark.
    """
    rows = connection.execute(
        "SELECT DISTINCT j.job_id, c.id, c.handle, c.wallet_refused FROM media.creators c"
        " JOIN media.videos v ON v.creator_id = c.id JOIN media.job_videos j ON j.video_id = v.id"
        " WHERE c.wallet_refused IS NOT NULL AND j.job_id = ANY(%s) ORDER BY c.id LIMIT %s",
        (list(job_ids), REFUSED_MAX),
    ).fetchall()
    found: dict[str, Remarks] = {}
    for job_id, _, handle, why in rows:
        found.setdefault(job_id, Remarks()).add(WALLET_REFUSED, f"{why}; {WAITS}", handle)
    return found


def alike(connection: Connection, videos: Iterable[Listed]) -> list[Note]:
    """Creators of a listing beside whom there is another whose handle differs in case or in its way of writing alone.

    One note for each pair, at the first video of the one that is listed. A typing error makes a creator of its own, to
    whom earnings go from then on.
    """
    first: dict[str, Listed] = {}
    for video in videos:
        first.setdefault(video.creator, video)
    # Once for a whole listing: no index serves it, so that it reads all creators.
    rows = connection.execute(
        "SELECT c.handle, o.handle, exists(SELECT FROM media.videos v WHERE v.creator_id = o.id)"
        " FROM media.creators c JOIN media.creators o ON o.id <> c.id"
        " AND lower(normalize(o.handle, NFC)) = lower(normalize(c.handle, NFC))"
        " WHERE c.handle = ANY(%s) ORDER BY c.id, o.id LIMIT %s",
        (_storable(first), ALIKE_MAX),
    ).fetchall()
    return [
        Note(CREATOR_ALIKE, _two(handle, other, has_videos=has_videos), first[handle])
        for handle, other, has_videos in rows
    ]


def _two(handle: str, other: str, *, has_videos: bool) -> str:
    """The two as Python writes them in ASCII: on a screen they may be the same."""
    said = f"{handle!a} and {other!a} are two creators, each with earnings of their own"
    return f"{said}; if they are one, name one alone and `--reassign`" if has_videos else said


def known_handles(connection: Connection, given: Iterable[str]) -> frozenset[str]:
    """Which handles creators have, of those that are given and of their one way of writing."""
    asked = sorted({form for text in _storable(given) for form in (text, normal(text))})
    rows = connection.execute("SELECT handle FROM media.creators WHERE handle = ANY(%s)", (asked,)).fetchall()
    return frozenset(handle for (handle,) in rows)


def _storable(handles: Iterable[str]) -> list[str]:
    """Without those that PostgreSQL takes for no text, which are nobody's."""
    return [handle for handle in handles if is_text(handle) and "\0" not in handle]


def knows(connection: Connection) -> Known:
    """Whether there is a creator of a handle, asked of the database once for each."""

    @lru_cache(KNOWN_MAX)
    def is_known(handle: str) -> bool:
        return handle in known_handles(connection, [handle])

    return is_known
