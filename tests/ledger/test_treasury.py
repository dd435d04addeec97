"""The treasury is opened on the right chain, with the right mint and an account it can pay from, or refused by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg import Connection
from solders.account import Account

from cluster.errors import Rejected, Temporary
from cluster.settings import Settings
from ledger import packing, signer, treasury
from ledger.chain import Chain, HttpNode
from ledger.localnet.inside import RENT, LocalNode, advance, new_chain, token_account
from ledger.settings import Economics, LedgerSettings
from tests.ledger.chains import FINAL_BLOCKS, POOL, SECRET, Key, Rig

OTHER_DECIMALS = 9


def dump(connection: Connection[Any]) -> list[tuple[Any, ...]]:
    tables = connection.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'ledger' ORDER BY 1"
    ).fetchall()
    return [
        (name, connection.execute(f"SELECT t::text FROM ledger.{name} t ORDER BY 1").fetchall()) for (name,) in tables
    ]


def no_mint(rig: Rig) -> None:
    rig.chain.svm.set_account(rig.treasury.payer.mint, Account(RENT, b"", packing.SYSTEM_PROGRAM))


def other_decimals(rig: Rig) -> None:
    mint = rig.chain.svm.get_account(rig.treasury.payer.mint)
    assert mint is not None
    data = bytearray(mint.data)
    data[treasury.MINT_DECIMALS_AT] = OTHER_DECIMALS
    rig.chain.svm.set_account(rig.treasury.payer.mint, Account(RENT, bytes(data), packing.TOKEN_PROGRAM))


def no_account(rig: Rig) -> None:
    rig.chain.svm.set_account(rig.treasury.payer.token_account, Account(0, b"", packing.SYSTEM_PROGRAM))


def frozen(rig: Rig) -> None:
    payer = rig.treasury.payer
    rig.chain.svm.set_account(payer.token_account, token_account(payer.mint, payer.treasury, POOL, frozen=True))


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (no_mint, "wrong-mint"),
        (other_decimals, "wrong-mint"),
        (no_account, "treasury-missing"),
        (frozen, "treasury-frozen"),
    ],
)
def test_what_cannot_pay_is_refused_by_name(rig: Rig, spoil: Callable[[Rig], None], code: str) -> None:
    treasury.check_mint(rig.rpc, rig.treasury.payer)
    spoil(rig)
    advance(rig.chain, FINAL_BLOCKS)
    with pytest.raises(Rejected) as refusal:
        treasury.check_mint(rig.rpc, rig.treasury.payer)
    assert refusal.value.code == code
    assert refusal.value.hint


def keyed(settings: Settings, **more: Any) -> Settings:
    """Settings of a chain elsewhere, with the treasury's key in a file."""
    solana = dataclasses.replace(settings.solana, urls=("http://127.0.0.1:1",))
    made = settings.with_section(solana).with_section(LedgerSettings(**more))
    signer.file_signer(signer.key_path(made, "treasury.json"), create=True)
    return made


def test_a_mint_that_is_not_set_or_is_none_changes_nothing(journal: Connection[Any], settings: Settings) -> None:
    chain = new_chain()
    rpc = Chain([LocalNode("a", chain)])
    before = dump(journal)
    for mint, code in (("", "mint-missing"), (str(Key("nothing").pubkey), "wrong-mint")):
        with pytest.raises(Rejected) as refusal:
            treasury.open_treasury(journal, rpc, keyed(settings, mint=mint))
        assert refusal.value.code == code
    assert dump(journal) == before
    rpc.close()


def test_a_treasury_is_opened_as_its_settings_say_and_bound_to_its_chain(
    journal: Connection[Any], settings: Settings
) -> None:
    chain, made = (
        new_chain(),
        keyed(settings, mint=str(Key("mint").pubkey), gas_key="gas.json", transaction_version="v1"),
    )
    gas = signer.file_signer(signer.key_path(made, "gas.json"), create=True)
    owner = signer.file_signer(signer.key_path(made, "treasury.json"))
    rig = Rig(journal, new_chain(b"another"))  # binds this database to another treasury
    rpc = Chain([LocalNode("a", chain)])
    for address, account in (
        (rig.treasury.payer.mint, rig.chain.svm.get_account(rig.treasury.payer.mint)),
        (
            packing.token_account(owner.pubkey, rig.treasury.payer.mint),
            token_account(rig.treasury.payer.mint, owner.pubkey, 1),
        ),
    ):
        assert account is not None
        chain.svm.set_account(address, account)
    advance(chain, FINAL_BLOCKS)
    with pytest.raises(Rejected) as refusal:
        treasury.open_treasury(journal, rpc, made)
    assert refusal.value.code == "other-chain"
    journal.execute("TRUNCATE ledger.chain CASCADE")
    journal.commit()
    opened = treasury.open_treasury(journal, rpc, made)
    assert (opened.version, opened.payer.gas, opened.payer.treasury) == ("v1", gas.pubkey, owner.pubkey)
    assert str(owner.pubkey) in repr(opened)
    assert opened.secret not in repr(opened)
    rpc.close()
    rig.rpc.close()


def test_another_secret_of_the_batches_is_refused(rig: Rig) -> None:
    """With another one, markers of what was paid would be looked for where they never were."""
    with pytest.raises(Rejected) as refusal:
        treasury.bind(rig.connection, "genesis", rig.treasury.payer, "made anew, since the file was missing")
    assert refusal.value.code == "other-secret"
    treasury.bind(rig.connection, "genesis", rig.treasury.payer, SECRET)


def test_a_ledger_from_before_knows_its_secret_by_what_it_has_paid(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.pay(3)
    rig.connection.execute("UPDATE ledger.chain SET secret_mark = NULL")
    with pytest.raises(Rejected) as refusal:
        treasury.bind(rig.connection, "genesis", rig.treasury.payer, "made anew, since the file was missing")
    assert refusal.value.code == "other-secret"
    assert rig.rows("SELECT secret_mark FROM ledger.chain") == [(None,)]
    treasury.bind(rig.connection, "genesis", rig.treasury.payer, SECRET)
    assert rig.rows("SELECT secret_mark IS NOT NULL FROM ledger.chain") == [(True,)]


def test_the_localnet_has_a_mint_and_a_funded_treasury_made_once(
    journal: Connection[Any], settings: Settings, localnet_url: str
) -> None:
    rpc = Chain([HttpNode(localnet_url, 10.0, 200.0)])
    first, second = (treasury.open_treasury(journal, rpc, settings) for _ in range(2))
    assert (first.payer, first.version) == (second.payer, "v1")
    _, (account,) = rpc.accounts([first.token_account])
    assert account is not None
    assert int.from_bytes(account.data[64:72], "little") == settings.section(LedgerSettings).localnet_pool_pix
    rpc.close()


@pytest.mark.parametrize(
    ("price", "age", "cost"),
    [
        (150_000_000, timedelta(hours=1), -(-RENT * 150_000_000 // 10**9)),
        (150_000_000, timedelta(days=2), 2**63 - 1),
        (0, timedelta(hours=1), 2**63 - 1),
        (150_000_000, None, 2**63 - 1),
    ],
)
def test_a_first_payout_is_worth_its_account_and_none_is_made_at_a_stale_price(
    price: int, age: timedelta | None, cost: int
) -> None:
    at = datetime.now(UTC) - age if age is not None else None
    for said in (at.isoformat(), at.replace(tzinfo=None).isoformat()) if at else ("",):  # without a zone it is UTC
        economics = Economics(account_cost_check=True, pix_per_sol=price, pix_per_sol_at=said)
        assert treasury.opening_cost_pix(economics, RENT) == cost
    assert treasury.opening_cost_pix(Economics(), RENT) == 0


def test_a_price_of_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="pix_per_sol_at is 'yesterday', expected a time like 2026"):
        Economics(pix_per_sol_at="yesterday")


class Greedy(LocalNode):
    """A node that would have every marker hold a fortune."""

    async def call(self, method: str, params: list[Any]) -> Any:
        if method == "getMinimumBalanceForRentExemption":
            return 99 * 10**9
        return await super().call(method, params)


def test_a_rent_that_no_chain_has_asked_is_not_paid() -> None:
    rpc = Chain([Greedy("greedy", new_chain())])
    for size in (0, 165):
        with pytest.raises(Temporary, match="more than"):
            treasury.rent_of(rpc, size)
    honest = Chain([LocalNode("honest", new_chain())])
    assert 0 < treasury.rent_of(honest, 0) == honest.rent(0)
    for each in (rpc, honest):
        each.close()
