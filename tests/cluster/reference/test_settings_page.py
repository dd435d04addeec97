"""The page of settings says of each what its section says, and units from the ends of names."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import pytest

from cluster import settings
from cluster.reference import settings_page


@dataclasses.dataclass(frozen=True)
class Section:
    """How something is done."""

    SECTION: ClassVar[str] = "section"
    RETIRED: ClassVar[tuple[str, ...]] = ("former",)

    # Times.
    wait_max_s: float = 86_400.0  # how long it waits: a | b
    folders: tuple[str, ...] = ("a", "b")  # where it looks
    silent: bool = False

    def __post_init__(self) -> None:
        if self.wait_max_s < 0:
            raise ValueError("wait_max_s must not be negative")


def test_a_row_has_type_default_unit_bounds_and_meaning() -> None:
    page = settings_page.page({"section": Section})
    assert "## `[section]`\n\nHow something is done.\n" in page
    assert "\nTimes.\n" in page
    assert "| `wait_max_s` | number | `86_400.0` | seconds | 0 or more | How long it waits: a \\| b |" in page
    assert '| `folders` | list of texts | `["a", "b"]` |  |  | Where it looks |' in page
    assert "ignored with a warning: `former`." in page


def test_a_setting_without_a_meaning_is_named() -> None:
    assert settings_page.undescribed({"section": Section}) == ["[section] silent"]
    assert settings_page.undescribed(settings.section_types()) == []


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("timeout_s", "seconds"),
        ("file_max_mb", "MB"),
        ("refused_bytes_per_s_min", "bytes a second"),
        ("rpc_requests_per_s", "a second"),
        ("stake_min_pix", "base units of PIX"),
        ("bodies_max", ""),
    ],
)
def test_a_unit_is_the_end_of_a_name(name: str, unit: str) -> None:
    assert settings_page.unit(name) == unit


@pytest.mark.parametrize(
    ("value", "written"),
    [(True, "true"), ("a", '"a"'), (("a",), '["a"]'), (10_000, "10_000"), (0.5, "0.5"), (2.0, "2.0"), ((), "[]")],
)
def test_a_default_is_written_as_toml(value: Any, written: str) -> None:
    assert settings_page.literal(value) == written
