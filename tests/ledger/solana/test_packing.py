"""A transaction holds as many recipients as its three limits allow, and not one more."""

from __future__ import annotations

import pytest
from solders.hash import Hash
from solders.pubkey import Pubkey

from ledger.solana import packing
from ledger.solana.packing import Payer
from tests.ledger.chains import Key


@pytest.mark.parametrize(
    ("version", "separate_gas", "with_marker", "count"),
    [
        ("legacy", False, False, 19),
        ("legacy", False, True, 15),
        ("v1", False, False, 60),
        ("v1", False, True, 58),
        ("v1", True, True, 58),
    ],
)
def test_a_payout_is_as_full_as_it_can_be(version: str, separate_gas: bool, with_marker: bool, count: int) -> None:
    assert packing.capacity("payout", version, separate_gas=separate_gas, with_marker=with_marker) == count
    owner, gas, mint = Key("treasury").pubkey, Key("gas").pubkey, Key("mint").pubkey
    payer = Payer(gas if separate_gas else owner, owner, packing.token_account(owner, mint), mint, 6)
    first = [packing.create_marker(payer, packing.marker(payer, "batch", "secret", 1))] if with_marker else []
    fits = []
    for number in (count, count + 1):
        pays = [packing.pay(payer, Pubkey(bytes([9, index]) + bytes(30)), 1) for index in range(number)]
        message = packing.build(
            payer, [*first, *pays], str(Hash.default()), version=version, units=10, priority_lamports=1
        )
        size = len(packing.unsigned(message, len(payer.signers)))
        fits.append(size <= packing.BYTES_MAX[version] and len(message.account_keys) <= packing.ADDRESSES_MAX)
    assert fits == [True, False]


@pytest.mark.parametrize("separate_gas", [False, True])
@pytest.mark.parametrize("version", ["legacy", "v1"])
def test_beside_other_batches_markers_fewer_are_paid_and_it_always_fits(version: str, separate_gas: bool) -> None:
    owner, gas, mint = Key("treasury").pubkey, Key("gas").pubkey, Key("mint").pubkey
    payer = Payer(gas if separate_gas else owner, owner, packing.token_account(owner, mint), mint, 6)
    marks = [packing.marker(payer, f"batch {index}", "secret", 10**6) for index in range(30)]
    counts = []
    for lineage in range(30):
        count = packing.capacity("payout", version, separate_gas=separate_gas, with_marker=True, lineage=lineage)
        pays = [packing.pay(payer, Pubkey(bytes([9, index]) + bytes(30)), 1) for index in range(count)]
        checks = [make(payer, each) for each in marks[:lineage]
                  for make in (packing.create_marker, packing.reclaim_marker)]  # fmt: skip
        instructions = [*checks, packing.create_marker(payer, marks[-1]), *pays]
        message = packing.build(payer, instructions, str(Hash.default()), version=version, units=10)
        counts.append(count)
        if count:
            assert len(packing.unsigned(message, len(payer.signers))) <= packing.BYTES_MAX[version]
            assert len(message.account_keys) <= packing.ADDRESSES_MAX
            assert len(message.instructions) <= packing.INSTRUCTIONS_MAX
    assert counts == sorted(counts, reverse=True)
    assert counts[2] > 0
    assert counts[-1] == 0


def test_an_opening_is_bounded_by_what_it_executes() -> None:
    assert packing.capacity("accounts", "v1", separate_gas=True, with_marker=False) == 10
