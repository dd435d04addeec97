"""The chain: blocks, heights, a window of valid blockhashes, commitment levels and forks, over LiteSVM.

LiteSVM executes transactions exactly as the chain's programs do, and does nothing else: it has one blockhash, no blocks
and no history. This module adds these. It is deterministic and reads no clock or socket: its caller, the server or a
simulation, calls `produce` for each slot.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from solders.account import Account
from solders.clock import Clock
from solders.compute_budget import set_compute_unit_limit
from solders.hash import Hash
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import Message
from solders.pubkey import Pubkey
from solders.rent import Rent
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata, TransactionMetadata

from ledger.solana.localnet.store import Change, Landed, LocalnetStore

TOKEN_PROGRAM = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
TOKEN_ACCOUNT_BYTES = 165
SYSTEM_PROGRAM = Pubkey.default()
WINDOW_BLOCKS = 150  # for which a blockhash can be used
FINALITY_BLOCKS = 32  # that a finalized block is behind the newest one
CONFIRMED_BLOCKS = 1
SIZE_MAX = {"legacy": 1232, "0": 1232, "1": 4096}
LAMPORTS_PER_BYTE = 5080  # mainnet's rent in November 2026; callers ask for it
FAUCET_LAMPORTS = 10**15
BLOCK_TRANSACTIONS_MAX = 2000
PENDING_MAX = 10_000

# Errors that keep a transaction out of every block: it was never executed, so it paid no fee.
_NOT_EXECUTED = ("AccountNotFound", "InsufficientFundsForFee", "SignatureFailure", "BlockhashNotFound",
                 "AlreadyProcessed", "SanitizeFailure", "ProgramAccountNotFound", "InvalidAccountForFee", "AccountLoadedTwice",
                 "TooManyAccountLocks")  # fmt: skip


class Refused(Exception):
    """A transaction that the node does not accept."""

    def __init__(self, message: str, error: object = None, logs: Sequence[str] = (), code: int = -32002) -> None:
        """Make the refusal of a transaction.

        Args:
            message: the reason, in the words of a node.
            error: the reason as the chain names it, in JSON.
            logs: the log lines of the programs that ran.
            code: the code of the JSON-RPC error.
        """
        super().__init__(message, error, logs, code)
        self.message, self.error, self.logs, self.code = message, error, list(logs), code


@dataclass
class Block:
    """One block: its transactions, and in `undo` each changed account as it was before (None if it did not exist)."""

    height: int
    time: int
    hash: Hash
    signatures: list[str] = field(default_factory=list)
    undo: dict[Pubkey, Account | None] = field(default_factory=dict)


class LocalChain:
    """One chain as its leader sees it; the same `seed` makes the same chain."""

    def __init__(self, store: LocalnetStore, *, seed: bytes | None = None) -> None:
        self.store = store
        self.pending: dict[str, VersionedTransaction] = {}
        self.blocks: dict[int, Block] = {}
        self._hashes: dict[str, int] = {}
        self._fork = 0
        self._airdrops = 0
        self.svm = LiteSVM().with_blockhash_check(False).with_transaction_history(0)
        self.svm.set_rent(Rent.with_lamports_per_byte(LAMPORTS_PER_BYTE))
        self.genesis = self._genesis(seed)
        self.faucet = Keypair.from_seed(hashlib.sha256(b"faucet" + self.genesis).digest())
        self.height = max(int(store.meta(key) or b"0") for key in ("height", "promised"))
        self._restore()

    # ── Reading ────────────────────────────────────────────────────────────────────────────────────────────────────

    def height_at(self, commitment: str) -> int:
        """Return the height of the newest block of a commitment level."""
        blocks_behind = {"processed": 0, "confirmed": CONFIRMED_BLOCKS, "finalized": FINALITY_BLOCKS}[commitment]
        return max(0, self.height - blocks_behind)

    def blockhash_at(self, commitment: str) -> tuple[str, int]:
        """Return the newest blockhash of a level, and the last height at which a transaction with it may still land."""
        height = self.height_at(commitment)
        return str(self._block(height).hash), height + WINDOW_BLOCKS

    def is_valid(self, blockhash: str) -> bool:
        """Whether a transaction with this blockhash may still land."""
        return self._hashes.get(blockhash, -WINDOW_BLOCKS - 1) >= self.height - WINDOW_BLOCKS

    def level(self, height: int) -> str:
        """Return the commitment level of the block at a height."""
        if height <= self.height_at("finalized"):
            return "finalized"
        return "confirmed" if height <= self.height_at("confirmed") else "processed"

    def account(self, pubkey: Pubkey, commitment: str = "processed") -> Account | None:
        """Return an account as of the newest block of a commitment level; None if it did not exist then."""
        for height in range(self.height_at(commitment) + 1, self.height + 1):
            block = self.blocks.get(height)
            if block is not None and pubkey in block.undo:
                return block.undo[pubkey]
        return _present(self.svm.get_account(pubkey))

    def decimals(self, mint: Pubkey) -> int:
        """Return the decimals of a mint; 0 if the account is too short for a mint or does not exist."""
        account = self.svm.get_account(mint)
        return account.data[44] if account is not None and len(account.data) >= 45 else 0

    # ── Taking transactions ────────────────────────────────────────────────────────────────────────────────────────

    def parse(self, raw: bytes) -> VersionedTransaction:
        """Decode a transaction.

        Raises:
            Refused: the bytes are not a transaction, or are more than its version allows.
        """
        try:
            transaction = VersionedTransaction.from_bytes(raw)
        except Exception as error:
            raise Refused(f"failed to deserialize transaction: {error}", code=-32602) from error
        limit = SIZE_MAX[version_of(transaction)]
        if len(raw) > limit:
            raise Refused(f"VersionedTransaction too large: {len(raw)} bytes (max: {limit} bytes)", code=-32602)
        if getattr(transaction.message, "address_table_lookups", None):
            raise Refused("address lookup tables are not supported by the localnet", code=-32602)
        return transaction

    def preflight(self, transaction: VersionedTransaction) -> None:
        """Require that a transaction would succeed now.

        Raises:
            Refused: the transaction was processed already, its blockhash is not valid, or it would fail.
        """
        signature = str(transaction.signatures[0])
        if self.store.transaction(signature) is not None:
            raise _preflight("This transaction has already been processed", "AlreadyProcessed")
        if not self.is_valid(str(transaction.message.recent_blockhash)):
            raise _preflight("Blockhash not found", "BlockhashNotFound")
        result = self.svm.simulate_transaction(transaction)
        if isinstance(result, FailedTransactionMetadata):
            error = error_of(result)
            if error == "SignatureFailure":
                raise Refused("Transaction signature verification failure", error, code=-32003)
            raise _preflight(f"Error processing transaction: {error}", error, result.meta().logs())

    def enqueue(self, transaction: VersionedTransaction) -> str:
        """Queue a transaction for the next block, unless it is queued already. Returns its signature."""
        if len(self.pending) >= PENDING_MAX:
            raise Refused("Node is behind: too many transactions are waiting", code=-32005)
        signature = str(transaction.signatures[0])
        if self.store.transaction(signature) is None:
            self.pending.setdefault(signature, transaction)
        return signature

    def airdrop(self, to: Pubkey, lamports: int) -> VersionedTransaction:
        """Make a transfer from the faucet; its compute limit makes each one unique."""
        self._airdrops += 1
        instructions = [
            set_compute_unit_limit(10_000 + self._airdrops % 1_000_000),
            transfer(TransferParams(from_pubkey=self.faucet.pubkey(), to_pubkey=to, lamports=lamports)),
        ]
        blockhash = self._block(self.height).hash
        message = Message.new_with_blockhash(instructions, self.faucet.pubkey(), blockhash)
        return VersionedTransaction(message, [self.faucet])

    # ── Blocks ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def produce(self, time: int) -> Block:
        """Make one block from the queue, at a Unix time; as on a real chain, drop transactions with an old blockhash."""
        self.height += 1
        block = self._new_block(self.height, time)
        self._set_clock(time)
        landed: list[tuple[Landed, Sequence[bytes]]] = []
        taken = list(self.pending)[:BLOCK_TRANSACTIONS_MAX]
        for signature in taken:
            transaction = self.pending.pop(signature)
            executed = self._execute(transaction, signature, block, len(landed))
            if executed is not None:
                landed.append((executed, [bytes(key) for key in transaction.message.account_keys]))
        if landed or taken:
            self._write(block, landed, taken)
        self._forget_before(self.height - WINDOW_BLOCKS)
        return block

    def abandon(self, count: int) -> list[VersionedTransaction]:
        """Fork: undo the newest `count` blocks that are not final. Returns the transactions that they held."""
        orphans: list[VersionedTransaction] = []
        for _ in range(min(count, self.height - self.height_at("finalized") - 1)):
            block = self.blocks.pop(self.height)
            landed = [self.store.transaction(signature) for signature in block.signatures]
            orphans = [VersionedTransaction.from_bytes(each.raw) for each in landed if each is not None] + orphans
            for pubkey, account in block.undo.items():
                self.svm.set_account(pubkey, account or Account(0, b"", SYSTEM_PROGRAM))
            restored = [(bytes(key), bytes(account) if account else None) for key, account in block.undo.items()]
            self.store.drop_block(block.height, restored)
            self._hashes.pop(str(block.hash), None)
            self.height -= 1
        self._fork += 1
        return orphans

    def keep_height(self, height: int) -> None:
        """Store a height from which a restart continues, so that no height is used twice."""
        self.store.set_meta("promised", str(height).encode())

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _execute(self, transaction: VersionedTransaction, signature: str, block: Block, place: int) -> Landed | None:
        """Execute one transaction of a block and note how to undo it; return None if the block does not include it."""
        if not self.is_valid(str(transaction.message.recent_blockhash)) or self.store.transaction(signature):
            return None
        keys = transaction.message.account_keys
        before = [_present(self.svm.get_account(key)) for key in keys]
        result = self.svm.send_transaction(transaction)
        error = error_of(result) if isinstance(result, FailedTransactionMetadata) else None
        if error in _NOT_EXECUTED:
            return None
        after = [_present(self.svm.get_account(key)) for key in keys]
        for key, old, new in zip(keys, before, after, strict=True):
            if old != new:
                block.undo.setdefault(key, old)
        block.signatures.append(signature)
        metadata = result.meta() if isinstance(result, FailedTransactionMetadata) else result
        meta = json.dumps(self._meta(metadata, error, before, after))
        error_json = json.dumps(error) if error is not None else None
        return Landed(signature, block.height, place, block.time, bytes(transaction), error_json, meta)

    def _meta(
        self,
        metadata: TransactionMetadata,
        error: object,
        before: Sequence[Account | None],
        after: Sequence[Account | None],
    ) -> dict[str, object]:
        """Make the value of `meta` in the answer of getTransaction."""
        return {
            "err": error,
            "status": {"Err": error} if error is not None else {"Ok": None},
            "fee": metadata.fee(),
            "preBalances": [account.lamports if account else 0 for account in before],
            "postBalances": [account.lamports if account else 0 for account in after],
            "preTokenBalances": self._token_balances(before),
            "postTokenBalances": self._token_balances(after),
            "innerInstructions": [],
            "logMessages": metadata.logs(),
            "computeUnitsConsumed": metadata.compute_units_consumed(),
            "rewards": [],
            "loadedAddresses": {"writable": [], "readonly": []},
        }

    def _token_balances(self, accounts: Sequence[Account | None]) -> list[dict[str, object]]:
        balances: list[dict[str, object]] = []
        for index, account in enumerate(accounts):
            token = token_amount(account)
            if token is None:
                continue
            mint, owner, amount = token
            ui = ui_amount(amount, self.decimals(mint))
            keys = {"mint": str(mint), "owner": str(owner), "programId": str(TOKEN_PROGRAM)}
            balances.append({"accountIndex": index, **keys, "uiTokenAmount": ui})
        return balances

    def _write(self, block: Block, landed: list[tuple[Landed, Sequence[bytes]]], taken: list[str]) -> None:
        changes = []
        for key, old in block.undo.items():
            new = _present(self.svm.get_account(key))
            changes.append(Change(bytes(key), bytes(old) if old else None, bytes(new) if new else None))
        self.store.add_block(block.height, landed, changes, taken, self.height - WINDOW_BLOCKS)

    def _new_block(self, height: int, time: int) -> Block:
        seed = b"block" + self.genesis + height.to_bytes(8, "little") + self._fork.to_bytes(4, "little")
        block = Block(height, time, Hash(hashlib.sha256(seed).digest()))
        self.blocks[height] = block
        self._hashes[str(block.hash)] = height
        return block

    def _block(self, height: int) -> Block:
        return self.blocks[height]

    def _forget_before(self, height: int) -> None:
        for old in [each for each in self.blocks if each < height]:
            self._hashes.pop(str(self.blocks.pop(old).hash), None)

    def _set_clock(self, time: int) -> None:
        clock = self.svm.get_clock()
        self.svm.set_clock(
            Clock(self.height, clock.epoch_start_timestamp, clock.epoch, clock.leader_schedule_epoch, time)
        )

    def _genesis(self, seed: bytes | None) -> bytes:
        genesis = self.store.meta("genesis")
        if genesis is None:
            genesis = hashlib.sha256(seed).digest() if seed is not None else bytes(Keypair().secret())
            self.store.set_meta("genesis", genesis)
        return genesis

    def _restore(self) -> None:
        """Read accounts, the window of blockhashes, undo values and the queue back from the store."""
        self.svm.set_account(self.faucet.pubkey(), Account(FAUCET_LAMPORTS, b"", SYSTEM_PROGRAM))
        for pubkey, account in self.store.accounts():
            self.svm.set_account(Pubkey.from_bytes(pubkey), Account.from_bytes(account))
        for height in range(max(0, self.height - WINDOW_BLOCKS), self.height + 1):
            self._new_block(height, 0)
        for height, pubkey, before in self.store.undo():
            if height in self.blocks:
                self.blocks[height].undo[Pubkey.from_bytes(pubkey)] = Account.from_bytes(before) if before else None
        for signature, raw in self.store.accepted():
            self.pending[signature] = VersionedTransaction.from_bytes(raw)


def version_of(transaction: VersionedTransaction) -> str:
    version = transaction.version()
    return str(version) if isinstance(version, int) else "legacy"


def error_of(result: FailedTransactionMetadata) -> object:
    return json.loads(result.to_json())["err"]


def token_amount(account: Account | None) -> tuple[Pubkey, Pubkey, int] | None:
    """Return mint, owner and amount of a token account; None for every other account."""
    if account is None or account.owner != TOKEN_PROGRAM or len(account.data) != TOKEN_ACCOUNT_BYTES:
        return None
    data = bytes(account.data)
    return Pubkey.from_bytes(data[:32]), Pubkey.from_bytes(data[32:64]), int.from_bytes(data[64:72], "little")


def _present(account: Account | None) -> Account | None:
    """Return an account if it exists: one without lamports does not."""
    return account if account is not None and account.lamports > 0 else None


def _preflight(message: str, error: object, logs: Iterable[str] = ()) -> Refused:
    return Refused(f"Transaction simulation failed: {message}", error, list(logs))


def ui_amount(amount: int, decimals: int) -> dict[str, object]:
    """Return a token amount as JSON-RPC shows it."""
    whole, part = divmod(amount, 10**decimals)
    text = f"{whole}.{part:0{decimals}d}".rstrip("0").rstrip(".") if decimals else str(whole)
    return {"amount": str(amount), "decimals": decimals, "uiAmount": amount / 10**decimals, "uiAmountString": text}
