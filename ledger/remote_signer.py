"""A signer in a process of its own, behind a local socket: the pattern for a KMS, and the second pair of eyes.

`python -m ledger.remote_signer --key FILE --socket PATH --ceiling-pix N` holds the key; the ledger, with `treasury_key =
"unix:PATH"`, never sees it. The process signs nothing but payouts: transactions over the programs that a payout needs,
which move no more PIX than the ceiling in 24 hours (counted from its start). Each request is a message with its length
before it (4 bytes, big-endian), each answer a status byte with the signature, or the reason, behind it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import socketserver
import struct
import threading
import time
from collections import deque
from pathlib import Path

import click
from solders.message import from_bytes_versioned
from solders.pubkey import Pubkey

from cluster import telemetry
from cluster.errors import Rejected, Temporary
from ledger import packing
from ledger.signer import FileSigner, Signer, file_signer

log = logging.getLogger(__name__)

LENGTH = struct.Struct(">I")
MESSAGE_BYTES_MAX = 4096
TIMEOUT_S = 5.0
DAY_S = 86_400
SIGNED, REFUSED = b"\1", b"\0"
TRANSFERS = {(bytes([packing.TRANSFER_CHECKED]), 10), (bytes([packing.TRANSFER]), 9)}
SYSTEM_CALLS = (packing.CREATE_WITH_SEED, packing.TRANSFER_WITH_SEED)
PLAIN = (packing.ATA_PROGRAM, packing.COMPUTE_BUDGET, packing.MEMO_PROGRAM)


class RemoteSigner:
    """The ledger's side: a key that is somewhere else."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._pubkey = Pubkey.from_bytes(self._ask(b""))

    def __repr__(self) -> str:
        return f"RemoteSigner({self._path}, {self._pubkey})"

    @property
    def pubkey(self) -> Pubkey:
        return self._pubkey

    def sign(self, message: bytes) -> bytes:
        """
        Raises:
            Rejected: the signer does not sign such a message.
            Temporary: the signer does not answer.
        """
        return self._ask(message)

    def _ask(self, message: bytes) -> bytes:
        try:
            with socket.socket(socket.AF_UNIX) as door:
                door.settimeout(TIMEOUT_S)
                door.connect(self._path)
                door.sendall(LENGTH.pack(len(message)) + message)
                status, *answer = _read(door, 1), _read(door, LENGTH.unpack(_read(door, LENGTH.size))[0])
        except OSError as error:
            raise Temporary(f"the signer at {self._path} does not answer: {error}") from error
        if status != SIGNED:
            raise Rejected(f"the signer refuses: {answer[0].decode()}", status=403, code="signer-refuses")
        return answer[0]


class Policy:
    """What is signed: payouts, up to a ceiling of PIX in 24 hours."""

    def __init__(self, ceiling_pix: int) -> None:
        self._ceiling_pix = ceiling_pix
        self._signed: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()

    def check(self, content: bytes, now_s: float) -> None:
        """Count the message's PIX, or refuse it.

        Raises:
            Rejected: it does something else, or too much.
        """
        amount = moved(content)
        with self._lock:
            while self._signed and self._signed[0][0] <= now_s - DAY_S:
                self._signed.popleft()
            spent = sum(each for _, each in self._signed)
            if spent + amount > self._ceiling_pix:
                raise Rejected(f"{spent + amount} in 24 hours is above the ceiling of {self._ceiling_pix}")
            self._signed.append((now_s, amount))


def moved(content: bytes) -> int:
    """The base units that a payout's message moves.

    Raises:
        Rejected: it is no transaction, or calls what no payout calls.
    """
    try:
        message = from_bytes_versioned(content)
    except (ValueError, TypeError) as error:
        raise Rejected("not the message of a transaction") from error
    total = 0
    for each in message.instructions:
        program, data = message.account_keys[each.program_id_index], bytes(each.data)
        if program == packing.TOKEN_PROGRAM and (data[:1], len(data)) in TRANSFERS:
            total += int.from_bytes(data[1:9], "little")
        elif program == packing.SYSTEM_PROGRAM and int.from_bytes(data[:4], "little") in SYSTEM_CALLS:
            continue
        elif program not in PLAIN:
            raise Rejected(f"it calls {program} in a way that no payout does")
    return total


class Server(socketserver.ThreadingUnixStreamServer):
    """The signer's side; only the socket's owner may connect."""

    daemon_threads = True

    def __init__(self, path: Path, signer: Signer, policy: Policy) -> None:
        self.signer, self.policy = signer, policy
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            super().__init__(str(path), _Handler)
        finally:
            os.umask(before)


class _Handler(socketserver.BaseRequestHandler):
    server: Server

    def handle(self) -> None:
        self.request.settimeout(TIMEOUT_S)
        length = LENGTH.unpack(_read(self.request, LENGTH.size))[0]
        try:
            if length > MESSAGE_BYTES_MAX:
                raise Rejected(f"a message of {length} bytes, more than {MESSAGE_BYTES_MAX}")
            status, answer = SIGNED, self._answer(_read(self.request, length))
        except Rejected as refusal:
            log.warning("refused to sign: %s", refusal)
            status, answer = REFUSED, str(refusal).encode()
        self.request.sendall(status + LENGTH.pack(len(answer)) + answer)

    def _answer(self, message: bytes) -> bytes:
        if not message:
            return bytes(self.server.signer.pubkey)
        self.server.policy.check(message, time.monotonic())
        return self.server.signer.sign(message)


def _read(door: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = door.recv(count - len(found))
        if not part:
            raise ConnectionError("closed in the midst of it")
        found += part
    return found


@click.command()
@click.option("--key", type=click.Path(path_type=Path), required=True, help="A Solana key file of mode 0600.")
@click.option("--socket", "path", type=click.Path(path_type=Path), required=True)
@click.option("--ceiling-pix", type=click.IntRange(0), required=True, help="Base units in 24 hours.")
def main(key: Path, path: Path, ceiling_pix: int) -> None:
    """Sign payouts for whoever may open the socket, until SIGTERM."""
    telemetry.configure("signer")
    held: FileSigner = file_signer(key)
    server = Server(path, held, Policy(ceiling_pix))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    log.info("signing for %s at %s", held.pubkey, path)
    with server:
        server.serve_forever()
    path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
