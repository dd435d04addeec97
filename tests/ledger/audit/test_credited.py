"""The audit names what stands to another's name, though every sum and every hash is right."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from solders.keypair import Keypair

from ledger.accrual.fold import Fold, mature
from ledger.audit import audit
from ledger.creators import challenges, wallets
from ledger.payouts import adoption, reconcile
from ledger.settings import Economics
from tests.ledger.accrual.test_fold import record, search, shown
from tests.ledger.chains import FINAL_BLOCKS, Key, Rig, wallet_of
from tests.ledger.forging import forging

AMOUNTS = {1: 1000, 2: 700, 3: 333}


@pytest.fixture
def earned(rig: Rig) -> Rig:
    """Three creators who have earned by appearances."""
    for creator in AMOUNTS:
        rig.creator(creator, 0)
    searches = [search(*(shown(10 * creator + n, creator, amount, who=f"{n}") for creator, amount in AMOUNTS.items()))
                for n in range(3)]  # fmt: skip
    record(rig.connection, *searches)
    Fold(rig.connection, rig.economics, rig.settings).run_once()
    mature(rig.connection)
    rig.connection.commit()
    return rig


@pytest.fixture
def paid(earned: Rig) -> Rig:
    """The same, paid, and a chain whose history was read."""
    rig = earned
    rig.pay(4)
    rig.chain.enqueue(rig.chain.airdrop(rig.treasury.payer.gas, 5000))  # a deposit, after all that was paid
    rig.advance(FINAL_BLOCKS)
    reconcile.reconcile(rig.connection, rig.rpc, rig.treasury, partial(adoption.adopt, rig.payouts))
    rig.earn(2, 5000)  # and is owed
    return rig


def failing(rig: Rig) -> dict[str, str]:
    checks = audit.run(rig.connection, rig.rpc, str(rig.treasury.payer.gas), full=True)
    return {each.name: each.detail for each in checks if not each.ok}


def test_what_is_right_is_found_right(paid: Rig) -> None:
    assert failing(paid) == {}
    names = [each.name for each in audit.run(paid.connection, paid.rpc, str(paid.treasury.payer.gas), full=True)]
    assert {"accruals", "credited", "plans", "attempts", "attempts on chain", "wallet proofs"} <= set(names)


def run(rig: Rig, query: str, *values: object) -> None:
    assert rig.connection.execute(query, values).rowcount > 0, query


ACCRUAL = "(SELECT id FROM ledger.entries WHERE kind = 'accrual')"
OTHER = wallet_of(99)


def account(rig: Rig, kind: str, owner: int = 0) -> int:
    ((number,),) = rig.rows("SELECT id FROM ledger.accounts WHERE (kind, owner, asset) = (%s, %s, 'PIX')", kind, owner)
    return int(number)


def swapped_credits(rig: Rig) -> None:
    """What 1 and 2 earned stands to each other's name."""
    one, two = (rig.rows("SELECT account_id FROM ledger.postings p JOIN ledger.accounts a ON a.id = p.account_id"
                         f" WHERE p.entry_id = {ACCRUAL} AND a.owner = %s", owner)[0][0] for owner in (1, 2))  # fmt: skip
    run(
        rig,
        "UPDATE ledger.postings SET account_id = CASE account_id WHEN %s THEN %s ELSE %s END"
        f" WHERE entry_id = {ACCRUAL} AND account_id = ANY(%s)",
        one, two, one, [one, two],
    )  # fmt: skip


def skimmed(rig: Rig) -> None:
    """Some units of one creator's went to the platform."""
    for kind, owner, change in (("payable", 1, -10), ("platform", 0, 10)):
        mine = rig.rows(
            f"SELECT line FROM ledger.postings p JOIN ledger.accounts a ON a.id = p.account_id WHERE p.entry_id = {ACCRUAL}"
            " AND a.owner = %s AND a.kind = %s",
            owner, kind,
        )  # fmt: skip
        run(
            rig,
            f"UPDATE ledger.postings SET amount = amount + %s WHERE entry_id = {ACCRUAL} AND line = %s",
            change,
            mine[0][0],
        )


def credited_a_stranger(rig: Rig) -> None:
    run(rig, "UPDATE ledger.accounts SET owner = 77 WHERE party = 'creator' AND owner = 3")


def another_payee(rig: Rig) -> None:
    run(rig, "UPDATE ledger.payouts SET creator_id = 2, seq = 9 WHERE creator_id = 1")
    run(rig, "UPDATE ledger.batches SET plan = jsonb_set(plan, '{recipients,0,0}', '2') WHERE kind = 'payout'")


def another_plan(rig: Rig) -> None:
    query = "UPDATE ledger.batches SET plan = jsonb_set(plan, '{recipients,0,3}', '1') WHERE kind = 'payout'"
    run(rig, query)


def another_payout(rig: Rig) -> None:
    run(rig, "DELETE FROM ledger.payouts WHERE creator_id = 3")


def another_wallet(rig: Rig) -> None:
    run(rig, "UPDATE ledger.payouts SET wallet = %s WHERE creator_id = 1", OTHER)
    for place in range(len(AMOUNTS)):
        rig.connection.execute(
            f"UPDATE ledger.batches SET plan = jsonb_set(plan, '{{recipients,{place},1}}', to_jsonb(%s::text))"
            f" WHERE kind = 'payout' AND plan #>> '{{recipients,{place},0}}' = '1'",
            (OTHER,),
        )


def another_address(rig: Rig) -> None:
    address = str(rig.treasury.token_account_of(OTHER))
    run(rig, "UPDATE ledger.batches SET plan = jsonb_set(plan, '{recipients,0,2}', to_jsonb(%s::text))"
             " WHERE kind = 'payout'", address)  # fmt: skip


def another_source(rig: Rig) -> None:
    """The pending entry took from one creator what was paid to another."""
    one, two = account(rig, "payable", 1), account(rig, "payable", 2)
    run(rig, "UPDATE ledger.postings SET account_id = %s WHERE account_id = %s AND amount < 0", two, one)


def forgotten_transaction(rig: Rig) -> None:
    run(rig, "DELETE FROM ledger.chain_transactions WHERE kind = 'attempt'")


def another_delta(rig: Rig) -> None:
    run(rig, "UPDATE ledger.chain_transactions SET delta_pix = delta_pix - 1 WHERE kind = 'attempt'")


def another_deposit(rig: Rig) -> None:
    run(
        rig,
        "UPDATE ledger.chain_transactions SET delta_lamports = 4000 WHERE kind = 'deposit' AND delta_lamports = 5000",
    )


def another_end(rig: Rig) -> None:
    """A transaction that has paid is said to have been given up."""
    run(rig, "UPDATE ledger.attempts SET state = 'expired', slot = NULL, lamports = NULL")


def another_content(rig: Rig) -> None:
    rig.connection.execute("ALTER TABLE ledger.entries DISABLE TRIGGER ALL")
    run(rig, "UPDATE ledger.entries SET content = sha256('another') WHERE kind = 'accrual'")
    rig.connection.execute("ALTER TABLE ledger.entries ENABLE TRIGGER ALL")


FORGED: list[tuple[Callable[[Rig], None], str, str]] = [
    (credited_a_stranger, "accruals", "creator 77"),
    (another_payee, "credited", "of creator 2 is taken from account payable of creator 1"),
    (another_plan, "plans", "plans 1 to creator"),
    (another_payout, "plans", "creator 3"),
    (another_wallet, "credited", "creator 1 has never named"),
    (another_address, "credited", "is not that of wallet"),
    (another_source, "credited", "its payouts come to"),
    (forgotten_transaction, "attempts", "has it not"),
    (another_delta, "attempts", "from the treasury; its attempt is landed"),
    (another_deposit, "attempts", "the deposit of"),
    (another_end, "attempts on chain", "is expired, and is on chain without an error"),
]


@pytest.mark.parametrize(("forge", "check", "said"), FORGED, ids=lambda value: getattr(value, "__name__", None))
def test_what_is_forged_is_named(paid: Rig, forge: Callable[[Rig], None], check: str, said: str) -> None:
    with forging(paid.connection):
        forge(paid)
    found = failing(paid)
    assert said in found.get(check, ""), found
    assert "hash chain" not in found
    assert "balances" not in found


@pytest.mark.parametrize("forge", [swapped_credits, skimmed])
def test_credits_that_are_not_what_was_earned_are_named_and_nothing_else_is_wrong(
    earned: Rig, forge: Callable[[Rig], None]
) -> None:
    assert failing(earned) == {}
    with forging(earned.connection):
        forge(earned)
    found = failing(earned)
    assert found.keys() == {"accruals"}
    assert "credits creator 1" in found["accruals"]


def test_an_entry_that_is_not_what_was_asked_for_is_named(paid: Rig) -> None:
    another_content(paid)
    paid.connection.commit()
    assert "is not what was asked for" in failing(paid)["hash chain"]


def test_a_failed_transaction_that_has_paid_is_named(paid: Rig) -> None:
    with forging(paid.connection):
        run(paid, "UPDATE ledger.attempts SET state = 'failed'")
    assert "is failed, and is on chain without an error" in failing(paid)["attempts on chain"]


def test_a_proof_that_is_another_creators_is_named(paid: Rig) -> None:
    economics, key = Economics(wallet_domain="pixr.example"), Keypair()
    for creator in (1, 2):
        wallet = str(key.pubkey())
        made = challenges.issue(paid.connection, economics, creator, wallet, "ana")
        answer = challenges.Answer(made.nonce, str(key.sign_message(made.message.encode())))
        wallets.change(
            paid.connection, economics, creator, wallet, "creator",
            challenges.prove(paid.connection, creator, wallet, "ana", answer),
        )  # fmt: skip
    paid.connection.commit()
    assert failing(paid) == {}
    with forging(paid.connection):
        run(
            paid,
            "UPDATE ledger.wallets SET proof = (SELECT proof FROM ledger.wallets WHERE creator_id = 2) WHERE creator_id = 1",
        )
    assert failing(paid).keys() == {"wallet proofs"}
    with forging(paid.connection):
        run(paid, "UPDATE ledger.wallets SET wallet = %s WHERE creator_id = 1", str(Key("another").pubkey))
    assert "creator 1 has no proof" in failing(paid)["wallet proofs"]


def test_rounding_is_nobodys_fault(rig: Rig) -> None:
    """Many small amounts, whose shares are rounded one by one, and a creator whose every unit is rounded up."""
    searches = [
        search(*(shown(1000 * n + m, 1 + m % 7, 1 + (n * m) % 9, who=f"{n}") for m in range(40))) for n in range(40)
    ]
    record(rig.connection, *searches)
    Fold(
        rig.connection, Economics(maturity_s=0, creator_share_ppm=650_000, viewer_day_max_pix=0), rig.settings
    ).run_once()
    rig.connection.commit()
    checks: dict[str, Any] = {each.name: each for each in audit.run(rig.connection, None, None, full=True)}
    assert checks["accruals"].ok, checks["accruals"].detail
