"""The tool that changes the ledger to see whether a test notices: what it changes, what it asks, and that it goes on."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from benchmarks.mutations import Score, survivors
from benchmarks.mutations.draw import Plan, Uses, equivalents, modules, sample, sources
from benchmarks.mutations.operators import Mutant, mutants
from benchmarks.mutations.runner import Runner
from benchmarks.mutations.session import Mapped, Session
from cluster.settings import ROOT, Settings
from tests.conftest import RUNNING_GROUND

PLAN = Plan.load()
TEXTS = sources(ROOT, modules(ROOT))
PYTHON = '''
MOST = 2

def pay(due: int | None, held: bool) -> int:
    """Not a - b."""
    log.info("never < changed", 1)
    if not held and due > MOST:
        send(due, commitment="finalized")
    return max(due - 1, 0)
'''
SQL = """
def due(connection):
    connection.execute(
        "UPDATE t SET a = 1 WHERE b = %s AND c IS NULL"
        f" AND state IN ('live', 'expired') AND {due} AND until > now()",
        ("a text = with no SQL",),
    )
"""


def changed(source: str) -> set[tuple[str, str]]:
    return {(each.before, each.after) for each in mutants("m", source)}


def test_python_is_changed_where_it_decides_and_counts() -> None:
    assert changed(PYTHON) == {
        ("2", "1"), ("2", "3"),
        ("not ", ""), ("not held", "True"), ("due > MOST", "True"), ("and", "or"), (">", ">="), (">", "<="),
        ("not held and due > MOST", "(not (not held and due > MOST))"),
        ('send(due, commitment="finalized")', "pass"), ('"finalized"', '"confirmed"'),
        ("max", "min"), ("-", "+"), ("1", "0"), ("1", "2"), ("0", "1"),
    }  # fmt: skip


def test_sql_is_changed_where_it_asks_and_not_where_it_sets() -> None:
    assert changed(SQL) - {(each, "pass") for each, after in changed(SQL) if after == "pass"} == {
        ("=", "<>"), ("AND", "OR"), ("IS NULL", "IS NOT NULL"), ("IN (", "NOT IN ("), (">", ">="), (">", "<="),
        ("'live', ", ""), (", 'expired'", ""), ("1", "2"),
    }  # fmt: skip


@pytest.mark.parametrize("module", ["settling", "batches", "money"])
def test_every_mutant_is_python_that_differs_and_has_a_key_of_its_own(module: str) -> None:
    found = mutants(module, TEXTS[module])
    texts = {each.applied(TEXTS[module]) for each in found}
    assert len({each.key for each in found}) == len(texts) == len(found)
    for text in sorted(texts)[::10]:
        ast.parse(text)


def test_a_key_stays_when_other_lines_move() -> None:
    moved = mutants("m", "import os\n\n" + PYTHON.replace("MOST = 2", "MOST = 2\nLEAST = OTHER"))
    assert {each.key for each in moved} == {each.key for each in mutants("m", PYTHON)}


def test_the_sample_is_the_same_each_time_and_holds_what_decides_about_money() -> None:
    drawn = sample(PLAN, TEXTS)
    assert drawn == sample(PLAN, TEXTS)
    assert len(drawn) >= max(400, PLAN.sample_min)
    for module in PLAN.decisive:
        found = mutants(module, TEXTS[module])
        assert {each for each in found if PLAN.is_decisive(each)} <= set(drawn)
        assert sum(each.module == module for each in drawn) >= 15


def test_every_name_that_the_settings_call_decisive_is_there() -> None:
    named = {(module, each.function) for module in PLAN.decisive for each in mutants(module, TEXTS[module])}
    for module, names in PLAN.decisive.items():
        for name in names:
            one = Plan(**{**vars(PLAN), "decisive": {module: [name]}})
            assert any(each == module and one.is_decisive(of(module, function)) for each, function in named), (
                module,
                name,
            )


def of(module: str, function: str) -> Mutant:
    return Mutant("", module, function, True, 0, 0, 0, 0, 0, "", "")


def test_a_constant_asks_the_tests_of_what_is_made_of_it() -> None:
    text = "A = 1\nB = 'x'.format(A)\n\ndef f():\n    return B\n\ndef g():\n    return 2\n"
    (first, *_) = mutants("m", text)
    assert (first.function, Uses({"m": text}).asked(first)) == ("A", {("m", 5, 5)})


def test_those_called_equivalent_are_in_the_sample_and_few() -> None:
    drawn = {each.key for each in sample(PLAN, TEXTS)}
    assert {key: each.change for key, each in equivalents().items() if key not in drawn} == {}
    assert len(equivalents()) <= PLAN.equivalent_max * len(drawn)
    assert [key for key, each in equivalents().items() if not each.why] == []


def test_undecided_counts_as_survived_and_equivalent_does_not_count() -> None:
    four = mutants("m", PYTHON)[:4]
    verdicts = dict(zip([each.key for each in four], ["killed", "undecided", "survived"], strict=False))
    score = Score.of(four, verdicts, frozenset([four[2].key]))
    assert (score.ratio, str(score)) == (0.5, "1 of 2, 1 equivalent, 1 not run")


def test_a_session_goes_on_and_asks_survivors_only_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "session.sqlite"
    first = Session(path)
    first.map("test_a.py", "1", "all", {"a::b": 0.5, "a::c": 1}, ["a::c"], {"a::b": {"money": [3, 4]}})
    first.survive("key", "of", first.tests().values())
    first.end("key", "money", "of", "survived")
    again = Session(path)
    assert again.verdicts({"money": "of"}) == {"key": "survived"}
    assert again.verdicts({"money": "another"}) == {}
    assert (again.unmapped({"test_a.py": "1"}, "all"), again.unsound()) == ([], ["a::c"])
    assert again.unmapped({"test_a.py": "2"}, "all") == again.unmapped({"test_a.py": "1"}, "other") == ["test_a.py"]
    assert again.lines() == {"money": {3: {"a::b"}, 4: {"a::b"}}}
    assert {(each.name, each.hash) for each in again.tests().values()} == again.passed("key", "of")
    again.map("test_a.py", "2", "all", {"a::b": 0.5}, [], {})
    assert again.tests() == {"a::b": Mapped("a::b", "test_a.py", "2", 0.5)}
    assert ("a::b", "2") not in again.passed("key", "of")


def test_a_change_of_what_an_appearance_earns_is_noticed_and_the_checkout_stays(
    ground: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUNNING_GROUND, str(ground.data_dir))
    small = {"decisive": {"money": ["appearance_amount"]}, "module_min": 0, "sample_min": 0}
    plan = Plan(**{**vars(PLAN), **small, "tests": ["tests/ledger/test_money.py"]})
    said: list[str] = []
    runner = Runner(plan, tmp_path, said.append)
    runner.run(float("inf"))
    assert survivors(runner) == []
    assert len(runner.session.verdicts(runner.hashes)) == len(runner.sample) > 3
    assert (tmp_path / "tree/ledger/money.py").read_text() == (ROOT / "ledger/money.py").read_text() == TEXTS["money"]
    said.clear()
    Runner(plan, tmp_path, said.append).run(float("inf"))
    assert said == []
