"""Which files of a folder are videos, and which row of which manifest speaks of each.

Works on paths alone, relative and with `/`, so that it is the same for a local folder and for a prefix in S3. A row fits a
file when the paths are the same; else when they are once written in one way (`./`, backslashes, Unicode composed); else
when they differ in case only and one file alone fits. A video whose row is refused is left out: without its row it would
be another creator's. So is one that two rows of equal rank give to different creators.
"""

from __future__ import annotations

import itertools
import posixpath
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from pipelines import manifest
from pipelines.manifest import Entry, RefusedRow, Row, Rows
from pipelines.remarks import FILE_WITHOUT_ROW, LEFT_OUT, MANIFEST_EMPTY, ROW_REFUSED, ROW_WITHOUT_FILE, Remarks


@dataclass(frozen=True)
class Manifest:
    """The rows of a manifest, where they apply (a folder, "" for the top) and what it is called in remarks."""

    name: str
    folder: str
    rows: Rows

    def place_of(self, row: Row | RefusedRow) -> str:
        """Where a row stands, as remarks name it."""
        return f"{self.name}, line {row.line}"

    def depth(self) -> int:
        """How many folders lie above its rows; of two rows for one file the deeper one counts."""
        return self.folder.count("/") + bool(self.folder)


@dataclass(frozen=True)
class Said:
    """What a row says of a file, and where the row stands."""

    entry: Entry
    where: str

    def is_same(self, other: Said) -> bool:
        """Whether another row says the same, however it writes the file's name."""
        return replace(self.entry, file=other.entry.file) == other.entry


@dataclass(frozen=True)
class Selection:
    """The videos of a folder in their order, each with what is said of it (None where nothing is); and those that a
    manifest keeps out.
    """

    chosen: list[tuple[str, Said | None]]
    kept_out: list[str]


def select(
    paths: Sequence[str], manifests: Iterable[Manifest], remarks: Remarks, *, by_ending: bool = True
) -> Selection:
    """The videos among `paths`. A manifest in a deeper folder outweighs one further up. What does not fit goes into
    `remarks`. Without `by_ending` every path is taken for a video: it was named by hand.
    """
    names, said, refused = _Names(paths), dict[str, Said](), dict[str, str]()
    applied = sorted(manifests, key=Manifest.depth)
    for _, level in itertools.groupby(applied, Manifest.depth):
        _apply(list(level), names, said, refused, remarks)
    for each in applied:
        refused |= _waiting(each, [path for path in paths if path not in said and path not in refused])
    found = Selection([], [])
    for path in paths:
        if path in refused:
            found.kept_out.append(path)
            remarks.add(LEFT_OUT, refused[path], path)
        elif path in said:
            found.chosen.append((path, said[path]))
        elif not by_ending or manifest.is_video(path):
            found.chosen.append((path, None))
            if any(_lies_in(path, each.folder) for each in applied):
                remarks.add(FILE_WITHOUT_ROW, "no row of a manifest speaks of it", path)
        elif posixpath.basename(path).lower().startswith("manifest") and not manifest.is_manifest(path):
            remarks.add(LEFT_OUT, f"a manifest is called {' or '.join(manifest.NAMES)}", path)
        elif not manifest.is_manifest(path):
            remarks.add(LEFT_OUT, f"{_ending(path)} is not among the endings that are taken", path)
    return found


def refused(paths: Sequence[str], manifests: Iterable[Manifest]) -> dict[str, str]:
    """Paths that one of these manifests keeps out, whatever others say, with the reason."""
    names, found = _Names(paths), dict[str, str]()
    for each in manifests:
        said, in_it = dict[str, Said](), dict[str, str]()
        _apply([each], names, said, in_it, Remarks())
        found |= _waiting(each, [path for path in paths if path not in said]) | in_it
    return found


def _waiting(each: Manifest, unsaid: Iterable[str]) -> dict[str, str]:
    """Videos that a line may speak of that could not be read: those in its folder that no row speaks of."""
    line = each.rows.unread()
    if line is None:
        return {}
    reason = f"line {line} of {each.name} could not be read; files without a row wait until it is mended"
    return {path: reason for path in unsaid if manifest.is_video(path) and _lies_in(path, each.folder)}


def _apply(
    level: Sequence[Manifest], names: _Names, said: dict[str, Said], refused: dict[str, str], remarks: Remarks
) -> None:
    """Note what the manifests of one depth say. What one of their rows keeps out, no other one of them lets in."""
    taken, out = dict[str, Said](), dict[str, str]()
    for each in level:
        if each.rows.is_empty:
            remarks.add(MANIFEST_EMPTY, "no row stands in it", each.name)
        for row in each.rows.refused:
            where = each.place_of(row)
            remarks.add(ROW_REFUSED, row.reason, where)
            for path in names.meant(each.folder, row.file) if row.file else ():
                out[path] = f"its row ({where}) is refused: {row.reason}"
    for each in level:
        for good in each.rows.good:
            _take(Said(good.entry, each.place_of(good)), names.meant(each.folder, good.entry.file), taken, out, remarks)
    said |= taken
    for path in taken:
        refused.pop(path, None)
    refused |= out


def _take(row: Said, found: Sequence[str], taken: dict[str, Said], out: dict[str, str], remarks: Remarks) -> None:
    """Give a row to the file that it means. Of two for one file the first counts where they agree on the creator."""
    if not found:
        remarks.add(ROW_WITHOUT_FILE, "no file of this name is there", f"{row.where}: {row.entry.file}")
    elif len(found) > 1:
        remarks.add(ROW_REFUSED, f"{row.entry.file!r} fits several files", row.where)
        out |= dict.fromkeys(found, f"a row ({row.where}) fits it and others")
    elif (first := taken.setdefault(found[0], row)) is not row and not first.is_same(row):
        remarks.add(ROW_REFUSED, f"another row speaks of the same file: {first.where}", row.where)
        if first.entry.creator != row.entry.creator:
            out[found[0]] = f"two rows give it to different creators: {first.where}, and {row.where}"


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
