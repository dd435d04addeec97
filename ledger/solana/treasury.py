"""The treasury: its mint, accounts and keys, and the current rents and fees of its chain.

Opening it binds the database to one chain (by genesis hash), mint and token account. A database that is bound to
others is refused. Rents are read from the chain at each opening. On the localnet the first start also makes the mint
and funds the treasury (see `bootstrap`).
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg import Connection
from solders.hash import Hash
from solders.pubkey import Pubkey

from cluster import runtime
from cluster.errors import Rejected, Temporary
from cluster.settings import EMBEDDED, Settings
from ledger.settings import Economics, LedgerSettings
from ledger.solana import packing, policy, signer
from ledger.solana.chain import (
    ACCOUNT_FROZEN,
    ACCOUNT_STATE_AT,
    MINT_BYTES,
    MINT_DECIMALS_AT,
    TOKEN_ACCOUNT_BYTES,
    Chain,
)
from ledger.solana.signer import Signer

REMOTE = "unix:"
OTHER_MARKS = "other-secret"
FEE_LAMPORTS_MAX = 20_000  # of two signatures, with room; only to judge whether the payer can afford a batch


@dataclass(frozen=True)
class Treasury:
    """All that is needed to build and sign a payout: keys, rents and limits. Rents and fees are in lamports."""

    payer: packing.Payer
    signers: tuple[Signer, ...]
    version: str
    marker_rent: int
    account_rent: int
    secret: str
    priority_lamports: int = 0

    def __repr__(self) -> str:
        return f"Treasury({self.payer.treasury}, mint {self.mint})"

    @property
    def mint(self) -> str:
        """The mint's address."""
        return str(self.payer.mint)

    @property
    def token_account(self) -> str:
        """The address of the token account that payouts leave from."""
        return str(self.payer.token_account)

    def token_account_of(self, wallet: str) -> str:
        """Derive the address of a wallet's token account for this mint."""
        return str(packing.token_account(Pubkey.from_string(wallet), self.payer.mint))

    def capacity(self, kind: str, lineage: int = 0) -> int:
        """Return how many recipients one transaction of a kind holds, beside the markers of `lineage` given-up batches."""
        separate_gas = self.payer.gas != self.payer.treasury
        return packing.capacity(
            kind, self.version, separate_gas=separate_gas, with_marker=kind == "payout", lineage=lineage
        )

    def marker(self, batch_id: str) -> packing.Marker:
        """Derive a batch's marker, with the rent that was valid when the treasury was opened."""
        return packing.marker(self.payer, batch_id, self.secret, self.marker_rent)

    def cost_lamports(self, kind: str, count: int) -> int:
        """Return the most that a batch of `count` recipients can cost the payer of fees, in lamports."""
        rent = {"payout": self.marker_rent, "accounts": self.account_rent * count, "reclaim": 0}[kind]
        return rent + FEE_LAMPORTS_MAX + self.priority_lamports

    def signed(self, instructions: Sequence[packing.Instruction], blockhash: str, units: int) -> bytes:
        """Build and sign a transaction; `units` is the limit of its compute units.

        Raises:
            Rejected: a signer refuses.
            Temporary: a signer does not answer.
        """
        message = packing.build(
            self.payer,
            instructions,
            blockhash,
            version=self.version,
            units=units,
            priority_lamports=self.priority_lamports,
        )
        return packing.sign(message, self.signers)

    def unsigned(self, instructions: Sequence[packing.Instruction]) -> bytes:
        """Build a transaction without signatures, for a simulation."""
        blockhash, units = str(Hash.default()), packing.COMPUTE_UNITS_MAX
        message = packing.build(self.payer, instructions, blockhash, version=self.version, units=units)
        return packing.unsigned(message, len(self.payer.signers))


def open_treasury(connection: Connection[Any], chain: Chain, settings: Settings) -> Treasury:
    """Open the treasury of these settings on this chain, and bind the database to it.

    Raises:
        Rejected: the database is bound to another chain or mint, a key is missing, or `check_mint` refuses the mint or
            the treasury's account.
        Temporary: RPC nodes do not answer, or one reports a rent that cannot be right.
    """
    ledger_settings = settings.section(LedgerSettings)
    embedded = EMBEDDED in settings.solana.urls
    treasury_key = open_signer(settings, ledger_settings.treasury_key, create=embedded)
    gas_key = (
        open_signer(settings, ledger_settings.gas_key, create=embedded) if ledger_settings.gas_key else treasury_key
    )
    mint = (
        _mint(ledger_settings.mint)
        if ledger_settings.mint
        else _own_mint(chain, settings, treasury_key.pubkey, gas_key.pubkey)
    )
    account = packing.token_account(treasury_key.pubkey, mint)
    payer = packing.Payer(gas_key.pubkey, treasury_key.pubkey, account, mint, ledger_settings.decimals)
    check_mint(chain, payer)
    secret = runtime.secret(settings, "batches")
    bind(connection, chain.genesis(), payer, secret)
    signers = (treasury_key,) if gas_key is treasury_key else (gas_key, treasury_key)
    version = ledger_settings.transaction_version
    if version == "auto":
        version = "v1" if chain.takes(_first_of_v1(payer)) else "legacy"
    rents = rent_of(chain, 0), rent_of(chain, TOKEN_ACCOUNT_BYTES)
    return Treasury(payer, signers, version, *rents, secret, ledger_settings.priority_fee_lamports)


def rent_of(chain: Chain, size: int) -> int:
    """Return the lamports that an account of `size` bytes must hold; a marker (0 bytes) is created with that rent.

    Raises:
        Temporary: the answer is more than the chain has ever required.
    """
    lamports = chain.rent(size)
    if not 0 < lamports <= policy.rent_max(size):
        raise Temporary(f"a node says that {size} bytes cost {lamports} lamports, more than {policy.rent_max(size)}")
    return lamports


def _mint(address: str) -> Pubkey:
    try:
        return Pubkey.from_string(address)
    except ValueError as error:
        hint = "set [ledger] mint to the address of PIX on this chain"
        raise Rejected(f"[ledger] mint {address!r} is no address: {error}", code="wrong-mint", hint=hint) from error


def _first_of_v1(payer: packing.Payer) -> bytes:
    """Build a transaction of version 1 that does nothing, to test by simulation whether nodes can run that version."""
    units = packing.COMPUTE_UNITS_MAX
    message = packing.build(payer, [packing.memo("pixr")], str(Hash.default()), version="v1", units=units)
    return packing.unsigned(message, len(payer.signers))


def open_signer(settings: Settings, name: str, *, create: bool = False) -> Signer:
    """Open the key that a setting names: `unix:PATH` is a signer's socket, any other text a file.

    With `create`, a missing file is made.
    """
    if name.startswith(REMOTE):
        from ledger.solana.remote_signer import RemoteSigner

        return RemoteSigner(name.removeprefix(REMOTE))
    return signer.file_signer(signer.key_path(settings, name), create=create)


def check_mint(chain: Chain, payer: packing.Payer) -> None:
    """Require a mint with the decimals in which amounts are counted, and a treasury that can pay from its account.

    Raises:
        Rejected: mint, decimals or account are not as required; the message says what was found.
    """
    _, (mint, account) = chain.accounts([str(payer.mint), str(payer.token_account)], "confirmed")
    hint = "set [ledger] mint and decimals to those of PIX on this chain"
    if mint is None or mint.owner != str(packing.TOKEN_PROGRAM) or len(mint.data) != MINT_BYTES:
        raise Rejected(f"{payer.mint} is no mint on this chain", code="wrong-mint", hint=hint)
    if mint.data[MINT_DECIMALS_AT] != payer.decimals:
        problem = f"the mint {payer.mint} has {mint.data[MINT_DECIMALS_AT]} decimals, not {payer.decimals}"
        raise Rejected(problem, code="wrong-mint", hint=hint)
    if account is None or len(account.data) != TOKEN_ACCOUNT_BYTES:
        problem = f"the treasury {payer.treasury} has no account for the mint {payer.mint}"
        raise Rejected(problem, code="treasury-missing", hint="open it and fund it, or name another key or mint")
    if account.data[ACCOUNT_STATE_AT] == ACCOUNT_FROZEN:
        problem = f"the treasury's account {payer.token_account} is frozen"
        raise Rejected(problem, code="treasury-frozen", hint="have the mint's authority thaw it")


def bind(connection: Connection[Any], genesis: str, payer: packing.Payer, secret: str) -> None:
    """Bind the database to a chain, a treasury and the secret of its batches, once; refuse any other afterwards. Commits.

    Args:
        connection: of the ledger.
        genesis: the genesis hash, which identifies the chain.
        payer: the keys and accounts of the treasury.
        secret: the secret from which ids and markers of batches derive. With another secret, the markers of earlier
            payouts would not be found.

    Raises:
        Rejected: the database is bound to another chain, treasury or secret.
    """
    wanted = (genesis, str(payer.mint), payer.decimals, str(payer.treasury), str(payer.token_account))
    connection.execute(
        "INSERT INTO ledger.chain (genesis, mint, decimals, treasury, token_account) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        wanted,
    )
    row = connection.execute("SELECT genesis, mint, decimals, treasury, token_account FROM ledger.chain").fetchone()
    if row == wanted:
        _note_own(connection, payer)
    connection.commit()
    if row != wanted:
        hint = "use the chain, mint and treasury key that this database was started with"
        raise Rejected(
            "the ledger in this database settles on another chain or treasury", code="other-chain", hint=hint
        )
    is_known = _knows(connection, payer, secret)
    connection.commit()
    if not is_known:
        hint = "put back secrets/batches of the data folder that this database was used with"
        raise Rejected("this ledger has paid with another secret of the batches", code=OTHER_MARKS, hint=hint)


def _knows(connection: Connection[Any], payer: packing.Payer, secret: str) -> bool:
    """Whether this secret is the one that the database knows.

    If it knows none yet, the secret is stored, unless existing markers show that another one was used before.
    """
    marker = connection.execute(
        "SELECT m.batch_id, m.address FROM ledger.markers m JOIN ledger.batches b ON b.id = m.batch_id"
        " WHERE (SELECT secret_mark FROM ledger.chain) IS NULL ORDER BY b.ended_at DESC LIMIT 1"
    ).fetchone()
    if marker is not None and str(packing.marker(payer, marker[0], secret, 0).address) != marker[1]:
        return False
    mark = _mark(secret)
    connection.execute("UPDATE ledger.chain SET secret_mark = %s WHERE secret_mark IS NULL", (mark,))
    return connection.execute("SELECT 1 FROM ledger.chain WHERE secret_mark = %s", (mark,)).fetchone() is not None


def replace_secret(connection: Connection[Any], secret: str) -> None:
    """Bind the database to another secret of its batches, since the previous one is lost."""
    connection.execute("UPDATE ledger.chain SET secret_mark = %s", (_mark(secret),))


def _mark(secret: str) -> str:
    """Derive the mark by which the database recognises the secret."""
    return hmac.digest(secret.encode(), b"the secret of the batches", "sha256").hex()[:32]


def _note_own(connection: Connection[Any], payer: packing.Payer) -> None:
    """Store the treasury's own addresses, at which no creator may be paid."""
    role_of = {str(payer.gas): "payer of fees", str(payer.treasury): "treasury", str(payer.mint): "mint"}
    for key in (payer.gas, payer.treasury):
        role_of[str(packing.token_account(key, payer.mint))] = "token account"
    connection.execute(
        "INSERT INTO ledger.own_addresses (address, role) SELECT * FROM unnest(%s::text[], %s::text[])"
        " ON CONFLICT DO NOTHING",
        (list(role_of), list(role_of.values())),
    )


def opening_cost_pix(economics: Economics, rent_lamports: int) -> int:
    """Return the price of opening a token account in base units of PIX: the least amount of a first payout.

    It is 0 if `account_cost_check` is off. While the exchange rate is missing or too old, it is 2^63 - 1, so that no
    account is opened.
    """
    if not economics.account_cost_check:
        return 0
    try:
        age_s = (datetime.now(UTC) - datetime.fromisoformat(economics.pix_per_sol_at)).total_seconds()
    except ValueError:
        age_s = float("inf")
    if economics.pix_per_sol <= 0 or age_s > economics.pix_per_sol_max_age_s:
        return 2**63 - 1
    return -(-rent_lamports * economics.pix_per_sol // 1_000_000_000)


def _own_mint(chain: Chain, settings: Settings, treasury: Pubkey, gas: Pubkey) -> Pubkey:
    if EMBEDDED not in settings.solana.urls:
        raise Rejected("the mint is not set", code="mint-missing", hint="set [ledger] mint to the address of PIX")
    from ledger.solana import bootstrap

    return bootstrap.ensure(chain, settings, treasury, gas)
