"""Mutants: small changes to a module's text, each of which a test should notice.

Python code is changed by its syntax tree. SQL inside string literals is changed by patterns (`words`), because half of
what the ledger decides stands in SQL. A mutant is a range of the text and its replacement, so that it reads like a
change of the source. Annotations, log lines, messages of errors, decorators and assertions are left alone. Pure; runs
nothing.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
from collections import Counter
from dataclasses import dataclass

from benchmarks.mutations import words
from benchmarks.mutations.text import Text

COMPARED: dict[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Lt: ("<", ("<=", ">=")),
    ast.LtE: ("<=", ("<", ">")),
    ast.Gt: (">", (">=", "<=")),
    ast.GtE: (">=", (">", "<")),
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.Is: ("is", ("is not",)),
    ast.IsNot: ("is not", ("is",)),
    ast.In: ("in", ("not in",)),
    ast.NotIn: ("not in", ("in",)),
}
COUNTED: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "//"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"),
    ast.BitOr: ("|", "&"),
    ast.BitAnd: ("&", "|"),
    ast.BitXor: ("^", "|"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
}
NAMED = {"min": "max", "max": "min", "any": "all", "all": "any"}
TOLD = {"confirmed": "finalized", "finalized": "confirmed"}  # how sure a node is of what it says
SILENT = ("log", "logging")
DECLARED = ("field", "dataclass", "TypeVar")  # shapes of types, no decisions
Statement = ast.stmt | ast.ExceptHandler


@dataclass(frozen=True)
class Mutant:
    """One change: `after` replaces `before`, the bytes of the module's text from `start` up to but not including `end`.

    The tests that run the lines from `first` to `last` are run for it. `key` is derived from the module, the function,
    the statement and the change, so that it stays the same when other lines move.
    """

    key: str
    module: str
    function: str  # or the constant, where it stands outside of functions
    is_inside: bool
    line: int
    first: int
    last: int
    start: int
    end: int
    before: str
    after: str

    def applied(self, source: str) -> str:
        """Return the module's text with the change made."""
        raw = source.encode()
        return (raw[: self.start] + self.after.encode() + raw[self.end :]).decode()

    def __str__(self) -> str:
        place = f"{self.module}:{self.line}" + (f" {self.function}" if self.function else "")
        return f"{self.key} {place}: {self.before!r} -> {self.after!r}"


def mutants(module: str, source: str) -> list[Mutant]:
    """Return every mutant of a module's text, in the order of the text."""
    text = Text(source)
    finder = _Finder(text)
    finder.visit(ast.parse(source))
    found, same = [], Counter[str]()
    for edit in sorted(set(finder.edits), key=lambda each: (each.start, each.end, each.after)):
        named = "|".join((module, edit.function, edit.statement, str(edit.start - edit.at), edit.after))
        same[named] += 1
        key = hashlib.sha256(f"{named}|{same[named]}".encode()).hexdigest()[:10]
        made = Mutant(key, module, edit.function, edit.is_inside, text.line(edit.start), edit.first, edit.last,
                      edit.start, edit.end, text.between(edit.start, edit.end), edit.after)  # fmt: skip
        found.append(made)
    return found


@dataclass(frozen=True)
class _Edit:
    start: int
    end: int
    after: str
    function: str
    is_inside: bool
    statement: str
    at: int  # where the statement begins
    first: int
    last: int


class _Finder(ast.NodeVisitor):
    """A visitor of a module's tree that keeps track of the function and statement it is in."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self._names: list[str] = []
        self._depth = 0  # of functions
        self._statement: Statement | None = None
        self.edits: list[_Edit] = []

    # ── Where we are ───────────────────────────────────────────────────────────────────────────────────────────────

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, Statement):
            outer, self._statement = self._statement, node
            self._removed(node)
            super().visit(node)
            self._statement = outer
        else:
            super().visit(node)

    def _edit(self, start: int, end: int, after: str) -> None:
        assert self._statement is not None
        begin = self._text.start(self._statement)
        first, last = self._lines(self._statement)
        head = self._text.lines(first, last)
        name = ".".join(self._names)
        self.edits.append(_Edit(start, end, after, name, self._depth > 0, head, begin, first, last))

    def _lines(self, statement: Statement) -> tuple[int, int]:
        """Return the first and last line of a statement without its body, or of a function with its body.

        The body belongs to a function's lines because a test has to call a function to notice a change of its head.
        """
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return statement.lineno, statement.end_lineno or statement.lineno
        body = getattr(statement, "body", None)
        if isinstance(body, list) and body:
            return statement.lineno, max(statement.lineno, body[0].lineno - 1)
        return statement.lineno, statement.end_lineno or statement.lineno

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._names.append(node.name)
        self._depth += 1
        for default in (*node.args.defaults, *(each for each in node.args.kw_defaults if each is not None)):
            self.visit(default)
        for each in node.body:
            self.visit(each)
        self._depth -= 1
        self._names.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = _function  # noqa: N815  as ast calls them

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._names.append(node.name)
        for each in node.body:
            self.visit(each)
        self._names.pop()

    def visit_Assign(self, node: ast.Assign) -> None:
        self._assigned(node.targets[0], node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._assigned(node.target, node.value)

    def _assigned(self, target: ast.expr, value: ast.expr) -> None:
        """Visit an assigned value; outside of functions, its mutants carry the variable's name as `Mutant.function`."""
        names = [each.id for each in ast.walk(target) if isinstance(each, ast.Name)]
        if self._depth or not names:
            self.visit(value)
            return
        self._names.append(names[0])
        self.visit(value)
        self._names.pop()

    # ── What is left alone ─────────────────────────────────────────────────────────────────────────────────────────

    def visit_Assert(self, node: ast.Assert) -> None:
        """Skip assertions: they always hold, so nothing is decided by them."""

    def visit_Import(self, node: ast.Import) -> None:
        """Skip imports: they decide nothing about money."""

    def visit_Raise(self, node: ast.Raise) -> None:
        """Skip the error that is raised, so its message stays; `_removed` adds the mutant without the `raise`."""

    # ── Statements ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _removed(self, node: Statement) -> None:
        """Add the mutant in which a statement does nothing, if it is of a kind whose absence a test should notice.

        These are calls, `raise`, `del`, `break`, a `return` without a value, and assignments such as `+=`. A `continue`
        becomes a `break`.
        """
        is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and not _is_silent(node.value)
        is_end = isinstance(node, ast.Return) and node.value is None
        if is_call or is_end or isinstance(node, (ast.AugAssign, ast.Raise, ast.Delete)):
            self._edit(self._text.start(node), self._text.end(node), "pass")
        if isinstance(node, (ast.Continue, ast.Break)):
            after = "break" if isinstance(node, ast.Continue) else "pass"
            self._edit(self._text.start(node), self._text.end(node), after)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if type(node.op) in COUNTED:
            before, after = COUNTED[type(node.op)]
            self._between(node.target, node.value, f"{before}=", f"{after}=")
        self.visit(node.value)

    def visit_If(self, node: ast.If | ast.IfExp | ast.While) -> None:
        self._negated(node.test)
        self.generic_visit(node)

    visit_IfExp = visit_While = visit_If  # noqa: N815

    # ── Expressions ────────────────────────────────────────────────────────────────────────────────────────────────

    def visit_Compare(self, node: ast.Compare) -> None:
        sides = [node.left, *node.comparators]
        for (left, right), op in zip(itertools.pairwise(sides), node.ops, strict=True):
            before, others = COMPARED[type(op)]
            for after in others:
                self._between(left, right, before, after)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        before, after, neutral = ("and", "or", "True") if isinstance(node.op, ast.And) else ("or", "and", "False")
        for left, right in itertools.pairwise(node.values):
            self._between(left, right, before, after)
        for each in node.values:
            self._edit(self._text.start(each), self._text.end(each), neutral)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, (ast.Not, ast.USub)):
            self._edit(self._text.start(node), self._text.start(node.operand), "")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in COUNTED and not any(_is_no_number(each) for each in (node.left, node.right)):
            before, after = COUNTED[type(node.op)]
            self._between(node.left, node.right, before, after)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for each in node.ifs:
            self._edit(self._text.start(each), self._text.end(each), "True")
            self._negated(each)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if _is_silent(node) or (isinstance(node.func, ast.Name) and node.func.id in DECLARED):
            return
        if isinstance(node.func, ast.Name) and node.func.id in NAMED:
            self._edit(self._text.start(node.func), self._text.end(node.func), NAMED[node.func.id])
        self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg != "strict":  # of `zip`: an assertion
            self.visit(node.value)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        self._words(node)  # its inner places are not known before Python 3.12

    def visit_Constant(self, node: ast.Constant) -> None:
        start, end, value = self._text.start(node), self._text.end(node), node.value
        if isinstance(value, bool):
            self._edit(start, end, str(not value))
        elif isinstance(value, int):
            for other in {value + 1, value - 1} if value else {1}:
                self._edit(start, end, str(other))
        elif isinstance(value, str) and value in TOLD:
            self._edit(start, end, f'"{TOLD[value]}"')
        elif isinstance(value, str) and not self._is_docstring(node):
            self._words(node)

    # ── Hands ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _between(self, left: ast.AST, right: ast.AST, before: str, after: str) -> None:
        """Add the mutant with the operator `after` in place of `before`, which stands between two operands."""
        place = self._text.word(before, self._text.end(left), self._text.start(right))
        if place is not None:
            self._edit(*place, after)

    def _negated(self, test: ast.expr) -> None:
        """Add the mutant with a negated condition.

        A comparison, a `not` or a constant is left out: such a node has mutants of its own.
        """
        if not isinstance(test, (ast.Compare, ast.UnaryOp, ast.Constant)):
            start, end = self._text.start(test), self._text.end(test)
            self._edit(start, end, f"(not ({self._text.between(start, end)}))")

    def _words(self, node: ast.Constant | ast.JoinedStr) -> None:
        start, end = self._text.start(node), self._text.end(node)
        for at, until, after in words.changes(self._text.between(start, end)):
            self._edit(start + at, start + until, after)

    def _is_docstring(self, node: ast.Constant) -> bool:
        return isinstance(self._statement, ast.Expr) and self._statement.value is node


def _is_silent(call: ast.Call) -> bool:
    return (
        isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name) and call.func.value.id in SILENT
    )


def _is_no_number(node: ast.expr) -> bool:
    """Return whether a node is a literal string, list, tuple, dictionary or set, or a comprehension.

    No mutant changes an operator beside such a node: the new operator would raise in any test, which proves nothing.
    """
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (str, bytes))
    return isinstance(node, (ast.JoinedStr, ast.List, ast.Tuple, ast.Dict, ast.ListComp, ast.DictComp, ast.Set))
