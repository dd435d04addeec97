"""`/v1/creators/…`: who they are; earnings, statement, payouts, and the wallet they go to.

Who they are is open to all, the rest is for the creator's own key, or an administrator's.
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
from ledger import challenges, listing, wallets
from ledger.archive.shelf import Shelf
from ledger.settings import Economics
from ledger.statements import Place
from pipelines import listing as creators
from serve import deadlines, earnings, ids, keys, origins
from serve.ids import CreatorId
from serve.keys import Principal
from serve.manners import is_head
from serve.pages import Cursor, Pages
from serve.routes_videos import LISTED_MAX, seen_by
from serve.routing import Route
from serve.services import Services
from serve.transfer import HeldResponse

BASE58 = r"^[1-9A-HJ-NP-Za-km-z]*$"  # in the document; what is none is refused by the ledger, with a code of its own
Amount = Annotated[str, Field(pattern=r"^-?\d+$", examples=["125000"], description="Base units.")]


class Earnings(BaseModel):
    """accrued = pending + payable + in_flight + paid."""

    model_config = ConfigDict(extra="allow")
    creator_id: str
    creator_public_id: str
    pending: Amount
    accrued: Amount
    in_flight: Amount
    paid: Amount
    on_chain: Amount
    withheld: Amount = Field(
        description="What of `payable` waits while somebody has to look. The day of a moment that made looks have filled "
        "earns no more; what other people look at of it makes this less instead."
    )
    wallet: str | None
    currency: str
    decimals: int


class Live(BaseModel):
    """Earned by appearances so far, before what was taken back; counted within a second or so of the fold."""

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
    """A wallet without a proof, as of an exchange, is taken, and payouts to it wait."""

    model_config = ConfigDict(extra="forbid")
    wallet: Address
    proof: WalletProof | None = None


class ToProve(BaseModel):
    model_config = ConfigDict(extra="forbid")
    wallet: Address


class WalletChallenge(BaseModel):
    """What the wallet's key has to sign: `message`, byte for byte as UTF-8, before `expires_at`; it is good once."""

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
    """The routes over one deployment's services."""
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
        """Creators with a public video that is ready, by name; administrators and scope ingest see all."""
        place = listed.begun(cursor, {"sort": sort})
        by, seen = place.asked.get("sort", "name"), seen_by(caller)
        found, total = await listed.read(
            request,
            caller,
            lambda connection: creators.creators(connection, seen, sort=by, after=place.after, limit=limit + 1),
        )
        shown, more = listed.cut(found, limit)
        following = listed.next(place, (shown[-1].place, shown[-1].id)) if more else None
        return {"creators": [_document(each) for each in shown], "total": total, "next_cursor": following}

    @routes.get("/{creator_id}", response_model=Creator)
    async def read_creator(request: Request, creator_id: CreatorId, caller: Principal | None = anybody) -> Any:
        """A creator: by number if they have a public video, by public id also if all are unlisted."""
        key, seen = ids.key(creator_id), seen_by(caller)
        found = await listed.read(request, caller, lambda connection: creators.creator(connection, key, seen))
        if found is None:
            raise ids.missing("creator", creator_id)
        return _document(found)

    @routes.get("/{creator_id}/earnings", response_model=Earnings)
    async def read_earnings(creator_id: CreatorId, caller: Principal = needs_key) -> Any:
        """What the creator has earned, and where it is now."""
        return await services.threads.ask(earnings.of, await _own(services, caller, creator_id))

    @routes.get("/{creator_id}/earnings/live", response_model=Live)
    async def read_live(creator_id: CreatorId, caller: Principal = needs_key) -> Any:
        """What the creator has earned so far, for a page that asks every second: from a counter, or from the journal."""
        number = await _own(services, caller, creator_id)
        counted = await uncancelled(earnings.counted(services.redis, services.store.prefix, number))
        whose = await services.threads.ask(earnings.check_creator, number)
        source = "journal" if counted is None else "counter"
        if counted is None:
            counted = await services.threads.ask(earnings.earned, number)
        said = {"creator_id": str(number), "creator_public_id": whose, "earned": str(counted), "source": source}
        return said | earnings.MONEY

    @routes.get("/{creator_id}/statement.csv", response_class=Response, responses={200: {"content": {"text/csv": {}}}})
    async def read_statement(request: Request, creator_id: CreatorId, caller: Principal = needs_key) -> Response:
        """Every movement of the creator's money, newest first, however many there are.

        It has a place among streams for as long as it is read.
        """
        number = await _own(services, caller, creator_id)
        shelf = Shelf.of(services.settings, services.storage)
        async with AsyncExitStack() as held:
            share = origins.share(request, caller.id)
            held.enter_context(services.gates.streams.passed(share, services.search.key_weight))
            # What goes wrong here is answered as everywhere.
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
        place = paid.begun(cursor, of=number)
        before = place.after[0] if place.after else None
        found, total = await services.threads.ask(earnings.payouts, number, before, limit + 1)
        shown, more = paid.cut(found, limit)
        following = paid.next(place, (int(shown[-1]["id"]),), of=number) if more else None
        return {"payouts": shown, "total": total, "next_cursor": following}

    _add_wallet(routes, services)
    return routes


def _add_wallet(routes: APIRouter, services: Services) -> None:
    """The routes of a creator's wallet."""
    needs_key = Depends(keys.require(services, "creator"))

    @routes.post("/{creator_id}/wallet/challenge", response_model=WalletChallenge, status_code=201)
    async def challenge_wallet(creator_id: CreatorId, asked: ToProve, caller: Principal = needs_key) -> dict[str, Any]:
        """Ask for the message by whose signature a wallet is proven. An earlier one of the same key's is void then."""
        number = await _own(services, caller, creator_id)
        economics = services.settings.section(Economics)
        return await services.threads.ask(_challenge, economics, number, asked.wallet, _asked_by(caller))

    @routes.put("/{creator_id}/wallet", response_model=Wallet)
    async def change_wallet(creator_id: CreatorId, new: NewWallet, caller: Principal = needs_key) -> dict[str, Any]:
        """Change where the creator is paid; payouts wait for a while, unless it is the first wallet, and proven."""
        number = await _own(services, caller, creator_id)
        return await services.threads.ask(_change, services.settings.section(Economics), number, new, caller)


async def _own(services: Services, caller: Principal, creator_id: str) -> int:
    """The number of a creator whose money the caller may see.

    Raises:
        Rejected: 403, it is another's; 404, there is no such public id.
    """
    number = await ids.creator(services, creator_id)
    if not (caller.owns(number) or caller.may(keys.ADMIN)):
        raise Rejected("this key belongs to another creator", status=403, code="not-yours")
    return number


async def _statement(
    services: Services, shelf: Shelf, creator_id: int, text: str, place: Place | None
) -> AsyncIterator[str]:
    """A statement part by part; one that cannot be read on breaks off the answer, so that nobody takes it for whole."""
    yield text
    while place is not None:
        with deadlines.unlimited():  # each part has the time that a call in a thread has
            text, place = await services.threads.ask(earnings.statement_csv, shelf, creator_id, place)
        yield text


def _document(found: creators.Creator) -> dict[str, Any]:
    shown = {name: getattr(found, name) for name in Creator.model_fields}
    return shown | {"id": str(found.id), "created_at": found.created_at.isoformat()}


def _asked_by(caller: Principal) -> str:
    """Whose challenge it is: all keys of one principal have the same."""
    return f"principal {caller.id}"


def _challenge(
    connection: Connection[Any], economics: Economics, creator_id: int, wallet: str, asked_by: str
) -> dict[str, Any]:
    public_id = earnings.check_creator(connection, creator_id)
    made = dataclasses.asdict(challenges.issue(connection, economics, creator_id, wallet, asked_by))
    return made | {"creator_id": str(creator_id), "creator_public_id": public_id}


def _change(
    connection: Connection[Any], economics: Economics, creator_id: int, new: NewWallet, caller: Principal
) -> dict[str, Any]:
    """Set the wallet in one transaction with its proof, where there is one: what is refused uses no challenge up."""
    public_id = earnings.check_creator(connection, creator_id)
    proof = None
    if new.proof is not None:
        answer = challenges.Answer(new.proof.nonce, new.proof.signature)
        proof = challenges.prove(connection, creator_id, new.wallet, _asked_by(caller), answer)
    set_by = "creator" if caller.owns(creator_id) else "admin"
    changed = dataclasses.asdict(wallets.change(connection, economics, creator_id, new.wallet, set_by, proof))
    return changed | {"creator_id": str(creator_id), "creator_public_id": public_id}
