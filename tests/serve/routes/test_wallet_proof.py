"""A creator's wallet over HTTP: asked for a challenge, proven by its key, and held where it is not."""

from __future__ import annotations

import dataclasses

from solders.keypair import Keypair

from cluster.settings import Settings
from ledger.settings import Economics
from tests.serve.doors import fill, opened, tiny

OWNER, OTHER = Keypair.from_seed(bytes(31) + b"\1"), Keypair.from_seed(bytes(31) + b"\2")
HERS, HIS = str(OWNER.pubkey()), str(OTHER.pubkey())


async def test_a_creator_proves_a_wallet_and_is_not_held(settings: Settings) -> None:
    shelf = fill(settings)
    economics = dataclasses.replace(settings.section(Economics), wallet_domain="pixr.example")
    async with opened(settings.with_section(economics), tiny) as doors:
        path, hers = f"/v1/creators/{shelf.ada}/wallet", doors.key("creator", creator_id=shelf.ada)
        his = doors.key("creator", creator_id=shelf.bob)
        assert (await doors.http.post(f"{path}/challenge", json={"wallet": HERS}, headers=his)).status_code == 403
        asked = await doors.http.post(f"{path}/challenge", json={"wallet": HERS}, headers=hers)
        assert asked.status_code == 201, asked.text
        made = asked.json()
        assert made["message"].startswith(f"pixr.example wants you to sign in with your Solana account:\n{HERS}\n")
        signature = str(OWNER.sign_message(made["message"].encode()))
        body = {"wallet": HERS, "proof": {"nonce": made["nonce"], "signature": signature}}
        wrong = [
            body | {"wallet": HIS},
            body | {"proof": {"nonce": "0" * 32, "signature": signature}},
            body | {"proof": {"nonce": made["nonce"], "signature": str(OTHER.sign_message(b"other"))}},
        ]
        for each in wrong:
            answer = await doors.http.put(path, json=each, headers=hers)
            assert (answer.status_code, answer.json()["code"]) == (422, "proof-invalid")
        admin = doors.key("admin")  # who may set it, and has not asked for this challenge
        assert (await doors.http.put(path, json=body, headers=admin)).status_code == 422
        bobs = path.replace(f"/{shelf.ada}/", f"/{shelf.bob}/")
        assert (await doors.http.put(bobs, json=body, headers=his)).status_code == 422
        done = await doors.http.put(path, json=body, headers=hers)
        assert done.status_code == 200, done.text
        assert (done.json()["proven"], done.json()["hold_until"], done.json()["set_by"]) == (True, None, "creator")
        assert (await doors.http.put(path, json=body, headers=hers)).status_code == 422  # once
        changed = (await doors.http.put(path, json={"wallet": HIS}, headers=hers)).json()
        assert (changed["proven"], changed["hold_until"] is not None) == (False, True)
        first = (await doors.http.put(bobs, json={"wallet": HIS}, headers=his)).json()
        assert (first["proven"], first["hold_until"] is not None) == (False, True)
