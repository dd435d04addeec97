"""A client is the peer of its connection; what a header says of it is believed of the door alone."""

from __future__ import annotations

import dataclasses
import http.client
from urllib.parse import urlsplit

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st

from cluster import runtime
from cluster.settings import Settings
from serve.access import origins
from serve.settings import SearchSettings
from tests.serve.doors import listening

SECRET = b"of the door"


def scope(peer: str, **headers: str) -> dict[str, object]:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "headers": raw, "client": (peer, 1)}


def test_the_door_is_believed_and_only_its_own_value() -> None:
    said = scope("127.0.0.1", x_forwarded_for="198.51.100.9, 192.0.2.7", x_pixr_door=SECRET.decode())
    assert origins.of(said, SECRET) == "192.0.2.7"


@pytest.mark.parametrize("secret", ["", "wrong", "of the doo"])
def test_without_the_secret_the_peer_counts(secret: str) -> None:
    said = scope("203.0.113.5", x_forwarded_for="192.0.2.7", x_pixr_door=secret)
    assert origins.of(said, SECRET) == "203.0.113.5"
    assert origins.of(said, b"") == "203.0.113.5"


@pytest.mark.parametrize(
    "said", ["11.9.8.7", "11.9.8.7:5555", "[2001:db8::7]:80", "::ffff:11.9.8.7", "1.1.1.1, 11.9.8.7"]
)
def test_what_a_server_took_from_the_header_is_not_believed(said: str) -> None:
    """uvicorn writes the header's address over the peer's when that is 127.0.0.1."""
    taken = "2001:db8::7" if "2001" in said else "11.9.8.7"
    assert origins.of(scope(taken, x_forwarded_for=said), SECRET) == "127.0.0.1"


def test_addresses_have_one_form() -> None:
    assert origins.normal("::ffff:192.0.2.7") == "192.0.2.7"
    assert origins.normal("2001:DB8:0::1") == "2001:db8::1"
    assert origins.normal("fe80::1%eth0") == "fe80::1"
    assert origins.normal("nonsense") == origins.UNKNOWN


def test_an_ipv6_customer_has_one_bucket_and_a_network_one_prefix() -> None:
    assert (
        origins.bucket("2001:db8:1:2::1") == origins.bucket("2001:db8:1:2:ffff::9") != origins.bucket("2001:db8:1:3::1")
    )
    assert origins.bucket("192.0.2.7") != origins.bucket("192.0.2.8")
    assert origins.prefix("192.0.2.7") == origins.prefix("192.0.2.8") == "192.0.2.0/24"
    assert origins.prefix("2001:db8:1:2::1") == "2001:db8:1::/48"
    assert origins.prefix("192.0.2.7", ipv4_bits=16) == "192.0.0.0/16"


@given(st.text(max_size=50), st.text(max_size=50))
def test_any_text_is_an_address_or_unknown(peer: str, said: str) -> None:
    headers = [(b"x-forwarded-for", said.encode())]
    found = origins.of({"type": "http", "headers": headers, "client": (peer, 1)}, SECRET)
    assert origins.normal(found) == found
    assert origins.bucket(found)
    assert origins.prefix(found)


def test_a_request_that_nobody_admitted_has_its_peers_address() -> None:
    assert origins.address(Request(scope("192.0.2.7"))) == "192.0.2.7"


def test_a_local_process_cannot_take_the_bucket_of_others(settings: Settings) -> None:
    """Through a real server, as Serve starts it: with uvicorn's own belief in 127.0.0.1."""
    secret = runtime.secret(settings, origins.SECRET)
    slow = dataclasses.replace(settings.section(SearchSettings), address_rate_per_s=0.1, address_burst=100)
    with listening(settings.with_section(slow)) as url:

        def left(**headers: str) -> int:
            connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
            connection.request("GET", "/v1/videos/7", headers=headers)
            answer = connection.getresponse()
            connection.close()
            return int(answer.headers["ratelimit"].split(";")[1].removeprefix("r="))

        first = left()
        for number in range(20):
            least = left(**{"X-Forwarded-For": f"11.9.8.{number}"})
        assert least < first - 10  # one bucket, that of this machine
        assert left(**{"X-Forwarded-For": "11.9.8.7", "X-Pixr-Door": secret}) > least
