"""The localnet's door: programs of this machine are answered, what a web page can make a browser send is not."""

from __future__ import annotations

import json

import httpx
import pytest

CALL = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "getHealth"})
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (JSON, 200),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({}, 415),
        (JSON | {"Origin": "http://evil.example"}, 403),
        (JSON | {"Origin": "null"}, 403),
        (JSON | {"Host": "evil.example:8899"}, 403),
        (JSON | {"Host": "localhost:8899"}, 200),
    ],
)
def test_only_what_a_program_sends_is_answered(localnet_url: str, headers: dict[str, str], status: int) -> None:
    assert httpx.post(localnet_url, content=CALL, headers=headers).status_code == status
