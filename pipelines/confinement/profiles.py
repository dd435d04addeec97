"""Profiles: what a task in the sandbox may use and do, one for each kind of task, from the settings.

A profile is a promise that the kernel keeps: `layers` and the sandbox's child turn it into limits, rules and filters.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.settings import IngestSettings

NOBODY = 0  # as `uid`: no own user


@dataclass(frozen=True)
class Profile:
    """What one task may use."""

    cpu_max_s: int
    timeout_s: float
    memory_max_mb: int
    output_max_mb: int  # of its answer
    file_max_mb: int = 1  # of each file that it writes, and of what libraries say on standard error
    # Arguments that name a file it may read, or one that is made for it to write.
    reads: tuple[str, ...] = ("path",)
    writes: tuple[str, ...] = ("scratch",)
    # Programs it may start, by name or path, and folders that those may read; without any it can start no process.
    programs: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    threads_max: int = 0  # of all children of one user together, where they are counted apart; 0: no limit
    uid: int = NOBODY  # who it runs as where the worker is root
    weaker_accepted: bool = False  # whether it runs where the kernel has no Landlock or no seccomp

    def as_json(self) -> Mapping[str, Any]:
        return asdict(self)


def probe(settings: IngestSettings) -> Profile:
    """For looking at a file: it writes nothing and starts nothing."""
    return Profile(
        settings.probe_cpu_max_s, settings.probe_timeout_s, settings.probe_memory_max_mb, settings.probe_output_max_mb,
        file_max_mb=settings.probe_file_max_mb, writes=(), programs=settings.probe_programs,
        threads_max=_threads_max(settings), uid=settings.sandbox_uid,
        weaker_accepted=settings.sandbox_weaker_accepted,
    )  # fmt: skip


def decode(settings: IngestSettings) -> Profile:
    """For decoding a chunk: it may write one file, a copy of the chunk."""
    return Profile(
        settings.decode_cpu_max_s, settings.decode_timeout_s, settings.decode_memory_max_mb,
        settings.decode_output_max_mb, file_max_mb=settings.decode_file_max_mb, programs=settings.decode_programs,
        threads_max=_threads_max(settings), uid=settings.sandbox_uid,
        weaker_accepted=settings.sandbox_weaker_accepted,
    )  # fmt: skip


def _threads_max(settings: IngestSettings) -> int:
    """A machine has as many decoders as CPUs, and they are one user: their limit is one for all."""
    return settings.sandbox_threads_per_cpu * (os.cpu_count() or 1)
