"""A wallet is proven by its key's signature of our message: for one creator, one caller, one domain, once, and in time."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import Connection
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature

from cluster.errors import Rejected
from cluster.settings import Settings
from ledger.creators import challenges, wallets
from ledger.creators.challenges import Answer, Challenge
from ledger.journal import book
from ledger.payouts import owed
from ledger.settings import CHALLENGE_MAX_S, Economics
from tests.cluster.cli.test_main import assert_refused, pixr

ECONOMICS = Economics(wallet_domain="pixr.example", payout_min_pix=1)
OWNER, OTHER = Keypair.from_seed(bytes(31) + b"\1"), Keypair.from_seed(bytes(31) + b"\2")
HERS, HIS = str(OWNER.pubkey()), str(OTHER.pubkey())
ME = "principal 7"
ORDER = 2**252 + 27742317777372353535851937790883648493  # of ed25519's group
# The format of Sign-In With Solana, of the fields that are used here.
SIWS = re.compile(
    r"(?P<domain>[^\n ]+) wants you to sign in with your Solana account:\n(?P<address>[1-9A-HJ-NP-Za-km-z]{32,44})\n\n"
    r"(?P<statement>[A-Za-z0-9 ,.:/?#@!$&'()*+;=_~-]+)\n\nURI: (?P<uri>https://[^\n ]+)\nVersion: 1\n"
    r"Nonce: (?P<nonce>[A-Za-z0-9]{8,})\n"
    r"Issued At: (?P<issued>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)\nExpiration Time: (?P<expires>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)"
)


def signed(message: str, key: Keypair = OWNER) -> str:
    return str(key.sign_message(message.encode()))


def asked(connection: Connection[Any], creator_id: int = 1, wallet: str = HERS, by: str = ME) -> Challenge:
    return challenges.issue(connection, ECONOMICS, creator_id, wallet, by)


def prove(
    connection: Connection[Any], nonce: str, signature: str, creator_id: int = 1, wallet: str = HERS, by: str = ME
) -> str:
    return challenges.prove(connection, creator_id, wallet, by, Answer(nonce, signature))


def refused(connection: Connection[Any], act: Callable[[], object]) -> str:
    """What an attempt is refused with, as the door does it: nothing of it stays."""
    connection.commit()
    with pytest.raises(Rejected) as refusal:
        act()
    connection.rollback()
    assert (refusal.value.status, refusal.value.code) == (422, "proof-invalid")
    return str(refusal.value)


def test_a_message_is_one_of_sign_in_with_solana_and_names_all_that_it_is_bound_to(journal: Connection[Any]) -> None:
    made = asked(journal)
    found = SIWS.fullmatch(made.message)
    assert found is not None, made.message
    assert (found["domain"], found["address"], found["nonce"]) == ("pixr.example", HERS, made.nonce)
    assert (found["uri"], found["expires"]) == ("https://pixr.example/v1/creators/1/wallet", made.expires_at)
    assert "as creator 1." in found["statement"]


def test_a_first_wallet_that_is_proven_is_paid_at_once_and_the_proof_stays(journal: Connection[Any]) -> None:
    made = asked(journal)
    proof = prove(journal, made.nonce, signed(made.message))
    known = wallets.change(journal, ECONOMICS, 1, HERS, "creator", proof)
    assert (known.hold_until, known.proven) == (None, True)
    (row,) = journal.execute("SELECT creator_id, wallet, message, signature FROM ledger.wallet_proofs").fetchall()
    assert row == (1, HERS, made.message, signed(made.message))
    assert challenges.verifies(*row[1:])
    with pytest.raises(psycopg.DatabaseError, match="append-only"):
        journal.execute("UPDATE ledger.wallet_proofs SET creator_id = 2")


def test_a_proof_ends_the_hold_of_a_first_wallet_and_not_that_of_a_change(journal: Connection[Any]) -> None:
    assert wallets.change(journal, ECONOMICS, 1, HERS, "creator").hold_until is not None
    made = asked(journal)
    proven = wallets.change(journal, ECONOMICS, 1, HERS, "creator", prove(journal, made.nonce, signed(made.message)))
    assert (proven.hold_until, proven.proven) == (None, True)
    for _ in range(2):  # the thief of a key holds a wallet of his own
        made = asked(journal, wallet=HIS)
        proof = prove(journal, made.nonce, signed(made.message, OTHER), wallet=HIS)
        changed = wallets.change(journal, ECONOMICS, 1, HIS, "creator", proof)
        assert (changed.hold_until is not None, changed.proven) == (True, True)
    back = wallets.change(journal, ECONOMICS, 1, HERS, "creator")
    assert (back.hold_until is not None, back.proven) == (True, False)


def test_a_wallet_that_an_older_release_changes_has_no_proof_and_waits_whatever_is_proven(
    journal: Connection[Any],
) -> None:
    made = asked(journal)
    wallets.change(journal, ECONOMICS, 1, HERS, "creator", prove(journal, made.nonce, signed(made.message)))
    changed = "UPDATE ledger.wallets SET wallet = %s, hold_until = now() + interval '72 hours' WHERE creator_id = 1"
    journal.execute(changed, (HIS,))
    known = wallets.of(journal, 1)
    assert known is not None
    assert (known.wallet, known.proven, known.hold_until is not None) == (HIS, False, True)
    made = asked(journal, wallet=HIS)
    proof = prove(journal, made.nonce, signed(made.message, OTHER), wallet=HIS)
    assert wallets.change(journal, ECONOMICS, 1, HIS, "creator", proof).hold_until is not None


def test_the_proof_of_another_wallet_or_creator_is_none_of_this_one(journal: Connection[Any]) -> None:
    made = asked(journal)
    proof = prove(journal, made.nonce, signed(made.message))
    wallets.change(journal, ECONOMICS, 2, HERS, "creator")
    journal.commit()
    for creator_id, wallet in ((1, HIS), (2, HERS), (3, HERS)):
        with pytest.raises(psycopg.DatabaseError, match="is not of wallet"):
            wallets.change(journal, ECONOMICS, creator_id, wallet, "creator", proof)
        journal.rollback()


def test_only_what_waits_for_nothing_is_due(journal: Connection[Any]) -> None:
    pool = book.account(journal, "reward_pool")
    accounts = book.accounts_of(journal, "payable", "creator", [1, 2])
    book.post(journal, book.Entry("deposit", "d", [(book.account(journal, "chain"), -10), (pool, 10)]))
    book.post(journal, book.Entry("accrual", "a", [(pool, -10), (accounts[1], 5), (accounts[2], 5)]))
    made = asked(journal)
    wallets.change(journal, ECONOMICS, 1, HERS, "creator", prove(journal, made.nonce, signed(made.message)))
    wallets.change(journal, ECONOMICS, 2, HIS, "creator")
    assert [each.creator_id for each in owed.due(journal, ECONOMICS, "mint", 10)] == [1]


# ── Attacks ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_nonce_is_good_once(journal: Connection[Any]) -> None:
    made = asked(journal)
    signature = signed(made.message)
    prove(journal, made.nonce, signature)
    assert "no such challenge" in refused(journal, lambda: prove(journal, made.nonce, signature))


def test_a_nonce_that_is_put_back_is_good_once_too(journal: Connection[Any]) -> None:
    made = asked(journal)
    row = journal.execute("SELECT * FROM ledger.wallet_challenges").fetchone()
    assert row is not None
    prove(journal, made.nonce, signed(made.message))
    journal.execute("INSERT INTO ledger.wallet_challenges VALUES (%s, %s, %s, %s, %s, %s, %s)", row)
    with pytest.raises(psycopg.errors.UniqueViolation):
        prove(journal, made.nonce, signed(made.message))


def test_two_who_answer_at_once_are_one(journal: Connection[Any], postgres_url: str) -> None:
    made = asked(journal)
    journal.commit()
    prove(journal, made.nonce, signed(made.message))
    with psycopg.connect(postgres_url) as second:
        second.execute("SET lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):  # it waits for the first
            prove(second, made.nonce, signed(made.message))
        second.rollback()
        journal.commit()
        assert "no such challenge" in refused(second, lambda: prove(second, made.nonce, signed(made.message)))


def test_a_later_challenge_makes_the_one_before_void(journal: Connection[Any]) -> None:
    first, second = asked(journal), asked(journal)
    assert "no such challenge" in refused(journal, lambda: prove(journal, first.nonce, signed(first.message)))
    assert prove(journal, second.nonce, signed(second.message)) == second.nonce


def test_a_challenge_is_for_one_creator_one_wallet_and_one_caller(journal: Connection[Any]) -> None:
    made = asked(journal)
    hers, his = signed(made.message), signed(made.message, OTHER)
    for creator_id, wallet, by, signature in (
        (2, HERS, ME, hers),
        (1, HIS, ME, his),
        (1, HERS, "principal 8", hers),
        (1, HERS, ME, his),
    ):
        refused(journal, lambda c=creator_id, w=wallet, b=by, s=signature: prove(journal, made.nonce, s, c, w, b))  # type: ignore[misc]
    assert prove(journal, made.nonce, hers) == made.nonce  # none of which has used it up


def test_the_signature_for_another_creator_or_domain_is_none(journal: Connection[Any]) -> None:
    """The owner of a wallet was made to sign elsewhere; what is verified is the message that was kept."""
    made = asked(journal)
    elsewhere = [
        made.message.replace("pixr.example", "evil.example"),
        made.message.replace("as creator 1.", "as creator 2."),
        made.message.replace(made.nonce, "0" * 32),
        asked(journal, creator_id=2).message,
    ]
    for message in elsewhere:
        assert "not of the challenge" in refused(journal, lambda m=message: prove(journal, made.nonce, signed(m)))  # type: ignore[misc]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\n",
        lambda text: text + "\nResources:\n- https://evil.example",
        lambda text: text.replace("\n", "\r\n"),
        lambda text: " " + text,
        lambda text: "\n" + text,
        lambda text: text.replace("https://", "http://"),
        lambda text: text[:-1],
        lambda text: "\xff" + text,
        lambda _: "",
    ],
)
def test_the_signature_of_a_message_that_differs_by_a_line_or_a_letter_is_none(
    journal: Connection[Any], change: Callable[[str], str]
) -> None:
    made = asked(journal)
    refused(journal, lambda: prove(journal, made.nonce, signed(change(made.message))))


def test_a_challenge_ends_by_the_databases_clock(journal: Connection[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made = asked(journal)
    real = time.time
    for skew_s in (-3 * 86_400, 3 * 86_400):  # this machine's clock has no say
        monkeypatch.setattr(time, "time", lambda s=skew_s: real() + s)
        assert prove(journal, made.nonce, signed(made.message)) == made.nonce
        journal.rollback()
        made = asked(journal)
        stamps = journal.execute(
            "SELECT abs(extract(epoch FROM issued_at - now())) < 60, expires_at - issued_at = interval '600 s'"
            " FROM ledger.wallet_challenges"
        ).fetchone()
        assert stamps == (True, True)
    journal.execute("UPDATE ledger.wallet_challenges SET expires_at = clock_timestamp()")
    assert "has expired" in refused(journal, lambda: prove(journal, made.nonce, signed(made.message)))


def test_another_form_of_a_signature_is_none(journal: Connection[Any]) -> None:
    made = asked(journal)
    raw = bytes(OWNER.sign_message(made.message.encode()))
    scalar = int.from_bytes(raw[32:], "little")
    malleable = Signature.from_bytes(raw[:32] + (scalar + ORDER).to_bytes(32, "little"))
    others = [str(malleable), raw.hex(), "", "1", "1" * 64, "0" * 88, f"{Signature.from_bytes(raw)} "]
    for other in others:
        refused(journal, lambda o=other: prove(journal, made.nonce, o))  # type: ignore[misc]
    assert prove(journal, made.nonce, str(Signature.from_bytes(raw))) == made.nonce


def keys_of_small_order() -> list[str]:
    """Every encoding of a point whose order divides 8."""
    ys = {
        0,
        1,
        wallets.FIELD - 1,
        wallets.FIELD,
        wallets.FIELD + 1,
        wallets.OF_ORDER_8,
        wallets.FIELD - wallets.OF_ORDER_8,
    }
    return [str(Pubkey.from_bytes((y + sign * 2**255).to_bytes(32, "little"))) for y in sorted(ys) for sign in (0, 1)]


def doubled(y: int) -> int:
    """The y of twice the point with this y: of -x² + y² = 1 + d x² y²."""
    p = wallets.FIELD
    d = -121665 * pow(121666, -1, p) % p
    xx = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
    return (y * y + xx) * pow(2 - y * y + xx, -1, p) % p


def test_the_keys_of_small_order_are_those_that_are_named() -> None:
    for y in wallets.SMALL_ORDER:
        assert doubled(doubled(doubled(y))) == 1
    assert {doubled(wallets.OF_ORDER_8), doubled(0)} == {0, wallets.FIELD - 1}


@pytest.mark.parametrize("wallet", keys_of_small_order())
def test_a_key_that_everybody_holds_is_no_wallet(journal: Connection[Any], wallet: str) -> None:
    for act in (
        lambda: asked(journal, wallet=wallet),
        lambda: wallets.change(journal, ECONOMICS, 1, wallet, "creator"),
        lambda: wallets.claim(journal, ECONOMICS, 1, wallet),
    ):
        with pytest.raises(Rejected) as refusal:
            act()
        assert refusal.value.code == "wallet-invalid"
    forged = str(
        Signature.from_bytes((1).to_bytes(32, "little") + bytes(32))
    )  # of any message, by the rules that are not strict
    assert not challenges.verifies(wallet, "any message", forged)


def test_one_caller_has_one_challenge_open_for_a_creator_however_often_they_ask(journal: Connection[Any]) -> None:
    for _ in range(20):
        asked(journal)
    asked(journal, by="principal 8")
    assert journal.execute("SELECT count(*) FROM ledger.wallet_challenges").fetchone() == (2,)


# ── Settings and the command line ──────────────────────────────────────────────────────────────────────────────────


def test_without_a_domain_nothing_is_proven(journal: Connection[Any]) -> None:
    with pytest.raises(Rejected) as refusal:
        challenges.issue(journal, Economics(), 1, HERS, ME)
    assert (refusal.value.status, refusal.value.code) == (409, "no-wallet-domain")


@pytest.mark.parametrize(
    "domain", ["https://pixr.example", "pixr.example/", "pixr example", "a\nb", "PIXR", ".", "a:x"]
)
def test_what_is_no_domain_is_no_setting(domain: str) -> None:
    with pytest.raises(ValueError, match="wallet_domain"):
        Economics(wallet_domain=domain)


def test_a_challenge_is_not_for_long() -> None:
    for seconds in (0, CHALLENGE_MAX_S + 1):
        with pytest.raises(ValueError, match="wallet_challenge_s"):
            Economics(wallet_challenge_s=seconds)


def test_the_command_line_shows_a_challenge_and_takes_its_signature(
    settings: Settings, journal: Connection[Any]
) -> None:
    environ = {"PIXR_POSTGRES_URL": settings.postgres.url, "PIXR_POSTGRES_SERVE_URL": settings.postgres.serve_url}
    folder = settings.data_dir
    assert "no wallet" in pixr(folder, "payouts", "wallet", "show", "1", **environ).stdout
    made = json.loads(pixr(folder, "payouts", "wallet", "challenge", "1", HERS, "--json", **environ).stdout)
    shown = pixr(folder, "payouts", "wallet", "challenge", "1", HERS, **environ)
    nonce = re.search(r"--nonce ([0-9a-f]{32})", shown.stderr)
    assert nonce is not None
    assert shown.stdout.startswith("localhost wants you to sign in")
    before = ("payouts", "wallet", "set", "1", HERS, "--nonce", made["nonce"], "--signature", signed(made["message"]))
    assert_refused(pixr(folder, *before, **environ), "the ledger knows no creator 1")
    assert_refused(pixr(folder, *before, "--unknown", **environ), "no such challenge")
    answer = ("--nonce", nonce[1], "--signature", signed(shown.stdout.removesuffix("\n")))
    put = ("payouts", "wallet", "set", "1", HERS, "--unknown")
    assert_refused(pixr(folder, *put, *answer[:2], **environ), "go together")
    said = json.loads(pixr(folder, *put, *answer, "--json", **environ).stdout)
    assert (said["wallet"], said["set_by"], said["proven"], said["hold_until"]) == (HERS, "admin", True, None)
    changed = pixr(folder, "payouts", "wallet", "set", "1", HIS, **environ).stdout
    assert "not proven, payouts wait until" in changed
    assert changed == pixr(folder, "payouts", "wallet", "show", "1", **environ).stdout
