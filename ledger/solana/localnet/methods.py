"""The JSON-RPC methods: functions of the chain, the parameters and the options that answer as Agave does.

An answer that depends on the chain carries `context.slot`. A block's slot is its height. Knows nothing of HTTP.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import base58
from solders.account import Account
from solders.message import from_bytes_versioned
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata

from ledger.solana.localnet.blocks import (
    TOKEN_PROGRAM,
    LocalChain,
    Refused,
    error_of,
    token_amount,
    ui_amount,
    version_of,
)
from ledger.solana.localnet.store import Landed

VERSION = {"solana-core": "4.2.0", "feature-set": 0}
STATUSES_MAX = 256
ACCOUNTS_MAX = 100
SIGNATURES_MAX = 1000
SLOTS_PER_EPOCH = 432_000
RECENT_BLOCKS = 300  # of which getSignatureStatuses knows without searching history

Params = list[Any]
Answer = Any


class RpcError(Exception):
    """A JSON-RPC error with which to answer."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(code, message, data)
        self.code, self.message, self.data = code, message, data


def answer(chain: LocalChain, method: str, params: Params) -> Answer:
    """Answer one call as a node.

    Raises:
        RpcError: the node refuses the call, or does not know the method.
    """
    function = METHODS.get(method)
    if function is None:
        raise RpcError(-32601, f"Method not found: {method}")
    options = _options(params)
    slot_min = options.get("minContextSlot")
    if slot_min is not None and chain.height_at(options.get("commitment") or "finalized") < slot_min:
        raise RpcError(-32016, "Minimum context slot has not been reached", {"contextSlot": chain.height})
    try:
        return function(chain, params, options)
    except Refused as refused:
        raise RpcError(refused.code, refused.message, _simulation(refused.error, refused.logs)) from refused
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise RpcError(-32602, f"Invalid params: {error}") from error


def _options(params: Params) -> dict[str, Any]:
    """Return the options (the last parameter) without null values; clients send null for options that they omit."""
    last = params[-1] if params and isinstance(params[-1], dict) else {}
    return {key: value for key, value in last.items() if value is not None}


def _commitment(options: Mapping[str, Any]) -> str:
    level = options.get("commitment", "finalized")
    if level not in ("processed", "confirmed", "finalized"):
        raise ValueError(f"unknown commitment {level}")
    return str(level)


def _with_context(chain: LocalChain, options: Mapping[str, Any], value: object) -> dict[str, object]:
    return {"context": {"slot": chain.height_at(_commitment(options)), "apiVersion": "4.2.0"}, "value": value}


def _height(chain: LocalChain, _: Params, options: dict[str, Any]) -> int:
    return chain.height_at(_commitment(options))


def _latest_blockhash(chain: LocalChain, _: Params, options: dict[str, Any]) -> Answer:
    blockhash, last = chain.blockhash_at(_commitment(options))
    return _with_context(chain, options, {"blockhash": blockhash, "lastValidBlockHeight": last})


def _is_blockhash_valid(chain: LocalChain, params: Params, options: dict[str, Any]) -> Answer:
    return _with_context(chain, options, chain.is_valid(params[0]))


# ── Transactions ───────────────────────────────────────────────────────────────────────────────────────────────────


def _raw(params: Params, options: Mapping[str, Any]) -> bytes:
    encoding = options.get("encoding", "base58")
    try:
        return base64.b64decode(params[0], validate=True) if encoding == "base64" else base58.b58decode(params[0])
    except ValueError as error:
        raise RpcError(-32602, f"invalid {encoding} encoding: {error}") from error


def _send_transaction(chain: LocalChain, params: Params, options: dict[str, Any]) -> str:
    transaction = chain.parse(_raw(params, options))
    if not options.get("skipPreflight", False):
        chain.preflight(transaction)
    return chain.enqueue(transaction)


def _simulate_transaction(chain: LocalChain, params: Params, options: dict[str, Any]) -> Answer:
    transaction = chain.parse(_raw(params, options))
    blockhash, last = chain.blockhash_at("processed")
    replaced = {"blockhash": blockhash, "lastValidBlockHeight": last} if options.get("replaceRecentBlockhash") else None
    if not replaced and not chain.is_valid(str(transaction.message.recent_blockhash)):
        return _with_context(chain, options, _simulation("BlockhashNotFound", []))
    chain.svm.with_sigverify(bool(options.get("sigVerify", False)))
    try:
        result = chain.svm.simulate_transaction(transaction)
    finally:
        chain.svm.with_sigverify(True)
    error = error_of(result) if isinstance(result, FailedTransactionMetadata) else None
    meta = result.meta()
    value = _simulation(error, meta.logs(), meta.compute_units_consumed())
    if replaced:
        value["replacementBlockhash"] = replaced
    return _with_context(chain, options, value)


def _simulation(error: object, logs: list[str], units: int = 0) -> dict[str, object]:
    nothing = {"accounts": None, "returnData": None, "innerInstructions": None}
    return {"err": error, "logs": logs, "unitsConsumed": units, **nothing}


def _signature_statuses(chain: LocalChain, params: Params, options: dict[str, Any]) -> Answer:
    if len(params[0]) > STATUSES_MAX:
        raise RpcError(-32602, f"Too many inputs provided; max {STATUSES_MAX}")
    statuses = [_status(chain, signature, options) for signature in params[0]]
    return {"context": {"slot": chain.height, "apiVersion": "4.2.0"}, "value": statuses}


def _status(chain: LocalChain, signature: str, options: Mapping[str, Any]) -> Answer:
    landed = chain.store.transaction(signature)
    is_recent = landed is not None and landed.height > chain.height - RECENT_BLOCKS
    if landed is None or not (is_recent or options.get("searchTransactionHistory")):
        return None
    level = chain.level(landed.height)
    error = json.loads(landed.error) if landed.error else None
    return {
        "slot": landed.height,
        "confirmations": None if level == "finalized" else chain.height - landed.height,
        "err": error,
        "status": {"Err": error} if error is not None else {"Ok": None},
        "confirmationStatus": level,
    }


def _transaction(chain: LocalChain, params: Params, options: dict[str, Any]) -> Answer:
    if len(params) > 1 and isinstance(params[1], str):
        options = {"encoding": params[1]}
    landed = chain.store.transaction(params[0])
    if landed is None or landed.height > chain.height_at(_commitment(options)):
        return None
    transaction = VersionedTransaction.from_bytes(landed.raw)
    version = version_of(transaction)
    if version != "legacy" and options.get("maxSupportedTransactionVersion", -1) < int(version):
        raise RpcError(-32015, f"Transaction version ({version}) is not supported by the requesting client")
    return {
        "slot": landed.height,
        "blockTime": landed.time,
        "version": version if version == "legacy" else int(version),
        "transaction": _encoded(landed, transaction, options.get("encoding", "json")),
        "meta": json.loads(landed.meta),
    }


def _encoded(landed: Landed, transaction: VersionedTransaction, encoding: str) -> Answer:
    if encoding == "base64":
        return [base64.b64encode(landed.raw).decode(), "base64"]
    if encoding == "base58":
        return [base58.b58encode(landed.raw).decode(), "base58"]
    message = transaction.message
    header = message.header
    return {
        "signatures": [str(signature) for signature in transaction.signatures],
        "message": {
            "header": {
                "numRequiredSignatures": header.num_required_signatures,
                "numReadonlySignedAccounts": header.num_readonly_signed_accounts,
                "numReadonlyUnsignedAccounts": header.num_readonly_unsigned_accounts,
            },
            "accountKeys": [str(key) for key in message.account_keys],
            "recentBlockhash": str(message.recent_blockhash),
            "instructions": [
                {
                    "programIdIndex": each.program_id_index,
                    "accounts": list(bytes(each.accounts)),
                    "data": base58.b58encode(bytes(each.data)).decode(),
                    "stackHeight": 1,
                }
                for each in message.instructions
            ],
        },
    }


def _signatures_for_address(chain: LocalChain, params: Params, options: dict[str, Any]) -> Answer:
    limit = min(int(options.get("limit", SIGNATURES_MAX)), SIGNATURES_MAX)
    mentions = chain.store.mentions(
        bytes(Pubkey.from_string(params[0])),
        before=chain.store.transaction(options.get("before", "")),
        until=chain.store.transaction(options.get("until", "")),
        height_max=chain.height_at(_commitment(options)),
        limit=limit,
    )
    return [
        {
            "signature": each.signature,
            "slot": each.height,
            "err": json.loads(each.error) if each.error else None,
            "memo": None,
            "blockTime": each.time,
            "confirmationStatus": chain.level(each.height),
        }
        for each in mentions
    ]


def _request_airdrop(chain: LocalChain, params: Params, _: dict[str, Any]) -> str:
    transaction = chain.airdrop(Pubkey.from_string(params[0]), int(params[1]))
    return chain.enqueue(transaction)


def _fee_for_message(chain: LocalChain, params: Params, options: dict[str, Any]) -> Answer:
    message = from_bytes_versioned(base64.b64decode(params[0]))
    is_valid = chain.is_valid(str(message.recent_blockhash))
    return _with_context(chain, options, 5000 * message.header.num_required_signatures if is_valid else None)


# ── Accounts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _account_info(chain: LocalChain, params: Params, options: dict[str, Any]) -> Answer:
    account = chain.account(Pubkey.from_string(params[0]), _commitment(options))
    return _with_context(chain, options, _account_json(account, options))


def _multiple_accounts(chain: LocalChain, params: Params, options: dict[str, Any]) -> Answer:
    if len(params[0]) > ACCOUNTS_MAX:
        raise RpcError(-32602, f"Too many inputs provided; max {ACCOUNTS_MAX}")
    level = _commitment(options)
    accounts = [_account_json(chain.account(Pubkey.from_string(key), level), options) for key in params[0]]
    return _with_context(chain, options, accounts)


def _account_json(account: Account | None, options: Mapping[str, Any]) -> Answer:
    if account is None:
        return None
    data = bytes(account.data)
    part = options.get("dataSlice")
    if part:
        data = data[part["offset"] : part["offset"] + part["length"]]
    encoded = base64.b64encode(data).decode()
    shown: Answer = [encoded, "base64"]
    if options.get("encoding", "base64") in ("base58", "binary"):
        shown = [base58.b58encode(data).decode(), "base58"]
    return {
        "lamports": account.lamports,
        "owner": str(account.owner),
        "data": shown,
        "executable": account.executable,
        "rentEpoch": 18446744073709551615,
        "space": len(account.data),
    }


def _balance(chain: LocalChain, params: Params, options: dict[str, Any]) -> Answer:
    account = chain.account(Pubkey.from_string(params[0]), _commitment(options))
    return _with_context(chain, options, account.lamports if account else 0)


def _token_account_balance(chain: LocalChain, params: Params, options: dict[str, Any]) -> Answer:
    token = token_amount(chain.account(Pubkey.from_string(params[0]), _commitment(options)))
    if token is None:
        raise RpcError(-32602, "Invalid param: could not find account")
    return _with_context(chain, options, ui_amount(token[2], chain.decimals(token[0])))


def _token_supply(chain: LocalChain, params: Params, options: dict[str, Any]) -> Answer:
    mint = chain.account(Pubkey.from_string(params[0]), _commitment(options))
    if mint is None or mint.owner != TOKEN_PROGRAM or len(mint.data) != 82:
        raise RpcError(-32602, "Invalid param: not a Token mint")
    return _with_context(chain, options, ui_amount(int.from_bytes(mint.data[36:44], "little"), mint.data[44]))


def _token_accounts_by_owner(chain: LocalChain, params: Params, options: dict[str, Any]) -> Answer:
    owner, mint, level = Pubkey.from_string(params[0]), params[1].get("mint"), _commitment(options)
    accounts = []
    for pubkey, _ in chain.svm.get_program_accounts(TOKEN_PROGRAM):
        account = chain.account(pubkey, level)
        token = token_amount(account)
        if token is not None and token[1] == owner and mint in (None, str(token[0])):
            accounts.append({"pubkey": str(pubkey), "account": _account_json(account, options)})
    return _with_context(chain, options, accounts)


def _program_accounts(chain: LocalChain, params: Params, options: dict[str, Any]) -> Answer:
    level = _commitment(options)
    accounts = []
    for pubkey, _ in chain.svm.get_program_accounts(Pubkey.from_string(params[0])):
        account = chain.account(pubkey, level)
        if account is not None and all(_matches(account, each) for each in options.get("filters", [])):
            accounts.append({"pubkey": str(pubkey), "account": _account_json(account, options)})
    return _with_context(chain, options, accounts) if options.get("withContext") else accounts


def _matches(account: Account, condition: Mapping[str, Any]) -> bool:
    if "dataSize" in condition:
        return len(account.data) == int(condition["dataSize"])
    compare = condition["memcmp"]
    text = compare["bytes"]
    wanted = base64.b64decode(text) if compare.get("encoding") == "base64" else base58.b58decode(text)
    offset = int(compare["offset"])
    return bytes(account.data[offset : offset + len(wanted)]) == wanted


def _epoch_info(chain: LocalChain, _: Params, options: dict[str, Any]) -> Answer:
    height = chain.height_at(_commitment(options))
    epoch, index = divmod(height, SLOTS_PER_EPOCH)
    place = {"epoch": epoch, "slotIndex": index, "slotsInEpoch": SLOTS_PER_EPOCH}
    return {"absoluteSlot": height, "blockHeight": height, "transactionCount": 0, **place}


METHODS: dict[str, Callable[[LocalChain, Params, dict[str, Any]], Answer]] = {
    "getAccountInfo": _account_info,
    "getBalance": _balance,
    "getBlockHeight": _height,
    "getEpochInfo": _epoch_info,
    "getFeeForMessage": _fee_for_message,
    "getFirstAvailableBlock": lambda _, __, ___: 0,
    "getGenesisHash": lambda chain, _, __: base58.b58encode(chain.genesis).decode(),
    "getHealth": lambda _, __, ___: "ok",
    "getIdentity": lambda chain, _, __: {"identity": str(chain.faucet.pubkey())},
    "getLatestBlockhash": _latest_blockhash,
    "getMinimumBalanceForRentExemption": lambda chain, params, _: chain.svm.minimum_balance_for_rent_exemption(
        params[0]
    ),
    "getMultipleAccounts": _multiple_accounts,
    "getProgramAccounts": _program_accounts,
    "getRecentPrioritizationFees": lambda chain, _, __: [{"slot": chain.height, "prioritizationFee": 0}],
    "getSignatureStatuses": _signature_statuses,
    "getSignaturesForAddress": _signatures_for_address,
    "getSlot": _height,
    "getTokenAccountBalance": _token_account_balance,
    "getTokenAccountsByOwner": _token_accounts_by_owner,
    "getTokenSupply": _token_supply,
    "getTransaction": _transaction,
    "getVersion": lambda _, __, ___: VERSION,
    "isBlockhashValid": _is_blockhash_valid,
    "requestAirdrop": _request_airdrop,
    "sendTransaction": _send_transaction,
    "simulateTransaction": _simulate_transaction,
}
