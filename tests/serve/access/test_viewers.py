"""A viewer is the key's principal, else a signed cookie, else the address; a cookie nobody signed is none."""

from __future__ import annotations

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st

from serve.access import viewers
from serve.access.keys import Principal

KEY = b"key"


def request(cookie: str = "", address: str = "192.0.2.7") -> Request:
    headers = [(b"cookie", f"{viewers.COOKIE}={cookie}".encode())] if cookie else []
    return Request({"type": "http", "headers": headers, "client": (address, 1) if address else None})


def test_a_key_tells_best_who_looks() -> None:
    viewer = viewers.of(request(viewers.new_cookie(KEY)), Principal(7, frozenset({"search"})), KEY)
    assert (viewer.kind, viewer.identity, viewer.anonymous) == ("key", "7", False)


def test_a_signed_cookie_tells_one_browser_from_another() -> None:
    first, second = (viewers.of(request(viewers.new_cookie(KEY)), None, KEY) for _ in range(2))
    assert first.kind == second.kind == "cookie"
    assert first.identity != second.identity
    assert first.anonymous


@given(st.text("abcdefgh.0123456789-_", max_size=80))
def test_a_cookie_that_nobody_signed_leaves_the_address(cookie: str) -> None:
    assert viewers.of(request(cookie), None, KEY) == viewers.Viewer("address", "192.0.2.7", "192.0.2.0/24")


def test_a_cookie_of_another_deployment_leaves_the_address() -> None:
    assert viewers.of(request(viewers.new_cookie(b"other")), None, KEY).kind == "address"


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("192.0.2.7", "192.0.2.0/24"), ("192.0.2.255", "192.0.2.0/24"), ("192.0.3.0", "192.0.3.0/24"),
        ("::ffff:192.0.2.9", "192.0.2.0/24"), ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("2001:db8:1:ffff::", "2001:db8:1::/48"), ("2001:db8:2::", "2001:db8:2::/48"), ("fe80::1%eth0", "fe80::/48"),
        ("a socket", "unknown"), ("", "unknown"),
    ],
)  # fmt: skip
def test_the_origin_of_an_anonymous_viewer_is_its_network(address: str, origin: str) -> None:
    assert viewers.of(request("", address), None, KEY).origin == origin
    assert viewers.of(request(viewers.new_cookie(KEY), address), None, KEY).origin == origin
    assert viewers.of(request("", address), Principal(7, frozenset({"search"})), KEY).origin == ""
