"""`/v1/keys`: making, listing, rotating and revoking API keys. For administrators."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query
from psycopg import Connection
from pydantic import BaseModel, ConfigDict, Field

from cluster.settings import S3Settings
from pipelines import prefixes
from pipelines.handles import HANDLE_CHARS_MAX
from serve import caller_names, ids, keys, texts
from serve.pages import Cursor, Pages
from serve.query import Id
from serve.routing import Route
from serve.services import Services

KeyId = Annotated[int, Path(ge=1, le=2**63 - 1, examples=[3])]
Seconds = Annotated[int, Field(ge=1, le=keys.LIFETIME_MAX_S)]
Handle = Annotated[str, Field(min_length=1, max_length=HANDLE_CHARS_MAX, pattern=texts.LINE)]
Folder = Annotated[str, Field(min_length=1, max_length=2000, pattern=texts.LINE)]
Scope = Literal["search", "ingest", "creator", "admin"]


class NewKey(BaseModel):
    """Whose key it is to be and what it may do.

    A key of scope creator names the creator; one of scope ingest names the handles of those it may speak for, or says "any".
    Where it names some, its jobs read from its folders alone.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "web", "scopes": ["search"]}]})
    name: Annotated[str, Field(min_length=1, max_length=caller_names.NAME_CHARS_MAX), texts.KEPT, texts.SHOWN]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(keys.SCOPES))]
    creator_id: Annotated[
        Annotated[int, Field(ge=1, le=2**63 - 1)] | Id | None,
        Field(description="Who uses it, whatever its scopes: a search by it pays this creator nothing."),
    ] = None
    creators: Annotated[
        Annotated[list[Handle], Field(min_length=1, max_length=keys.CREATORS_MAX)] | Literal["any"] | None,
        Field(description="For scope ingest. None: the one of `creator_id`."),
    ] = None
    folders: Annotated[
        Annotated[list[Folder], Field(min_length=1, max_length=prefixes.FOLDERS_MAX)] | None,
        Field(
            description="For scope ingest with named creators: where its jobs' sources and manifests are. None: for each of"
            " them `s3://BUCKET/HANDLE/` in the first of `[s3] ingest_buckets`.",
            examples=[["s3://pixr/incoming/ana/"]],
        ),
    ] = None
    expires_in_s: Annotated[Seconds | None, Field(description="None: it does not expire.")] = None


class Rotation(BaseModel):
    """How long the old key lives on."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"grace_s": 3600}]})
    grace_s: Annotated[int, Field(ge=0, le=keys.LIFETIME_MAX_S)] = keys.ROTATION_GRACE_S


class Key(BaseModel):
    """A key as it is listed; `key` itself only when it was just made, and never again."""

    id: str
    name: str
    scopes: list[str]
    creator_id: str | None
    creators: list[str] | Literal["any"] | None
    folders: Annotated[
        list[str] | None,
        Field(description="Where its jobs' sources and manifests are, if it is for named creators; else None."),
    ]
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    key: str | None = None


class Keys(BaseModel):
    keys: list[Key]
    total: int
    next_cursor: str | None


def router(services: Services) -> APIRouter:
    """The routes over one deployment's services."""
    needs_admin = Depends(keys.require(services, keys.ADMIN))
    routes = APIRouter(prefix="/v1/keys", tags=["keys"], dependencies=[needs_admin], route_class=Route)

    pages = Pages(services, "keys")

    @routes.get("", response_model=Keys)
    async def list_keys(
        cursor: Cursor = None, limit: Annotated[int, Query(ge=1, le=keys.LISTED_MAX)] = keys.LISTED_MAX
    ) -> Any:
        """Every key, the newest first, with what it may do; never the key itself."""
        place = pages.begun(cursor)
        found, total = await services.threads.ask(_listed, limit + 1, *place.after)
        shown, more = pages.cut(found, limit)
        following = pages.next(place, (shown[-1].id,)) if more else None
        return {
            "keys": [each.document(services.settings.s3.ingest_buckets) for each in shown],
            "total": total,
            "next_cursor": following,
        }

    @routes.post("", response_model=Key, status_code=201)
    async def create_key(new: NewKey) -> Any:
        """Make a key. It is in this answer and nowhere else."""
        creator_id = None if new.creator_id is None else await ids.creator(services, str(new.creator_id))
        return await services.threads.ask(_created, services.settings.s3, new, creator_id)

    @routes.post("/{key_id}/rotate", response_model=Key, status_code=201)
    async def rotate_key(key_id: KeyId, rotation: Rotation) -> Any:
        """Make a key with the same scopes and lifetime; the old one lives on for a while."""
        return await services.threads.ask(_rotated, services.settings.s3, key_id, rotation.grace_s)

    @routes.delete("/{key_id}", response_model=Key)
    async def revoke_key(key_id: KeyId) -> Any:
        """End a key: at once for what changes something, within seconds for the rest; ending it again is no error."""
        return await services.threads.ask(_revoked, services.settings.s3, key_id)

    return routes


def _listed(connection: Connection[Any], limit: int, before: int = 2**63 - 1) -> tuple[list[keys.Key], int]:
    return keys.listing(connection, limit, before), keys.count(connection)


def _created(connection: Connection[Any], s3: S3Settings, new: NewKey, creator_id: int | None) -> dict[str, Any]:
    number, token = keys.create(
        connection,
        new.name,
        new.scopes,
        creator_id=creator_id,
        creators=new.creators,
        folders=None if new.folders is None else prefixes.checked(new.folders, s3),
        expires_in_s=new.expires_in_s,
    )
    return keys.one(connection, number).document(s3.ingest_buckets) | {"key": token}


def _rotated(connection: Connection[Any], s3: S3Settings, key_id: int, grace_s: int) -> dict[str, Any]:
    number, token = keys.rotate(connection, key_id, grace_s=grace_s)
    return keys.one(connection, number).document(s3.ingest_buckets) | {"key": token}


def _revoked(connection: Connection[Any], s3: S3Settings, key_id: int) -> dict[str, Any]:
    keys.revoke(connection, key_id)
    return keys.one(connection, key_id).document(s3.ingest_buckets)
