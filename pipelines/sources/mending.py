"""Updates of stored videos, and of whom they belong to, from a manifest that has changed since the last ingest.

A word (here: title, description, tags, language or visibility) is applied if the manifest states a different one than
the last time. If it states the same one, what people have changed since stays. A word that was dropped from the
manifest stays too. For videos of releases that did not record what manifests said, only words that were never set are
filled in.

A video's creator changes only while nothing can have been earned for a former one: no creator was named yet, or the
video was never shown. After that it changes only if the job has `reassign`, and past earnings stay where they are. The
job must be able to speak for both creators. Knows SQL and no manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from cluster import characters
from pipelines.sources import languages
from pipelines.sources.handles import UNKNOWN, Rights
from pipelines.sources.listed import Listed, Note
from pipelines.sources.manifest import title_of
from pipelines.sources.remarks import CREATOR_CHANGED, CREATOR_KEPT, WORDS_CHANGED, WORDS_KEPT

# The words of a video for which no manifest and no person has said anything.
UNSAID: dict[str, Any] = {"description": "", "tags": [], "language": "english", "visibility": "public"}

# Videos without any new word are not returned. Rows are locked by id, so that two jobs cannot deadlock.
KNOWN = """
    SELECT v.id, v.source_uri, v.manifest_words AS said_before, c.handle AS creator, v.ready_at IS NOT NULL AS was_shown,
           v.title, v.description, v.tags, v.language, v.visibility
    FROM jsonb_to_recordset(%s::jsonb) AS g (source_uri text, creator text, said jsonb)
    JOIN media.videos v ON v.source_uri = g.source_uri JOIN media.creators c ON c.id = v.creator_id
    WHERE v.status <> 'removed'
      AND (v.manifest_words IS NULL OR (v.manifest_words || g.said) <> v.manifest_words
           OR g.creator NOT IN (c.handle, %s))
    ORDER BY v.id FOR UPDATE OF v"""


@dataclass(frozen=True)
class _Known:
    """A video as it is stored, and what its manifest said last (None: not recorded)."""

    id: int
    source_uri: str
    said_before: dict[str, Any] | None
    creator: str
    was_shown: bool
    title: str
    description: str
    tags: list[str]
    language: str
    visibility: str

    def new_words(self, said: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Return the words (title, tags …) to apply, and the names of words that differ but must stay.

        A word is new if it is neither what the manifest said last nor what is stored.
        """
        said_before = self.said_before or {}
        if self.language in languages.NAMES and said_before.get("language"):  # older releases recorded it as written
            said_before = said_before | {"language": languages.known(said_before["language"])}
        words = {
            name: word
            for name, word in said.items()
            if word not in (_cleaned(said_before.get(name)), _cleaned(getattr(self, name)))
        }
        kept_names = [name for name in words if self.said_before is None and not self._is_unsaid(name)]
        return {name: word for name, word in words.items() if name not in kept_names}, kept_names

    def _is_unsaid(self, name: str) -> bool:
        """Whether a word has the value that it has without a manifest."""
        if name == "title":
            return _letters(self.title) == _letters(title_of(self.source_uri.rpartition("/")[2]))
        return bool(getattr(self, name) == UNSAID[name])

    def kept_because(self, rights: Rights) -> str:
        """Return why the video keeps its creator although its row names another one; empty if the creator changes."""
        if not rights.covers(self.creator):
            return f"it is {self.creator}'s, whom this job does not speak for"
        if self.creator == UNKNOWN or not self.was_shown or rights.reassign:
            return ""
        return f"it is {self.creator}'s since an earlier job, and was shown as theirs; `--reassign` moves it"


def apply(connection: Connection, page: Sequence[Listed], rights: Rights) -> tuple[list[Note], bool]:
    """Update the videos of a page from what their manifests say now, within the caller's transaction.

    Returns remarks on what was changed and on what was kept, and whether a search can see any of the changes.
    """
    listed = {video.source_uri: video for video in page}
    rows = [{"source_uri": uri, "creator": video.creator, "said": video.words()} for uri, video in listed.items()]
    with connection.cursor(row_factory=class_row(_Known)) as cursor:
        known = cursor.execute(KNOWN, (Jsonb(rows), UNKNOWN)).fetchall()
    notes, changes = list[Note](), list[dict[str, Any]]()
    for video in known:
        change, remarks = _change(video, listed[video.source_uri], rights)
        notes += remarks
        if change:
            changes.append({**change, "id": video.id})
    _write(connection, changes)
    visible_ids = [change["id"] for change in changes if change.keys() - {"id", "noted"}]
    carry_over(connection, visible_ids)
    return notes, bool(visible_ids)


def _change(stored: _Known, video: Listed, rights: Rights) -> tuple[dict[str, Any], list[Note]]:
    """Return the columns to write for a video, and remarks on them."""
    change, notes = dict[str, Any](), list[Note]()
    if video.creator not in (stored.creator, UNKNOWN):
        reason_to_stay = stored.kept_because(rights)
        if reason_to_stay:
            notes.append(Note(CREATOR_KEPT, reason_to_stay, video))
        else:
            change["creator"] = video.creator
            notes.append(Note(CREATOR_CHANGED, f"from {stored.creator} to {video.creator}", video))
    if not rights.covers(stored.creator):
        return {}, notes
    said, said_before = video.words(), stored.said_before
    words, kept_words = stored.new_words(said)
    if words:
        notes.append(Note(WORDS_CHANGED, ", ".join(words), video))
    if kept_words:
        reason = f"{', '.join(kept_words)}: it has others since an older release; change them by hand, or in the manifest again"
        notes.append(Note(WORDS_KEPT, reason, video))
    noted = (said_before or {}) | said
    return change | words | ({"noted": noted} if noted != said_before else {}), notes


def _write(connection: Connection, changes: Sequence[dict[str, Any]]) -> None:
    """Write the changed columns; absent keys leave a column as it is."""
    if not changes:
        return
    connection.execute(
        """
        UPDATE media.videos v SET title = coalesce(g.title, v.title), description = coalesce(g.description, v.description),
            tags = CASE WHEN g.tags IS NULL THEN v.tags ELSE ARRAY(SELECT jsonb_array_elements_text(g.tags)) END,
            language = coalesce(g.language, v.language), visibility = coalesce(g.visibility, v.visibility),
            manifest_words = coalesce(g.noted, v.manifest_words), creator_id = coalesce(c.id, v.creator_id)
        FROM jsonb_to_recordset(%s::jsonb) AS g (id bigint, title text, description text, tags jsonb, language text,
             visibility text, noted jsonb, creator text) LEFT JOIN media.creators c ON c.handle = g.creator
        WHERE v.id = g.id
        """,
        (Jsonb(list(changes)),),
    )


def carry_over(connection: Connection, video_ids: Sequence[int]) -> None:
    """Copy the words of these videos to their segments, and their creators to their segments and embeddings."""
    if not video_ids:
        return
    connection.execute(
        "UPDATE media.segments s SET description = v.description, creator_id = v.creator_id,"
        " search = media.search_text(v.language, v.title, v.tags, v.description)"
        " FROM media.videos v WHERE v.id = ANY(%s) AND s.video_id = v.id",
        (list(video_ids),),
    )
    connection.execute(
        "UPDATE media.embeddings e SET creator_id = v.creator_id FROM media.videos v"
        " WHERE v.id = ANY(%s) AND e.video_id = v.id AND e.creator_id <> v.creator_id",
        (list(video_ids),),
    )


def _cleaned(word: Any) -> Any:
    """Return a word in the form that is stored now; older releases stored direction marks too."""
    if isinstance(word, list):
        return [_cleaned(each) for each in word]
    return characters.cleaned(word) if isinstance(word, str) else word


def _letters(text: str) -> str:
    """Return the letters and digits of a text, case folded."""
    return "".join(filter(str.isalnum, text)).casefold()
