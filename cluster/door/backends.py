"""The replicas that the door may send requests to: a file with their addresses, and the slots of a running HAProxy.

The file is authoritative: HAProxy starts from it, even while Ray is away, and `apply` makes a running HAProxy match it
through the admin socket, without a reload. A replica keeps its slot as long as it exists; the slot of one that has gone
is switched off, and responses in progress are finished. Knows nothing of Ray Serve.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster import runtime
from cluster.errors import Temporary

log = logging.getLogger(__name__)

TIMEOUT_S = 2.0
ANSWER_BYTES_MAX = 4 << 20
MAINTENANCE = 0b1  # bit of `srv_admin_state`: switched off through the socket or the configuration
ROOMS = ("pixr", "searches", "bodies", "bodies_with_key", "streams")


@dataclass(frozen=True)
class Backend:
    """A replica: its name in Serve and its address (`host:port`)."""

    name: str
    address: str

    def __post_init__(self) -> None:
        host, _, port = self.address.rpartition(":")
        if (
            not host
            or not port.isdecimal()
            or not 0 < int(port) < 65536
            or any(character.isspace() for character in host)
        ):
            raise ValueError(f"{self.address!r} is not an address like 127.0.0.1:30000")


@dataclass(frozen=True)
class _Slot:
    """A server of HAProxy's configuration; `is_on` is False while it is switched off."""

    name: str
    address: str
    is_on: bool


def read(path: Path) -> tuple[Backend, ...]:
    """Return the replicas that the file lists; none if it does not exist or cannot be parsed."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["backends"]
        return tuple(Backend(str(row["name"]), str(row["address"])) for row in rows)
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s is not understood and left alone: %s", path, error)
        return ()


def write(path: Path, backends: Sequence[Backend]) -> None:
    """Write the replicas to the file; readers see the old list or the new one, never a part."""
    runtime.replace_private(path, json.dumps({"backends": [asdict(each) for each in backends]}, indent=1))


def apply(admin_socket: Path, backends: Sequence[Backend]) -> bool:
    """Make a running HAProxy match a list of replicas; return whether anything had to be changed.

    Raises:
        Temporary: HAProxy does not answer, or did not carry out the commands.
    """
    slots = _slots(admin_socket)
    commands = _commands(slots, backends)
    if not commands:
        return False
    replies = [line for line in ask(admin_socket, *commands).splitlines() if line.strip()]
    if _commands(_slots(admin_socket), backends):
        raise Temporary(f"HAProxy did not take its backends: {'; '.join(replies)[:300]}")
    return True


def _commands(slots: Sequence[_Slot], backends: Sequence[Backend]) -> list[str]:
    """Return the commands, as few as possible, that make HAProxy's slots match the replicas.

    A replica that has a slot keeps it, and no command touches this slot.
    """
    if len(backends) > len(slots):
        log.warning("%d replicas, but [door] replicas_max leaves room for %d", len(backends), len(slots))
    wanted = {backend.address for backend in backends[: len(slots)]}
    staying = {slot.name for slot in slots if slot.is_on and slot.address in wanted}
    missing = sorted(wanted - {slot.address for slot in slots if slot.name in staying})
    commands = [
        f"set server {ROOMS[0]}/{slot.name} state maint" for slot in slots if slot.is_on and slot.name not in staying
    ]
    free = [slot for slot in slots if slot.name not in staying]
    for slot, address in zip(free, missing, strict=False):
        host, _, port = address.rpartition(":")
        commands += [f"set server {room}/{slot.name} addr {host} port {port}" for room in ROOMS]
        commands.append(f"set server {ROOMS[0]}/{slot.name} state ready")
    return commands


def _slots(admin_socket: Path) -> list[_Slot]:
    """Return the slots of a running HAProxy."""
    lines = ask(admin_socket, f"show servers state {ROOMS[0]}").splitlines()
    header = next((line for line in lines if line.startswith("# ")), "")
    names = header.removeprefix("# ").split()
    rows = [
        dict(zip(names, line.split(), strict=False))
        for line in lines
        if line.startswith(tuple("0123456789")) and " " in line
    ]
    return [
        _Slot(row["srv_name"], f"{row['srv_addr']}:{row['srv_port']}", not int(row["srv_admin_state"]) & MAINTENANCE)
        for row in rows
    ]


def ask(admin_socket: Path, *commands: str) -> str:
    """Send commands to HAProxy's admin socket and return its answer.

    Raises:
        Temporary: HAProxy does not answer.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(str(admin_socket))
            connection.sendall((";".join(commands) + "\n").encode())
            answer = bytearray()
            while len(answer) < ANSWER_BYTES_MAX and (piece := connection.recv(65_536)):
                answer += piece
            return answer.decode("utf-8", "replace")
    except OSError as error:
        raise Temporary(f"the door's HAProxy does not answer at its admin socket: {error}") from error
