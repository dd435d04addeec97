"""Signing: the only module that holds a treasury's keys. A key file is for local use; production brings its own `Signer`.

A signer says which key it holds and signs messages; no other code sees the key. The file is Solana's own format (a JSON
list of 64 bytes), readable by its owner alone, and its content never appears in a repr, a log or a settings dump.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from cluster import runtime
from cluster.errors import Rejected
from cluster.settings import Settings


class Signer(Protocol):
    """Something that can sign for one key: a file, a process, a KMS."""

    @property
    def pubkey(self) -> Pubkey: ...

    def sign(self, message: bytes) -> bytes:
        """Sign a message. Returns the ed25519 signature, of 64 bytes."""


class FileSigner:
    """A key in a file of mode 0600."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.stat().st_mode & 0o077:
            raise Rejected(f"{path} can be read by others", code="key-exposed", hint=f"chmod 600 {path}")
        try:
            self._keypair = Keypair.from_bytes(bytes(json.loads(path.read_text(encoding="ascii"))))
        except ValueError as error:
            raise Rejected(f"{path} is not a Solana key file", code="key-invalid") from error

    def __repr__(self) -> str:
        return f"FileSigner({self._path.name}, {self.pubkey})"

    @property
    def pubkey(self) -> Pubkey:
        return self._keypair.pubkey()

    def sign(self, message: bytes) -> bytes:
        return bytes(self._keypair.sign_message(message))


def file_signer(path: Path, *, create: bool = False) -> FileSigner:
    """Open the key in a file; with `create`, make the file first if it does not exist.

    Raises:
        Rejected: the file does not exist, holds no key, or can be read by others.
    """
    if not path.exists():
        if not create:
            raise Rejected(f"key file {path} does not exist", code="key-missing", hint="see [ledger] treasury_key")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(list(bytes(Keypair()))), encoding="ascii")
        with suppress(FileExistsError):
            os.link(draft, path)  # of two that make it at once, one wins
        draft.unlink()
    return FileSigner(path)


def key_path(settings: Settings, name: str) -> Path:
    """Return the path of a key that a setting names: under secrets/, or an absolute path."""
    return Path(name) if Path(name).is_absolute() else runtime.secret_path(settings, name)
