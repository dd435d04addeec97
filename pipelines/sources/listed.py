"""Videos as a source lists them, with what manifests say of each (title, tags …), and remarks on single videos.

Only values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Listed:
    """A video found in a source, with what its manifest says."""

    source_uri: str
    etag: str  # empty where the URI holds the content's hash
    size: int  # bytes
    creator: str  # handle
    title: str
    description: str = ""
    tags: tuple[str, ...] = ()
    wallet: str = ""
    visibility: str = ""
    language: str = ""
    is_titled: bool = True  # by its row; False: the title is made of the file's name
    is_named: bool = True  # the row names the creator; False: the job's default

    def words(self) -> dict[str, Any]:
        """Return the words of the row (title, tags …) as `media.videos.manifest_words` stores them, without empty ones."""
        words = {"title": self.title if self.is_titled else "", "description": self.description, "tags": [*self.tags]}
        words |= {"language": self.language, "visibility": self.visibility}
        return {name: word for name, word in words.items() if word}


class Note(NamedTuple):
    """A remark on one listed video."""

    kind: str  # one of the kinds in `remarks.py`
    reason: str
    video: Listed
    is_named: bool = True  # whether the job's answer may name the video
