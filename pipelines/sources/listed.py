"""Videos as they were found in a source, with what manifests say of them. Values alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Listed:
    """A video as it was found in a source, with what its manifest says."""

    source_uri: str
    etag: str
    size: int
    creator: str
    title: str
    description: str = ""
    tags: tuple[str, ...] = ()
    wallet: str = ""
    visibility: str = ""
    language: str = ""
    is_titled: bool = True  # rather than named after its file
    is_named: bool = True  # its creator, by a row rather than by the job

    def said(self) -> dict[str, Any]:
        """The words that were said of it, as they are noted: what is empty says nothing."""
        words = {"title": self.title if self.is_titled else "", "description": self.description, "tags": [*self.tags]}
        words |= {"language": self.language, "visibility": self.visibility}
        return {name: word for name, word in words.items() if word}


class Note(NamedTuple):
    """What people should know of a listed video: the kind of remark, the reason, which, and whether the job may name it."""

    kind: str
    reason: str
    video: Listed
    is_named: bool = True
