"""With a certificate the door speaks TLS and nothing else, and takes a renewed one while it runs."""

from __future__ import annotations

import datetime as dt
import logging
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cluster import health
from cluster.door import certificate
from cluster.errors import Rejected, Temporary
from cluster.settings import ServeSettings
from tests.cluster.doors import FIRST, OwnDoor, Server, door, parsed, received
from tests.conftest import until

BALANCER = "127.0.0.2"
REQUEST = b"GET /v1/x HTTP/1.1\r\nHost: pixr.test\r\nConnection: close\r\n\r\n"
PEM = serialization.Encoding.PEM


def issued(name: str, password: bytes = b"") -> tuple[bytes, bytes]:
    """A certificate that is its own issuer, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    who, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=30))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    made = builder.sign(key, hashes.SHA256()).public_bytes(PEM)
    return made, key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, locked)


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "its own; certificate.pem"
    path.write_bytes(b"".join(issued("pixr.test")))
    return path


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server("a").start()
    yield made
    made.stop()


@pytest.fixture
def running(tmp_path: Path, server: Server, pem: Path) -> Iterator[OwnDoor]:
    with door(tmp_path, certificate=str(pem), forwarded_from=(f"{BALANCER}/32",)) as own:
        own.start()
        own.feed(server)
        until(lambda: get(own)[0] == 200, 10, "the replica answers")
        server.seen.clear()
        yield own


def trusting(own: OwnDoor) -> ssl.SSLContext:
    context = certificate.trust(own.settings)
    assert isinstance(context, ssl.SSLContext)
    return context


def get(own: OwnDoor, data: bytes = REQUEST, source: str = FIRST) -> tuple[int, dict[str, str], bytes]:
    """An answer by TLS, to a client that trusts the certificate of the settings and could speak HTTP/2."""
    context = trusting(own)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with own.connect(source) as plain, context.wrap_socket(plain) as connection:
        assert connection.selected_alpn_protocol() == "http/1.1"
        connection.sendall(data)
        return parsed(received(connection))


def shown(own: OwnDoor) -> str:
    """The certificate that the door shows."""
    return ssl.get_server_certificate((FIRST, own.port))


def schemes(server: Server) -> list[str | None]:
    """What replicas were told of how they are asked."""
    return [
        {name.lower(): value for name, value in headers.items()}.get("x-forwarded-proto")
        for _, path, headers in server.seen
        if path == "/v1/x"
    ]


def test_the_door_speaks_tls_and_tells_the_replica(running: OwnDoor, server: Server) -> None:
    assert running.url == f"https://{FIRST}:{running.port}"
    assert get(running, REQUEST.replace(b"Host:", b"X-Forwarded-Proto: http\r\nHost:"))[0] == 200
    assert schemes(server) == ["https"]


def test_who_speaks_plainly_is_closed_at_once_and_others_are_served_on(running: OwnDoor, server: Server) -> None:
    for data in (REQUEST, b"POST /v1/search HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", b"\x00" * 64):
        began = time.monotonic()
        with running.connect() as connection:
            connection.sendall(data)
            assert not received(connection).startswith((b"HTTP", b"<"))
        assert time.monotonic() - began < 2
    assert server.seen == []
    assert get(running)[0] == 200


def test_a_handshake_that_does_not_come_has_the_time_of_a_client(tmp_path: Path, pem: Path) -> None:
    """HAProxy 2.8 has no shorter one for it: what the README says."""
    with door(tmp_path, certificate=str(pem), request_timeout_s=0.3, client_timeout_s=1.5) as own:
        own.start()
        with own.connect() as silent:
            began = time.monotonic()
            assert received(silent) == b""
            assert 1.2 < time.monotonic() - began < 4.0


def test_programs_of_this_machine_trust_the_certificate_of_the_settings_and_others_do_not(running: OwnDoor) -> None:
    health.serve(running.url, certificate.trust(running.settings))
    with pytest.raises(Temporary, match="certificate"):
        health.serve(running.url)
    with pytest.raises(httpx.ConnectError):
        httpx.get(running.url)


def test_a_renewed_certificate_is_taken_and_one_that_cannot_be_used_is_not(
    running: OwnDoor, pem: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = shown(running)
    running.service.check()
    assert shown(running) == first
    with running.connect() as plain, trusting(running).wrap_socket(plain) as earlier:
        pem.write_bytes(b"".join(issued("new.test")))
        running.service.check()
        earlier.sendall(REQUEST)
        assert parsed(received(earlier))[0] == 200
    second = shown(running)
    assert second != first
    assert second.strip() in pem.read_text()
    assert get(running)[0] == 200
    pem.write_bytes(issued("half.test")[0])
    with caplog.at_level(logging.ERROR):
        running.service.check()
    assert "goes on with the certificate it has" in caplog.text
    assert shown(running) == second


@pytest.mark.parametrize("kind", ["missing", "empty", "no key", "another's key", "locked"])
def test_a_certificate_that_cannot_be_used_is_said_before_the_door_starts(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.pem"
    made, key = issued("pixr.test", b"secret" if kind == "locked" else b"")
    content = {"empty": b"", "no key": made, "another's key": made + issued("other.test")[1], "locked": made + key}
    if kind != "missing":
        path.write_bytes(content[kind])
    with door(tmp_path, certificate=str(path)) as own, pytest.raises(Rejected) as refused:
        own.service.prepare()
    assert f"[serve] certificate {path} cannot be used" in str(refused.value)
    assert "one PEM file" in refused.value.hint


def test_a_certificate_has_a_whole_path() -> None:
    with pytest.raises(ValueError, match="whole path"):
        ServeSettings(certificate="pixr.pem")


@pytest.mark.parametrize(
    ("source", "said", "told"),
    [
        (BALANCER, "X-Forwarded-Proto: https\r\n", "https"),
        (BALANCER, "X-Forwarded-Proto: http, HTTPS\r\n", "https"),
        (BALANCER, "X-Forwarded-Proto: https, http\r\n", None),
        (BALANCER, "", None),
        (FIRST, "X-Forwarded-Proto: https\r\n", None),
    ],
)
def test_only_a_load_balancer_that_is_named_may_say_how_its_client_asks(
    tmp_path: Path, server: Server, source: str, said: str, told: str | None
) -> None:
    with door(tmp_path, forwarded_from=(f"{BALANCER}/32",)) as own:
        own.start()
        own.feed(server)
        assert own.get(source=source, headers=said)[0] == 200
    assert schemes(server) == [told]


def test_of_a_load_balancer_that_speaks_tls_itself_its_word_counts(running: OwnDoor, server: Server) -> None:
    for said in (b"", b"X-Forwarded-Proto: https\r\n", b"X-Forwarded-Proto: http\r\n"):
        assert get(running, REQUEST.replace(b"Host:", said + b"Host:"), BALANCER)[0] == 200
    assert schemes(server) == ["https", "https", None]
