"""Another server: answers every request at once with the same few bytes, whatever it is. Shares nothing with Pixr.

A crowd that attacks it takes as much CPU as one that attacks Pixr, and nothing of Pixr's: how a quiet client of Pixr
fares beside it is what the machine's being busy costs alone. `python -m tests.hostile.echo PLAN` prints its port.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass

from tests.hostile.programs import told

BODY = b'{"moments":[],"degraded":[]}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
PIECE_BYTES = 256 * 1024


@dataclass(frozen=True)
class Plan:
    """It has none."""

    host: str = "127.0.0.1"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An answer for every head that ends in what came."""
    try:
        while data := await reader.read(PIECE_BYTES):
            writer.write(ANSWER * data.count(b"\r\n\r\n"))
            await writer.drain()
    except OSError:
        pass  # the client has gone, as clients of this tier do
    finally:
        writer.transport.abort()


async def serve(plan: Plan) -> None:
    end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    server = await asyncio.start_server(answer, plan.host, 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await end.wait()
    server.close()


def main() -> None:
    asyncio.run(serve(Plan(**told(sys.argv))))
    print("{}", flush=True)


if __name__ == "__main__":
    main()
