"""Planning: what is due is put into batches, and its money out of `payable`, in one transaction.

First the token accounts that are missing, then payouts. A batch that the chain refuses is taken apart by halving, until
the recipient at fault stands alone and is held. Knows no signature.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from cluster.errors import Temporary
from ledger import batch_ids, batches, book, owed, packing, screening, stops, wallets
from ledger.batches import Batch, Recipient
from ledger.owed import Due
from ledger.rail import Rail
from ledger.treasury import OPENINGS_CLOSED_PIX, opening_cost_pix

log = logging.getLogger(__name__)

Said = TypeVar("Said")


RECLAIM_READ = 4  # times as many markers are read as one transaction empties
ROOM_AGAIN_S = 10.0  # before who found no room for an opening is looked at again: one takes about as long
DOUBTED_S = 600.0  # before a marker of which nodes differ is looked at again


class Planning(Rail):
    """The first step of a payout."""

    def plan(self) -> list[Batch]:
        """Put what is due into batches, at its time: first open the token accounts that are missing, then pay."""
        if not batches.is_payday(self.connection, self.economics):
            return []
        opening_pix = opening_cost_pix(self.economics, self.treasury.account_rent)
        owed.fit(self.connection, self.economics.payout_min_pix, opening_pix)
        wallets.release_mended(self.connection, owed.wake(self.connection))
        book.commit(self.connection)
        room = self._room("payout")
        made: list[Batch] = []
        if room > 0 and self._left_today() >= self.economics.payout_min_pix:  # else nobody need be looked at
            ready, missing = self._due()
            book.commit(self.connection)  # before nodes are asked
            self._find_accounts(missing)
            opening = batches.being_opened(self.connection, [each.creator_id for each in missing])
            owed.look_again(
                self.connection, opening
            )  # they are woken when it is open, and keep nobody waiting till then
            made = self._pend(self._parts(ready)[:room])
            book.commit(self.connection)
        self._reclaim()
        book.commit(self.connection)
        self.planned_now = frozenset(each.id for each in made)
        return made

    def _room(self, kind: str) -> int:
        """How many more batches of a kind may be under way: those of one that cannot go on keep no other kind waiting."""
        return self.settings.batches_live_max - batches.live_count(self.connection, kind)

    def _left_today(self) -> int:
        """What may still be planned this UTC day."""
        return self.economics.payout_day_max_pix - owed.planned_today(self.connection)

    def _parts(self, ready: Sequence[Due]) -> list[list[Due]]:
        """As many recipients together as one transaction holds beside the markers that guard them.

        Who has been through so many transactions that were given up that their markers do not fit waits for their time.
        """
        marked = self.settings.marker_accounts
        lineage = batches.lineage_of(self.connection, [each.creator_id for each in ready]) if marked else {}
        parts: list[list[Due]] = []
        together: set[str] = set()
        for each in ready:
            above = set(lineage.get(each.creator_id, ()))
            if not self.treasury.capacity("payout", len(above)):
                log.error("too many transactions of a creator were given up", extra={"creator": each.creator_id})
                owed.look_again(self.connection, [each.creator_id])
                continue
            together |= above
            if not parts or len(parts[-1]) >= self.treasury.capacity("payout", len(together)):
                parts.append([])
                together = above
            parts[-1].append(each)
        return [sorted(part, key=lambda each: each.creator_id) for part in parts]

    def _pend(self, chunks: Sequence[Sequence[Due]], parent: str | None = None) -> list[Batch]:
        """A batch for each chunk, its money in flight."""
        made = self._unmarked([self.payout_batch(chunk, tag=parent or "") for chunk in chunks])
        batches.add(self.connection, made, parent)
        batches.pend(self.connection, list(zip(made, chunks, strict=True)))
        most = owed.most_pix(self.economics)  # who is paid so much may be owed more
        paid_in_part = [each.creator_id for chunk in chunks for each in chunk if each.amount_pix >= most]
        owed.stand_behind(self.connection, paid_in_part)
        owed.note_planned(self.connection, [each.creator_id for chunk in chunks for each in chunk])
        return made

    def _unmarked(self, made: Sequence[Batch]) -> list[Batch]:
        """The same batches, under other ids where the marker of one is on chain: adopted after a restore, which forgot it."""
        taken = batches.marked(self.connection, [self._marker_of(each) for each in made])
        while taken:
            made = [
                replace(each, id=self._sealed_id(each.id, each.recipients)) if self._marker_of(each) in taken else each
                for each in made
            ]
            taken = batches.marked(self.connection, [self._marker_of(each) for each in made])
        return list(made)

    def _marker_of(self, batch: Batch) -> str:
        return str(self.treasury.marker(batch.id).address)

    def _reclaim(self) -> None:
        """Take back the rent of markers that have done their duty, once a transaction is worth its fee."""
        size = self.treasury.capacity("reclaim")
        least = min(self.settings.reclaim_min, size)
        own = self.settings
        rows = batches.reclaimable(self.connection, own.marker_retention_s, own.reclaim_pause_s, RECLAIM_READ * size)
        if len(rows) < least:
            return
        recipients = self._held_by_markers(rows)[:size]
        if len(recipients) >= least:
            named = ",".join(each.wallet for each in recipients)
            number = self._unused(f"reclaim|{named}|{batches.reclaims(self.connection)}")
            batches.add(self.connection, [Batch(number, "reclaim", "planned", 0, tuple(recipients))])

    def _held_by_markers(self, rows: Sequence[tuple[str, str]]) -> list[Recipient]:
        """What is to be emptied: to the last lamport that nodes agree is there, for strangers can send more.

        Each was made with the rent of its time: whatever it holds is taken. A marker that is gone, or is of a batch that is
        forgotten, waits as long again behind the others, and one of which nodes differ a moment, so that however many of them
        there are, none of those is kept waiting.
        """
        try:
            found = self.chain.seen_accounts([address for _, address in rows], opinions=self.opinions)
        except Temporary as error:
            log.warning("no marker is emptied now: %s", error)
            return []
        recipients, empty, doubted = [], [], []
        for (batch_id, address), seen in zip(rows, found, strict=True):
            if str(self.treasury.marker(batch_id).address) != address:
                empty.append(batch_id)  # adopted after a restore, which forgot the id that its seed follows from
                continue
            held = self._agreed([each.lamports if each is not None else 0 for each in seen])
            if held is None:
                doubted.append(batch_id)
            elif held:
                recipients.append(Recipient(0, batch_id, address, held))
            else:
                empty.append(batch_id)
        batches.look_later(self.connection, empty)
        batches.look_later(self.connection, doubted, max(0.0, self.settings.marker_retention_s - DOUBTED_S))
        return recipients

    def payout_batch(self, dues: Sequence[Due], tag: str = "") -> Batch:
        """The batch that pays these creators; its id follows from who, when and which, and the secret."""
        named = ",".join(f"{each.creator_id}:{each.seq}" for each in dues)
        recipients = tuple(Recipient(d.creator_id, d.wallet, d.address or "", d.amount_pix) for d in dues)
        number = self._sealed_id(f"payout|{dues[0].period}|{named}|{tag}", recipients)
        return Batch(number, "payout", "planned", sum(each.amount_pix for each in dues), recipients)

    def _sealed_id(self, text: str, recipients: Sequence[Recipient]) -> str:
        """A payout's id, which follows from a text and says whom it pays (see `batch_ids`)."""
        return batch_ids.sealed(self.treasury.secret, text, [each.creator_id for each in recipients])

    def _due(self, creators: Collection[int] | None = None) -> tuple[list[Due], list[Due]]:
        """Who is due, of these creators or of all: those with a token account, within the day's limit, and those without.

        Commits before the operator's screening is asked (see `_screen`).
        """
        limit = self.settings.payouts_per_plan_max
        wallets.release_mended(self.connection, creators or ())
        found, waiting = owed.look(self.connection, self.economics, self.treasury.mint, limit, creators)
        owed.park(self.connection, waiting)
        due = self._screened(self._payable(found))
        left = self._left_today()
        ready: list[Due] = []
        for each in due:
            if each.address is not None and each.amount_pix <= left:
                ready.append(each)
                left -= each.amount_pix
        return ready, [each for each in due if each.address is None]

    def _payable(self, due: Sequence[Due]) -> list[Due]:
        """Those whose wallet can be paid; the others are held until they name another one."""
        reasons = wallets.unpayable_of(self.connection, {each.creator_id: each.wallet for each in due})
        for each in due:
            if each.creator_id in reasons:
                self._hold_wallet(each.creator_id, each.wallet, reasons[each.creator_id])
        return [each for each in due if each.creator_id not in reasons]

    def _hold_wallet(self, creator_id: int, wallet: str, why: str) -> None:
        stops.hold(self.connection, creator_id, f"{wallets.UNPAYABLE}: {wallet} {why}")

    def _screened(self, due: Sequence[Due]) -> list[Due]:
        """Those whom the operator's screening lets pass; the others are held."""
        refused = self._screen([screening.Recipient(each.creator_id, each.wallet, each.amount_pix) for each in due])
        return [each for each in due if each.creator_id not in refused]

    def _screen(self, asked: Sequence[screening.Recipient]) -> set[int]:
        """Creators whom the operator's screening does not let pass; they are held now.

        Commits before it is asked: it takes as long as it likes, and whoever writes the journal, or to whom it is that
        is owed, would wait for that.
        """
        book.commit(self.connection)
        reasons = screening.ask(self.screening, asked)
        for creator_id, reason in reasons.items():
            stops.hold(self.connection, creator_id, f"screening: {reason}")
        return set(reasons)

    def _find_accounts(self, missing: Sequence[Due]) -> None:
        """Look up the token accounts of new recipients; open those that the chain does not have.

        A payout to one that is not there fails in its simulation, and opening one that is there changes nothing: as many nodes
        are believed as an end needs. What they differ on is looked at again in a while.
        """
        if not missing:
            return
        recipients = [Recipient(d.creator_id, d.wallet, self.treasury.token_account_of(d.wallet)) for d in missing]
        try:
            found = self.chain.seen_accounts([each.address for each in recipients], opinions=self.opinions)
        except Temporary as error:
            log.warning("no token account is looked up now: %s", error)
            return
        unknown, later, poor = [], [], []
        opening_pix = opening_cost_pix(self.economics, self.treasury.account_rent)
        for due, recipient, seen in zip(missing, recipients, found, strict=True):
            is_there = self._agreed([each is not None and each.owner == str(packing.TOKEN_PROGRAM) for each in seen])
            if is_there:
                batches.know_account(self.connection, self.treasury.mint, recipient, None)
            elif is_there is None:
                log.warning("nodes differ on a token account", extra={"address": recipient.address})
                later.append(due.creator_id)
            elif due.amount_pix >= opening_pix:
                unknown.append(recipient)
            else:
                poor.append(due.creator_id)
        owed.look_again(self.connection, later)
        # Where nobody knows what an opening is worth, they wait for a person, and are due.
        owed.look_again(self.connection, poor, are_due=opening_pix == OPENINGS_CLOSED_PIX)
        taken = batches.opened_for(self.connection, [each.creator_id for each in unknown])
        for each in unknown:
            if taken.get(each.creator_id, each.wallet) != each.wallet:
                stops.hold(self.connection, each.creator_id, "one token account was opened for this creator already")
        self._open(self._of_people([each for each in unknown if each.creator_id not in taken]))
        book.commit(self.connection)

    def _forget_gone(self, batch: Batch) -> bool:
        """Whether the chain no longer has a token account that a batch was to pay, by as many nodes as an end needs.

        Its owner has closed it, which is no reason to hold them. One that the platform has not opened is forgotten, and
        opened like any other; the platform opens one a creator, ever.
        """
        if batch.kind != "payout":
            return False
        known = batches.not_opened_by_us(self.connection, [each.address for each in batch.recipients])
        found = self.chain.seen_accounts(known, "confirmed", opinions=self.opinions)
        gone = [
            address for address, seen in zip(known, found, strict=True) if self._agreed([each is None for each in seen])
        ]
        batches.forget_accounts(self.connection, gone)
        return bool(gone)

    def _agreed(self, said: Sequence[Said]) -> Said | None:
        """What as many nodes say as an end needs, and more than say anything else; None where they differ."""
        told, count = Counter(said).most_common(1)[0]
        return told if count >= self.opinions and 2 * count > len(said) else None

    def _of_people(self, recipients: Sequence[Recipient]) -> list[Recipient]:
        """Those whose wallet no program owns, by as many nodes as it needs; the others are held. None, while these are away."""
        if not recipients:
            return []
        book.commit(self.connection)  # before nodes are asked: who is owed something is locked by what was parked
        try:
            strange = self.chain.not_wallets([each.wallet for each in recipients], self.opinions)
        except Temporary as error:
            log.warning("no token account is opened now: %s", error)
            return []
        for each in recipients:
            if each.wallet in strange:
                self._hold_wallet(each.creator_id, each.wallet, f"belongs to the program {strange[each.wallet]}")
        return [each for each in recipients if each.wallet not in strange]

    def _open(self, recipients: Sequence[Recipient], parent: str | None = None) -> None:
        """A batch for as many token accounts as one transaction opens; a part of another batch is planned whatever waits.

        For whom there is no room is looked at again in a while.
        """
        made = []
        size = self.treasury.capacity("accounts")
        if parent is None:
            most = max(self._room("accounts"), 0) * size
            self._wait_for_room([each.creator_id for each in recipients[most:]], size * self.settings.batches_live_max)
            recipients = recipients[:most]
        for start in range(0, len(recipients), size):
            chunk = tuple(recipients[start : start + size])
            number = self._unused(f"accounts|{','.join(each.address for each in chunk)}|{parent or ''}")
            made.append(Batch(number, "accounts", "planned", 0, chunk))
        batches.add(self.connection, made, parent)

    def _wait_for_room(self, creators: Sequence[int], at_once: int) -> None:
        """Look at who finds no room for an opening when it can be their turn; behind all others, so that however many they
        are, and however long a look takes, they keep nobody from being looked at.
        """
        for turn, start in enumerate(range(0, len(creators), at_once), 1):
            owed.look_again(self.connection, creators[start : start + at_once], turn * ROOM_AGAIN_S)
        owed.stand_behind(self.connection, creators)

    def _unused(self, text: str) -> str:
        """An id that follows from a text; the same accounts may be tried again after a batch of them has failed."""
        number = self._id(text)
        while batches.is_known(self.connection, number):
            number = self._id(number)
        return number

    # ── Taking back ────────────────────────────────────────────────────────────────────────────────────────────────

    def _give_back(self, batch: Batch, key: str, lines: list[tuple[int, int]], document: dict[str, Any]) -> None:
        """Void a batch: its money returns to where it came from. Fees, if any, are the platform's."""
        if batch.kind == "payout":
            back = batches.payable_lines(self.connection, batch)
            in_flight = book.account(self.connection, "in_flight")
            lines = [(in_flight, -batch.amount_pix), *back, *lines]
        entry = self._post(key, f"{batch.kind}_voided", lines, document)
        if batch.kind == "payout" and entry is not None:
            batches.end_transfers(self.connection, batch, "voided", entry.id)

    def _take_apart(self, batch: Batch, reason: str) -> None:
        """Find the recipient at fault by halving; a batch of one names its culprit, who is held.

        Commits what was given back before its halves are planned, each for itself: what is due meanwhile comes again.
        """
        if batch.kind == "reclaim":
            return  # nobody's fault; the markers are tried again
        if len(batch.recipients) == 1:
            stops.hold(self.connection, batch.recipients[0].creator_id, reason)
            return
        middle = len(batch.recipients) // 2
        self._plan_parts(batch, (batch.recipients[:middle], batch.recipients[middle:]))

    def _plan_parts(self, batch: Batch, parts: Sequence[Sequence[Recipient]]) -> None:
        """Plan parts of a batch that was given back. Commits, since a payout's recipients are screened (see `_screen`)."""
        for part in parts:
            if batch.kind == "accounts":
                self._open(part, batch.id)
            else:
                self._pay_again(batch, {each.creator_id for each in part})
        book.commit(self.connection)

    def _pay_again(self, parent: Batch, creators: set[int]) -> None:
        """Plan a part of a batch that was given back, under the rules of any payout; else it is due like any other.

        Commits what was given back before the rest is planned, so that nobody waits for the journal while it is screened.
        How many batches wait is no matter here: a part that were forgotten would come again with who is at fault.
        """
        if not batches.is_payday(self.connection, self.economics):
            return
        try:
            ready, _ = self._due(creators)
        except Temporary:  # nobody is paid unscreened, and what has ended is booked all the same
            return
        self._pend(self._parts(ready), parent.id)
