"""Variants: other settings of the ranking for a share of the viewers, so that two rankings can be compared on real traffic.

Which variant a viewer has follows from a hash of the viewer and of the variants' names: it is the same on every replica and
every day, is stored nowhere, and changes when other variants are compared.
"""

from __future__ import annotations

import hashlib

from serve.access.viewers import Viewer
from serve.settings import PPM, SearchSettings

NONE = ""


class Variants:
    """The variants of one deployment, with the settings that each searches by."""

    def __init__(self, search: SearchSettings) -> None:
        self._plain, self._variants = search, search.varied()
        self._salt = "\0".join(variant.name for variant in self._variants)

    def of(self, viewer: Viewer) -> tuple[str, SearchSettings]:
        """Return the name of a viewer's variant ("" for none), and the settings that their searches use."""
        if not self._variants:
            return NONE, self._plain
        place = self._place(viewer)
        for variant in self._variants:
            if place < variant.share_ppm:
                return variant.name, variant.search
            place -= variant.share_ppm
        return NONE, self._plain

    def headers(self, name: str) -> dict[str, str]:
        """Return the headers that name the variant of an answer; empty if the deployment has no variants."""
        return {"x-pixr-variant": name or "none"} if self._variants else {}

    def _place(self, viewer: Viewer) -> int:
        """Return where a viewer's hash lies, from 0 to PPM - 1; each variant has a range of `share_ppm`."""
        digest = hashlib.sha256("\0".join((self._salt, viewer.kind, viewer.identity)).encode()).digest()
        return int.from_bytes(digest[:8]) * PPM >> 64
