"""Keys stay where they are: in a file that only its owner reads, or in a process that signs nothing but payouts."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from solders.hash import Hash
from solders.pubkey import Pubkey
from solders.signature import Signature

from cluster.errors import Rejected, Temporary
from cluster.settings import Settings
from ledger import packing, signer, treasury
from ledger.remote_signer import LENGTH, REFUSED, SIGNED, RemoteSigner
from ledger.signing import NOT_SIGNED
from tests.ledger.chains import Key, Rig

CEILING = 5000


def test_a_key_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "treasury.json"
    made = signer.file_signer(path, create=True)
    assert signer.file_signer(path, create=True).pubkey == made.pubkey
    assert path.stat().st_mode & 0o777 == 0o600
    secret = json.loads(path.read_text())
    assert str(secret[0]) + ", " not in repr(made)
    assert Signature.from_bytes(made.sign(b"m")).verify(made.pubkey, b"m")


def test_bad_key_files_are_refused_by_name(tmp_path: Path) -> None:
    exposed, broken = tmp_path / "exposed.json", tmp_path / "broken.json"
    exposed.write_text("[]")
    exposed.chmod(0o644)
    broken.touch(0o600)
    bad = [(tmp_path / "none", "", "key-missing"), (exposed, "[]", "key-exposed")]
    none = ("[1, 2]", "null", '{"key": 1}', "[1.5]", '["a"]', "[300]", "\ufeff[]")
    bad += [(broken, content, "key-invalid") for content in none]
    for path, content, code in bad:
        if path.exists():
            path.write_text(content)
        with pytest.raises(Rejected) as refusal:
            signer.file_signer(path)
        assert refusal.value.code == code


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[str]:
    """The signer's process, holding the test treasury's key."""
    key, path = tmp_path / "treasury.json", tmp_path / "s"
    key.touch(0o600)
    key.write_text(json.dumps(list(bytes(Key("treasury")._keypair))))
    argv = [sys.executable, "-m", "ledger.remote_signer", "--key", str(key), "--socket", str(path)]
    process = subprocess.Popen([*argv, "--mint", str(Key("mint").pubkey), "--ceiling-pix", str(CEILING)])
    deadline = time.monotonic() + 30
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield str(path)
    process.terminate()
    assert process.wait(20) == 0
    assert not path.exists()


def test_payouts_are_signed_elsewhere_up_to_a_ceiling(rig: Rig, remote: str) -> None:
    away = RemoteSigner(remote)
    assert away.pubkey == rig.treasury.payer.treasury
    assert Path(remote).stat().st_mode & 0o077 == 0
    object.__setattr__(rig.treasury, "signers", (away,))
    rig.creator(1, 3000)
    rig.pay(2)
    assert rig.on_chain(1) == 3000
    rig.earn(1, 2001)
    rig.pay(2)
    assert rig.freezes() == [NOT_SIGNED]
    assert "above the ceiling of 5000" in str(rig.rows("SELECT detail FROM ledger.freezes"))
    assert rig.on_chain(1) == 3000
    assert rig.balance("in_flight") == 2001


def test_only_payouts_are_signed(rig: Rig, remote: str) -> None:
    away, payer = RemoteSigner(remote), rig.treasury.payer
    take = packing.Instruction(packing.TOKEN_PROGRAM, (payer.token_account, payer.treasury), (False, False), b"\6\2")
    foreign = packing.Instruction(Pubkey.new_unique(), (payer.treasury,), (False,), b"")
    from solders.message import to_bytes_versioned

    for instruction in (take, foreign):
        message = packing.build(payer, [instruction], str(Hash.default()), version="v1", units=1000)
        with pytest.raises(Rejected, match="no payout does"):
            away.sign(to_bytes_versioned(message))
    for content, reason in ((b"not a message", "not the message"), (bytes(5000), "5000 bytes")):
        with pytest.raises(Rejected, match=reason):
            away.sign(content)


@contextmanager
def answering(path: Path, *answers: bytes) -> Iterator[RemoteSigner]:
    """Some other program at the socket, which says whose key it has, and then these answers."""
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        door.listen()
        said = [SIGNED + LENGTH.pack(32) + bytes(Key("treasury").pubkey), *answers]

        def answer() -> None:
            for each in said:
                asked, _ = door.accept()
                with asked:
                    asked.recv(4096)
                    asked.sendall(each)

        thread = threading.Thread(target=answer)
        thread.start()
        yield RemoteSigner(str(path))
        thread.join()


def test_what_answers_with_no_signature_is_waited_for(tmp_path: Path) -> None:
    for number, answer in enumerate((b"short", b"x" * 65, b"")):
        with (
            answering(tmp_path / str(number), SIGNED + LENGTH.pack(len(answer)) + answer) as odd,
            pytest.raises(Temporary, match=f"answers with {len(answer)} bytes"),
        ):
            odd.sign(b"message")


def test_a_reason_that_is_no_text_is_shown_as_far_as_it_is(tmp_path: Path) -> None:
    with (
        answering(tmp_path / "s", REFUSED + LENGTH.pack(4) + b"no\0\xff") as odd,
        pytest.raises(Rejected, match=r"the signer refuses: no\ufffd$"),
    ):
        odd.sign(b"message")


def test_a_signer_that_is_away_is_waited_for(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(Temporary, match="does not answer"):
        treasury.open_signer(settings, f"unix:{tmp_path / 'nobody'}")
