"""What a listing changes of videos that were there before: a mended manifest takes effect on the next run.

A word (title, description, tags, language, visibility) takes effect when a manifest says something else than it said last
time; the same again leaves alone what people have changed since, and what it no longer says stays as it is. Of a video of a
release that did not note what manifests said, only what nobody had said anything about is filled in.

A video's creator changes when nothing can have been earned for another: nobody had been named, or it was never shown.
After that only where the job was told to (`reassign`); what it has earned by then stays with whom it was earned for. Who
asks must be able to speak for both creators. Knows SQL and no manifest.
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

UNSAID: dict[str, Any] = {"description": "", "tags": [], "language": "english", "visibility": "public"}

# Rows of which nothing new is said do not come back; they are locked in one order whatever order they are listed in.
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
    """A video as it stands, and what manifests said of it last."""

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
        """What a manifest says that it did not say before, and that is not so already; and of that, what may not apply."""
        before = self.said_before or {}
        if self.language in languages.NAMES and before.get("language"):  # noted by an older release as it was written
            before = before | {"language": languages.known(before["language"])}
        words = {
            name: word
            for name, word in said.items()
            if word not in (_cleaned(before.get(name)), _cleaned(getattr(self, name)))
        }
        kept = [name for name in words if self.said_before is None and not self._is_unsaid(name)]
        return {name: word for name, word in words.items() if name not in kept}, kept

    def _is_unsaid(self, name: str) -> bool:
        if name == "title":
            return _letters(self.title) == _letters(title_of(self.source_uri.rpartition("/")[2]))
        return bool(getattr(self, name) == UNSAID[name])

    def kept_because(self, rights: Rights) -> str:
        """Why it stays its creator's, though another is named; empty when it changes hands."""
        if not rights.covers(self.creator):
            return f"it is {self.creator}'s, whom this job does not speak for"
        if self.creator == UNKNOWN or not self.was_shown or rights.reassign:
            return ""
        return f"it is {self.creator}'s since an earlier job, and was shown as theirs; `--reassign` moves it"


def apply(connection: Connection, page: Sequence[Listed], rights: Rights) -> tuple[list[Note], bool]:
    """Change what is said of videos, within the caller's transaction; what was changed or may not be, and whether any
    search can feel it.
    """
    given = {video.source_uri: video for video in page}
    rows = [{"source_uri": uri, "creator": video.creator, "said": video.said()} for uri, video in given.items()]
    with connection.cursor(row_factory=class_row(_Known)) as cursor:
        known = cursor.execute(KNOWN, (Jsonb(rows), UNKNOWN)).fetchall()
    notes, changes = list[Note](), list[dict[str, Any]]()
    for found in known:
        change, said = _change(found, given[found.source_uri], rights)
        notes += said
        if change:
            changes.append({**change, "id": found.id})
    _write(connection, changes)
    felt = [change["id"] for change in changes if change.keys() - {"id", "noted"}]
    carry_over(connection, felt)
    return notes, bool(felt)


def _change(found: _Known, video: Listed, rights: Rights) -> tuple[dict[str, Any], list[Note]]:
    """What to write of a video, and what to say about that."""
    change, notes = dict[str, Any](), list[Note]()
    if video.creator not in (found.creator, UNKNOWN):
        kept = found.kept_because(rights)
        if kept:
            notes.append(Note(CREATOR_KEPT, kept, video))
        else:
            change["creator"] = video.creator
            notes.append(Note(CREATOR_CHANGED, f"from {found.creator} to {video.creator}", video))
    if not rights.covers(found.creator):
        return {}, notes
    said, before = video.said(), found.said_before
    words, kept_words = found.new_words(said)
    if words:
        notes.append(Note(WORDS_CHANGED, ", ".join(words), video))
    if kept_words:
        reason = f"{', '.join(kept_words)}: it has others since an older release; change them by hand, or in the manifest again"
        notes.append(Note(WORDS_KEPT, reason, video))
    noted = (before or {}) | said
    return change | words | ({"noted": noted} if noted != before else {}), notes


def _write(connection: Connection, changes: Sequence[dict[str, Any]]) -> None:
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
    """Have the moments of these videos carry their words and their creator."""
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
    """A word as it is kept now: an older release kept, and noted, direction marks too."""
    if isinstance(word, list):
        return [_cleaned(each) for each in word]
    return characters.cleaned(word) if isinstance(word, str) else word


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()
