"""What a stack holds of connections, places, tasks, descriptors and memory, and whether all of it was given back.

Read twice over: as the replica says itself (`/metrics` at the door), and from outside, of the processes that strangers
reach. Both must return to where they stood once nobody asks any more.
"""

from __future__ import annotations

import contextlib
import csv
import time
from collections.abc import Mapping, Sequence

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from cluster.door import backends, service
from cluster.errors import Temporary
from tests.stack import Stack, family, named

ROLES = {
    "SearchApi": "ServeReplica:pixr:SearchApi",
    "QueryEncoder": "ServeReplica:pixr:QueryEncoder",
    "door": "haproxy",
}
NAMES = ("pixr_pool_connections", "pixr_gate_places", "pixr_background_tasks", "pixr_uncancelled_calls")
UNSTEADY = ("idle", "available", "size", "max", "min", "replaced")  # of a pool that grows, shrinks and mends itself
DESCRIPTORS_SLACK = 16  # a pool of eight that opens and closes, Ray's own connections between processes
COUNTS_SLACK = 1.0  # the work that a replica does by itself while it is looked at
MEMORY_SLACK_SHARE, MEMORY_SLACK_MB = 0.2, 64.0
MB = 1024 * 1024
EVERY_S = 0.5
TOLD_WITHIN_S = 20.0
USED = "pool_connections used"

Gauges = Mapping[str, float]


def processes(stack: Stack, role: str) -> list[psutil.Process]:
    """Those that strangers reach: replicas by the name of their deployment, the door whoever started it."""
    return named(stack, ROLES[role]) if role == "door" else family(stack, ROLES[role])


def memory_mb(stack: Stack) -> dict[str, float]:
    """Resident memory by role."""
    return {f"{role} MB": sum(_resident(each) for each in processes(stack, role)) / MB for role in ROLES}


def read(stack: Stack) -> Gauges:
    """All gauges; those that the replica gives itself are missing where it does not answer."""
    found = memory_mb(stack)
    for role in ROLES:
        found[f"{role} descriptors"] = float(sum(_descriptors(each) for each in processes(stack, role)))
    with contextlib.suppress(Temporary):
        found["door descriptors"] -= kept_by_door(stack)
    with contextlib.suppress(httpx.HTTPError), stack.admin as client:
        answer = client.get("/metrics", timeout=5)
        if answer.status_code == 200:
            found |= _of_metrics(answer.text)
    return found


def kept_by_door(stack: Stack) -> int:
    """Connections to replicas and to the store that the door keeps for whoever asks next.

    HAProxy gives them back a part every five seconds, most of a minute long: nobody else has to wait for that.
    """
    table = csv.DictReader(backends.ask(service.admin_socket(stack.settings), "show stat").splitlines())
    return sum(int(row["srv_icur"] or 0) for row in table)


def told(stack: Stack) -> Gauges:
    """All gauges, once the replica gives its own and has nothing to do any more."""
    end_s = time.monotonic() + TOLD_WITHIN_S
    while (now := read(stack)).get(USED, 1.0) and time.monotonic() < end_s:
        time.sleep(EVERY_S)
    assert USED in now, f"the replica does not tell its gauges: {sorted(now)}"
    return now


def missing(before: Gauges, now: Gauges) -> list[str]:
    """What has not come back: one line for each gauge that stands above where it stood."""
    found = []
    for name, stood in before.items():
        stands = now.get(name)
        if stands is None:
            found.append(f"{name}: not told")
        elif stands > stood + _slack(name, stood):
            found.append(f"{name}: {stood:.0f} before, {stands:.0f} now")
    return found


def settled(stack: Stack, before: Gauges, within_s: float) -> tuple[Gauges, Sequence[str]]:
    """Wait until everything has come back, no longer than this; the gauges then, and what has not."""
    end_s = time.monotonic() + within_s
    while (lacking := missing(before, now := read(stack))) and time.monotonic() < end_s:
        time.sleep(EVERY_S)
    return now, lacking


def quiet_memory(stack: Stack, minutes: int) -> list[dict[str, float]]:
    """Mean memory by role of each minute, while nobody asks anything."""
    means = []
    for _ in range(minutes):
        samples, end_s = [memory_mb(stack)], time.monotonic() + 60
        while time.monotonic() < end_s:
            time.sleep(2)
            samples.append(memory_mb(stack))
        means.append({name: sum(each[name] for each in samples) / len(samples) for name in samples[0]})
    return means


def _slack(name: str, stood: float) -> float:
    if name.endswith(" MB"):
        return stood * MEMORY_SLACK_SHARE + MEMORY_SLACK_MB
    return DESCRIPTORS_SLACK if name.endswith(" descriptors") else COUNTS_SLACK


def _of_metrics(text: str) -> dict[str, float]:
    found = {}
    for metric in text_string_to_metric_families(text):
        for sample in metric.samples if metric.name in NAMES else ():
            if sample.labels.get("state") not in UNSTEADY:
                labels = " ".join(sample.labels.values())
                found[f"{metric.name.removeprefix('pixr_')} {labels}".strip()] = sample.value
    return found


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _descriptors(process: psutil.Process) -> int:
    try:
        return int(process.num_fds())
    except psutil.NoSuchProcess:
        return 0
