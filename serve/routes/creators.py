"""`/v1/creators/…`: creators, their earnings, statement and payouts, and the wallet that payouts go to.

Creators are listed to all; their money is for their own key, or for an administrator's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from psycopg import Connection
from pydantic import BaseModel, ConfigDict, Field

from cluster.errors import Rejected
from cluster.tasks import uncancelled
from ledger.archive.shelf import Shelf
from ledger.creators import challenges, wallets
from ledger.creators.statements import Place
from ledger.payouts import listing
from ledger.settings import Economics
from pipelines.catalog import listing as creators
from serve.access import keys, origins
from serve.access.keys import Principal
from serve.access.transfer import HeldResponse
from serve.creators import earnings
from serve.http import deadlines
from serve.http.manners import is_head
from serve.routes.pages import Cursor, Pages
from serve.routes.routing import Route
from serve.routes.services import Services
from serve.routes.videos import LISTED_MAX, seen_by
from serve.search import ids
from serve.search.ids import CreatorId

BASE58 = r"^[1-9A-HJ-NP-Za-km-z]*$"  # for the OpenAPI document; the ledger refuses other text, with a code of its own
Amount = Annotated[str, Field(pattern=r"^-?\d+$", examples=["125000"], description="Base units.")]


class Earnings(BaseModel):
    """A creator's earnings; `accrued` is pending + payable + in_flight + paid."""

    model_config = ConfigDict(extra="allow")
    creator_id: str
    creator_public_id: str
    pending: Amount
    accrued: Amount
    in_flight: Amount
    paid: Amount
    on_chain: Amount
    withheld: Amount = Field(
        description="The part of `payable` that waits until a person has looked. A moment whose day fake appearances have "
        "filled earns no more on that day; what other people look at of it makes this smaller instead."
    )
    wallet: str | None
    currency: str
    decimals: int


class Live(BaseModel):
    """The sum that appearances have earned so far, before reversals; about a second behind the ledger."""

    creator_id: str
    creator_public_id: str
    earned: Amount
    currency: str
    decimals: int
    source: Literal["counter", "journal"]


class Payout(BaseModel):
    """One payment to a creator's wallet."""

    id: str
    creator_id: str
    creator_public_id: str
    wallet: str
    amount_pix: Amount
    state: str
    batch_id: str
    signature: str | None
    slot: int | None
    planned_at: str


class Payouts(BaseModel):
    payouts: list[Payout]
    total: int
    next_cursor: str | None


class Creator(BaseModel):
    """A creator, with how many of their videos are public and ready, up to 10,000."""

    id: str
    public_id: str
    handle: str
    name: str
    videos: int
    created_at: str


class Creators(BaseModel):
    """A page of creators; `total` counts up to 100,000."""

    creators: list[Creator]
    total: int
    next_cursor: str | None


Address = Annotated[str, Field(min_length=32, max_length=44, json_schema_extra={"pattern": BASE58})]


class WalletProof(BaseModel):
    """The wallet's signature (ed25519, in base58) of the message of the challenge with this nonce."""

    model_config = ConfigDict(extra="forbid")
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    signature: Annotated[str, Field(min_length=64, max_length=88, json_schema_extra={"pattern": BASE58})]


class NewWallet(BaseModel):
    """The wallet to pay to. `proof` may be left out, for instance for an address at an exchange; payouts then wait."""

    model_config = ConfigDict(extra="forbid")
    wallet: Address
    proof: WalletProof | None = None


class ToProve(BaseModel):
    model_config = ConfigDict(extra="forbid")
    wallet: Address


class WalletChallenge(BaseModel):
    """A message that the wallet's key has to sign, byte for byte as UTF-8, before `expires_at`. It can be used once."""

    creator_id: str
    creator_public_id: str
    wallet: str
    nonce: str
    message: str
    expires_at: str


class Wallet(BaseModel):
    """Where a creator is paid; payouts wait until `hold_until`. `proven`: its key has signed that it is the creator's."""

    creator_id: str
    creator_public_id: str
    wallet: str
    set_by: str
    set_at: str
    hold_until: str | None
    proven: bool


def router(services: Services) -> APIRouter:
    """Return the routes over one replica's services."""
    routes = APIRouter(prefix="/v1/creators", tags=["creators"], route_class=Route)
    needs_key, anybody = Depends(keys.require(services, "creator")), Depends(keys.optional(services))
    listed, paid = Pages(services, "creators"), Pages(services, "payouts")

    @routes.get("", response_model=Creators)
    async def list_creators(
        request: Request,
        sort: Literal["name", "-name", "created_at", "-created_at"] | None = None,
        cursor: Cursor = None,
        limit: Annotated[int, Query(ge=1, le=LISTED_MAX)] = 20,
        caller: Principal | None = anybody,
    ) -> Any:
        """Creators by name: those with a public video that is ready; for a key, also all whom it may act for."""
        place = listed.start(cursor, {"sort": sort})
        by, seen = place.filters.get("sort", "name"), seen_by(caller)
        rows, total = await listed.read(
            request,
            caller,
            lambda connection: creators.creators(connection, seen, sort=by, after=place.after, limit=limit + 1),
        )
        shown, is_more = listed.cut(rows, limit)
        following = listed.cursor_after(place, (shown[-1].place, shown[-1].id)) if is_more else None
        return {"creators": [_document(creator) for creator in shown], "total": total, "next_cursor": following}

    @routes.get("/{creator_id}", response_model=Creator)
    async def read_creator(request: Request, creator_id: CreatorId, caller: Principal | None = anybody) -> Any:
        """A creator, by number or public id.

        A number finds only creators with a public video that is ready, and those whom the key may act for.
        """
        key, seen = ids.key(creator_id), seen_by(caller)
        creator = await listed.read(request, caller, lambda connection: creators.creator(connection, key, seen))
        if creator is None:
            raise ids.missing("creator", creator_id)
        return _document(creator)

    @routes.get("/{creator_id}/earnings", response_model=Earnings)
    async def read_earnings(creator_id: CreatorId, caller: Principal = needs_key) -> Any:
        """Return the sums that the creator has earned: pending, payable, in flight and paid."""
        return await services.threads.ask(earnings.of, await _own(services, caller, creator_id))

    @routes.get("/{creator_id}/earnings/live", response_model=Live)
    async def read_live(creator_id: CreatorId, caller: Principal = needs_key) -> Any:
        """Return the sum earned so far, from a counter or else from the journal; quick enough to ask every second."""
        number = await _own(services, caller, creator_id)
        counted = await uncancelled(earnings.counted(services.redis, services.store.prefix, number))
        public_id = await services.threads.ask(earnings.check_creator, number)
        source = "journal" if counted is None else "counter"
        if counted is None:
            counted = await services.threads.ask(earnings.earned, number)
        live = {"creator_id": str(number), "creator_public_id": public_id, "earned": str(counted), "source": source}
        return live | earnings.MONEY

    @routes.get("/{creator_id}/statement.csv", response_class=Response, responses={200: {"content": {"text/csv": {}}}})
    async def read_statement(request: Request, creator_id: CreatorId, caller: Principal = needs_key) -> Response:
        """Return a CSV of every movement of the creator's money, the newest first; its length is not limited.

        While it is read, it takes a place among the streams.
        """
        number = await _own(services, caller, creator_id)
        shelf = Shelf.of(services.settings, services.storage)
        async with AsyncExitStack() as held:
            share = origins.share(request, caller.id)
            held.enter_context(services.gates.streams.passed(share, services.search.key_weight))
            # Before the response begins, so that a failure of the first part has the status of an error.
            text, following = await services.threads.ask(earnings.statement_csv, shelf, number)
            release = held.pop_all()
        headers = {"Content-Disposition": f'attachment; filename="pixr-{number}.csv"', "Cache-Control": "no-store"}
        whole = _statement(services, shelf, number, text, None if is_head(request) else following)
        return HeldResponse(whole, release, headers, media_type="text/csv; charset=utf-8")

    @routes.get("/{creator_id}/payouts", response_model=Payouts)
    async def read_payouts(
        creator_id: CreatorId,
        cursor: Cursor = None,
        limit: Annotated[int, Query(ge=1, le=listing.ROWS_MAX)] = 100,
        caller: Principal = needs_key,
    ) -> Any:
        """The creator's payouts, newest first."""
        number = await _own(services, caller, creator_id)
        place = paid.start(cursor, of=number)
        before = place.after[0] if place.after else None
        rows, total = await services.threads.ask(earnings.payouts, number, before, limit + 1)
        shown, is_more = paid.cut(rows, limit)
        following = paid.cursor_after(place, (int(shown[-1]["id"]),), of=number) if is_more else None
        return {"payouts": shown, "total": total, "next_cursor": following}

    _add_wallet(routes, services)
    return routes


def _add_wallet(routes: APIRouter, services: Services) -> None:
    """Add the routes of a creator's wallet."""
    needs_key = Depends(keys.require(services, "creator"))

    @routes.post("/{creator_id}/wallet/challenge", response_model=WalletChallenge, status_code=201)
    async def challenge_wallet(
        creator_id: CreatorId, to_prove: ToProve, caller: Principal = needs_key
    ) -> dict[str, Any]:
        """Issue the message whose signature proves a wallet. It replaces an earlier message of the same caller."""
        number = await _own(services, caller, creator_id)
        economics = services.settings.section(Economics)
        return await services.threads.ask(_challenge, economics, number, to_prove.wallet, _asked_by(caller))

    @routes.put("/{creator_id}/wallet", response_model=Wallet)
    async def change_wallet(creator_id: CreatorId, new: NewWallet, caller: Principal = needs_key) -> dict[str, Any]:
        """Change the wallet that the creator is paid at. Payouts then wait for a while, unless it is the first and proven."""
        number = await _own(services, caller, creator_id)
        return await services.threads.ask(_change, services.settings.section(Economics), number, new, caller)


async def _own(services: Services, caller: Principal, creator_id: str) -> int:
    """Return the number of a creator whose money the caller may see.

    Raises:
        Rejected: 403, the key belongs to another creator; 404, no creator has this public id.
    """
    number = await ids.creator(services.readers, creator_id)
    if not (caller.owns(number) or caller.may(keys.ADMIN)):
        raise Rejected("this key belongs to another creator", status=403, code="not-yours")
    return number


async def _statement(
    services: Services, shelf: Shelf, creator_id: int, text: str, place: Place | None
) -> AsyncIterator[str]:
    """Yield a statement part by part, the first of which is `text`; `place` is where the second begins.

    A part that cannot be read breaks off the response, so that a client does not take the statement for complete.
    """
    yield text
    while place is not None:
        with deadlines.unlimited():  # each part may take as long as any call in a thread
            text, place = await services.threads.ask(earnings.statement_csv, shelf, creator_id, place)
        yield text


def _document(creator: creators.Creator) -> dict[str, Any]:
    shown = {name: getattr(creator, name) for name in Creator.model_fields}
    return shown | {"id": str(creator.id), "created_at": creator.created_at.isoformat()}


def _asked_by(caller: Principal) -> str:
    """Return the name that challenges are issued to: all keys of one principal share it."""
    return f"principal {caller.id}"


def _challenge(
    connection: Connection[Any], economics: Economics, creator_id: int, wallet: str, asked_by: str
) -> dict[str, Any]:
    """Issue a challenge for a wallet, as `WalletChallenge` describes it."""
    public_id = earnings.check_creator(connection, creator_id)
    challenge = dataclasses.asdict(challenges.issue(connection, economics, creator_id, wallet, asked_by))
    return challenge | {"creator_id": str(creator_id), "creator_public_id": public_id}


def _change(
    connection: Connection[Any], economics: Economics, creator_id: int, new: NewWallet, caller: Principal
) -> dict[str, Any]:
    """Set the wallet in one transaction with its proof, if one is given: a refused change leaves the challenge unused."""
    public_id = earnings.check_creator(connection, creator_id)
    proof = None
    if new.proof is not None:
        answer = challenges.Answer(new.proof.nonce, new.proof.signature)
        proof = challenges.prove(connection, creator_id, new.wallet, _asked_by(caller), answer)
    set_by = "creator" if caller.owns(creator_id) else "admin"
    changed = dataclasses.asdict(wallets.change(connection, economics, creator_id, new.wallet, set_by, proof))
    return changed | {"creator_id": str(creator_id), "creator_public_id": public_id}
