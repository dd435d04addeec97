"""`/v1/keys`: making, listing, rotating and revoking API keys. For administrators.

`access.keys` makes and stores the keys; this module turns them into documents.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query
from psycopg import Connection
from pydantic import BaseModel, ConfigDict, Field

from cluster.settings import S3Settings
from pipelines.sources import prefixes
from pipelines.sources.handles import HANDLE_CHARS_MAX
from serve.access import keys
from serve.http import texts
from serve.routes.pages import Cursor, Pages
from serve.routes.routing import Route
from serve.routes.services import Services
from serve.search import ids
from serve.search.query import Id

KeyId = Annotated[int, Path(ge=1, le=2**63 - 1, examples=[3])]
Seconds = Annotated[int, Field(ge=1, le=keys.LIFETIME_MAX_S)]
Handle = Annotated[str, Field(min_length=1, max_length=HANDLE_CHARS_MAX, pattern=texts.LINE)]
Folder = Annotated[str, Field(min_length=1, max_length=2000, pattern=texts.LINE)]
Scope = Literal["search", "ingest", "creator", "admin"]


class NewKey(BaseModel):
    """The key to make: its name, its scopes, and the creators that it stands for.

    For scope creator, `creator_id` is needed. For scope ingest, `creators` are the handles of the creators that the key
    may act for, or "any". If they are handles, the key's jobs read only from the key's folders.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "web", "scopes": ["search"]}]})
    name: Annotated[str, Field(min_length=1, max_length=keys.NAME_CHARS_MAX), texts.KEPT, texts.SHOWN]
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
    """For how many seconds the old key goes on working."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"grace_s": 3600}]})
    grace_s: Annotated[int, Field(ge=0, le=keys.LIFETIME_MAX_S)] = keys.ROTATION_GRACE_S


class Key(BaseModel):
    """A key as it is listed. `key` is the secret; only the answer that made the key shows it."""

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
    """Return the routes over one replica's services."""
    needs_admin = Depends(keys.require(services, keys.ADMIN))
    routes = APIRouter(prefix="/v1/keys", tags=["keys"], dependencies=[needs_admin], route_class=Route)

    pages = Pages(services, "keys")

    @routes.get("", response_model=Keys)
    async def list_keys(
        cursor: Cursor = None, limit: Annotated[int, Query(ge=1, le=keys.LISTED_MAX)] = keys.LISTED_MAX
    ) -> Any:
        """List all keys, the newest first, with their scopes, but without the secrets."""
        place = pages.start(cursor)
        rows, total = await services.threads.ask(_listed, limit + 1, *place.after)
        shown, is_more = pages.cut(rows, limit)
        following = pages.cursor_after(place, (shown[-1].id,)) if is_more else None
        return {
            "keys": [row.document(services.settings.s3.ingest_buckets) for row in shown],
            "total": total,
            "next_cursor": following,
        }

    @routes.post("", response_model=Key, status_code=201)
    async def create_key(new: NewKey) -> Any:
        """Make a key. Only this answer shows the secret."""
        creator_id = None if new.creator_id is None else await ids.creator(services.readers, str(new.creator_id))
        return await services.threads.ask(_created, services.settings.s3, new, creator_id)

    @routes.post("/{key_id}/rotate", response_model=Key, status_code=201)
    async def rotate_key(key_id: KeyId, rotation: Rotation) -> Any:
        """Make a key with the scopes and lifetime of an old one; the old key goes on working for `grace_s` seconds."""
        return await services.threads.ask(_rotated, services.settings.s3, key_id, rotation.grace_s)

    @routes.delete("/{key_id}", response_model=Key)
    async def revoke_key(key_id: KeyId) -> Any:
        """Revoke a key: at once for calls that change something, within seconds for all others. It may be repeated."""
        return await services.threads.ask(_revoked, services.settings.s3, key_id)

    return routes


def _listed(connection: Connection[Any], limit: int, before: int = 2**63 - 1) -> tuple[list[keys.KeyRow], int]:
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
