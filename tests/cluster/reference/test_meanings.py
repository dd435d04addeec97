"""What a setting means is said once, in the comment beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cluster.reference import meanings
from cluster.reference.meanings import Group


@dataclass(frozen=True)
class Section:
    """A section."""

    SECTION: ClassVar[str] = "section"
    # Stands above without an empty line.
    first: int = 1
    second: int = 2  # on its line

    # A heading.
    third: int = 3  # under the heading
    fourth: tuple[str, ...] = (
        "a # that is no comment",
        "b",
    )  # after its last line
    # Above,
    # over two lines.
    fifth: int = 5  # and beside
    silent: int = 6

    # Another heading.

    # Above the first of a group.
    seventh: int = 7
    eighth: int = 8  # fmt: skip

    # The only one's meaning.
    ninth: int = 9

    def method(self) -> None:
        local: int = 1  # is no setting
        assert local


def test_meanings_are_the_comments_beside_and_above_settings() -> None:
    assert meanings.groups(Section) == [
        Group("", {"first": "Stands above without an empty line", "second": "on its line"}),
        Group(
            "A heading",
            {
                "third": "under the heading",
                "fourth": "after its last line",
                "fifth": "Above, over two lines. and beside",
                "silent": "",
            },
        ),
        Group("Another heading", {"seventh": "Above the first of a group", "eighth": ""}),
        Group("", {"ninth": "The only one's meaning"}),
    ]
