"""The first start on a localnet: make the mint, open the treasury's token account, fund both.

The mint's authority, whose key is made here, pays for and signs everything. So the treasury's history contains only
what the ledger did. Each step first checks whether it was done already, so that a second run does nothing. The tokens
minted to the treasury are a deposit like any other; the ledger books it when it reads the chain.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping

from solders.pubkey import Pubkey

from cluster.errors import Temporary
from cluster.settings import Settings
from ledger.settings import LedgerSettings
from ledger.solana import packing, signer
from ledger.solana.chain import MINT_BYTES, Chain
from ledger.solana.packing import Instruction, Payer

WAIT_S = 60.0
POLL_S = 0.1
AUTHORITY_LAMPORTS = 1_000_000_000
CREATE_ACCOUNT, INITIALIZE_MINT2, MINT_TO_CHECKED = 0, 20, 14


def ensure(chain: Chain, settings: Settings, treasury: Pubkey, gas: Pubkey) -> Pubkey:
    """Make the localnet's mint, and open and fund the treasury. Steps that were done already are skipped.

    Args:
        chain: the localnet.
        settings: where keys lie, and how much is minted.
        treasury: the treasury's key.
        gas: the key that pays the treasury's fees; may be the treasury's.

    Returns:
        The mint's address.

    Raises:
        Temporary: the localnet does not finish a step within `WAIT_S`.
    """
    ledger_settings = settings.section(LedgerSettings)
    authority = signer.file_signer(signer.key_path(settings, "mint_authority.json"), create=True)
    mint = signer.file_signer(signer.key_path(settings, "mint.json"), create=True)
    account = packing.token_account(treasury, mint.pubkey)
    payer = Payer(authority.pubkey, authority.pubkey, account, mint.pubkey, ledger_settings.decimals)
    wanted = {treasury: ledger_settings.localnet_treasury_lamports, gas: ledger_settings.localnet_treasury_lamports}
    _ensure_lamports(chain, {**wanted, authority.pubkey: AUTHORITY_LAMPORTS})
    steps: list[Instruction] = []
    if not _exists(chain, mint.pubkey):
        steps += [_create(payer, chain.rent(MINT_BYTES)), _initialize(payer)]
    if not _exists(chain, account):
        steps.append(packing.open_account(payer, treasury))
        steps += [_mint_to(payer, ledger_settings.localnet_pool_pix)] if ledger_settings.localnet_pool_pix else []
    if steps:
        makes_mint = steps[0].program == packing.SYSTEM_PROGRAM
        both = Payer(
            authority.pubkey, mint.pubkey, account, mint.pubkey, ledger_settings.decimals
        )  # the mint itself must sign
        _land(chain, both if makes_mint else payer, steps, (authority, mint) if makes_mint else (authority,))
    return mint.pubkey


def fund(chain: Chain, settings: Settings, treasury: Pubkey, amount_pix: int) -> str:
    """Mint more tokens to the treasury: a deposit, for demonstrations and tests.

    Args:
        chain: the localnet.
        settings: where the authority's key lies.
        treasury: the treasury's key.
        amount_pix: base units.

    Returns:
        The signature of the finalized transaction.
    """
    ledger_settings = settings.section(LedgerSettings)
    authority = signer.file_signer(signer.key_path(settings, "mint_authority.json"))
    mint = signer.file_signer(signer.key_path(settings, "mint.json")).pubkey
    payer = Payer(
        authority.pubkey, authority.pubkey, packing.token_account(treasury, mint), mint, ledger_settings.decimals
    )
    return _land(chain, payer, [_mint_to(payer, amount_pix)], (authority,))


def _create(payer: Payer, rent: int) -> Instruction:
    data = struct.pack("<IQQ32s", CREATE_ACCOUNT, rent, MINT_BYTES, bytes(packing.TOKEN_PROGRAM))
    accounts = (payer.gas, payer.mint)
    return Instruction(packing.SYSTEM_PROGRAM, accounts, (True,) * len(accounts), data)


def _initialize(payer: Payer) -> Instruction:
    data = struct.pack("<BB32sB", INITIALIZE_MINT2, payer.decimals, bytes(payer.gas), 0)
    return Instruction(packing.TOKEN_PROGRAM, (payer.mint,), (True,), data)


def _mint_to(payer: Payer, amount: int) -> Instruction:
    data = struct.pack("<BQB", MINT_TO_CHECKED, amount, payer.decimals)
    accounts = (payer.mint, payer.token_account, payer.gas)
    return Instruction(packing.TOKEN_PROGRAM, accounts, (True, True, False), data)


def _exists(chain: Chain, address: Pubkey) -> bool:
    _, (account,) = chain.accounts([str(address)])
    return account is not None


def _ensure_lamports(chain: Chain, wanted: Mapping[Pubkey, int]) -> None:
    missing = [key for key, lamports in wanted.items() if lamports and chain.balance(str(key), "confirmed") == 0]
    for key in missing:
        chain.ask("requestAirdrop", str(key), wanted[key])
    for key in missing:
        _wait(lambda key=key: chain.balance(str(key), "confirmed") > 0, f"an airdrop to {key}")  # type: ignore[misc]


def _land(chain: Chain, payer: Payer, instructions: list[Instruction], signers: tuple[signer.Signer, ...]) -> str:
    """Send a transaction and wait until it is finalized. Returns its signature."""
    blockhash = chain.latest_blockhash()
    message = packing.build(payer, instructions, blockhash.hash, version="legacy", units=200_000)
    raw = packing.sign(message, signers)
    signature = packing.signature_of(raw)
    chain.send([raw])
    _wait(lambda: chain.effect(signature) is not None, f"transaction {signature}")
    return signature


def _wait(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not done():
        if time.monotonic() > deadline:
            raise Temporary(f"the localnet did not finish {what} within {WAIT_S:.0f} s")
        time.sleep(POLL_S)
