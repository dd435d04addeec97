"""The meanings of settings, read from the comments in the source of their section.

Empty lines divide the settings of a section into groups. A group's heading is the block of comments above its first
setting, with an empty line between them; if there is none, the block directly above that setting is the heading. A
setting's meaning is the block directly above it, unless that is the heading, and the comment on its own line. If a
group has one setting without a meaning of its own, the heading is its meaning. Knows no values.
"""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Settings that stand together in the source.

    `heading` is the heading of all of them ("" for none); `meanings` maps their names to their meanings, in order.
    """

    heading: str
    meanings: Mapping[str, str]


def groups(section: type) -> list[Group]:
    """Return the groups of a section's settings, in the order of the source."""
    found: list[Group] = []
    for heading, meanings in _grouped(textwrap.dedent(inspect.getsource(section))):
        (only, *others), stated = meanings, list(meanings.values())
        if others or stated[0]:
            found.append(Group(heading, meanings))
        else:
            found.append(Group("", {only: heading}))
    return found


def _grouped(source: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the heading of each group, and a mapping from its settings to their meanings."""
    lines, comments = source.splitlines(), _comments(source)
    alone = {number: text for number, text in comments.items() if lines[number - 1].lstrip().startswith("#")}
    heading, meanings = "", dict[str, str]()
    for node in _settings(source):
        assert isinstance(node.target, ast.Name)
        own = _block_above(alone, node.lineno)
        top = node.lineno - len(own)  # the line of the block's first comment
        if not lines[top - 2].strip():  # an empty line is above it
            if meanings:
                yield heading, meanings
            before = _block_above(alone, top - 1)
            heading, meanings = _text(before or own), {}
            own = own if before else []
        beside = [comments[number] for number in range(node.lineno, (node.end_lineno or 0) + 1) if number in comments]
        meanings[node.target.id] = _text([*own, *beside])
    if meanings:
        yield heading, meanings


def _block_above(alone: Mapping[int, str], number: int) -> list[str]:
    """Return the comments that stand directly above the line `number`, in order; `alone` maps lines to comments."""
    block: list[str] = []
    while (number := number - 1) in alone:
        block.insert(0, alone[number])
    return block


def _settings(source: str) -> list[ast.AnnAssign]:
    """Return the assignments that are settings: with an annotation, and of a name in lower case."""
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.ClassDef)
    assigned = [node for node in definition.body if isinstance(node, ast.AnnAssign)]
    return [node for node in assigned if isinstance(node.target, ast.Name) and node.target.id.islower()]


def _comments(source: str) -> dict[int, str]:
    """Map line numbers of a source to the comments there, without their `#`; comments for linters are left out."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found = {token.start[0]: token.string[1:].strip() for token in tokens if token.type == tokenize.COMMENT}
    return {line: text for line, text in found.items() if not text.startswith(("fmt:", "noqa", "type:"))}


def _text(comments: list[str]) -> str:
    return " ".join(comments).rstrip(".")
