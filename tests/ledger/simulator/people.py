"""People in a world: creators who earn and name wallets, viewers who look, the authority that screens, replicas in between.

Each acts as the part of Pixr does through which they reach the ledger, over a session of its role.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg

from ledger import book, challenges, spool, stops, wallets
from ledger.appearances import BEGUN, CLOSED, HELD, RECORDED, Appearance, parameters, search_record
from ledger.challenges import Answer
from ledger.localnet.inside import Key, token_account
from ledger.screening import Recipient
from tests.ledger.simulator import operator
from tests.ledger.simulator.causes import ASKED
from tests.ledger.simulator.climate import BOUGHT_PIX
from tests.ledger.simulator.ground import BEGINNING
from tests.ledger.simulator.truth import DAY_S, Earned

if TYPE_CHECKING:
    from tests.ledger.simulator.world import World

AMOUNTS = (1, 7, 100, 100, 12_345)
SHOWN = (10, 50, 500, 1000, 3000)  # of one appearance; a tenth of each is the platform's
SKEWS_S = (0, 0, 2, -2, 3 * 3600, -3 * 3600, 2 * 86_400, -86_400)
SEARCHES = (1, 1, 2, 5, 40)
VIEWERS = 8
NEWER = spool.FORMAT + 1
REPEATED_WITHIN = timedelta(hours=20)  # so long is a moment surely one that was seen
BEFORE_ADOPTION = 0.2  # so seldom a spool comes back while what was paid is still being adopted
SHARE = 10  # of an appearance one such part is the platform's
INVESTED = 0.02  # of the moments
# How far what a replica says of the time is believed, before its batch was recorded and after.
EARLIEST_S, LATEST_S, OLDEST_S = 3600, 5, 2 * 86_400
STEADY_VIEWERS, STEADY_PIX = 60, 9_000  # a round of a steady world: who looks at everybody, and what each look is worth


@dataclass
class Replica:
    """One life of a replica of Serve, whose clock is so wrong."""

    id: UUID
    skew_s: int
    recorded: int = 0
    is_forgotten: bool = False  # the database may have gone back to before it began
    is_newer: bool = False  # it records in a format of tomorrow
    born: datetime = BEGINNING  # by the database's clock
    born_s: float = 0.0  # by one that nobody sets
    jumps: int = 0  # of the database's clock, before it was born
    restores: int = 0  # the same
    spool: list[tuple[spool.Batch, list[bytes]]] = field(
        default_factory=list
    )  # with its searches; of a damaged one none


@dataclass
class Crowd:
    """Who looks, through which replicas, and what has been shown."""

    replicas: list[Replica] = field(default_factory=list)
    segments: int = 0
    amounts: dict[int, int] = field(default_factory=dict)  # what a look at each of them is worth
    refused: set[int] = field(default_factory=set)  # creators whom the authority does not let be paid
    is_away: bool = False  # the authority
    away: list[Replica] = field(default_factory=list)  # whose database has gone back, and whose spools may come back
    wallets: int = 0  # new ones


WORLDS: list[World] = []  # the one that is being run, for the screening, which is found by its name


def screen(recipients: Sequence[Recipient]) -> dict[int, str]:
    """The operator's screening: `[ledger] screening` names it."""
    world = WORLDS[-1]
    if world.crowd.is_away:
        raise ConnectionError("the list is away")
    found = {each.creator_id: "on a list" for each in recipients if each.creator_id in world.crowd.refused}
    for creator in found:
        world.truth.note("screened", creator)
    return found


# ── Earning ────────────────────────────────────────────────────────────────────────────────────────────────────────


def earn(world: World) -> None:
    """A creator has earned something, without any search."""
    if not world.climate.is_folding:
        earned(world, world.rng.choice(world.creators), world.rng.choice(AMOUNTS))


def earned(world: World, creator: int, amount: int) -> None:
    admin = world.writer()
    payable = book.accounts_of(admin, "payable", "creator", [creator])[creator]
    lines = [(book.account(admin, "reward_pool"), -amount), (payable, amount)]
    book.post(admin, book.Entry("accrual", f"earned:{creator}:{world.truth.ever[creator]}", lines))
    book.commit(admin)
    world.truth.earn(creator, amount)


def watch(world: World) -> None:
    """A replica records a batch of searches: of some size, by a clock of its own, now and then damaged."""
    if not world.climate.is_folding:
        return
    replica = _replica(world)
    count = world.rng.choice(SEARCHES)
    searches = [_search(world, replica) for _ in range(count)]
    if world.rng.random() < 0.04:
        damaged(world, replica, searches)
    else:
        recorded(world, replica, searches)


def buy_audience(world: World) -> None:
    """A creator has viewers who look at nobody else."""
    if not world.climate.is_folding:
        return
    creator = world.rng.choice(world.creators)
    replica = _replica(world)
    searches = []
    for number in range(world.rng.randint(4, 8)):
        viewer = 1000 * creator + number
        shown = [_appearance(world, viewer, creator, BOUGHT_PIX) for _ in range(2)]
        searches.append(_shown_to(world, replica, viewer, shown))
    bought = 2 * len(searches) * (BOUGHT_PIX - BOUGHT_PIX // SHARE)
    if recorded(world, replica, searches):
        world.truth.bought[creator] += bought


def earn_steadily(world: World) -> None:
    """A round's part of a day on which everybody is found by as many as on any day."""
    replica = _replica(world)
    searches = [
        _shown_to(world, replica, viewer, [_appearance(world, viewer, each, STEADY_PIX) for each in world.creators])
        for viewer in range(STEADY_VIEWERS)
    ]
    recorded(world, replica, searches)


def everybody_earns(world: World) -> None:
    """One batch in which each creator is shown."""
    replica = _replica(world)
    searches = [
        _shown_to(world, replica, viewer, [_appearance(world, viewer, creator, 1000)])
        for viewer, creator in enumerate(world.creators)
    ]
    recorded(world, replica, searches)


def _replica(world: World) -> Replica:
    known = [each for each in world.crowd.replicas if not each.is_newer]
    if not known or world.rng.random() < 0.1:
        skew_s = world.rng.choice(SKEWS_S)
        replica = Replica(
            UUID(int=world.rng.getrandbits(128), version=4),
            skew_s,
            is_newer=world.rng.random() < 0.04,
            born=world.ground.clock,
            born_s=world.monotonic_s,
            jumps=world.truth.events["jump"],
            restores=world.restores,
        )
        world.ground.serve.execute(BEGUN, (replica.id, f"{replica.id}.spool2", "simulated", 0.0))
        world.ground.serve.commit()
        world.crowd.replicas.append(replica)
        return replica
    return world.rng.choice(known)


def _search(world: World, replica: Replica) -> bytes:
    viewer = world.rng.randrange(VIEWERS)
    who_looks, shown = _number(viewer), []
    for _ in range(world.rng.choice((1, 2, 5))):
        again = sorted(
            segment
            for (who, segment), at in world.truth.kept.shown.items()
            if who == who_looks and abs(world.ground.clock - at) < REPEATED_WITHIN
        )
        # After a restore what comes back may be a repeat of what was shown since, by clocks that nobody knows.
        if again and not world.climate.restoring and world.rng.random() < 0.25:
            segment = world.rng.choice(again)
            # Worth as much as the first time: whichever of the two is folded first, one of them counts.
            shown.append(Appearance(_hash(viewer), segment, segment % 10_000, 0, 0, world.crowd.amounts[segment]))
        else:
            shown.append(_appearance(world, viewer, world.rng.choice(world.creators), world.rng.choice(SHOWN)))
    return _shown_to(world, replica, viewer, shown)


def _appearance(world: World, viewer: int, creator: int, amount: int) -> Appearance:
    """A moment that this viewer has never seen. Its number ends with its creator's."""
    world.crowd.segments += 1
    segment = world.crowd.segments * 10_000 + creator
    world.crowd.amounts[segment] = amount
    if world.rng.random() < INVESTED:
        invest(world, segment)
    return Appearance(_hash(viewer), segment, creator, 0, 0, amount)


def invest(world: World, segment: int) -> None:
    """Somebody has a part of what the platform earns by a moment."""
    query = "INSERT INTO ledger.segment_stakes (segment_id, investor_id, pix_invested) VALUES (%s, 1, %s)"
    world.ground.admin.execute(query, (segment, world.rng.randint(1, 1000)))
    world.ground.admin.commit()


def _shown_to(world: World, replica: Replica, viewer: int, shown: Sequence[Appearance]) -> bytes:
    at = world.ground.clock + timedelta(seconds=replica.skew_s)
    return search_record(shown, spool.NO_KEY, bytes(8), int(at.timestamp() * 1000))


def _day(world: World, at_ms: int, begun_s: int | None = None) -> int:
    """The UTC day of a search that is recorded now, by what its replica says of the time as far as that is believed.

    `begun_s`: when the incarnation began, of what an heir records.
    """
    now_s = int(world.ground.clock.timestamp())
    earliest_s = now_s - EARLIEST_S
    if begun_s is not None:
        earliest_s = max(min(begun_s, earliest_s), now_s - OLDEST_S)
    return int(min(max(at_ms // 1000, earliest_s), now_s + LATEST_S)) // DAY_S


def _hash(viewer: int) -> bytes:
    return hashlib.sha256(f"viewer {viewer}".encode()).digest()[:16]


def _number(viewer: int) -> int:
    return int.from_bytes(_hash(viewer), "big")


def recorded(world: World, replica: Replica, searches: Sequence[bytes]) -> bool:
    """Whether the batch is in the database: then what it earns is earned, if only once a newer version can read it."""
    batch = spool.pack(searches)
    if replica.is_newer:
        batch = spool.Batch(batch.searches, batch.appearances, batch.payload, NEWER)
    if not _record(world, replica, batch):
        return False
    replica.spool.append((batch, list(searches)))
    _credit(world, replica, searches)
    return True


def _credit(world: World, replica: Replica, searches: Sequence[bytes], *, begun_s: int | None = None) -> None:
    """What a batch earns is earned; `begun_s`: it comes back, and was earned before, in a time that was forgotten."""
    whole = spool.pack(searches)
    heads, bodies = spool.unpack(whole.payload, spool.FORMAT)
    of_rows = [(bytes(head["viewer"]), int(head["at_ms"])) for head in heads for _ in range(int(head["count"]))]
    earned: Counter[tuple[int, int]] = Counter()
    for (viewer, at_ms), row in zip(of_rows, bodies, strict=True):
        creator, segment, amount = (int(row[name]) for name in ("creator_id", "segment_id", "amount_pix"))
        net = _count(world, viewer, segment, creator, amount, is_back=begun_s is not None)
        earned[creator, _day(world, at_ms, begun_s)] += net
    if begun_s is not None or replica.restores < world.restores or replica.skew_s < 0:
        for (creator, _), net in earned.items():
            world.truth.kept.maybe_before[creator] += net
    world.truth.kept.days.update(earned)
    world.truth.kept.batches.append(Earned(replica.id, replica.recorded, dict(earned)))


def damaged(world: World, replica: Replica, searches: Sequence[bytes]) -> None:
    """A batch that holds less than its row says."""
    whole = spool.pack(searches)
    cut = world.rng.choice((whole.payload[:-3], whole.payload[: len(whole.payload) // 2], b""))
    batch = spool.Batch(whole.searches, whole.appearances, cut, whole.format)
    if _record(world, replica, batch):
        replica.spool.append((batch, []))


def _record(world: World, replica: Replica, batch: spool.Batch) -> bool:
    """Whether it is recorded. A replica that the database no longer knows as it was goes on as another one."""
    serve = world.ground.serve
    try:
        done = serve.execute(RECORDED, parameters(replica.id, replica.recorded, batch)).rowcount == 1
        serve.commit()
    except psycopg.DatabaseError:
        if not replica.is_forgotten:
            raise
        serve.rollback()
        done = False
    replica.recorded += batch.searches if done else 0
    if not done and replica.is_forgotten:
        world.crowd.replicas.remove(replica)
        world.crowd.away.append(replica)
    return done


def _count(world: World, viewer: bytes, segment: int, creator: int, amount: int, *, is_back: bool = False) -> int:
    """What an appearance earns its creator; `is_back`: it was earned before, and was forgotten."""
    key = (int.from_bytes(viewer, "big"), segment)
    net = amount - amount // SHARE if key not in world.truth.kept.shown else 0
    if net:
        world.truth.earn(creator, net, is_back=is_back)
    world.truth.kept.shown.setdefault(key, world.ground.clock)
    return net


def come_back(world: World) -> None:
    """The spool of a replica that was away while the database went back: an heir records what the database does not know."""
    away = [each for each in (*world.crowd.away, *world.crowd.replicas) if each.is_forgotten]
    if not away or not world.is_declared() or (world.is_adopting() and world.rng.random() > BEFORE_ADOPTION):
        return
    replica = world.rng.choice(away)
    for listed in (world.crowd.away, world.crowd.replicas):
        if replica in listed:
            listed.remove(replica)
    jumps = world.truth.events["jump"] - replica.jumps
    if jumps > 1 or (jumps and replica.skew_s > 0):
        return  # neither its clock nor the database's says when that was shown: left out
    if world.climate.hours and (world.ground.clock - replica.born).total_seconds() > OLDEST_S:
        return  # days of so much all come to count as one day, of which a source is worth less: left out
    _inherit(world, replica)


def all_come_back(world: World) -> None:
    for _ in range(len(world.crowd.away) + len(world.crowd.replicas)):
        come_back(world)


def _inherit(world: World, replica: Replica) -> None:
    serve = world.ground.serve
    jumps = world.truth.events["jump"] - replica.jumps
    age_s = world.monotonic_s - replica.born_s if jumps else (world.ground.clock - replica.born).total_seconds()
    serve.execute(BEGUN, (replica.id, f"{replica.id}.spool2", "simulated", age_s))
    known = serve.execute(HELD, (replica.id,)).fetchone()[0]
    started_s = serve.execute(
        "SELECT extract(epoch FROM started_at)::bigint FROM ledger.incarnations WHERE id = %s", (replica.id,)
    ).fetchone()[0]
    replica.recorded, at = known, 0
    for batch, searches in replica.spool:
        if at >= known:
            done = serve.execute(RECORDED, parameters(replica.id, at, batch, adopted=True))
            assert done.rowcount == 1
            replica.recorded += batch.searches
            if searches:
                _credit(world, replica, searches, begun_s=started_s)
            world.truth.events["searches came back"] += batch.searches
        at += batch.searches
    serve.execute(CLOSED, (replica.id, None))
    serve.commit()


# ── Wallets ────────────────────────────────────────────────────────────────────────────────────────────────────────


def new_wallet(world: World, creator: int | None = None) -> None:
    """A creator names another wallet, or an administrator does; of some the token account exists."""
    creator = creator or world.rng.choice(world.creators)
    key = next_key(world)
    by = world.rng.choice(("creator", "creator", "admin"))
    wallets.change(world.ground.serve, world.economics, creator, str(key.pubkey), by)  # type: ignore[arg-type]
    world.ground.serve.commit()
    named(world, creator, key, has_account=world.rng.random() < 0.6)


def next_key(world: World) -> Key:
    world.crowd.wallets += 1
    return Key(f"{world.seed} new wallet {world.crowd.wallets}")


def named(world: World, creator: int, key: Key, *, has_account: bool) -> None:
    wallet = str(key.pubkey)
    if world.truth.wallets[creator]:
        world.truth.moved.add(creator)
    world.truth.wallets[creator].append(wallet)
    world.keys[wallet] = key
    if has_account:
        put_account(world, wallet)


def put_account(world: World, wallet: str) -> None:
    """A wallet's owner opens a token account, where there is none."""
    address = world.address_of(wallet)
    account = world.chain.svm.get_account(address)
    if account is None or not account.lamports:
        made = token_account(world.treasury.payer.mint, world.keys[wallet].pubkey)
        world.chain.svm.set_account(address, made)


def bad_wallet(world: World) -> None:
    """A creator has a wallet that cannot be paid, which an earlier release has let in."""
    creator = world.rng.choice(world.creators)
    payer = world.treasury.payer
    bad = world.rng.choice((str(payer.treasury), str(payer.token_account), str(payer.mint)))
    world.ground.admin.execute("UPDATE ledger.wallets SET wallet = %s WHERE creator_id = %s", (bad, creator))
    world.ground.admin.commit()
    world.truth.unpayable.setdefault(creator, set()).add(bad)


def begin(world: World) -> None:
    """A creator who had none has a first wallet: by a manifest, or by themselves with a proof or without."""
    waiting = [each for each in world.creators if not world.truth.wallets[each]]
    if not waiting:
        return
    creator, key, serve = world.rng.choice(waiting), next_key(world), world.ground.serve
    how = world.rng.choice(("manifest", "creator", "proof"))
    if how == "manifest":
        wallets.claim(serve, world.economics, creator, str(key.pubkey))  # type: ignore[arg-type]
    else:
        proof = prove(world, creator, key) if how == "proof" else None
        wallets.change(serve, world.economics, creator, str(key.pubkey), "creator", proof)  # type: ignore[arg-type]
    serve.commit()
    named(world, creator, key, has_account=world.rng.random() < 0.6)


def prove_wallet(world: World) -> None:
    """A creator proves the wallet that they have, which confirms a manifest's and ends the wait for a proof."""
    creator = world.some_creator()
    key, serve = world.keys[world.truth.wallets[creator][-1]], world.ground.serve
    now = serve.execute("SELECT wallet FROM ledger.wallets WHERE creator_id = %s", (creator,)).fetchone()
    serve.commit()
    if now == (str(key.pubkey),):
        by = world.rng.choice(("creator", "admin"))
        proof = prove(world, creator, key)
        wallets.change(serve, world.economics, creator, str(key.pubkey), by, proof)  # type: ignore[arg-type]
        serve.commit()


def prove(world: World, creator: int, key: Key) -> str:
    serve: Any = world.ground.serve
    asked = challenges.issue(serve, world.economics, creator, str(key.pubkey), "key 1")
    signature = str(key._keypair.sign_message(asked.message.encode()))
    return challenges.prove(serve, creator, str(key.pubkey), "key 1", Answer(asked.nonce, signature))


# ── Stops ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def hold(world: World) -> None:
    creator = world.rng.choice(world.creators)
    stops.hold(world.ground.operator, creator, ASKED)  # type: ignore[arg-type]
    world.ground.operator.commit()
    world.truth.note("asked", creator)


def release(world: World) -> None:
    """One of the holds that the operator has asked for ends."""
    own: Any = world.ground.operator
    held = [each for each in stops.in_force(own) if each.reason == ASKED]
    own.commit()
    if held:
        stops.release(own, world.rng.choice(held).name, "operator")
        own.commit()


def sanction(world: World) -> None:
    if world.climate.is_screened:
        world.crowd.refused.add(world.rng.choice(world.creators))


def pardon(world: World) -> None:
    world.crowd.refused.clear()


def screening_away(world: World) -> None:
    world.crowd.is_away = world.climate.is_screened


def refuse_to_sign(world: World) -> None:
    """The remote signer's policy refuses, until somebody has looked."""
    world.refuses_to_sign = True


DEEDS: Mapping[str, Callable[[World], None]] = {
    "earn": earn,
    "watch": watch,
    "buy audience": buy_audience,
    "new wallet": new_wallet,
    "bad wallet": bad_wallet,
    "begin": begin,
    "prove wallet": prove_wallet,
    "hold": hold,
    "release": release,
    "sanction": sanction,
    "pardon": pardon,
    "screening away": screening_away,
    "refuse to sign": refuse_to_sign,
    "resolve": operator.ask_for_any,
    "order": operator.order_any,
    "put in order": operator.put_in_order,
}


def all_well(world: World) -> None:
    """Nobody is refused or away any more; who has a wallet that cannot be paid, or none, names another; and who has closed
    their token account opens it again.
    """
    world.crowd.refused.clear()
    world.crowd.is_away = world.refuses_to_sign = False
    for wallet in sorted(world.truth.closed):
        put_account(world, wallet)
    while any(not named for named in world.truth.wallets.values()):
        begin(world)
    for creator in world.creators:
        rows = world.ground.rows(
            "SELECT new_wallet FROM ledger.wallet_changes WHERE creator_id = %s ORDER BY id", creator
        )
        known = [wallet for (wallet,) in rows]
        forgotten = [wallet for wallet in world.truth.wallets[creator] if wallet not in known]
        for wallet in forgotten:  # by a restore: what was paid there is adopted once it is named again
            wallets.change(world.ground.serve, world.economics, creator, wallet, "creator")  # type: ignore[arg-type]
            world.ground.serve.commit()
        if not forgotten and known[-1] != world.truth.wallets[creator][-1]:
            new_wallet(world, creator)
