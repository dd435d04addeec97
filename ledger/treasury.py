"""The treasury: which mint, which accounts, which keys, and what things cost on this chain right now.

Opening it binds the database to one chain (by genesis hash), mint and token account; a database that belongs to
another chain is refused. Rents are read from the chain each time. On the localnet the first start also makes the mint
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
from ledger import packing, policy, signer
from ledger.chain import TOKEN_ACCOUNT_BYTES, Chain
from ledger.settings import Economics, LedgerSettings
from ledger.signer import Signer

REMOTE = "unix:"
OTHER_MARKS = "other-secret"
# What an opening is worth where nobody knows the price of one: more than anybody is owed.
OPENINGS_CLOSED_PIX = 2**63 - 1
# Of the token program's accounts: a mint's length and where its decimals stand, where the state of a token account does.
MINT_BYTES, MINT_DECIMALS_AT = 82, 44
ACCOUNT_STATE_AT, ACCOUNT_FROZEN = 108, 2
FEE_LAMPORTS_MAX = 20_000  # two signatures and room; only to judge whether the payer can afford a batch


@dataclass(frozen=True)
class Treasury:
    """Everything that is needed to build and sign a payout."""

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
        return str(self.payer.mint)

    @property
    def token_account(self) -> str:
        return str(self.payer.token_account)

    def token_account_of(self, wallet: str) -> str:
        return str(packing.token_account(Pubkey.from_string(wallet), self.payer.mint))

    def capacity(self, kind: str, lineage: int = 0) -> int:
        """How many of a kind one transaction holds, beside the markers of so many batches that it must not pay again."""
        separate, marked = self.payer.gas != self.payer.treasury, kind == "payout"
        return packing.capacity(kind, self.version, separate_gas=separate, with_marker=marked, lineage=lineage)

    def marker(self, batch_id: str) -> packing.Marker:
        return packing.marker(self.payer, batch_id, self.secret, self.marker_rent)

    def cost_lamports(self, kind: str, count: int) -> int:
        """At most what a batch costs the payer of fees."""
        rent = {"payout": self.marker_rent, "accounts": self.account_rent * count, "reclaim": 0}[kind]
        return rent + FEE_LAMPORTS_MAX + self.priority_lamports

    def signed(self, instructions: Sequence[packing.Instruction], blockhash: str, units: int) -> bytes:
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
        blockhash, units = str(Hash.default()), packing.COMPUTE_UNITS_MAX
        message = packing.build(self.payer, instructions, blockhash, version=self.version, units=units)
        return packing.unsigned(message, len(self.payer.signers))


def open_treasury(connection: Connection[Any], chain: Chain, settings: Settings) -> Treasury:
    """The treasury of these settings, on this chain, as the database knows it.

    Raises:
        Rejected: the database belongs to another chain or mint, a key is missing, or the mint or the treasury's account
            is not what it should be.
        Temporary: no RPC node answers, or one names a rent that cannot be right.
    """
    own = settings.section(LedgerSettings)
    embedded = EMBEDDED in settings.solana.urls
    treasury_key = open_signer(settings, own.treasury_key, create=embedded)
    gas_key = open_signer(settings, own.gas_key, create=embedded) if own.gas_key else treasury_key
    mint = _mint(own.mint) if own.mint else _own_mint(chain, settings, treasury_key.pubkey, gas_key.pubkey)
    account = packing.token_account(treasury_key.pubkey, mint)
    payer = packing.Payer(gas_key.pubkey, treasury_key.pubkey, account, mint, own.decimals)
    check_mint(chain, payer)
    secret = runtime.secret(settings, "batches")
    bind(connection, chain.genesis(), payer, secret)
    signers = (treasury_key,) if gas_key is treasury_key else (gas_key, treasury_key)
    version = own.transaction_version
    if version == "auto":
        version = "v1" if chain.takes(_first_of_v1(payer)) else "legacy"
    rents = rent_of(chain, 0), rent_of(chain, TOKEN_ACCOUNT_BYTES)
    return Treasury(payer, signers, version, *rents, secret, own.priority_fee_lamports)


def rent_of(chain: Chain, size: int) -> int:
    """The rent of an account as a node says it, where it can be right: each marker is paid that much.

    Raises:
        Temporary: it is more than the chain has ever asked.
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
    """A transaction of version 1 that does nothing, to be simulated."""
    units = packing.COMPUTE_UNITS_MAX
    message = packing.build(payer, [packing.memo("pixr")], str(Hash.default()), version="v1", units=units)
    return packing.unsigned(message, len(payer.signers))


def open_signer(settings: Settings, name: str, *, create: bool = False) -> Signer:
    """The key that a setting names: `unix:PATH` of a signer's socket, else a file."""
    if name.startswith(REMOTE):
        from ledger.remote_signer import RemoteSigner

        return RemoteSigner(name.removeprefix(REMOTE))
    return signer.file_signer(signer.key_path(settings, name), create=create)


def check_mint(chain: Chain, payer: packing.Payer) -> None:
    """Is the mint a mint, with the decimals that amounts are counted in, and can the treasury pay from its account?

    Raises:
        Rejected: no; the line says what is there instead.
    """
    _, (mint, account) = chain.accounts([str(payer.mint), str(payer.token_account)], "confirmed")
    hint = "set [ledger] mint and decimals to those of PIX on this chain"
    if mint is None or mint.owner != str(packing.TOKEN_PROGRAM) or len(mint.data) != MINT_BYTES:
        raise Rejected(f"{payer.mint} is no mint on this chain", code="wrong-mint", hint=hint)
    if mint.data[MINT_DECIMALS_AT] != payer.decimals:
        said = f"the mint {payer.mint} has {mint.data[MINT_DECIMALS_AT]} decimals, not {payer.decimals}"
        raise Rejected(said, code="wrong-mint", hint=hint)
    if account is None or len(account.data) != TOKEN_ACCOUNT_BYTES:
        said = f"the treasury {payer.treasury} has no account for the mint {payer.mint}"
        raise Rejected(said, code="treasury-missing", hint="open it and fund it, or name another key or mint")
    if account.data[ACCOUNT_STATE_AT] == ACCOUNT_FROZEN:
        said = f"the treasury's account {payer.token_account} is frozen"
        raise Rejected(said, code="treasury-frozen", hint="have the mint's authority thaw it")


def bind(connection: Connection[Any], genesis: str, payer: packing.Payer, secret: str) -> None:
    """Write down, once, which chain this ledger settles on, and which secret its batches' ids and markers derive from.

    Raises:
        Rejected: it is another one. With another secret the markers of what was paid would be looked for in vain.
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
        raise _other_secret()


def require_secret(connection: Connection[Any], secret: str) -> None:
    """Require that the secret is the one which this database has been used with, where it has been used with one.

    Raises:
        Rejected: it is another one.
    """
    row = connection.execute("SELECT secret_mark FROM ledger.chain").fetchone()
    if row is not None and row[0] not in (None, _mark(secret)):
        raise _other_secret()


def _other_secret() -> Rejected:
    hint = "put back secrets/batches of the data folder that this database was used with"
    return Rejected("this ledger has paid with another secret of the batches", code=OTHER_MARKS, hint=hint)


def _knows(connection: Connection[Any], payer: packing.Payer, secret: str) -> bool:
    """Whether the database has seen this secret before. Its first one is written down; markers know an older ledger's."""
    marker = connection.execute(
        "SELECT m.batch_id, m.address FROM ledger.markers m JOIN ledger.batches b ON b.id = m.batch_id"
        " WHERE (SELECT secret_mark FROM ledger.chain) IS NULL ORDER BY b.ended_at DESC LIMIT 1"
    ).fetchone()
    if marker is not None and str(packing.marker(payer, marker[0], secret, 0).address) != marker[1]:
        return False
    mark = _mark(secret)
    connection.execute("UPDATE ledger.chain SET secret_mark = %s WHERE secret_mark IS NULL", (mark,))
    return connection.execute("SELECT 1 FROM ledger.chain WHERE secret_mark = %s", (mark,)).fetchone() is not None


def take_mark(connection: Connection[Any], secret: str) -> None:
    """From now on ids and markers derive from this secret; the one of before is lost."""
    connection.execute("UPDATE ledger.chain SET secret_mark = %s", (_mark(secret),))


def _mark(secret: str) -> str:
    """What is kept of the secret, to know it again."""
    return hmac.digest(secret.encode(), b"the secret of the batches", "sha256").hex()[:32]


def _note_own(connection: Connection[Any], payer: packing.Payer) -> None:
    """Addresses that no creator may be paid at."""
    own = {str(payer.gas): "payer of fees", str(payer.treasury): "treasury", str(payer.mint): "mint"}
    for key in (payer.gas, payer.treasury):
        own[str(packing.token_account(key, payer.mint))] = "token account"
    connection.execute(
        "INSERT INTO ledger.own_addresses (address, role) SELECT * FROM unnest(%s::text[], %s::text[])"
        " ON CONFLICT DO NOTHING",
        (list(own), list(own.values())),
    )


def opening_cost_pix(economics: Economics, rent_lamports: int) -> int:
    """What opening a token account is worth in PIX: no first payout may be smaller. Closed while the price is stale."""
    if not economics.account_cost_check:
        return 0
    priced_at = economics.priced_at
    is_stale = priced_at is None or (datetime.now(UTC) - priced_at).total_seconds() > economics.pix_per_sol_max_age_s
    if economics.pix_per_sol <= 0 or is_stale:
        return OPENINGS_CLOSED_PIX
    return -(-rent_lamports * economics.pix_per_sol // 1_000_000_000)


def _own_mint(chain: Chain, settings: Settings, treasury: Pubkey, gas: Pubkey) -> Pubkey:
    if EMBEDDED not in settings.solana.urls:
        raise Rejected("the mint is not set", code="mint-missing", hint="set [ledger] mint to the address of PIX")
    from ledger import bootstrap

    return bootstrap.ensure(chain, settings, treasury, gas)
