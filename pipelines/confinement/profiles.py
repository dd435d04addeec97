"""Profiles: what each kind of task in the sandbox may use and do, made of the settings.

The kernel enforces a profile: `layers` and the sandbox's child turn it into limits, rules and filters. The numbers stand in
`pipelines.settings` (`probe_…`, `decode_…`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.settings import IngestSettings

NOBODY = 0  # `uid` without a user of its own


@dataclass(frozen=True)
class Profile:
    """What one task may use."""

    cpu_max_s: int  # CPU time
    timeout_s: float  # time by the clock, after which it is killed
    memory_max_mb: int  # address space besides what is mapped when it starts, and besides its answer
    output_max_mb: int  # of its answer
    file_max_mb: int = 1  # of each file that it writes, and of what libraries write to standard error
    reads: tuple[str, ...] = ("path",)  # names of the task's arguments that hold the path of a file it may read
    writes: tuple[str, ...] = ("scratch",)  # names of those that hold the path of a file created for it to write
    programs: tuple[str, ...] = ()  # it may start, by name or path; without any it can start no process
    folders: tuple[str, ...] = ()  # that those programs may read
    threads_max: int = 0  # of all children of one user together, if they are counted apart; 0: no limit
    uid: int = NOBODY  # user that it runs as, where the worker is root
    weaker_accepted: bool = False  # whether it runs without Landlock or seccomp

    def as_json(self) -> Mapping[str, Any]:
        """Return the fields as JSON-compatible values."""
        return asdict(self)


def probe(settings: IngestSettings) -> Profile:
    """Return the profile for probing a file; it allows no writing."""
    return Profile(
        settings.probe_cpu_max_s, settings.probe_timeout_s, settings.probe_memory_max_mb, settings.probe_output_max_mb,
        file_max_mb=settings.probe_file_max_mb, writes=(), programs=settings.probe_programs,
        threads_max=_threads_max(settings), uid=settings.sandbox_uid,
        weaker_accepted=settings.sandbox_weaker_accepted,
    )  # fmt: skip


def decode(settings: IngestSettings) -> Profile:
    """Return the profile for decoding a chunk; it allows writing one file, a copy of the chunk."""
    return Profile(
        settings.decode_cpu_max_s, settings.decode_timeout_s, settings.decode_memory_max_mb,
        settings.decode_output_max_mb, file_max_mb=settings.decode_file_max_mb, programs=settings.decode_programs,
        threads_max=_threads_max(settings), uid=settings.sandbox_uid,
        weaker_accepted=settings.sandbox_weaker_accepted,
    )  # fmt: skip


def _threads_max(settings: IngestSettings) -> int:
    """Return the most threads of all children of one user together: `sandbox_threads_per_cpu` times the CPUs."""
    return settings.sandbox_threads_per_cpu * (os.cpu_count() or 1)
