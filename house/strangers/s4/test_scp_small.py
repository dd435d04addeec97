"""Sceptic: what a person writes slightly wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from cluster.errors import Rejected
from ledger.signer import FileSigner
from ledger.treasury import opening_cost_pix
from ledger.settings import Economics
from tests.ledger.chains import SMALL, Rig


@pytest.mark.parametrize("at", ["2026-11-30", "2026-11-30T10:00:00"])
def test_a_price_without_a_zone_ends_no_round(rig: Rig, at: str) -> None:
    priced = dataclasses.replace(SMALL, account_cost_check=True, pix_per_sol=150_000_000, pix_per_sol_at=at)
    rig.economics = priced
    rig.payouts = rig.fresh()
    rig.creator(1, 1000)
    rig.pay(3)
    assert rig.on_chain(1) == 1000


@pytest.mark.parametrize("content", ["null", '{"key": 1}', "[1.5]", '["a"]'])
def test_a_key_file_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "key.json"
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(Rejected):
        FileSigner(file)
