"""The localnet as a service of the embedded stack; it does not run if the settings name RPC URLs."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from cluster import runtime
from cluster.observability import health
from cluster.services import Command, Service
from cluster.settings import EMBEDDED, Settings
from ledger.settings import LedgerSettings


@dataclass
class Localnet:
    """The process `python -m ledger.solana.localnet`, with its data under the data folder."""

    settings: Settings
    name: str = "solana"
    needs: tuple[str, ...] = ()
    start_timeout_s: float = 30.0

    def prepare(self) -> None:
        runtime.port(self.settings, "solana", runtime.PREFERRED["solana"])

    def command(self) -> Command:
        slot_ms = self.settings.section(LedgerSettings).localnet_slot_ms
        port, folder = runtime.known_port(self.settings, "solana"), self.settings.data_dir / "solana"
        options = ("--port", str(port), "--data", str(folder), "--slot-ms", str(slot_ms))
        return Command((sys.executable, "-m", "ledger.solana.localnet", *options))

    def check(self) -> None:
        health.solana(self.address())

    def address(self) -> str:
        return f"http://127.0.0.1:{runtime.known_port(self.settings, 'solana')}"


def service(settings: Settings) -> Service | None:
    """Return the service; None if the settings name RPC URLs."""
    return Localnet(settings) if EMBEDDED in settings.solana.urls else None
