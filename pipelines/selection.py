"""Which files of a folder are videos, and which row of which manifest speaks of each.

Works on paths alone, relative and with `/`, so that it is the same for a local folder and for a prefix in S3. A row fits a
file when the paths are the same; else when they are once written in one way (`./`, backslashes, Unicode composed); else
when they differ in case only and one file alone fits. A video whose row is refused is left out: without its row it would
be another creator's.
"""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from pipelines import manifest
from pipelines.manifest import Entry, Rows
from pipelines.remarks import FILE_WITHOUT_ROW, LEFT_OUT, ROW_REFUSED, ROW_WITHOUT_FILE, Remarks


@dataclass(frozen=True)
class Manifest:
    """The rows of a manifest, where they apply (a folder, "" for the top) and what it is called in remarks."""

    name: str
    folder: str
    rows: Rows


def select(
    paths: Sequence[str], manifests: Iterable[Manifest], remarks: Remarks, *, by_ending: bool = True
) -> list[tuple[str, Entry | None]]:
    """The videos among `paths` in their order, each with what is said of it; None where nothing is.

    A manifest in a deeper folder outweighs one further up. What does not fit goes into `remarks`. Without `by_ending`
    every path is taken for a video: it was named by hand.
    """
    names, said, refused = _Names(paths), dict[str, Entry](), dict[str, str]()
    applied = sorted(manifests, key=lambda each: each.folder.count("/") + bool(each.folder))
    for each in applied:
        _apply(each, names, said, refused, remarks)
    chosen = list[tuple[str, Entry | None]]()
    for path in paths:
        if path in refused and path not in said:
            remarks.add(LEFT_OUT, refused[path], path)
        elif path in said:
            chosen.append((path, said[path]))
        elif not by_ending or manifest.is_video(path):
            chosen.append((path, None))
            if any(_lies_in(path, each.folder) for each in applied):
                remarks.add(FILE_WITHOUT_ROW, "no row of a manifest speaks of it", path)
        elif not manifest.is_manifest(path):
            remarks.add(LEFT_OUT, f"{_ending(path)} is no ending of a video", path)
    return chosen


def refused(paths: Sequence[str], manifests: Iterable[Manifest]) -> dict[str, str]:
    """Paths whose row is refused in one of these manifests, whatever others say, with the reason."""
    names, found = _Names(paths), dict[str, str]()
    for each in manifests:
        in_it = dict[str, str]()
        _apply(each, names, {}, in_it, Remarks())
        found |= in_it
    return found


def _apply(each: Manifest, names: _Names, said: dict[str, Entry], refused: dict[str, str], remarks: Remarks) -> None:
    taken = dict[str, int]()
    for row in each.rows.refused:
        remarks.add(ROW_REFUSED, row.reason, f"{each.name}, line {row.line}")
        for path in names.meant(each.folder, row.file) if row.file else ():
            refused[path] = f"its row ({each.name}, line {row.line}) is refused: {row.reason}"
            said.pop(path, None)
    for good in each.rows.good:
        where, found = f"{each.name}, line {good.line}", names.meant(each.folder, good.entry.file)
        if not found:
            remarks.add(ROW_WITHOUT_FILE, "no file of this name is there", f"{where}: {good.entry.file}")
        elif len(found) > 1:
            remarks.add(ROW_REFUSED, f"{good.entry.file!r} fits several files", where)
            refused |= dict.fromkeys(found, f"a row ({where}) fits it and others")
            for path in found:
                said.pop(path, None)
        elif found[0] in taken:
            remarks.add(ROW_REFUSED, f"line {taken[found[0]]} speaks of the same file", where)
        else:
            taken[found[0]] = good.line
            said[found[0]] = good.entry
            refused.pop(found[0], None)


def written(path: str) -> str:
    """A path as one writes it: `/` between its parts, no `./`, letters with their accents composed (NFC)."""
    return unicodedata.normalize("NFC", posixpath.normpath(path.replace("\\", "/")))


def _folded(path: str) -> str:
    return written(path).casefold()


class _Names:
    """Paths by the ways in which a row may name them; each index is made when it is first needed."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths

    def meant(self, folder: str, file: str) -> list[str]:
        """The paths that a row of a folder's manifest may mean, by the strictest comparison that finds any."""
        path = f"{folder}/{file}" if folder else file
        if path in self._exact:
            return [path]
        inside = f"{written(folder)}/" if folder else ""
        if not written(path).startswith(inside) or written(path).startswith("../"):
            return []
        return self._written.get(written(path)) or self._by_case.get(_folded(path)) or []

    @cached_property
    def _exact(self) -> frozenset[str]:
        return frozenset(self._paths)

    @cached_property
    def _written(self) -> dict[str, list[str]]:
        return self._by(written)

    @cached_property
    def _by_case(self) -> dict[str, list[str]]:
        return self._by(_folded)

    def _by(self, form: Callable[[str], str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path in self._paths:
            found.setdefault(form(path), []).append(path)
        return found


def _lies_in(path: str, folder: str) -> bool:
    return not folder or path.startswith(f"{folder}/")


def _ending(path: str) -> str:
    return posixpath.splitext(path)[1].lower() or "a name without an ending"
