"""`/v1/creators/…`: earnings, statement, payouts, and the wallet they go to.

For the creator's own key, or an administrator's.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import Response
from psycopg import Connection
from pydantic import BaseModel, ConfigDict, Field

from cluster.errors import Rejected
from cluster.tasks import uncancelled
from ledger import listing, wallets
from ledger.settings import Economics
from serve import earnings, keys
from serve.keys import Principal
from serve.routing import Route
from serve.services import Services

CreatorId = Annotated[int, Path(ge=1, le=2**63 - 1, examples=[1])]
Amount = Annotated[str, Field(pattern=r"^-?\d+$", examples=["125000"], description="Base units.")]


class Earnings(BaseModel):
    """accrued = pending + payable + in_flight + paid."""

    model_config = ConfigDict(extra="allow")
    creator_id: str
    pending: Amount
    accrued: Amount
    in_flight: Amount
    paid: Amount
    on_chain: Amount
    wallet: str | None
    currency: str
    decimals: int


class Live(BaseModel):
    """Earned by appearances so far, before what was taken back; counted within a second or so of the fold."""

    creator_id: str
    earned: Amount
    currency: str
    decimals: int
    source: Literal["counter", "journal"]


class Payout(BaseModel):
    """One payment to a creator's wallet."""

    id: str
    creator_id: str
    wallet: str
    amount_pix: Amount
    state: str
    batch_id: str
    signature: str | None
    slot: int | None
    planned_at: str


class Payouts(BaseModel):
    payouts: list[Payout]


class NewWallet(BaseModel):
    model_config = ConfigDict(extra="forbid")
    wallet: Annotated[str, Field(min_length=32, max_length=44)]


class Wallet(BaseModel):
    """Where a creator is paid; after a change, payouts wait until `hold_until`."""

    creator_id: str
    wallet: str
    set_by: str
    set_at: str
    hold_until: str | None


def router(services: Services) -> APIRouter:
    """The routes over one deployment's services."""
    routes = APIRouter(prefix="/v1/creators", tags=["creators"], route_class=Route)
    needs_key = Depends(keys.require(services, "creator"))

    @routes.get("/{creator_id}/earnings", response_model=Earnings)
    async def read_earnings(creator_id: CreatorId, caller: Principal = needs_key) -> Any:
        """What the creator has earned, and where it is now."""
        _check(caller, creator_id)
        return await services.threads.ask(earnings.of, creator_id)

    @routes.get("/{creator_id}/earnings/live", response_model=Live)
    async def read_live(creator_id: CreatorId, caller: Principal = needs_key) -> Any:
        """What the creator has earned so far, for a page that asks every second: from a counter, or from the journal."""
        _check(caller, creator_id)
        counted = await uncancelled(earnings.counted(services.redis, services.store.prefix, creator_id))
        source = "journal" if counted is None else "counter"
        if counted is None:
            counted = await services.threads.ask(earnings.earned, creator_id)
        return {"creator_id": str(creator_id), "earned": str(counted), "source": source} | earnings.MONEY

    @routes.get("/{creator_id}/statement.csv", response_class=Response, responses={200: {"content": {"text/csv": {}}}})
    async def read_statement(creator_id: CreatorId, caller: Principal = needs_key) -> Response:
        """Every movement of the creator's money, newest first."""
        _check(caller, creator_id)
        text = await services.threads.ask(earnings.statement_csv, creator_id)
        headers = {"Content-Disposition": f'attachment; filename="pixr-{creator_id}.csv"', "Cache-Control": "no-store"}
        return Response(text, media_type="text/csv; charset=utf-8", headers=headers)

    @routes.get("/{creator_id}/payouts", response_model=Payouts)
    async def read_payouts(
        creator_id: CreatorId,
        limit: Annotated[int, Query(ge=1, le=listing.ROWS_MAX)] = 100,
        caller: Principal = needs_key,
    ) -> Any:
        """The creator's payouts, newest first."""
        _check(caller, creator_id)
        return {"payouts": await services.threads.ask(earnings.payouts, creator_id, limit)}

    @routes.put("/{creator_id}/wallet", response_model=Wallet)
    async def change_wallet(creator_id: CreatorId, new: NewWallet, caller: Principal = needs_key) -> dict[str, Any]:
        """Change where the creator is paid; payouts wait for a while, unless there was no wallet before."""
        _check(caller, creator_id)
        set_by = "creator" if caller.owns(creator_id) else "admin"
        return await services.threads.ask(_change, services.settings.section(Economics), creator_id, new.wallet, set_by)

    return routes


def _check(caller: Principal, creator_id: int) -> None:
    if not (caller.owns(creator_id) or caller.may(keys.ADMIN)):
        raise Rejected("this key belongs to another creator", status=403, code="not-yours")


def _change(
    connection: Connection[Any], economics: Economics, creator_id: int, wallet: str, set_by: str
) -> dict[str, Any]:
    earnings.check_creator(connection, creator_id)
    changed = dataclasses.asdict(wallets.change(connection, economics, creator_id, wallet, set_by))
    return changed | {"creator_id": str(creator_id)}
