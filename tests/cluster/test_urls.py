"""No secret of an address is shown, however the address is written; one that cannot be read is refused unquoted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster import settings, urls
from cluster.errors import Rejected
from cluster.runtime import S3Endpoint
from cluster.settings import S3Settings, SolanaSettings
from ledger.chain import HttpNode
from ledger.rounds import open_chain
from serve import objects
from tests.cluster.test_cli import assert_refused, pixr

SECRET = "sekret"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://pixr:sekret@one:5433,two/pixr?target_session_attrs=primary", "one:5433,two:5432/pixr"),
        ("postgresql://pixr:sek%40ret@[::1]:5433/pixr", "[::1]:5433/pixr"),
        ("postgresql:///pixr", "localhost:5432/pixr"),
        ("redis://:sekret@cache/0", "cache:6379/0"),
        ("rediss://me:sekret@cache:6380", "cache:6380"),
        ("https://sekret:pw@rpc.example:8443/v2/sekret?api-key=sekret#sekret", "rpc.example:8443"),
    ],
)
def test_an_address_is_shown_by_its_hosts_and_the_name_of_a_database(url: str, shown: str) -> None:
    assert urls.where(url) == shown
    assert urls.shown(url) == f"{url.partition(':')[0]}://{shown}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("host=127.0.0.1 port=1 user=me password=sekret dbname=x", "postgresql://127.0.0.1:1/x"),
        ("password='se kret' host=one,two port=1,2", "postgresql://one:1,two:2"),
        ("password=se kret host=h", "…"),
        ("postgresql://me:sek/ret@127.0.0.1:1/x", "postgresql://…"),
        ("postgresql://me:5432/sekret@127.0.0.1:1/x", "postgresql://…"),
        ("postgresql://me:sek@ret@h/x", "postgresql://…"),
        ("postgres//u:sekret@h/db", "…"),
        ("rediss//:sekret@h", "…"),
        ("redis://:sek/ret@h", "redis://…"),
        ("redis://:123/sekret@h", "redis://…"),
        ("redis://:sek@ret@h", "redis://…"),
        ("redis://:12?sekret@h", "redis://…"),
        ("http://sekret:12#ret@h", "http://…"),
        ("http://sekret:12/ret@h", "http://…"),
        ("http://sekret:70000", "http://…"),
        ("sekret://h", "…"),
        ("sekret", "…"),
        ("embedded", "embedded"),
        ("", ""),
    ],
)
def test_of_what_cannot_be_read_for_certain_the_scheme_alone_is_shown(url: str, shown: str) -> None:
    assert urls.shown(url) == shown


@pytest.mark.parametrize(
    ("section", "key", "url"),
    [
        ("postgres", "url", "postgresql://me:sek/ret@127.0.0.1:1/x"),
        ("postgres", "url", "postgresql://me:5432/sekret@h/x"),
        ("postgres", "url", "postgres//u:sekret@h/db"),
        ("postgres", "serve_url", "postgresql://me:sekret@h:5432/x?sekret"),
        ("postgres", "jobs_url", "host=h port=sekret"),
        ("postgres", "ledger_url", "sekret"),
        ("redis", "url", "rediss//:sekret@h"),
        ("redis", "url", "redis://:sek/ret@h"),
        ("redis", "url", "redis://:12?sekret@h"),
        ("s3", "url", "s3.example/sekret"),
        ("s3", "url", "http://key:sek/ret@h"),
        ("s3", "public_url", "ftp://sekret@h"),
        ("solana", "urls", "https:/rpc.example/v2/sekret"),
        ("ray", "dashboard_url", "http://:sekret"),
    ],
)
def test_a_malformed_address_is_refused_when_settings_are_read_and_not_quoted(
    tmp_path: Path, section: str, key: str, url: str
) -> None:
    with pytest.raises(Rejected) as refused:
        settings.load(environ={f"PIXR_{section}_{key}".upper(): url, "PIXR_DATA_DIR": str(tmp_path)})
    assert str(refused.value).startswith(f"[{section}] {key} "), refused.value
    assert "sek" not in str(refused.value)
    assert "://…" in str(refused.value)


@pytest.mark.parametrize(
    ("section", "key", "url"),
    [
        ("postgres", "url", "postgresql://me:a%2Fb@one:5433,[::1]:5434/pixr?sslmode=verify-full"),
        ("postgres", "url", "postgres://me@h"),
        ("postgres", "url", "postgresql://h/x?user=me@provider"),
        ("postgres", "url", "postgresql://%2Fvar%2Frun%2Fpostgresql/pixr"),
        ("postgres", "url", "host=/var/run/postgresql dbname=pixr password=a@b://c"),
        ("redis", "url", "redis://:a@b@cache:6379/0"),
        ("redis", "url", "unix:///run/redis.sock?db=1"),
        ("s3", "url", "https://s3.eu-central-1.example.com/prefix"),
        ("s3", "url", ""),
        ("solana", "urls", "https://rpc.example/?api-key=a@b"),
        ("ray", "dashboard_url", "http://ray-head:8265"),
    ],
)
def test_an_address_that_its_client_can_read_is_taken(section: str, key: str, url: str) -> None:
    settings.load(environ={f"PIXR_{section}_{key}".upper(): url})


def started_once(folder: Path) -> None:
    """Make a data folder as a Pixr that was started leaves it: in another one, nothing is looked at."""
    ports = folder / "run" / "ports.json"
    ports.parent.mkdir()
    names = ("serve", "postgres", "redis", "s3", "solana", "ray", "ray-dashboard")
    ports.write_text(json.dumps(dict.fromkeys(names, 1)), encoding="ascii")


ODD = (
    ("PIXR_POSTGRES_URL", "postgresql://me:sek/ret@127.0.0.1:1/x"),
    ("PIXR_POSTGRES_URL", "host=127.0.0.1 port=1 user=me password=sekret dbname=x"),
    ("PIXR_S3_URL", "http://key:sekret@127.0.0.1:1"),
    ("PIXR_SOLANA_URLS", "http://127.0.0.1:1/v2/sekret"),
    ("PIXR_REDIS_URL", "redis://:sek@ret@127.0.0.1:1"),
)


@pytest.mark.parametrize(("variable", "url"), ODD)
@pytest.mark.parametrize("command", ["config check", "config show", "status", "payouts"])
def test_no_command_says_a_secret_of_an_address(tmp_path: Path, variable: str, url: str, command: str) -> None:
    started_once(tmp_path)
    done = pixr(tmp_path, *command.split(), **{variable: url})
    said = done.stdout + done.stderr
    assert "sek" not in said
    assert "ret@" not in said
    assert "Traceback" not in said
    if command == "config check":
        assert_refused(done, "127.0.0.1:1" if "unreachable" in said and "redis" not in url else "")


def test_an_rpc_node_and_a_store_are_named_without_their_keys(tmp_path: Path) -> None:
    assert HttpNode("https://rpc.example/v2/sekret", 1.0, 1.0).name == "https://rpc.example"
    started_once(tmp_path)
    both = SolanaSettings(urls=("https://rpc.example/v2/sekret", "https://rpc.example/v2/other", "http://h"))
    nodes = open_chain(settings.load(environ={"PIXR_DATA_DIR": str(tmp_path)}).with_section(both)).nodes
    assert [node.name for node in nodes] == ["https://rpc.example", "https://rpc.example (2)", "http://h"]
    assert objects.public_origin(S3Settings(url="https://key:sekret@s3.example:9000/x")) == "https://s3.example:9000"
    assert SECRET not in repr(S3Endpoint("http://key:sekret@h", "key", "secret"))
