"""A wallet that a manifest names and the ledger refuses is said under the creator's jobs until they have one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import base58
import psycopg
import pytest
from psycopg import Connection
from solders.keypair import Keypair

from cluster import database
from ledger.settings import Economics
from pipelines import catalog, ingest, jobs
from pipelines.listed import Listed
from pipelines.remarks import WALLET_KEPT, WALLET_REFUSED
from serve import wallets

GOOD, OTHER = (str(Keypair.from_seed(bytes(31) + bytes([number])).pubkey()) for number in (1, 2))
MINT = str(Keypair.from_seed(bytes(31) + b"\3").pubkey())
PROGRAM = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"
NO_KEY = base58.b58encode(bytes([2]) + bytes(31)).decode()  # off the curve, as addresses of programs are
Conn = Connection[Any]


@pytest.fixture
def owner(postgres_url: str) -> Iterator[Conn]:
    with database.connect(postgres_url, autocommit=True) as opened:
        opened.execute("SELECT media.register_model('m', 3, 'f')")
        opened.execute("INSERT INTO ledger.own_addresses (address, role) VALUES (%s, 'mint')", (MINT,))
        yield opened


@pytest.fixture
def serve(postgres_url: str) -> Iterator[Conn]:
    with database.connect(postgres_url) as opened:
        opened.execute("SET SESSION ROLE pixr_serve")
        opened.commit()
        yield opened


@pytest.fixture
def jobber(postgres_url: str) -> Iterator[Conn]:
    with database.connect(postgres_url, autocommit=True) as opened:
        opened.execute("SET SESSION ROLE pixr_jobs")
        yield opened


def listed(connection: Conn, job: str, *wallet_of: tuple[str, str]) -> list[str]:
    """A job over a video of each of these creators, with the wallet that its row names; what is remarked at once."""
    connection.execute("INSERT INTO media.jobs (id, source) VALUES (%s, 's3://b/')", (job,))
    videos = [Listed(f"s3://b/{who}.mp4", "etag", 10, who, who, wallet=wallet) for who, wallet in wallet_of]
    return [note.kind for note in catalog.register(connection, job, videos, 1).notes]


def refused(connection: Conn, job: str) -> dict[str, str]:
    rows = jobs.get(connection, job)["remarks"]
    return {name: row["reason"] for row in rows if row["kind"] == WALLET_REFUSED for name in row["names"]}


def test_wallets_that_the_ledger_refuses_are_said_under_the_job(owner: Conn, serve: Conn, jobber: Conn) -> None:
    listed(jobber, "j", ("ana", MINT), ("bo", PROGRAM), ("cy", NO_KEY), ("dan", GOOD))
    listed(jobber, "k", ("dan", GOOD))
    assert refused(jobber, "j") == {}  # nobody has asked the ledger
    for taken in (1, 0):
        assert wallets.copy_claims(serve, Economics()) == taken
        found = refused(jobber, "j")
        assert found.keys() == {"ana", "bo", "cy"}
        assert "platform's own (mint); the creator's earnings wait until" in found["ana"]
        assert "program of the chain" in found["bo"]
        assert "has no key of its own" in found["cy"]
        assert refused(jobber, "k") == {}
    ingest.note_reposts(jobber, "j")  # what is asked each time is not written down
    owner.execute("UPDATE media.creators SET wallet_refused = NULL")
    assert refused(jobber, "j") == {}


def test_a_mended_manifest_or_the_creators_own_word_ends_the_remark(owner: Conn, serve: Conn, jobber: Conn) -> None:
    listed(jobber, "j", ("ana", MINT), ("bo", PROGRAM))
    wallets.copy_claims(serve, Economics())
    assert refused(jobber, "j").keys() == {"ana", "bo"}
    assert listed(jobber, "k", ("ana", GOOD)) == []
    assert refused(jobber, "j").keys() == {"bo"}
    bo = owner.execute("SELECT id FROM media.creators WHERE handle = 'bo'").fetchone()
    assert bo is not None
    owner.execute("INSERT INTO ledger.wallets (creator_id, wallet, set_by) VALUES (%s, %s, 'creator')", (bo[0], OTHER))
    assert wallets.copy_claims(serve, Economics()) == 1
    assert refused(jobber, "j") == {}
    assert listed(jobber, "l", ("ana", OTHER)) == [WALLET_KEPT]  # what is taken stands
    row = owner.execute("SELECT w.wallet FROM ledger.wallets w JOIN media.creators c ON c.id = w.creator_id"
                        " WHERE c.handle = 'ana'").fetchone()  # fmt: skip
    assert row == (GOOD,)


@pytest.mark.parametrize("role", ["pixr_serve", "pixr_jobs"])
def test_no_role_deletes_a_creator_who_may_be_owed_money(owner: Conn, role: str) -> None:
    owner.execute("INSERT INTO media.creators (handle, name) VALUES ('ana', 'ana')")
    owner.execute("SELECT set_config('role', %s, false)", (role,))
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        owner.execute("DELETE FROM media.creators")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        owner.execute("TRUNCATE media.creators CASCADE")
