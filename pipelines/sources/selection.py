"""Which files of a folder are videos, and which manifest row, and with it which creator, belongs to each.

Works on relative paths with `/`, so it is the same for a local folder and for a prefix in S3. A row matches a file if
the paths are equal; else if they are equal after normalisation (`./`, backslashes, Unicode composition); else if they
differ only in case and no other file fits the row in this way. Of several rows for one file, the one in the deepest
folder counts. A video whose row is refused is left out, since without its row it would go to the job's creator. A video
that two rows of equal depth give to different creators is left out too.
"""

from __future__ import annotations

import itertools
import posixpath
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from pipelines.sources import manifest
from pipelines.sources.manifest import Entry, ManifestRow, RefusedRow, Rows
from pipelines.sources.remarks import FILE_WITHOUT_ROW, LEFT_OUT, MANIFEST_EMPTY, ROW_REFUSED, ROW_WITHOUT_FILE, Remarks


@dataclass(frozen=True)
class Manifest:
    """The rows of a manifest, the folder they apply to ("" for the top), and the manifest's name in remarks."""

    name: str
    folder: str
    rows: Rows

    def place_of(self, row: ManifestRow | RefusedRow) -> str:
        """Return where a row stands, for remarks."""
        return f"{self.name}, line {row.line}"

    def depth(self) -> int:
        """Return the number of folders above its rows; of two rows for one file the deeper one counts."""
        return self.folder.count("/") + bool(self.folder)


@dataclass(frozen=True)
class MatchedRow:
    """A manifest row that matches a file, and where the row stands."""

    entry: Entry
    where: str

    def is_same(self, other: MatchedRow) -> bool:
        """Whether another row says the same, apart from how it writes the file's name."""
        return replace(self.entry, file=other.entry.file) == other.entry


@dataclass(frozen=True)
class Selection:
    """The videos of a folder in order, each with its row (None without one), and the files that a manifest keeps out."""

    chosen: list[tuple[str, MatchedRow | None]]
    kept_out: list[str]


def select(
    paths: Sequence[str], manifests: Iterable[Manifest], remarks: Remarks, *, by_ending: bool = True
) -> Selection:
    """Select the videos among paths and match them to manifest rows; a manifest in a deeper folder wins.

    Args:
        paths: Relative paths of the files.
        manifests: The manifests that apply.
        remarks: Collects rows and files that do not match, and what is left out.
        by_ending: Whether only paths that end like a video count; False for a file that was named by hand.

    Returns:
        The videos with their rows, and the files that are kept out.
    """
    names, rows, refused = _Names(paths), dict[str, MatchedRow](), dict[str, str]()
    by_depth = sorted(manifests, key=Manifest.depth)
    for _, level in itertools.groupby(by_depth, Manifest.depth):
        _apply(list(level), names, rows, refused, remarks)
    for applied in by_depth:
        refused |= _waiting(applied, [path for path in paths if path not in rows and path not in refused])
    selection = Selection([], [])
    for path in paths:
        if path in refused:
            selection.kept_out.append(path)
            remarks.add(LEFT_OUT, refused[path], path)
        elif path in rows:
            selection.chosen.append((path, rows[path]))
        elif not by_ending or manifest.is_video(path):
            selection.chosen.append((path, None))
            if any(_lies_in(path, applied.folder) for applied in by_depth):
                remarks.add(FILE_WITHOUT_ROW, "no row of a manifest speaks of it", path)
        elif posixpath.basename(path).lower().startswith("manifest") and not manifest.is_manifest(path):
            remarks.add(LEFT_OUT, f"a manifest is called {' or '.join(manifest.NAMES)}", path)
        elif not manifest.is_manifest(path):
            remarks.add(LEFT_OUT, f"{_ending(path)} is not among the endings that are taken", path)
    return selection


def refused(paths: Sequence[str], manifests: Iterable[Manifest]) -> dict[str, str]:
    """Return the paths that at least one of these manifests keeps out, with the reason."""
    names, reasons = _Names(paths), dict[str, str]()
    for applied in manifests:
        rows, own_reasons = dict[str, MatchedRow](), dict[str, str]()
        _apply([applied], names, rows, own_reasons, Remarks())
        reasons |= _waiting(applied, [path for path in paths if path not in rows]) | own_reasons
    return reasons


def _waiting(applied: Manifest, unmatched: Iterable[str]) -> dict[str, str]:
    """Return which videos among `unmatched` a manifest keeps out because of an invalid row, with the reason.

    If the row names no file, it may be for any video in the manifest's folder that has no valid row.
    """
    line = applied.rows.unread()
    if line is None:
        return {}
    reason = f"line {line} of {applied.name} could not be read; files without a row wait until it is mended"
    return {path: reason for path in unmatched if manifest.is_video(path) and _lies_in(path, applied.folder)}


def _apply(
    level: Sequence[Manifest], names: _Names, rows: dict[str, MatchedRow], refused: dict[str, str], remarks: Remarks
) -> None:
    """Match the rows of the manifests of one depth; a file that one of them keeps out is not let in by another.

    Results go to `rows` and `refused`, where rows of deeper manifests replace those of higher ones.
    """
    matched, kept_out = dict[str, MatchedRow](), dict[str, str]()
    for applied in level:
        if applied.rows.is_empty:
            remarks.add(MANIFEST_EMPTY, "no row stands in it", applied.name)
        for bad in applied.rows.refused:
            where = applied.place_of(bad)
            remarks.add(ROW_REFUSED, bad.reason, where)
            for path in names.meant(applied.folder, bad.file) if bad.file else ():
                kept_out[path] = f"its row ({where}) is refused: {bad.reason}"
    for applied in level:
        for good in applied.rows.good:
            row = MatchedRow(good.entry, applied.place_of(good))
            _take(row, names.meant(applied.folder, good.entry.file), matched, kept_out, remarks)
    rows |= matched
    for path in matched:
        refused.pop(path, None)
    refused |= kept_out


def _take(
    row: MatchedRow, paths: Sequence[str], taken: dict[str, MatchedRow], kept_out: dict[str, str], remarks: Remarks
) -> None:
    """Assign a row to the file that it matches.

    If two rows match one file, the first counts; if they name different creators, the file is kept out.
    """
    if not paths:
        remarks.add(ROW_WITHOUT_FILE, "no file of this name is there", f"{row.where}: {row.entry.file}")
    elif len(paths) > 1:
        remarks.add(ROW_REFUSED, f"{row.entry.file!r} fits several files", row.where)
        kept_out |= dict.fromkeys(paths, f"a row ({row.where}) fits it and others")
    elif (first := taken.setdefault(paths[0], row)) is not row and not first.is_same(row):
        remarks.add(ROW_REFUSED, f"another row speaks of the same file: {first.where}", row.where)
        if first.entry.creator != row.entry.creator:
            kept_out[paths[0]] = f"two rows give it to different creators: {first.where}, and {row.where}"


def written(path: str) -> str:
    """Return a path normalised: `/` between its parts, no `./`, letters and accents composed (NFC)."""
    return unicodedata.normalize("NFC", posixpath.normpath(path.replace("\\", "/")))


def _folded(path: str) -> str:
    """Return a normalised path, case folded."""
    return written(path).casefold()


class _Names:
    """Index of paths by each form in which a row may write them; a form is indexed when it is first needed."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths

    def meant(self, folder: str, file: str) -> list[str]:
        """Return the paths that a row of a folder's manifest matches, by the strictest comparison that matches any."""
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
        """Group paths that are equal once `form` is applied to them."""
        paths: dict[str, list[str]] = {}
        for path in self._paths:
            paths.setdefault(form(path), []).append(path)
        return paths


def _lies_in(path: str, folder: str) -> bool:
    """Whether a path is below a folder ("" is the top)."""
    return not folder or path.startswith(f"{folder}/")


def _ending(path: str) -> str:
    """Return the ending of a file's name, for a remark."""
    return posixpath.splitext(path)[1].lower() or "a name without an ending"
