"""The door's TLS certificate: one PEM file with certificate, intermediates and key, named by `[serve] certificate`.

The file is checked before HAProxy starts and by `pixr config check`, so that errors are reported in words. When the
file changes (a renewal), a running door gets its new content; while that cannot be used, the door keeps the old one.
Programs on this machine that call the door trust exactly the certificate of the settings, whatever host name it was
issued for.
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
    """Return the PEM blocks of a file that a server can use.

    Raises:
        Rejected: the file cannot be read, has no certificate or no key, or they do not belong together.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Rejected(f"[serve] certificate {path} cannot be used: {reason}", hint=HINT) from error
    return "\n".join(block.group() for block in BLOCK.finditer(text))


def renew(admin_socket: Path, path: str, content: str) -> None:
    """Give a running HAProxy a new certificate; open connections keep the old one.

    Args:
        admin_socket: HAProxy's admin socket.
        path: The certificate's file as named in HAProxy's configuration.
        content: PEM blocks, as `read` returns them.

    Raises:
        Temporary: HAProxy does not answer, or refuses the certificate.
    """
    name = re.sub(r"([\\ ;])", r"\\\1", path)
    reply = backends.ask(admin_socket, f"set ssl cert {name} <<\n{content}\n")
    reply += backends.ask(admin_socket, f"commit ssl cert {name}")
    if "Success" not in reply:
        raise Temporary(f"HAProxy did not take its certificate: {' '.join(reply.split())[:300]}")


def trust(settings: Settings) -> ssl.SSLContext | bool:
    """Return httpx's `verify` for a client on this machine that calls the door; True if the door has no certificate."""
    if not settings.serve.certificate:
        return True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the door is called by its IP address
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # trust the certificate itself, whatever its issuer
    # The first is the server's own. Its issuer is not trusted: it may have issued certificates to others.
    blocks = BLOCK.finditer(read(settings.serve.certificate))
    context.load_verify_locations(cadata=next(block[0] for block in blocks if block[1] == "CERTIFICATE"))
    return context
