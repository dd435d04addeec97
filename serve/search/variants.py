"""Variants: other weights for a share of the viewers, so that two rankings can be compared on real traffic.

Which variant a viewer has follows from a hash of who they are and the variants' names: it is the same on every replica
and every day, is kept nowhere, and changes when the comparison does.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from serve.access.viewers import Viewer
from serve.search.context import SearchContext
from serve.settings import PPM

NONE = ""


class Variants:
    """The variants of one deployment, with services that rank by them."""

    def __init__(self, services: SearchContext) -> None:
        self._plain = services
        self._made = [
            (each.name, each.share_ppm, replace(services, search=each.search)) for each in services.search.varied()
        ]
        self._salt = "\0".join(name for name, _, _ in self._made)

    def of(self, viewer: Viewer) -> tuple[str, SearchContext]:
        """A viewer's variant, "" for none, and the services that answer them."""
        if not self._made:
            return NONE, self._plain
        place = self._place(viewer)
        for name, share_ppm, services in self._made:
            if place < share_ppm:
                return name, services
            place -= share_ppm
        return NONE, self._plain

    def headers(self, name: str) -> dict[str, str]:
        """What an answer says of its variant, where there are any."""
        return {"x-pixr-variant": name or "none"} if self._made else {}

    def _place(self, viewer: Viewer) -> int:
        digest = hashlib.sha256("\0".join((self._salt, viewer.kind, viewer.identity)).encode()).digest()
        return int.from_bytes(digest[:8]) * PPM >> 64
