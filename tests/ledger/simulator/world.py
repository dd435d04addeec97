"""One seed's world: a chain, its nodes, people, an operator, and a ledger that is killed and started.

It begins, it storms, it calms down, and then what must never be is counted (see `storm`, `calm`, `ending`, `truth`).
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

import psycopg
from solders.account import Account
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from cluster.errors import Rejected
from ledger import adoption, book, packing, spool
from ledger.chain import Chain
from ledger.localnet import blocks, inside
from ledger.localnet.inside import Key, new_chain, token_account
from ledger.treasury import Treasury
from tests.conftest import throwaway_settings
from tests.ledger.chains import FINAL_BLOCKS, GAS, POOL
from tests.ledger.simulator import calm, causes, counting, ending, nature, people, storm, treasury
from tests.ledger.simulator.baton import Baton
from tests.ledger.simulator.climate import Climate, drawn
from tests.ledger.simulator.ground import PARTS, Ground
from tests.ledger.simulator.lies import Plot, Story
from tests.ledger.simulator.nodes import Node
from tests.ledger.simulator.process import Crash, Process, standing_on
from tests.ledger.simulator.protocols import OURS, Wrong
from tests.ledger.simulator.slots import Slots
from tests.ledger.simulator.truth import Kept, Outcome, Truth
from tests.ledger.snapshots import Snapshot

BLOCK_S = 0.4
SECRET, NEW_SECRET = "a secret of the simulation", "another one"
SCREEN = "tests.ledger.simulator.people:screen"
WITHOUT_WALLET = 0.15  # of the creators, at first
RECIPIENTS = """
    SELECT (r->>0)::bigint, r->>1, b.id, b.kind FROM ledger.attempts a JOIN ledger.batches b ON b.id = a.batch_id,
        jsonb_array_elements(b.plan->'recipients') r
    WHERE a.signature = %s"""
STOPPED = """
    SELECT creator_id, 'hold-' || id FROM ledger.holds
    WHERE released_at IS NULL AND NOT partial AND (until IS NULL OR until > sim.now())
    UNION ALL SELECT creator_id, 'wallet waits' FROM ledger.wallets WHERE hold_until > sim.now()
    UNION ALL SELECT creator_id, 'wallet ' || wallet FROM ledger.wallets"""


class Signer:
    """A key whose policy may refuse to sign anything."""

    def __init__(self, world: World, key: Any) -> None:
        self._world, self._key = world, key

    @property
    def pubkey(self) -> Pubkey:
        return Pubkey.from_string(str(self._key.pubkey))

    def sign(self, message: bytes) -> bytes:
        if self._world.refuses_to_sign:
            self._world.truth.note("refused to sign")
            raise Rejected("the policy of the simulation refuses", code="policy")
        return bytes(self._key.sign(message))


class World:
    """Runs one seed."""

    def __init__(
        self, ground: Ground, seed: int, climate: Climate | None = None, wrong: Wrong = OURS, fierce: float = 1.0
    ) -> None:
        self.ground, self.seed, self.wrong = ground, seed, wrong
        climate = climate or drawn(seed, fierce)
        self.climate = replace(climate, judged={**climate.judged, **wrong.judged})
        self.rng = random.Random(f"world {seed}")
        self.baton = Baton(random.Random(f"turns of {seed}"))
        self.truth, self.crowd, self.plot = Truth(), people.Crowd(), Plot(in_order=self.climate.plots_in_order)
        self.is_hostile, self.refuses_to_sign, self.is_secret_found = False, False, True
        self.secret = SECRET
        self.monotonic_s = 1000.0
        self._written_under = ""
        self.restores = self.strangers_sent = self.declared_before = 0
        self.keys: dict[str, Key] = {}
        self.snapshots: list[tuple[Snapshot, Kept]] = []
        self.stopped_before: dict[int, set[str]] = {}
        self.withheld_before: dict[int, int] = {}
        self.signed_before: set[str] = set()
        self.booked_before: set[str] = set()
        self.cursors_before: dict[UUID, int] = {}
        self.tampered_before = 0
        self.said: set[object] = set()  # what was found already
        self.held_open: set[str] = set()  # parts that stand still within a transaction, by nobody's doing but ours
        self.lamports_per_byte = blocks.LAMPORTS_PER_BYTE
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
        self.slots = Slots(random.Random(f"slots of {self.seed}"))
        rng = random.Random(f"story of {self.seed}")
        self.story = (
            Story(self.chain, self.slots, made.payer, rng, covers=rng.random() < 0.5) if climate.tells_story else None
        )
        roles = [(each < climate.liars, climate.nodes - each <= climate.forgetful) for each in range(climate.nodes)]
        self.rng.shuffle(roles)
        self.nodes = [
            Node(
                f"node {number}", self.chain, random.Random(f"node {number} of {self.seed}"), self._step_of_node,
                slots=self.slots, liar=liar, forgetful=forgetful, storm=climate.weather, sent=self._sent, plot=self.plot,
                story=self.story,
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
            with standing_on(self), patch.dict(spool.SEARCHES):
                self.process = Process(self)
                storm.rage(self)
                calm.settle(self)
                self.process.end()
                return ending.count(self)
        finally:
            people.WORLDS.pop()
            shutil.rmtree(self.folder, ignore_errors=True)

    def do(self, name: str, happen: Callable[[World], None]) -> None:
        """Let something happen; what is refused by name is refused."""
        self.truth.events[name] += 1
        try:
            happen(self)
        except Rejected:
            pass
        except psycopg.errors.LockNotAvailable as error:
            if self.held_open:  # it would wait for as long as a statement takes
                self.truth.events["waits"] += 1
            else:
                self.truth.found("locked", f"{name} waits: {error}".splitlines()[0], error)
        for session in (self.ground.admin, self.ground.operator, self.ground.serve):
            session.rollback()

    def luck(self, name: str) -> bool:
        return self.rng.random() < self.climate.chance(name)

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
        elif self.is_hostile and self.rng.random() < self.climate.overlapping:
            self._hold_open()

    def _hold_open(self) -> None:
        """Another part goes on while this one is in the midst of a transaction."""
        me = self.baton.holder
        self.held_open.add(me)
        self.truth.events["overlap"] += 1
        try:
            self.baton.pass_on()
        finally:
            self.held_open.discard(me)
        self.process.check()

    def _step_of_node(self) -> None:
        self.step()

    def loses_connection(self, line: object) -> bool:
        if not self.is_hostile or self.baton.holder not in PARTS:
            return False
        payouts = self.process.paying._payouts
        is_unsent = payouts is not None and payouts.connection is line and bool(payouts.signed_now)
        return self.rng.random() < (self.climate.losing_unsent if is_unsent else self.climate.losing)

    def start_anew(self) -> None:
        """The process has ended; the next one begins."""
        self.truth.events["crash"] += 1
        old = self.process
        old.end()
        self.begin_process(old)

    def begin_process(self, old: Process) -> None:
        """Another process, while the old one may only have been slow."""
        self.process = Process(self)
        if self.rng.random() < self.climate.haunting:
            with suppress(psycopg.OperationalError):
                self.process.connect(self.process.folding)
            if self.process.epoch.number:  # else the old one's is still the last
                old.haunt()

    def upgrade(self) -> None:
        """A newer version of the ledger begins, which can read what newer replicas have recorded."""
        spool.SEARCHES[people.NEWER] = spool.SEARCH
        self.start_anew()

    def lose_secret(self, *, is_found: bool) -> None:
        """The file of the batches' secret is gone, and another one was made; `is_found`: it comes back in time."""
        self.secret, self.is_secret_found = NEW_SECRET, is_found
        self.truth.events["secret lost"] += 1
        self.start_anew()

    def find_secret(self) -> None:
        self.secret = SECRET

    def new_chain(self) -> Chain:
        return self.wrong.chain(self.nodes)

    def opened_treasury(self) -> Treasury:
        """As it is opened now, with the rents of now."""
        rents = [self.chain.svm.minimum_balance_for_rent_exemption(size) for size in (0, blocks.TOKEN_ACCOUNT_BYTES)]
        return replace(self.treasury, secret=self.secret, marker_rent=rents[0], account_rent=rents[1])

    def markers_of(self, batch: str) -> list[Pubkey]:
        """Where the marker of a batch is, by the secret of now and by the one that was lost."""
        both = dict.fromkeys((self.secret, SECRET))
        return [replace(self.treasury, secret=each).marker(batch).address for each in both]

    @property
    def has_other_secret(self) -> bool:
        return self.secret != SECRET

    def is_declared(self) -> bool:
        """Whether the ledger knows of the last restore."""
        return self.restores > 0 and self.declared() > self.declared_before

    def is_adopting(self) -> bool:
        """Whether payouts are frozen for it."""
        query = "SELECT count(*) FROM ledger.freezes WHERE reason = %s AND released_at IS NULL"
        return bool(self.ground.rows(query, adoption.RESTORED)[0][0])

    def declared(self) -> int:
        """Of how many restores the ledger knows."""
        query = "SELECT count(*) FROM ledger.freezes WHERE reason = %s"
        return int(self.ground.rows(query, adoption.RESTORED)[0][0])

    def writer(self) -> Any:
        """The administrator's session, which may write as whoever holds the epoch: earnings have no other way in here."""
        admin = self.ground.admin
        epoch = str(self.ground.rows("SELECT epoch FROM ledger.fence")[0][0])
        if epoch != self._written_under:
            admin.setting("ledger.epoch", epoch)
            self._written_under = epoch
        return admin

    def _sent(self, transaction: VersionedTransaction) -> None:
        """Bytes have reached a node: those that do for the first time pay nobody who was stopped before this round."""
        signature = str(transaction.signatures[0])
        if signature in self.truth.batch_of:
            return
        rows = self.ground.rows(RECIPIENTS, signature)
        kind, batch = (rows[0][3], rows[0][2]) if rows else ("", "")
        self.truth.batch_of[signature] = batch if kind == "payout" else ""
        if kind in ("payout", "accounts"):
            self._require_unstopped(signature, [(creator, wallet) for creator, wallet, _, _ in rows])
        if kind == "payout":
            for creator in counting.is_overdrawn(self, [row[0] for row in rows]):
                self.truth.found("stopped", f"creator {creator} is paid of what is withheld, by {signature[:16]}")

    def _require_unstopped(self, signature: str, recipients: Sequence[tuple[int, str]]) -> None:
        now = self._stopped()
        for creator, wallet in recipients:
            both = now.get(creator, set()) & self.stopped_before.get(creator, set())
            why = {each for each in both if not each.startswith("wallet ") or each != f"wallet {wallet}"}
            if signature in self.signed_before:
                why.discard("refused")  # the screening is asked before bytes are signed
            if why:
                self.truth.found("stopped", f"creator {creator} is paid by {signature[:16]} though {sorted(why)}")

    def look_before(self) -> None:
        """What is so before a round."""
        self.stopped_before = self._stopped()
        self.withheld_before = counting.withheld(self)
        self.signed_before = set()
        if self.climate.is_screened:
            self.signed_before = {row[0] for row in self.ground.rows("SELECT signature FROM ledger.attempts")}
        self.tampered_before = self.left_by_tampering()
        causes.look_before(self)

    def left_by_tampering(self) -> int:
        """Lamports that no transaction has brought, less what was booked as a correction."""
        return self.truth.tampered - treasury.corrected(self)[1] if self.truth.tampered else 0

    def _stopped(self) -> dict[int, set[str]]:
        """Why creators may not be paid now: holds, wallets that wait, the screening; and which wallet is theirs."""
        found: dict[int, set[str]] = {each: {"refused"} for each in self.crowd.refused}
        for creator, why in self.ground.rows(STOPPED):
            found.setdefault(creator, set()).add(why)
        return found

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
