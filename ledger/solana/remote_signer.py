"""A signer in a process of its own, behind a local socket: the pattern for a KMS, and a second check of each payout.

`python -m ledger.solana.remote_signer --key FILE --socket PATH --mint ADDRESS --ceiling-pix N` holds the key; the
ledger, with `treasury_key = "unix:PATH"`, never sees it. The process signs only payouts of this treasury and mint (see
`policy`). Its ceilings bound the PIX that these move in 24 hours, and the lamports that they cost for fees and rents.
What it has signed is kept in a file, so that a restart does not start a new day. A request is a length (4 bytes,
big-endian) and the message; an answer is a status byte, a length, and the signature or the reason of a refusal.
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

from cluster.errors import Rejected, Temporary
from cluster.observability import telemetry
from ledger.solana import packing
from ledger.solana.packing import Payer
from ledger.solana.policy import Spent, spent
from ledger.solana.signer import FileSigner, Signer, file_signer

log = logging.getLogger(__name__)

LENGTH = struct.Struct(">I")
MESSAGE_BYTES_MAX = 4096
TIMEOUT_S = 5.0
DAY_S = 86_400
SIGNED, REFUSED = b"\1", b"\0"
CEILING_LAMPORTS = 1_000_000_000
COMPACT_LINES_MIN = 10_000  # of the file, before it is written again without lines that are a day old


class RemoteSigner:
    """The ledger's side: a `Signer` whose key is in another process."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._pubkey = Pubkey.from_bytes(self._ask(b""))

    def __repr__(self) -> str:
        return f"RemoteSigner({self._path}, {self._pubkey})"

    @property
    def pubkey(self) -> Pubkey:
        return self._pubkey

    def sign(self, message: bytes) -> bytes:
        """Have the other process sign a message. Returns the ed25519 signature, of 64 bytes.

        Raises:
            Rejected: the process refuses to sign this message.
            Temporary: the process does not answer.
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


class Window:
    """The amounts that were signed for in the last 24 hours, kept in a file.

    A line is written before its signature is handed out: seconds since 1970, base units of PIX, lamports.
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
        """Return the sums that were signed for in the 24 hours before `now_s` (seconds since 1970)."""
        while self._signed and self._signed[0][0] <= now_s - DAY_S:
            self._signed.popleft()
        return Spent(sum(each.pix for _, each in self._signed), sum(each.lamports for _, each in self._signed))

    def add(self, now_s: float, signed: Spent) -> None:
        """Add the amounts of one signature; they are on disk when this returns."""
        with open(self._path, "a", encoding="ascii") as file:
            file.write(f"{now_s!r} {signed.pix} {signed.lamports}\n")
            file.flush()
            os.fsync(file.fileno())
        self._signed.append((now_s, signed))
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
    """What the process signs: payouts of one treasury, up to ceilings of PIX and of lamports in 24 hours."""

    def __init__(
        self, payer: Payer, window: Window, ceiling_pix: int, ceiling_lamports: int = CEILING_LAMPORTS
    ) -> None:
        """Set the ceilings.

        Args:
            payer: the keys and accounts of the treasury.
            window: what was signed in the last 24 hours.
            ceiling_pix: the most base units of PIX that may be signed for in 24 hours.
            ceiling_lamports: the most lamports of fees and rents that may be signed for in 24 hours.
        """
        self._payer, self._window = payer, window
        self._ceiling = Spent(ceiling_pix, ceiling_lamports)
        self._lock = threading.Lock()

    def check(self, content: bytes, now_s: float) -> None:
        """Check that a message is a payout within the ceilings, and count what it moves.

        Raises:
            Rejected: it does something else, or exceeds a ceiling.
        """
        wanted = spent(content, self._payer)
        with self._lock:
            before = self._window.spent(now_s)
            for unit, total, ceiling in (
                ("", before.pix + wanted.pix, self._ceiling.pix),
                ("lamports ", before.lamports + wanted.lamports, self._ceiling.lamports),
            ):
                if total > ceiling:
                    raise Rejected(f"{total} {unit}in 24 hours is above the ceiling of {ceiling}")
            self._window.add(now_s, wanted)


class Server(socketserver.ThreadingUnixStreamServer):
    """The server of the signer's socket, which only the socket's owner may open."""

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
    content = b""
    while len(content) < count:
        part = door.recv(count - len(content))
        if not part:
            raise ConnectionError("closed in the midst of it")
        content += part
    return content


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
    """Sign payouts for processes that may open the socket, until SIGTERM."""
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
    """Make the `Payer` of the treasury that this process signs for.

    Args:
        held: the key that this process holds.
        mint: the address of the mint.
        decimals: the decimals of the mint.
        treasury: the treasury's address; empty if it is the held key.
        gas: the address of the payer of fees; empty if it is the held key.

    Returns:
        The keys and accounts of the treasury.

    Raises:
        Rejected: a text is not an address, or the held key is neither the treasury's nor the payer's.
    """
    try:
        owner = Pubkey.from_string(treasury) if treasury else held
        payer = Pubkey.from_string(gas) if gas else held
        mint_key = Pubkey.from_string(mint)
    except ValueError as error:
        raise Rejected(f"an address is none: {error}", code="wrong-address") from error
    if held not in (owner, payer):
        raise Rejected(f"the key of {held} is neither the treasury's nor the payer's", code="wrong-key")
    return Payer(payer, owner, packing.token_account(owner, mint_key), mint_key, decimals)


if __name__ == "__main__":
    main()
