"""A dump of the running stack, payments after it, a restore: what the chain has paid is adopted and paid to nobody twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import roles, runtime
from cluster.database import database
from ledger.rounds import open_chain
from pipelines.samples.samples import Sample
from serve.access import keys
from tests.conftest import until
from tests.flow.test_flow import PAID_WITHIN_S, recorded
from tests.stack import Stack

ADOPTED_WITHIN_S = 90.0


def on_chain(stack: Stack) -> dict[int, int]:
    """What each creator's token account holds, as the chain says."""
    known = stack.rows(
        "SELECT w.creator_id, t.address FROM ledger.token_accounts t JOIN ledger.wallets w ON w.wallet = t.wallet"
    )
    rpc = open_chain(stack.settings)
    _, accounts = rpc.accounts([address for _, address in known])
    rpc.close()
    return {
        creator: int.from_bytes(account.data[64:72], "little") if account else 0
        for (creator, _), account in zip(known, accounts, strict=True)
    }


def journal(stack: Stack) -> dict[int, int]:
    """What the journal says was paid to each."""
    rows = stack.rows(
        "SELECT p.creator_id, sum(p.on_chain_pix)::bigint FROM ledger.payouts p JOIN ledger.transfers t"
        " ON t.id = p.transfer_id WHERE t.state = 'posted' GROUP BY 1"
    )
    return dict(rows)  # type: ignore[arg-type]


def all_paid(stack: Stack) -> bool:
    """Everything recorded is folded, nothing is under way and nothing is owed."""
    known, folded = recorded(stack)
    owed = stack.rows(
        "SELECT coalesce(sum(balance), 0)::bigint FROM ledger.accounts"
        " WHERE kind IN ('maturing', 'payable', 'in_flight')"
    )
    return known == folded and owed == [(0,)]


def new_viewer(stack: Stack, name: str) -> str:
    with database.connect(runtime.role_url(stack.settings, roles.OWNER)) as connection:
        return keys.create(connection, name, ["search"])[1]


def searched(stack: Stack, captions: list[str], viewer: str) -> None:
    """Search with a viewer's key, and wait until all that was shown is paid."""
    before = recorded(stack)[0]
    for caption in captions:
        headers = {"Authorization": f"Bearer {viewer}"}
        assert stack.anonymous.get("/v1/search", params={"q": caption}, headers=headers).status_code == 200
    until(lambda: recorded(stack)[0] >= before + len(captions), PAID_WITHIN_S, "recorded")
    until(lambda: all_paid(stack), PAID_WITHIN_S, "paid")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_was_paid_after_the_dump_is_adopted_and_paid_to_nobody_twice(
    stack: Stack, catalogue: list[Sample], tmp_path: Path
) -> None:
    captions = [shot.caption for sample in catalogue for shot in sample.shots]
    searched(stack, captions[:4], new_viewer(stack, "early"))
    at_dump = on_chain(stack)
    file = tmp_path / "pixr.dump"
    assert "MiB" in stack.pixr("backup", str(file))
    searched(stack, captions[2:6], new_viewer(stack, "later"))
    paid = on_chain(stack)
    assert sum(paid.values()) > sum(at_dump.values())
    assert journal(stack) == paid
    assert stack.json("audit", "--full")["clean"]

    assert "Pixr is running" in stack.run("restore", "--replace", str(file)).stderr
    stack.pixr("down")
    assert "not empty" in stack.run("restore", str(file)).stderr
    assert "restored" in stack.pixr("restore", "--replace", str(file))
    stack.pixr("up")
    until(lambda: stack.json("payouts", "stops") == [], ADOPTED_WITHIN_S, "what the chain has paid is adopted")
    until(lambda: all_paid(stack), PAID_WITHIN_S, "nothing is owed")
    assert on_chain(stack) == paid
    assert journal(stack) == paid
    assert stack.json("audit", "--full")["clean"]

    searched(stack, captions[:4], new_viewer(stack, "last"))  # who is not taken for `later`
    again = on_chain(stack)
    assert sum(again.values()) > sum(paid.values())
    assert journal(stack) == again
    assert stack.json("audit", "--full")["clean"]
