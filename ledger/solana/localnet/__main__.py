"""`python -m ledger.solana.localnet --port 8899 --data FOLDER`: the localnet in the foreground; SIGTERM ends it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from cluster.observability import telemetry
from ledger.solana.localnet import server


@click.command()
@click.option("--port", type=int, required=True)
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--slot-ms", type=int, default=100)
def main(port: int, data: Path, slot_ms: int) -> None:
    """Run a Solana JSON-RPC server on the loopback address."""
    telemetry.configure("localnet")
    data.mkdir(parents=True, exist_ok=True)
    asyncio.run(server.serve(port, data, slot_ms))


if __name__ == "__main__":
    main()
