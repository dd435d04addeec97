"""RPC nodes that fail, rest and come back, and a localnet that forgets nothing when it is killed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from cluster.errors import Temporary
from cluster.settings import Settings
from ledger.solana import chain, treasury
from ledger.solana.chain import Chain, HttpNode, Pace, RpcRefusal
from tests.conftest import free_port, localnet

PER_S, CALLS = 100.0, 60


def url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def test_a_node_that_fails_is_left_alone_and_asked_again(tmp_path: Path) -> None:
    port = free_port()
    rpc = Chain([HttpNode(url(port), 5.0, 1000.0)])
    for _ in range(chain.FAILURES_MAX):
        with pytest.raises(Temporary, match="does not answer"):
            rpc.genesis()
    with localnet(port, tmp_path / "localnet"):
        with pytest.raises(Temporary, match="resting"):
            rpc.genesis()  # it is well by now, and still left alone
        time.sleep(chain.REST_S)
        assert rpc.genesis()
        with pytest.raises(RpcRefusal):
            rpc.ask("getNothing")
        assert rpc.genesis()
    rpc.close()


def test_a_refusal_is_an_answer(localnet_url: str) -> None:
    rpc = Chain([HttpNode(localnet_url, 5.0, 1000.0)])
    for _ in range(2 * chain.FAILURES_MAX):
        with pytest.raises(RpcRefusal):
            rpc.ask("getNothing")
    assert rpc.genesis()
    rpc.close()


def test_the_next_node_is_asked_while_the_first_is_away(localnet_url: str) -> None:
    rpc = Chain([HttpNode(url(free_port()), 5.0, 1000.0), HttpNode(localnet_url, 5.0, 1000.0)])
    for _ in range(2 * chain.FAILURES_MAX):
        assert rpc.genesis()
    with pytest.raises(Temporary):
        rpc.ask_all("getGenesisHash", least=2)
    rpc.close()


def test_no_more_requests_a_second_than_a_node_allows() -> None:
    async def ask() -> float:
        pace, began = Pace(PER_S), time.monotonic()
        await asyncio.gather(*(pace.wait() for _ in range(CALLS)))
        return time.monotonic() - began

    burst = PER_S / 5
    assert asyncio.run(ask()) >= (CALLS - burst) / PER_S * 0.99


def test_what_waits_is_let_through_again_after_a_pause() -> None:
    now = [0.0]
    pace = Pace(PER_S, clock=lambda: now[0])

    async def burst() -> float:
        began = time.monotonic()
        for _ in range(int(PER_S / 5)):
            await pace.wait()
        return time.monotonic() - began

    assert asyncio.run(burst()) < 0.1
    now[0] += 1.0
    assert asyncio.run(burst()) < 0.1


def test_a_killed_localnet_comes_back_with_all_it_had(
    journal: Connection[Any], settings: Settings, tmp_path: Path
) -> None:
    port, folder = free_port(), tmp_path / "localnet"
    rpc = Chain([HttpNode(url(port), 5.0, 1000.0)])
    with localnet(port, folder) as process:
        opened = treasury.open_treasury(journal, rpc, settings)
        genesis, height = rpc.genesis(), rpc.ask("getBlockHeight")
        history = rpc.ask("getSignaturesForAddress", opened.token_account)
        _, before = rpc.accounts([opened.token_account, str(opened.payer.mint)])
        process.kill()
        process.wait()
    with localnet(port, folder):
        time.sleep(chain.REST_S)
        _, after = rpc.accounts([opened.token_account, str(opened.payer.mint)])
        assert after == before
        assert all(after)
        assert rpc.genesis() == genesis
        assert rpc.ask("getBlockHeight") >= height
        again = rpc.ask("getSignaturesForAddress", opened.token_account)
        assert {each["signature"] for each in history} <= {each["signature"] for each in again}
        assert history
        reopened = treasury.open_treasury(journal, rpc, settings)
        assert reopened.payer == opened.payer
    rpc.close()
