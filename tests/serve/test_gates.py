"""Gates: one caller has a part of the places, and whoever waits behind them waits for nobody else."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from contextlib import AsyncExitStack, ExitStack

import pytest

from cluster.errors import Temporary
from serve import gates
from serve.gates import Gate
from serve.settings import SearchSettings


async def hold(gate: Gate, whose: str, until: asyncio.Event, held: list[str]) -> None:
    async with gate.passed(whose):
        held.append(whose)
        await until.wait()


async def test_one_caller_does_not_take_the_places_of_others() -> None:
    gate, until, held = Gate("searches", 4, 20, share_max=2), asyncio.Event(), list[str]()
    tasks = [asyncio.create_task(hold(gate, "greedy", until, held)) for _ in range(8)]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(hold(gate, "quiet", until, held)) for _ in range(2)]
    await asyncio.sleep(0.01)
    assert sorted(held) == ["greedy", "greedy", "quiet", "quiet"]
    until.set()
    await asyncio.gather(*tasks)
    assert len(held) == 10
    assert (gate.held, gate.waiting) == (0, 0)


async def test_a_place_goes_to_the_caller_who_has_had_the_fewest() -> None:
    gate, held = Gate("searches", 2, 20), list[str]()
    ends = [asyncio.Event() for _ in range(6)]
    tasks = [asyncio.create_task(hold(gate, "greedy", end, held)) for end in ends[:5]]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(hold(gate, "quiet", ends[5], held)))
    await asyncio.sleep(0.01)
    assert held == ["greedy", "greedy"]
    ends[0].set()
    await asyncio.sleep(0.01)
    assert held == ["greedy", "greedy", "quiet"]  # before the three that came first
    for end in ends:
        end.set()
    await asyncio.gather(*tasks)


async def test_a_caller_who_asks_now_and_then_waits_for_nobody_s_queue() -> None:
    gate, order = Gate("searches", 1, 90), list[str]()

    async def ask(whose: str) -> None:
        async with gate.passed(whose):
            order.append(whose)
            await asyncio.sleep(0.001)

    await ask("quiet")
    greedy = [asyncio.create_task(ask(f"greedy {number % 3}")) for number in range(60)]
    for turn in range(5):
        await greedy[9 + 6 * turn]  # so that the others have had more than the quiet one
        before = len(order)
        await ask("quiet")
        assert len(order) - before <= 5  # whoever had the place, a turn of each of the three, and the quiet one
    await asyncio.gather(*greedy)
    among = [order[:40].count(f"greedy {number}") for number in range(3)]
    assert max(among) - min(among) <= 1


async def test_a_key_s_searches_come_before_those_of_strangers() -> None:
    gate, order, until = Gate("searches", 1, 90), list[str](), asyncio.Event()

    async def ask(whose: str, weight: float) -> None:
        async with gate.passed(whose, weight):
            order.append(whose)
            await until.wait()

    first = asyncio.create_task(ask("first", 1.0))
    await asyncio.sleep(0)
    asked = [asyncio.create_task(ask("a stranger", 1.0)) for _ in range(20)]
    asked += [asyncio.create_task(ask("a key", 4.0)) for _ in range(20)]
    await asyncio.sleep(0)
    until.set()
    await asyncio.gather(first, *asked)
    early = order[1:21]
    assert 15 <= early.count("a key") <= 17  # four for each of the stranger's, whose are not left out either


async def test_strangers_who_each_come_once_do_not_pass_a_key_by() -> None:
    """A new name for every request, as whoever has many addresses has, is no way around those who have had places."""
    gate, order = Gate("searches", 1, 200), list[str]()

    async def ask(whose: str, weight: float) -> None:
        async with gate.passed(whose, weight):
            order.append(whose)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as asked:
        for round_ in range(30):
            for number in range(4):
                asked.create_task(ask(f"stranger {round_} {number}", 1.0))
            asked.create_task(ask("a key", 8.0))
            await asyncio.sleep(0)
    assert max(number for number, whose in enumerate(order) if whose == "a key") < 60


async def test_a_key_has_room_where_strangers_fill_it() -> None:
    gate, until, held = Gate("searches", 2, 8), asyncio.Event(), list[str]()
    strangers = [asyncio.create_task(hold(gate, f"stranger {number}", until, held)) for number in range(10)]
    await asyncio.sleep(0)
    asked = [asyncio.ensure_future(_weighty(gate, held)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Temporary):
        await hold(gate, "stranger 10", until, held)
    until.set()
    await asyncio.gather(*asked)
    ended = await asyncio.gather(*strangers, return_exceptions=True)
    assert held.count("a key") == 3
    assert [type(each) for each in ended] == [type(None)] * 7 + [Temporary] * 3  # those who came last gave way


async def _weighty(gate: Gate, held: list[str]) -> None:
    async with gate.passed("a key", 8.0):
        held.append("a key")


async def test_who_has_waited_too_long_is_sent_away_while_it_is_worth_to_ask_again() -> None:
    gate, until, held = Gate("searches", 1, 20, wait_s=0.05), asyncio.Event(), list[str]()
    first = asyncio.create_task(hold(gate, "a", until, held))
    await asyncio.sleep(0)
    with pytest.raises(Temporary, match="too many searches at once"):
        await hold(gate, "b", until, held)
    assert (gate.held, gate.waiting) == (1, 0)
    until.set()
    await first
    assert SearchSettings().gate_wait_s < SearchSettings().deadline_s / 2  # else what is begun late is thrown away


async def test_callers_who_come_once_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.gates.CALLERS_MAX", 10)
    gate = Gate("searches", 1, 60)
    for number in range(100):
        async with gate.passed(f"caller {number}"):
            assert len(gate._callers) <= 10


async def test_whenever_callers_go_away_every_place_comes_back() -> None:
    rng = random.Random(20)
    gate = Gate("searches", 3, 40, wait_s=0.004, share_max=2)
    most = 0

    async def come_and_go(number: int) -> None:
        nonlocal most
        await asyncio.sleep(rng.uniform(0, 0.05))
        async with gate.passed(f"caller {number % 5}" if number % 6 else ""):
            most = max(most, gate.held)
            await asyncio.sleep(rng.choice((0, 0, 0.001, 0.004)))

    tasks = [asyncio.create_task(come_and_go(number)) for number in range(600)]
    for _ in range(60):
        await asyncio.sleep(rng.choice((0, 0, 0.001)))
        for task in rng.sample(tasks, 5):
            task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(each) for each in ended} == {type(None), Temporary, asyncio.CancelledError}
    assert most == 3
    assert (gate.held, gate.waiting) == (0, 0)
    async with gate.passed("a"), gate.passed("b"), gate.passed("c"):
        pass


async def test_a_caller_who_fills_the_room_to_wait_in_leaves_half_of_it() -> None:
    gate, until, held = Gate("searches", 4, 8, share_max=1), asyncio.Event(), list[str]()
    tasks = [asyncio.create_task(hold(gate, "greedy", until, held)) for _ in range(5)]
    await asyncio.sleep(0.01)
    with pytest.raises(Temporary):
        async with gate.passed("greedy"):
            pass
    async with gate.passed("quiet"):
        pass
    until.set()
    await asyncio.gather(*tasks)


async def test_callers_who_are_cancelled_while_they_wait_leave_nothing_behind() -> None:
    gate, until, held = Gate("searches", 2, 20, share_max=1), asyncio.Event(), list[str]()
    first = asyncio.create_task(hold(gate, "a", until, held))
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(hold(gate, "a", until, held)) for _ in range(5)]
    await asyncio.sleep(0.01)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (gate.held, gate.waiting) == (1, 0)
    until.set()
    await first
    async with gate.passed("a"), gate.passed("b"):
        assert gate.held == 2


def test_serve_takes_what_all_gates_hold_and_let_wait() -> None:
    """Else it would queue before them, where nobody is told to come again."""
    search = SearchSettings(
        searches_max=3, lists_max=9, waiting_max=5, streams_max=7, bodies_max=32, key_questions_max=11
    )
    others = [getattr(gates.of(search), field.name) for field in dataclasses.fields(gates.Gates)]
    one_after_another = gates.of(search).large_shares  # who has a place there goes on to the gate of large bodies
    places = [
        each._places_max + getattr(each, "_waiting_max", 0)
        for each in (gates.searches(search), *others)
        if each._kind != one_after_another._kind or isinstance(each, Gate)
    ]
    assert search.gated_max == sum(places)
    dataclasses.replace(search, ongoing_requests_max=search.gated_max)
    with pytest.raises(ValueError, match="ongoing_requests_max"):
        dataclasses.replace(search, ongoing_requests_max=search.gated_max - 1)


async def test_callers_who_fill_the_room_to_wait_in_give_way_to_one_who_has_less_there() -> None:
    gate, until, held = Gate("searches", 1, 8, share_max=1), asyncio.Event(), list[str]()
    tasks = [asyncio.create_task(hold(gate, whose, until, held)) for whose in "xaaaabbbb"]
    await asyncio.sleep(0)
    assert (gate.held, gate.waiting) == (1, 8)
    late = [asyncio.create_task(hold(gate, "c", until, held)) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert (gate.held, gate.waiting) == (1, 8)
    ended = [each for each in (*tasks, *late) if each.done()]
    assert [type(each.exception()) for each in ended] == [Temporary] * 3
    assert late[2] in ended  # by then nobody has more than one more than they
    until.set()
    await asyncio.gather(*tasks, *late, return_exceptions=True)
    assert sorted(held) == [*"aaabbbccx"]
    assert (gate.held, gate.waiting) == (0, 0)


async def test_a_part_of_the_places_that_are_held_for_long_is_for_keys_alone() -> None:
    gate = Gate("pictures", 4, 4, wait_s=0.05, kept=1)
    async with AsyncExitStack() as stack:
        for whose in "abc":
            await stack.enter_async_context(gate.passed(whose))
        with pytest.raises(Temporary, match="too many pictures at once") as refused:
            await stack.enter_async_context(gate.passed("d"))
        assert refused.value.retry_after_s > 0
        await stack.enter_async_context(gate.passed("key 1", 8.0))
        with pytest.raises(Temporary):
            await stack.enter_async_context(gate.passed("key 2", 8.0))
    assert (gate.held, gate.waiting) == (0, 0)


async def test_strangers_by_any_number_of_names_wait_in_a_bounded_room_beside_a_place_kept_for_keys() -> None:
    gate, until, held = Gate("pictures", 2, 4, kept=1), asyncio.Event(), list[str]()
    tasks = [asyncio.create_task(hold(gate, f"{number}", until, held)) for number in range(50)]
    await asyncio.sleep(0.01)
    assert (gate.held, gate.waiting) == (1, 4)
    async with gate.passed("key 1", 8.0):
        assert gate.held == 2
    until.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(held) == 5
    assert (gate.held, gate.waiting) == (0, 0)


async def test_a_network_of_strangers_has_half_of_the_large_bodies_and_a_key_what_one_may_have() -> None:
    """Alone, a key with four pictures was refused while two places were free."""
    search = SearchSettings(gate_wait_s=20.0)
    for whose, weight, most in (("192.0.2.0", gates.STRANGER, 2), ("key 1", 8.0, 3)):
        own, until, held = gates.of(search), asyncio.Event(), list[str]()
        tasks = [asyncio.create_task(_read(own, whose, weight, until, held)) for _ in range(4)]
        await asyncio.sleep(0.01)
        assert (len(held), own.large_bodies.held) == (most, most)
        until.set()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in ended].count(Temporary) == (0 if weight > gates.STRANGER else 1)
        assert own.large_bodies.held == own.large_shares.held == 0


async def _read(own: gates.Gates, whose: str, weight: float, until: asyncio.Event, held: list[str]) -> None:
    with own.large_shares.passed(whose, weight):
        async with own.large_bodies.passed(whose, weight):
            held.append(whose)
            await until.wait()


def test_the_last_places_of_bodies_and_streams_are_for_keys() -> None:
    shares = gates.Shares("bodies", 8, 8, kept=2)
    with ExitStack() as stack:
        for number in range(6):
            stack.enter_context(shares.passed(f"{number}"))
        with pytest.raises(Temporary, match="too many bodies at once"):
            stack.enter_context(shares.passed("another"))
        for _ in range(2):
            stack.enter_context(shares.passed("key 1", 8.0))
        with pytest.raises(Temporary):
            stack.enter_context(shares.passed("key 1", 8.0))
    assert shares.held == 0


def test_every_kind_that_is_held_for_long_keeps_places_for_keys() -> None:
    search = SearchSettings(kept_part=4)
    made = gates.of(search)
    assert [each._kept for each in (made.streams, made.bodies, made.large_shares)] == [16, 32, 3]
    assert [each._strangers_max for each in (made.large_bodies, made.pictures, gates.pictures(search))] == [3, 3, 3]
    with pytest.raises(ValueError, match="kept_part"):
        SearchSettings(kept_part=1)


@pytest.mark.parametrize(("searches", "images", "at_once"), [(8, 4, 4), (8, 16, 4), (2, 4, 1), (1, 4, 1), (64, 4, 4)])
def test_searches_by_a_picture_have_half_of_the_places_of_searches_at_most(
    searches: int, images: int, at_once: int
) -> None:
    search = SearchSettings(searches_max=searches, images_max=images)
    assert gates.of(search).pictures._places_max == at_once


@pytest.mark.parametrize("weight", [gates.STRANGER, 0.5, float("nan")])
def test_a_key_weighs_more_than_a_stranger_or_the_places_that_are_kept_are_nobody_s(weight: float) -> None:
    with pytest.raises(ValueError, match="key_weight must be above 1"):
        SearchSettings(key_weight=weight)
