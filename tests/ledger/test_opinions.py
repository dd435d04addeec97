"""What is believed of nodes that say different things: counted node by node, at the edge of each bound."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from solders.hash import Hash

from cluster.errors import Temporary
from ledger import chain
from ledger.chain import Chain, Effect, RpcRefusal, Simulation, Status
from tests.ledger.chains import Key

HASH = "4vJ9JU1bJJE96FWSJKvHsmmFADCg4gpZQff4P3bkLKi"
SIGNATURE = "a signature"
GAS, MARKER, FROM, TO, PROGRAM = (str(Key(name).pubkey) for name in ("gas", "marker", "from", "to", "program"))
Answer = Any  # or what makes one of the parameters, or an error


class Telling:
    """A node that says what a test lets it say, by method."""

    def __init__(self, name: str, answers: dict[str, Answer]) -> None:
        self.name, self.answers = name, answers
        self.asked: list[tuple[str, list[Any]]] = []

    async def call(self, method: str, params: list[Any]) -> Any:
        self.asked.append((method, params))
        answer = self.answers[method]
        if isinstance(answer, Exception):
            raise answer
        return copy.deepcopy(answer(params) if callable(answer) else answer)


@pytest.fixture
def pool() -> Iterator[Callable[..., Chain]]:
    """A chain of nodes, each given by what it answers."""
    made: list[Chain] = []

    def of(*answers: dict[str, Answer]) -> Chain:
        made.append(Chain([Telling(str(place), each) for place, each in enumerate(answers)]))
        return made[-1]

    yield of
    for each in made:
        each.close()


AWAY = Temporary("away")

# ── Heights and blockhashes ────────────────────────────────────────────────────────────────────────────────────────


def at(height: int, slot: int, lasts: int | None = None, context: int | None = None) -> dict[str, Answer]:
    """A node that is there, and names a blockhash that lasts until a height."""
    value = {"blockhash": HASH, "lastValidBlockHeight": height + 150 if lasts is None else lasts}
    return {
        "getEpochInfo": {"blockHeight": height, "absoluteSlot": slot},
        "getLatestBlockhash": {"context": {"slot": slot if context is None else context}, "value": value},
    }


def test_the_finalized_height_is_that_of_the_most_cautious_node(pool: Callable[..., Chain]) -> None:
    rpc = pool(at(120, 1200), at(100, 1005), at(110, 1100))
    assert rpc.finalized_height(2) == (100, 1005)
    assert pool(at(100, 10**15), at(120, 1200)).finalized_slot(2) == 1200  # the slot of who lies of both is no bound
    with pytest.raises(Temporary, match="1 of 2 RPC nodes answer"):
        pool(at(120, 1200), {"getEpochInfo": AWAY}).finalized_height(2)
    assert pool(at(120, 1200), {"getEpochInfo": AWAY}).finalized_height(1) == (120, 1200)
    options = rpc.nodes[0].asked[0][1]  # type: ignore[attr-defined]
    assert options == [{"commitment": "finalized"}]


def test_of_blockhashes_that_can_be_the_one_that_lives_longest_is_taken_from_the_oldest_slot_on(
    pool: Callable[..., Chain],
) -> None:
    found = pool(at(100, 1000, lasts=240), at(100, 990, lasts=250), at(100, 1010, lasts=230)).latest_blockhash(2)
    assert (found.hash, found.last_valid_block_height, found.context_slot) == (HASH, 250, 990)


@pytest.mark.parametrize(("beyond", "is_believed"), [(0, True), (1, False)])
def test_a_blockhash_lives_two_lives_beyond_where_enough_nodes_are_and_no_block_longer(
    pool: Callable[..., Chain], beyond: int, is_believed: bool
) -> None:
    lasts = 100 + 2 * 150 + beyond
    rpc = pool(
        at(100, 1000, lasts=lasts), at(100, 1000), at(400, 1000, lasts=250)
    )  # that one alone is at 400 raises no bound
    assert rpc.latest_blockhash(2).last_valid_block_height == (lasts if is_believed else 250)


@pytest.mark.parametrize(("apart", "is_believed"), [(1000, True), (-1000, True), (1001, False), (-1001, False)])
def test_a_blockhash_is_of_a_slot_near_where_enough_nodes_are(
    pool: Callable[..., Chain], apart: int, is_believed: bool
) -> None:
    rpc = pool(at(100, 5000), at(100, 5000), at(100, 5000, lasts=260, context=5000 + apart))
    found = rpc.latest_blockhash(2)
    assert found.last_valid_block_height == (260 if is_believed else 250)
    assert found.context_slot == (min(5000, 5000 + apart) if is_believed else 5000)


def test_too_few_that_are_believed_are_none(pool: Callable[..., Chain]) -> None:
    liar = at(100, 5000, lasts=10**6)
    with pytest.raises(Temporary, match="1 RPC nodes name a blockhash that can be the latest one, 2 are needed"):
        pool(at(100, 5000), liar).latest_blockhash(2)
    assert pool(at(100, 5000), liar).latest_blockhash(1).last_valid_block_height == 250
    for away in ("getEpochInfo", "getLatestBlockhash"):
        with pytest.raises(Temporary, match="1 of 2 RPC nodes answer"):
            pool(at(100, 5000), at(100, 5000) | {away: AWAY}).latest_blockhash(2)


def hash_of(number: int) -> str:
    return str(Hash(bytes([number]) * 32))


def names(number: int, *known: int, lasts: int = 250, slot: int = 1000, reached: int = 1000) -> dict[str, Answer]:
    """A node that names the blockhash of a number, and has come to a slot by which it knows those of others."""
    told = at(100, 1000)
    told["getLatestBlockhash"] = {
        "context": {"slot": slot},
        "value": {"blockhash": hash_of(number), "lastValidBlockHeight": lasts},
    }
    hashes = [hash_of(each) for each in known]
    return told | {
        "isBlockhashValid": lambda params: {"context": {"slot": reached}, "value": params[0] in hashes},
    }


@pytest.mark.parametrize(
    ("nodes", "opinions", "found"),
    [
        ([names(1, lasts=350), names(2, 2, 3, lasts=260), names(3, 2, 3)], 2, 2),  # nobody else knows the longest-lived
        ([names(2, 2, 3, lasts=260), names(3, 2, 3), names(1, lasts=350)], 2, 2),
        ([names(1, lasts=260), names(2, 1)], 2, 1),  # who names it knows it
        ([names(1, 1, 2, lasts=260), names(2, 2)], 2, 2),  # it has not come to the newer one yet
        ([names(1, lasts=350), names(2, 2)], 1, 1),  # nobody else is asked
        ([names(1)], 1, 1),
        ([names(1, 1, lasts=260), names(2, 2)], 2, None),
        ([names(1, lasts=260), names(2, 1) | {"isBlockhashValid": AWAY}], 2, None),
        ([names(1, lasts=260), names(2, 1) | {"isBlockhashValid": {"context": {"slot": 1}, "value": "yes"}}], 2, None),
        ([names(1, lasts=260), names(2) | {"isBlockhashValid": RpcRefusal(-32601, "no such method")}], 2, None),
    ],
)
def test_a_blockhash_is_one_that_enough_nodes_know_and_lives_as_long_as_anybody_says(
    pool: Callable[..., Chain], nodes: list[dict[str, Answer]], opinions: int, found: int | None
) -> None:
    rpc = pool(*nodes)
    if found is None:
        with pytest.raises(Temporary, match="2 RPC nodes are needed that know the same blockhash"):
            rpc.latest_blockhash(opinions)
        return
    told = rpc.latest_blockhash(opinions)
    longest = max(each["getLatestBlockhash"]["value"]["lastValidBlockHeight"] for each in nodes)
    assert (told.hash, told.last_valid_block_height) == (hash_of(found), longest)
    if opinions == 1:
        assert all(method != "isBlockhashValid" for node in rpc.nodes for method, _ in node.asked)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("reached", "level"), [(1000, "WARNING"), (999, "INFO")])
def test_the_node_is_named_whose_blockhash_others_do_not_know(
    pool: Callable[..., Chain], reached: int, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    pool(names(2, 2, 3, reached=reached), names(1, lasts=350), names(3, 2, 3, reached=reached)).latest_blockhash(2)
    assert [(each.levelname, each.__dict__["nodes"]) for each in caplog.records] == [(level, ["1"])]


# ── Simulations ────────────────────────────────────────────────────────────────────────────────────────────────────


def would(units: int | None, error: Any = None, slot: int = 90) -> dict[str, Answer]:
    """A node that says what every transaction would do."""
    value = {"err": error} | ({} if units is None else {"unitsConsumed": units})
    return {"simulateTransaction": {"context": {"slot": slot}, "value": value}}


ILL = {"InstructionError": [1, {"Custom": 17}]}
BEHIND = RpcRefusal(-32016, "Minimum context slot has not been reached")


@pytest.mark.parametrize(
    ("nodes", "opinions", "found"),
    [
        ([would(1), would(700)], 2, Simulation(None, 700, 90)),
        ([would(700, slot=80), would(1)], 2, Simulation(None, 700, 80)),
        ([would(1), would(700)], 1, Simulation(None, 1, 90)),
        ([would(None), would(700)], 2, Simulation(None, 1_400_000, 90)),  # who says nothing says the most
        ([would(0)], 1, Simulation(None, 1_400_000, 90)),
        ([would(1), {"simulateTransaction": AWAY}, would(700)], 2, Simulation(None, 700, 90)),
        ([{"simulateTransaction": BEHIND}, would(1), would(700)], 2, Simulation(None, 700, 90)),
        ([would(1), {"simulateTransaction": BEHIND}, {"simulateTransaction": AWAY}], 2, Simulation(None, 1, 90)),
        ([would(700), would(600, ILL)], 2, Simulation(ILL, 700, 90)),
        ([would(700), would(600), would(1, ILL)], 2, Simulation(None, 700, 90)),  # it is not asked
        ([would(700), {"simulateTransaction": RpcRefusal(-32602, "no")}], 2, Simulation("refused: no", 0, 0)),
    ],
)
def test_what_a_transaction_would_do_is_the_worst_that_enough_nodes_say(
    pool: Callable[..., Chain], nodes: list[dict[str, Answer]], opinions: int, found: Simulation
) -> None:
    assert pool(*nodes).simulate_all([b"raw"], 0, opinions) == [found]


def test_each_transaction_is_simulated_by_another_pair_of_nodes(pool: Callable[..., Chain]) -> None:
    rpc = pool(would(1), would(20), would(300))
    assert [each.units for each in rpc.simulate_all([b"a", b"b", b"c", b"d"], 0, 2)] == [20, 300, 300, 20]
    assert [len(node.asked) for node in rpc.nodes] == [3, 3, 2]  # type: ignore[attr-defined]


def test_where_no_node_simulates_there_is_nothing_to_go_by(pool: Callable[..., Chain]) -> None:
    with pytest.raises(Temporary, match="is behind"):
        pool({"simulateTransaction": AWAY}, {"simulateTransaction": BEHIND}).simulate_all([b"raw"], 7, 2)


# ── Effects ────────────────────────────────────────────────────────────────────────────────────────────────────────


def done(fee: int = 5000, error: Any = None) -> dict[str, Any]:
    """A finalized transaction: the first account paid the second, and tokens went from the third to the fourth."""
    return {
        "slot": 77,
        "transaction": {"message": {"accountKeys": [GAS, MARKER, FROM]}},
        "meta": {
            "err": error, "fee": fee,
            "loadedAddresses": {"writable": [TO], "readonly": [PROGRAM]},
            "preBalances": [10_000, 0, 7, 8, 1], "postBalances": [10_000 - fee - 900, 900, 7, 8, 1],
            "preTokenBalances": [{"accountIndex": 2, "uiTokenAmount": {"amount": "500"}},
                                 {"accountIndex": 3, "uiTokenAmount": {"amount": "1"}}],
            "postTokenBalances": [{"accountIndex": 2, "uiTokenAmount": {"amount": "380"}},
                                  {"accountIndex": 3, "uiTokenAmount": {"amount": "121"}}],
        },
    }  # fmt: skip


def tells(answer: Answer) -> dict[str, Answer]:
    return {"getTransaction": answer}


def test_an_effect_is_what_it_cost_and_what_each_account_has_more_or_less(pool: Callable[..., Chain]) -> None:
    found = pool(tells(done())).effect(SIGNATURE)
    assert found == Effect(SIGNATURE, 77, None, 5000, {GAS: -5900, MARKER: 900}, {FROM: -120, TO: 120})
    bare = done(error={"InstructionError": [0, "Custom"]})
    bare["meta"] |= {"loadedAddresses": None, "preTokenBalances": None, "postTokenBalances": None}
    bare["transaction"]["message"]["accountKeys"] = [GAS, MARKER, FROM, TO, PROGRAM]
    failed = pool(tells(bare)).effect(SIGNATURE)
    assert failed == Effect(SIGNATURE, 77, bare["meta"]["err"], 5000, {GAS: -5900, MARKER: 900}, {})


@pytest.mark.parametrize(
    ("answers", "opinions", "fee"),
    [
        ([done()], 1, 5000),
        ([done(), done()], 2, 5000),
        ([done(), None], 2, None),
        ([None, done()], 1, 5000),
        ([done(), done(6000)], 2, None),  # they differ
        ([done(6000), done(), done()], 2, 5000),
        ([done(), done(6000), done()], 2, 5000),
        ([done(), done(), done(6000)], 2, 5000),
        ([done(), AWAY, done()], 2, 5000),
        ([done(), RpcRefusal(-32005, "behind")], 2, None),
        ([done(), done(6000), None], 2, None),
        ([None, None], 1, None),
        ([done(), done()], 3, None),
    ],
)
def test_an_effect_is_what_enough_nodes_say_alike(
    pool: Callable[..., Chain], answers: list[Answer], opinions: int, fee: int | None
) -> None:
    found = pool(*map(tells, answers)).effect(SIGNATURE, opinions)
    assert (None if found is None else found.fee) == fee


def test_where_no_node_answers_there_is_no_effect_to_speak_of(pool: Callable[..., Chain]) -> None:
    with pytest.raises(Temporary):
        pool(tells(AWAY), tells(AWAY)).effect(SIGNATURE)


# ── Looks ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def statuses(slot: int, known: dict[str, Any], first: Answer = 0) -> dict[str, Answer]:
    return {
        "getSignatureStatuses": lambda params: {
            "context": {"slot": slot},
            "value": [known.get(key) for key in params[0]],
        },
        "getFirstAvailableBlock": first,
    }


def test_each_node_that_answers_is_heard_with_its_slot_and_how_far_back_it_knows(pool: Callable[..., Chain]) -> None:
    landed = {"slot": 5, "confirmationStatus": "finalized", "err": None}
    rpc = pool(statuses(90, {"x": landed}, 7), {"getSignatureStatuses": AWAY}, statuses(80, {}, 9))
    looks = rpc.looks(["x", "y"], reach=True)
    assert [(look.node, look.slot, look.first_slot) for look in looks] == [("0", 90, 7), ("2", 80, 9)]
    assert [dict(look.statuses) for look in looks] == [
        {"x": Status(5, "finalized", None), "y": None},
        {"x": None, "y": None},
    ]
    assert [look.first_slot for look in rpc.looks(["x"])] == [0, 0]


def test_who_does_not_say_how_far_back_it_knows_is_heard_only_where_that_is_not_asked(
    pool: Callable[..., Chain],
) -> None:
    rpc = pool(statuses(90, {}, RpcRefusal(-32601, "no such method")))
    assert rpc.looks(["x"], reach=True) == []
    assert len(rpc.looks(["x"])) == 1


def test_many_signatures_are_asked_in_pages_and_the_oldest_page_dates_the_look(pool: Callable[..., Chain]) -> None:
    names = [str(n) for n in range(2 * chain.STATUSES_MAX + 1)]
    slots = iter([90, 70, 80])
    landed = {"slot": 5, "confirmationStatus": "confirmed", "err": None}

    def answer(params: list[Any]) -> Any:
        assert len(params[0]) <= chain.STATUSES_MAX
        assert params[1] == {"searchTransactionHistory": True}
        return {"context": {"slot": next(slots)}, "value": [landed if int(key) % 2 else None for key in params[0]]}

    (look,) = pool({"getSignatureStatuses": answer}).looks(names)
    assert (look.slot, list(look.statuses)) == (70, names)
    assert [key for key, status in look.statuses.items() if status] == names[1::2]


@pytest.mark.parametrize(
    ("told", "level"),
    [
        ({"confirmationStatus": "confirmed", "confirmations": None}, "confirmed"),
        ({"confirmations": None}, "finalized"),  # as older nodes say it
        ({}, "finalized"),
        ({"confirmations": 3}, "processed"),
        ({"confirmations": 0}, "processed"),
        ({"confirmationStatus": None, "confirmations": 3}, "processed"),
    ],
)
def test_how_sure_a_node_is_of_a_transaction(pool: Callable[..., Chain], told: dict[str, Any], level: str) -> None:
    (look,) = pool(statuses(90, {"x": {"slot": 5, "err": "e", **told}})).looks(["x"])
    assert look.statuses["x"] == Status(5, level, "e")
