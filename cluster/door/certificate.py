"""The door's certificate: one PEM file with it, those that lead to its issuer, and its key, as `[serve] certificate` names it.

Looked at before HAProxy starts, and by `pixr config check`, so that what is wrong with it is said in words; a running door
is given the content of a file that has changed (a renewal), and goes on with what it has while the new one cannot be used.
Programs of this machine that ask the door trust the certificate of the settings and no other, for whatever name it was issued.
"""

from __future__ import annotations

import re
import ssl
from pathlib import Path

from cluster.door import backends
from cluster.errors import Rejected, Temporary
from cluster.settings import Settings

BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\n.+?\n-----END \1-----", re.DOTALL)
HINT = "one PEM file: `cat fullchain.pem privkey.pem`, the key without a password"


def read(path: str) -> str:
    """The PEM blocks of a file that a server can use.

    Raises:
        Rejected: it cannot be read, holds no certificate or no key, or they do not belong together.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, password="")
    except (OSError, ValueError) as error:  # an error of OpenSSL is one of them
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Rejected(f"[serve] certificate {path} cannot be used: {reason}", hint=HINT) from error
    return "\n".join(block.group() for block in BLOCK.finditer(text))


def renew(admin_socket: Path, path: str, content: str) -> None:
    """Give a running HAProxy what the file holds now; connections that are there already keep what they have.

    Raises:
        Temporary: HAProxy does not answer, or does not take it.
    """
    name = re.sub(r"([\\ ;])", r"\\\1", path)
    said = backends.ask(admin_socket, f"set ssl cert {name} <<\n{content}\n")
    said += backends.ask(admin_socket, f"commit ssl cert {name}")
    if "Success" not in said:
        raise Temporary(f"HAProxy did not take its certificate: {' '.join(said.split())[:300]}")


def trust(settings: Settings) -> ssl.SSLContext | bool:
    """What a client on this machine verifies the door by (httpx's `verify`); True where the door has no certificate."""
    if not settings.serve.certificate:
        return True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the door is asked by its address
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it need not be its own issuer
    context.load_verify_locations(cadata=_certificate(read(settings.serve.certificate)))
    return context


def _certificate(content: str) -> str:
    """The first, which is the server's own: whoever else was issued one by the same authority is not the door."""
    return next(block.group() for block in BLOCK.finditer(content) if block.group(1) == "CERTIFICATE")
