"""The services that this machine runs: the embedded ones that its settings name, and those of the other packages.

Each comes from a Python wheel and needs no root, container or account. All listen on 127.0.0.1 and keep their state in
the data folder. Does not know how they are watched and restarted (`supervisor`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points

from cluster.door import service as door
from cluster.embedded.postgres import Postgres
from cluster.embedded.ray import Ray
from cluster.embedded.s3 import S3Gateway
from cluster.embedded.schema import Schema
from cluster.embedded.valkey import Valkey
from cluster.services import Factory, Service, ordered
from cluster.settings import EMBEDDED, Settings


def _when_embedded(url: Callable[[Settings], str], kind: Callable[[Settings], Service]) -> Factory:
    """Return a factory that makes a service only where the setting says "embedded"."""
    return lambda settings: kind(settings) if url(settings) == EMBEDDED else None


FACTORIES: tuple[Factory, ...] = (
    _when_embedded(lambda settings: settings.postgres.url, Postgres),
    _when_embedded(lambda settings: settings.redis.url, Valkey),
    _when_embedded(lambda settings: settings.s3.url, S3Gateway),
    _when_embedded(lambda settings: settings.ray.address, Ray),
    lambda settings: Schema(settings) if settings.postgres.url else None,  # only with the owner's URL
    door.service,
)


def all_services(settings: Settings, only: Sequence[str] = ()) -> list[Service]:
    """Return the services that run on this machine (or those named in `only`), in an order in which they can start."""
    entries = [entry for entry in entry_points(group="pixr.services") if not only or entry.name in only]
    factories: list[Factory] = [*FACTORIES, *(entry.load() for entry in entries)]
    services = [service for factory in factories if (service := factory(settings)) is not None]
    return ordered([service for service in services if not only or service.name in only])
