"""One seed's world: a chain, its nodes, people, an operator, and a ledger that is killed and started; then what came of it.

First a storm, in which everything happens at once; then calm, in which the operator ends what was stopped and the rest has
to end by itself. What must never be is counted in `truth`.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
from solders.account import Account
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from cluster.errors import Rejected
from ledger import adoption, ages, audit, book, packing
from ledger.chain import Chain
from ledger.localnet import blocks, inside
from ledger.localnet.inside import Key, LocalNode, new_chain, token_account
from ledger.settings import LedgerSettings
from ledger.treasury import Treasury
from tests.conftest import throwaway_settings
from tests.ledger.chains import FINAL_BLOCKS, GAS, POOL
from tests.ledger.simulator import nature, operator, people, truth
from tests.ledger.simulator.baton import Baton
from tests.ledger.simulator.climate import CALM, Climate, Restoring, drawn
from tests.ledger.simulator.ground import PARTS, Ground
from tests.ledger.simulator.machine import State, Transition
from tests.ledger.simulator.nodes import Node, Plot
from tests.ledger.simulator.process import Crash, Process, standing_on
from tests.ledger.simulator.protocols import OURS, Wrong
from tests.ledger.simulator.truth import Kept, Truth
from tests.ledger.snapshots import Snapshot

BLOCK_S = 0.4
QUIET_ROUNDS_MAX = 150
HOURS_ROUNDS, DAYS_ROUNDS = 6, 50  # of calm, after which hours pass in each, then days
PATIENT_ROUNDS = 25  # of calm, in which liars are still asked
DEAD_BLOCKS = blocks.WINDOW_BLOCKS + 2 * FINAL_BLOCKS  # after which nothing that was signed before can land
SNAPSHOTS_MAX = 3
SECRET, NEW_SECRET = "a secret of the simulation", "another one"
SCREEN = "tests.ledger.simulator.people:screen"
PLOT_GOES_ON, PLOT_JUMPS = 0.5, 0.3
WITHOUT_WALLET = 0.15  # of the creators, at first


class Signer:
    """A key whose policy may refuse to sign anything."""

    def __init__(self, world: World, key: Any) -> None:
        self._world, self._key = world, key

    @property
    def pubkey(self) -> Pubkey:
        return Pubkey.from_string(str(self._key.pubkey))

    def sign(self, message: bytes) -> bytes:
        if self._world.refuses_to_sign:
            raise Rejected("the policy of the simulation refuses", code="policy")
        return bytes(self._key.sign(message))


@dataclass(frozen=True)
class Outcome:
    """What one seed came to. `digest` is of the journal and of what has landed: the same seed has the same one."""

    seed: int
    problems: tuple[str, ...]
    counts: dict[str, int]
    states: frozenset[State]
    transitions: frozenset[Transition]
    digest: str
    traces: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems


class World:
    """Runs one seed."""

    def __init__(
        self, ground: Ground, seed: int, climate: Climate | None = None, wrong: Wrong = OURS, fierce: float = 1.0
    ) -> None:
        self.ground, self.seed, self.wrong = ground, seed, wrong
        self.climate = climate or drawn(seed, fierce)
        self.rng = random.Random(f"world {seed}")
        self.baton = Baton(random.Random(f"turns of {seed}"))
        self.truth, self.crowd, self.plot = Truth(), people.Crowd(), Plot(in_order=self.climate.plots_in_order)
        self.is_hostile, self.refuses_to_sign, self.is_secret_found = False, False, True
        self.secret = SECRET
        self.monotonic_s = 1000.0
        self.ticks = self.restores = self.strangers_sent = 0
        self.keys: dict[str, Key] = {}
        self.snapshots: list[tuple[Snapshot, Kept]] = []
        self.stopped_before: dict[int, set[str]] = {}
        self.signed_before: set[str] = set()
        ground.clear()
        self._begin_chain()
        self._begin_people()

    # ── The beginning ──────────────────────────────────────────────────────────────────────────────────────────────

    def _begin_chain(self) -> None:
        climate, word = self.climate, f"{self.seed} "
        self.chain = new_chain(f"world {self.seed}".encode())
        made = inside.put_treasury(
            self.chain, SECRET, POOL, GAS, version=climate.version, separate_gas=climate.has_gas_key, word=word
        )
        self.treasury = replace(made, signers=tuple(Signer(self, each) for each in made.signers))
        self.strangers_key = Key(f"{word}stranger")
        mint, owner = made.payer.mint, self.strangers_key.pubkey
        account = packing.token_account(owner, mint)
        self.stranger = replace(made.payer, gas=owner, treasury=owner, token_account=account)
        self.chain.svm.set_account(owner, Account(nature.STRANGERS_LAMPORTS, b"", packing.SYSTEM_PROGRAM))
        self.chain.svm.set_account(account, token_account(mint, owner, nature.STRANGERS_PIX))
        roles = [(each < climate.liars, climate.nodes - each <= climate.forgetful) for each in range(climate.nodes)]
        self.rng.shuffle(roles)
        self.nodes = [
            Node(
                f"node {number}", self.chain, random.Random(f"node {number} of {self.seed}"), self._step_of_node,
                liar=liar, forgetful=forgetful, storm=climate.weather, sent=self._sent, plot=self.plot,
            )
            for number, (liar, forgetful) in enumerate(roles)
        ]  # fmt: skip
        self.advance(FINAL_BLOCKS)

    def _begin_people(self) -> None:
        climate = self.climate
        self.economics = climate.economics()
        self.folder = Path(tempfile.mkdtemp(prefix="pixr-world-"))
        settings = throwaway_settings(self.folder)
        self.settings = settings.with_section(self.economics).with_section(climate.settings(SCREEN))
        admin = self.writer()
        for asset, kind, amount in (("PIX", "reward_pool", POOL), ("SOL", "platform", GAS)):
            lines = [(book.account(admin, "chain", asset), -amount), (book.account(admin, kind, asset), amount)]
            book.post(admin, book.Entry("deposit", f"deposit:genesis:{asset}", lines))
        book.commit(admin)
        self.creators = list(range(1, climate.creators + 1))
        keys = [Key(f"{self.seed} wallet {number}") for number in range(climate.wallets)]
        for key in keys:
            self.keys[str(key.pubkey)] = key
            if self.rng.random() < 0.8:
                people.put_account(self, str(key.pubkey))
        self.advance(FINAL_BLOCKS)
        for creator in self.creators:
            is_late = climate.creators > 1 and self.rng.random() < WITHOUT_WALLET
            self.truth.wallets[creator] = [] if is_late else [str(keys[creator % len(keys)].pubkey)]
        if not any(self.truth.wallets.values()):
            self.truth.wallets[1] = [str(keys[0].pubkey)]
        known = [(creator, named[0]) for creator, named in self.truth.wallets.items() if named]
        admin.execute(
            "INSERT INTO ledger.wallets (creator_id, wallet, set_by)"
            " SELECT creator, wallet, 'creator' FROM unnest(%s::bigint[], %s::text[]) AS t (creator, wallet)",
            ([creator for creator, _ in known], [wallet for _, wallet in known]),
        )
        admin.commit()
        if climate.is_folding:
            people.everybody_earns(self)
        else:
            for creator in self.creators:
                people.earned(self, creator, self.rng.choice(people.AMOUNTS))

    # ── The run ────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> Outcome:
        people.WORLDS.append(self)
        try:
            with standing_on(self):
                self.process = Process(self)
                self._storm()
                self._calm()
                self.process.end()
                self._count()
                return self._outcome()
        finally:
            people.WORLDS.pop()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _storm(self) -> None:
        self.is_hostile = True
        for node in self.nodes:
            node.weather = node.storm
        for _ in range(self.climate.rounds):
            self._go_back_maybe()
            self._plot_maybe()
            self.tick()
            self.crowd.is_away = self.crowd.is_away and self.rng.random() < 0.5

    def tick(self) -> None:
        """Everything at once: the ledger's parts, the chain, people."""
        self._look_before()
        jobs = {**self.process.jobs(), "nature": self._nature, "people": self._people}
        self.baton.run(jobs)
        self.ticks += 1
        self.monotonic_s += 0.5
        truth.explain_stops(self)
        truth.check_days(self)
        if self.process.is_dead:
            self._start_anew()

    def _nature(self) -> None:
        nature.pass_time(self)
        for name, happen in nature.HAPPENINGS.items():
            self._maybe(name, happen)
        nature.pass_time(self)

    def _people(self) -> None:
        for name, happen in people.DEEDS.items():
            self._maybe(name, happen)

    def _maybe(self, name: str, happen: Callable[[World], None]) -> None:
        self.baton.pass_on(0.2)
        if self.luck(name):
            self.do(name, happen)

    def do(self, name: str, happen: Callable[[World], None]) -> None:
        """Let something happen; what is refused by name is refused."""
        self.truth.events[name] += 1
        try:
            happen(self)
        except Rejected:
            pass
        except psycopg.errors.LockNotAvailable as error:
            self.truth.found("locked", f"{name} waits: {error}".splitlines()[0], error)
        for session in (self.ground.admin, self.ground.operator, self.ground.serve):
            session.rollback()

    def luck(self, name: str) -> bool:
        return self.rng.random() < self.climate.chance(name)

    def _plot_maybe(self) -> None:
        """All nodes tell the same lie for some rounds, and the database's clock may help them."""
        was_on = self.plot.is_on
        self.plot.is_on = self.rng.random() < (PLOT_GOES_ON if was_on else self.climate.plots)
        if was_on and not self.plot.is_on:
            self._end_plot()
        if self.plot.is_on:
            self.truth.events["plot"] += 1
            if self.plot.in_order and self.rng.random() < PLOT_JUMPS:
                self.ground.clock += timedelta(minutes=self.rng.randint(5, 120))

    def _end_plot(self) -> None:
        """What was kept back in order arrives before anything that is sent from now on."""
        if self.plot.in_order:
            for node in self.nodes:
                node.hurry()
            self.advance(1)

    # ── The process ────────────────────────────────────────────────────────────────────────────────────────────────

    def step(self, *, is_idle: bool = True) -> None:
        """Between any two steps of the process: it may end, or another part of it goes on."""
        if self.baton.holder not in PARTS:
            return
        self.process.check()
        if self.is_hostile and self.rng.random() < self.climate.crashing:
            self.process.is_dead = True
            raise Crash
        if is_idle:
            self.baton.pass_on(self.climate.switching)
            self.process.check()

    def _step_of_node(self) -> None:
        self.step()

    def loses_connection(self) -> bool:
        return self.is_hostile and self.baton.holder in PARTS and self.rng.random() < self.climate.losing

    def _start_anew(self) -> None:
        """The process has ended; the next one begins, and the old one may only have been slow."""
        self.truth.events["crash"] += 1
        old = self.process
        old.end()
        self.process = Process(self)
        if self.rng.random() < self.climate.haunting:
            with suppress(psycopg.OperationalError):
                self.process.connect(self.process.folding)
            old.haunt()

    def new_chain(self) -> Chain:
        return self.wrong.chain(self.nodes)

    def opened_treasury(self) -> Treasury:
        return replace(self.treasury, secret=self.secret)

    def writer(self) -> Any:
        """The administrator's session, which may write as whoever holds the epoch: earnings have no other way in here."""
        admin = self.ground.admin
        epoch = self.ground.rows("SELECT epoch FROM ledger.fence")[0][0]
        admin.setting("ledger.epoch", str(epoch))
        return admin

    def _sent(self, transaction: VersionedTransaction) -> None:
        """Bytes have reached a node: those that do for the first time pay nobody who was stopped before this round."""
        signature = str(transaction.signatures[0])
        if signature in self.truth.sent:
            return
        self.truth.sent.add(signature)
        rows = self.ground.rows(RECIPIENTS, signature)
        now = self._stopped() if rows else {}
        for creator, wallet in rows:
            both = now.get(creator, set()) & self.stopped_before.get(creator, set())
            why = {each for each in both if not each.startswith("wallet ") or each != f"wallet {wallet}"}
            if signature in self.signed_before:
                why.discard("refused")  # the screening is asked before bytes are signed
            if why:
                self.truth.found("stopped", f"creator {creator} is paid by {signature[:16]} though {sorted(why)}")

    def _look_before(self) -> None:
        self.stopped_before = self._stopped()
        self.signed_before = {row[0] for row in self.ground.rows("SELECT signature FROM ledger.attempts")}

    def _stopped(self) -> dict[int, set[str]]:
        """Why creators may not be paid now: holds, wallets that wait, the screening; and which wallet is theirs."""
        found: dict[int, set[str]] = {each: {"refused"} for each in self.crowd.refused}
        for creator, why in self.ground.rows(STOPPED):
            found.setdefault(creator, set()).add(why)
        return found

    # ── Going back ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _go_back_maybe(self) -> None:
        """The database is restored to an earlier moment; the chain and whatever is on its way to it go on."""
        climate = self.climate
        if climate.restoring is Restoring.NEVER:
            return
        if self.rng.random() < climate.keeping:
            kept = (Snapshot(self.ground.admin.raw), self.truth.kept.copy())
            self.snapshots = [*self.snapshots[1 - SNAPSHOTS_MAX :], kept]
        if self.snapshots and self.rng.random() < climate.going_back:
            self.go_back(*self.rng.choice(self.snapshots))

    def go_back(self, snapshot: Snapshot, kept: Kept) -> None:
        old = self.process
        old.end()
        if self.climate.restoring is Restoring.BY_HAND:  # which takes its time, and nothing tells what was signed since
            self.advance(DEAD_BLOCKS)
            self.ground.clock += timedelta(minutes=10)
        snapshot.bring_back(self.ground.admin.raw)
        self.truth.kept = kept.copy()
        self.crowd.replicas.clear()
        self.restores += 1
        self.truth.events[f"restored {self.climate.restoring}"] += 1
        admin: Any = self.ground.admin
        if self.climate.restoring is Restoring.DOCUMENTED:
            adoption.begin(admin, {"by": "the simulation"})
            admin.execute("UPDATE ledger.fence SET epoch = epoch + 1000")
        elif self.climate.restoring is Restoring.PLATFORM:
            admin.execute("UPDATE ledger.chain SET seat = 'elsewhere'")
        admin.commit()
        self.process = Process(self)
        if self.rng.random() < self.climate.haunting:
            with suppress(psycopg.OperationalError):
                self.process.connect(self.process.folding)
            old.haunt()

    def find_secret(self) -> None:
        self.secret = SECRET

    # ── Calm ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _calm(self) -> None:
        """Nothing fails any more: the operator ends what was stopped, and everything comes to its end."""
        if self.plot.is_on:
            self._end_plot()
        self.is_hostile = self.plot.is_on = False
        for node in self.nodes:
            node.weather, node.down_until = CALM, 0
            node.liar = node.liar and self.rng.random() < 0.5
            node.forgetful = False
        if self.climate.loses_secret:
            self.secret, self.is_secret_found = NEW_SECRET, self.rng.random() < 0.3
            self.truth.events["secret lost"] += 1
            self._start_anew()
        self.do("all well", people.all_well)
        nature.thaw_all(self)
        for number in range(QUIET_ROUNDS_MAX):
            self._calm_round(number)
            if number % 2 and self.is_quiet():
                break
            if number == PATIENT_ROUNDS:
                for node in self.nodes:
                    node.liar = False  # the operator has found who lies
        self.truth.events["calm rounds"] = number

    def _calm_round(self, number: int) -> None:
        self.advance(FINAL_BLOCKS + 1)
        days, hours = number > DAYS_ROUNDS, number > HOURS_ROUNDS
        self.ground.clock += timedelta(days=1) if days else timedelta(hours=1) if hours else timedelta(minutes=3)
        self.monotonic_s += 60
        for job in self.process.jobs().values():
            job()
        if self.process.is_dead:
            self._start_anew()
        self.do("look", operator.look)
        if number > 4 and number % 8 == 0:
            self.do("ask about open", operator.ask_about_open)
            self.do("all well", people.all_well)
        truth.explain_stops(self)

    def is_quiet(self) -> bool:
        """Nothing is under way, stopped or due any more."""
        return not any(row[0] for row in self.ground.rows(OPEN, NEWEST_FORMAT)) and not self._standing()

    def _standing(self) -> list[str]:
        """Markers that should have been emptied by now, for some time."""
        rows = self.ground.rows(
            "SELECT batch_id, address FROM ledger.markers WHERE reclaimed_by IS NULL"
            " AND since < sim.now() - make_interval(secs => %s)",
            self.climate.marker_retention_s + 600,
        )
        made = self.opened_treasury()
        return [
            batch
            for batch, address in rows
            if str(made.marker(batch).address) == address
            and (account := self.chain.svm.get_account(Pubkey.from_string(address))) is not None
            and account.lamports >= made.marker_rent
        ]

    # ── What came of it ────────────────────────────────────────────────────────────────────────────────────────────

    def _count(self) -> None:
        self.advance(FINAL_BLOCKS)
        truth.count_money(self)
        if any(row[0] for row in self.ground.rows(OPEN, NEWEST_FORMAT)):
            self._name_stuck()
        self._count_rent()
        if not self.truth.problems:
            self._audit()

    def _name_stuck(self) -> None:
        """What has no end must be known to the alarms."""
        self.ground.clock += timedelta(days=8)
        admin: Any = self.ground.admin
        late = sorted(each.state for each in ages.measure(admin, self.settings.section(LedgerSettings)) if each.late)
        admin.commit()
        counts = [row[0] for row in self.ground.rows(OPEN, NEWEST_FORMAT)]
        if late:
            self.truth.events["alarmed"] += 1
        self.truth.found("stuck", f"{dict(zip(OPEN_NAMES, counts, strict=True))}; alarms name {late}")

    def _count_rent(self) -> None:
        """Every marker that our payouts have made is known, and is taken back in time."""
        if standing := self._standing():
            self.truth.found("rent", f"{len(standing)} markers are not taken back, as that of batch {standing[0]}")
        if not self.climate.is_marked or self.restores or self.truth.events["secret lost"]:
            return
        known = {row[0] for row in self.ground.rows("SELECT address FROM ledger.markers")}
        made = self.opened_treasury()
        for (batch,) in self.ground.rows("SELECT id FROM ledger.batches WHERE kind = 'payout' AND state = 'posted'"):
            address = made.marker(batch).address
            account = self.chain.svm.get_account(address)
            if account is not None and account.lamports and str(address) not in known:
                self.truth.found("rent", f"nobody knows the marker of batch {batch}")

    def _audit(self) -> None:
        rpc = Chain([LocalNode(name, self.chain) for name in "ab"])
        limits = self.settings.section(LedgerSettings)
        raw = self.ground.admin.raw
        self.ground.admin.execute("SELECT 1")  # at the world's time
        raw.rollback()
        try:
            with patch.object(audit, "ATTEMPTS_MAX", 1), patch.object(audit, "PAUSE_S", 0.0):
                checks = audit.run(raw, rpc, str(self.treasury.payer.gas), full=True, limits=limits)
        finally:
            raw.isolation_level = None
            rpc.close()
        for check in checks:
            if not check.ok and not (check.name == "open too long" and self._only_newer(check.detail)):
                self.truth.found("audit", f"{check.name}: {check.detail}")

    def _only_newer(self, detail: str) -> bool:
        """Searches in a format of tomorrow wait for it, and the alarm says so."""
        has_newer = bool(
            self.ground.rows("SELECT 1 FROM ledger.appearance_batches WHERE format > %s LIMIT 1", NEWEST_FORMAT)
        )
        return has_newer and all(each.startswith("unfolded") for each in detail.split("; "))

    def _outcome(self) -> Outcome:
        rows = self.ground.rows("SELECT DISTINCT relation, field, was, became FROM sim.reached")
        states, transitions = self.ground.machine.reached(rows)
        head, landed = self.ground.rows(
            "SELECT encode(hash, 'hex'), (SELECT coalesce(string_agg(signature, ',' ORDER BY signature), '')"
            " FROM ledger.attempts WHERE state = 'landed') FROM ledger.chain_head"
        )[0]
        counted = self.ground.rows(
            "SELECT (SELECT count(*) FROM ledger.payouts), (SELECT count(*) FROM ledger.attempts),"
            " (SELECT count(*) FROM ledger.folds), (SELECT count(*) FROM ledger.freezes)"
        )[0]
        counts = dict(zip(("payouts", "attempts", "folds", "freezes"), counted, strict=True)) | dict(self.truth.events)
        digest = hashlib.sha256(f"{head} {landed}".encode()).hexdigest()[:16]
        problems = tuple(self.truth.problems)
        return Outcome(
            self.seed, problems, counts, frozenset(states), frozenset(transitions), digest, tuple(self.truth.traces)
        )

    # ── Hands ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def advance(self, count: int) -> None:
        """Blocks, and the time that they take."""
        for _ in range(count):
            for node in getattr(self, "nodes", ()):
                node.deliver()
            self.chain.produce(self.chain.height)
        self.ground.clock += timedelta(seconds=BLOCK_S * count)
        self.monotonic_s += BLOCK_S * count

    def some_creator(self) -> int:
        """One who has a wallet."""
        return self.rng.choice([each for each in self.creators if self.truth.wallets[each]])

    def sharing(self, creator: int) -> set[int]:
        """Creators who are, or were, paid at this one's wallet."""
        wallet = self.truth.wallets[creator][-1]
        return {each for each, named in self.truth.wallets.items() if wallet in named}

    def all_wallets(self) -> list[str]:
        return sorted({each for named in self.truth.wallets.values() for each in named})

    def address_of(self, wallet: str) -> Pubkey:
        return packing.token_account(Pubkey.from_string(wallet), self.treasury.payer.mint)

    def on_chain(self, wallet: str) -> int:
        """What a wallet has received in all."""
        address = self.address_of(wallet)
        found = blocks.token_amount(self.chain.svm.get_account(address))
        return (found[2] if found else 0) + self.truth.taken[str(address)]

    def open_account(self, creator: int) -> None:
        """A creator for whom the platform has opened an account once opens the next one themselves."""
        row = self.ground.rows("SELECT wallet FROM ledger.wallets WHERE creator_id = %s", creator)
        if row and row[0][0] in self.keys:
            people.put_account(self, row[0][0])


RECIPIENTS = """
    SELECT (r->>0)::bigint, r->>1 FROM ledger.attempts a JOIN ledger.batches b ON b.id = a.batch_id,
        jsonb_array_elements(b.plan->'recipients') r
    WHERE a.signature = %s AND b.kind IN ('payout', 'accounts')"""
STOPPED = """
    SELECT creator_id, 'hold-' || id FROM ledger.holds
    WHERE released_at IS NULL AND NOT partial AND (until IS NULL OR until > sim.now())
    UNION ALL SELECT creator_id, 'wallet waits' FROM ledger.wallets WHERE hold_until > sim.now()
    UNION ALL SELECT creator_id, 'wallet ' || wallet FROM ledger.wallets"""
OPEN_NAMES = (
    "freezes",
    "holds",
    "batches",
    "attempts",
    "payable",
    "maturing",
    "unfolded",
    "orders",
    "resolutions",
    "unknown",
)
OPEN = """
    SELECT count(*) FROM ledger.freezes WHERE released_at IS NULL
    UNION ALL SELECT count(*) FROM ledger.holds WHERE released_at IS NULL
    UNION ALL SELECT count(*) FROM ledger.batches WHERE ended_at IS NULL
    UNION ALL SELECT count(*) FROM ledger.attempts WHERE state = 'live'
    UNION ALL SELECT count(*) FROM ledger.accounts WHERE kind = 'payable' AND party = 'creator' AND balance > 0
    UNION ALL SELECT count(*) FROM ledger.maturing WHERE amount_pix > 0
    UNION ALL SELECT count(*) FROM ledger.unfolded i WHERE i.folded < i.recorded AND NOT EXISTS (
        SELECT FROM ledger.appearance_batches b WHERE b.incarnation = i.id AND b.seq >= i.folded AND b.format > %s)
    UNION ALL SELECT count(*) FROM ledger.orders WHERE done_at IS NULL AND expires_at > sim.now()
    UNION ALL SELECT count(*) FROM ledger.resolutions WHERE done_at IS NULL
    UNION ALL SELECT count(*) FROM ledger.chain_transactions c WHERE c.kind = 'unknown' AND NOT EXISTS (
        SELECT FROM ledger.attempts a WHERE a.signature = c.signature AND a.state IN ('landed', 'failed'))"""
NEWEST_FORMAT = people.NEWER - 1
