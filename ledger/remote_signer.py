"""A signer in a process of its own, behind a local socket: the pattern for a KMS, and the second pair of eyes.

`python -m ledger.remote_signer --key FILE --socket PATH --mint ADDRESS --ceiling-pix N` holds the key; the ledger, with
`treasury_key = "unix:PATH"`, never sees it. The process signs nothing but payouts of this treasury and mint (see `policy`),
which move no more PIX, and cost no more lamports for fees and rents, than its ceilings in 24 hours. What it has signed it
keeps in a file: a restart begins no new day. Each request is a message with its length before it (4 bytes, big-endian),
each answer a status byte with the signature, or the reason, behind it.
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
from solders.pubkey import Pubkey
from solders.signature import Signature

from cluster import telemetry
from cluster.errors import Rejected, Temporary
from ledger import packing
from ledger.packing import Payer
from ledger.policy import Spent, spent
from ledger.signer import FileSigner, Signer, file_signer

log = logging.getLogger(__name__)

LENGTH = struct.Struct(">I")
ANSWER_MAX = 4096  # bytes
MESSAGE_BYTES_MAX = 4096
TIMEOUT_S = 5.0
DAY_S = 86_400
SIGNED, REFUSED = b"\1", b"\0"
CEILING_LAMPORTS = 1_000_000_000
COMPACT_LINES_MIN = 10_000  # of the file, before what is a day old is left out of it


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
            Temporary: the signer does not answer, or with no signature.
        """
        signature = self._ask(message)
        if len(signature) != Signature.LENGTH:
            raise Temporary(f"the signer at {self._path} answers with {len(signature)} bytes, which are no signature")
        return signature

    def _ask(self, message: bytes) -> bytes:
        try:
            with socket.socket(socket.AF_UNIX) as door:
                door.settimeout(TIMEOUT_S)
                door.connect(self._path)
                door.sendall(LENGTH.pack(len(message)) + message)
                status, *answer = (
                    _read(door, 1),
                    _read(door, min(LENGTH.unpack(_read(door, LENGTH.size))[0], ANSWER_MAX)),
                )
        except OSError as error:
            raise Temporary(f"the signer at {self._path} does not answer: {error}") from error
        if status != SIGNED:
            said = answer[0].decode(errors="replace").replace("\0", "")
            raise Rejected(f"the signer refuses: {said}", status=403, code="signer-refuses")
        return answer[0]


class Window:
    """What was signed in the last 24 hours, kept in a file before each signature is given.

    A line of the file is one signature: seconds since 1970, base units of PIX, lamports.
    """

    def __init__(self, path: Path, now_s: float) -> None:
        self._path = path
        self._signed: deque[tuple[float, Spent]] = deque()
        self._lines = 0
        if path.exists():
            for line in path.read_text(encoding="ascii").splitlines():
                self._signed.append(self._read(line))
        self._write_again(now_s)

    def spent(self, now_s: float) -> Spent:
        while self._signed and self._signed[0][0] <= now_s - DAY_S:
            self._signed.popleft()
        return Spent(sum(each.pix for _, each in self._signed), sum(each.lamports for _, each in self._signed))

    def add(self, now_s: float, more: Spent) -> None:
        """Count a signature, for good."""
        with open(self._path, "a", encoding="ascii") as file:
            file.write(f"{now_s!r} {more.pix} {more.lamports}\n")
            file.flush()
            os.fsync(file.fileno())
        self._signed.append((now_s, more))
        self._lines += 1
        if self._lines > COMPACT_LINES_MIN and self._lines > 2 * len(self._signed):
            self._write_again(now_s)

    def _write_again(self, now_s: float) -> None:
        self.spent(now_s)
        draft = self._path.with_name(self._path.name + ".new")
        draft.unlink(missing_ok=True)
        draft.touch(mode=0o600)
        with open(draft, "w", encoding="ascii") as file:
            file.writelines(f"{at!r} {each.pix} {each.lamports}\n" for at, each in self._signed)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        self._lines = len(self._signed)

    def _read(self, line: str) -> tuple[float, Spent]:
        try:
            at, pix, lamports = line.split()
            return float(at), Spent(int(pix), int(lamports))
        except ValueError as error:
            hint = "look what was signed in the last 24 hours; without the file a new day begins"
            raise Rejected(f"{self._path} holds {line!r}, no signature", code="window-damaged", hint=hint) from error


class Policy:
    """What is signed: payouts of one treasury, up to ceilings of PIX and of lamports in 24 hours."""

    def __init__(
        self, payer: Payer, window: Window, ceiling_pix: int, ceiling_lamports: int = CEILING_LAMPORTS
    ) -> None:
        self._payer, self._window = payer, window
        self._ceiling = Spent(ceiling_pix, ceiling_lamports)
        self._lock = threading.Lock()

    def check(self, content: bytes, now_s: float) -> None:
        """Count what the message moves, or refuse it.

        Raises:
            Rejected: it does something else, or too much.
        """
        more = spent(content, self._payer)
        with self._lock:
            before = self._window.spent(now_s)
            for name, least, most in (
                ("", before.pix + more.pix, self._ceiling.pix),
                ("lamports ", before.lamports + more.lamports, self._ceiling.lamports),
            ):
                if least > most:
                    raise Rejected(f"{least} {name}in 24 hours is above the ceiling of {most}")
            self._window.add(now_s, more)


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
        self.server.policy.check(message, time.time())
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
@click.option("--mint", required=True, help="The address of PIX: token accounts are opened for it alone.")
@click.option("--decimals", default=6, show_default=True)
@click.option("--treasury", default="", help="The treasury's address, where the key only pays its fees.")
@click.option("--gas", default="", help="Who pays the fees, where it is not the treasury itself.")
@click.option("--ceiling-pix", type=click.IntRange(0), required=True, help="Base units in 24 hours.")
@click.option("--ceiling-lamports", type=click.IntRange(0), default=CEILING_LAMPORTS, show_default=True,
              help="For fees and rents, in 24 hours.")  # fmt: skip
@click.option("--signed", type=click.Path(path_type=Path), help="Where it keeps what it has signed; else KEY.signed.")
def main(
    key: Path,
    path: Path,
    mint: str,
    decimals: int,
    treasury: str,
    gas: str,
    ceiling_pix: int,
    ceiling_lamports: int,
    signed: Path | None,
) -> None:
    """Sign payouts for whoever may open the socket, until SIGTERM."""
    telemetry.configure("signer")
    held: FileSigner = file_signer(key)
    payer = payer_of(held.pubkey, mint, decimals, treasury, gas)
    window = Window(signed or key.with_name(key.name + ".signed"), time.time())
    server = Server(path, held, Policy(payer, window, ceiling_pix, ceiling_lamports))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    log.info("signing for %s at %s", held.pubkey, path)
    with server:
        server.serve_forever()
    path.unlink(missing_ok=True)


def payer_of(held: Pubkey, mint: str, decimals: int, treasury: str = "", gas: str = "") -> Payer:
    """The treasury that is signed for, and who pays its fees; one of them holds the key.

    Raises:
        Rejected: an address is none, or the key is neither's.
    """
    try:
        owner = Pubkey.from_string(treasury) if treasury else held
        payer = Pubkey.from_string(gas) if gas else held
        of = Pubkey.from_string(mint)
    except ValueError as error:
        raise Rejected(f"an address is none: {error}", code="wrong-address") from error
    if held not in (owner, payer):
        raise Rejected(f"the key of {held} is neither the treasury's nor the payer's", code="wrong-key")
    return Payer(payer, owner, packing.token_account(owner, of), of, decimals)


if __name__ == "__main__":
    main()
