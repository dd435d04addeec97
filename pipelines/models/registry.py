"""The table of models, `media.models`: what a job must know of an encoder before its actors have loaded it.

The folder of a new model may state its facts in `facts.json`; otherwise a worker loads the model once to describe it. From
then on the digest of its files identifies it. Knows no frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import Connection

from cluster.errors import Rejected
from cluster.resilience import retry
from pipelines.settings import ModelSettings


@dataclass(frozen=True)
class ModelInfo:
    """What the stages must know of the encoder without loading it."""

    id: int
    name: str
    image_size: int  # pixels along each side of its input
    fit: str  # how a picture is brought to that square: "squash", "shortest" or "longest"
    fingerprint: str


def ids(connection: Connection) -> set[int]:
    """Return the numbers of all registered models."""
    return {row[0] for row in connection.execute("SELECT id FROM media.models").fetchall()}


def names(connection: Connection) -> list[str]:
    """Return the names of all registered models."""
    return [row[0] for row in connection.execute("SELECT name FROM media.models").fetchall()]


def names_in_use(connection: Connection, except_name: str) -> list[str]:
    """Return the names of the models that get a vector of every new moment: the active one and those followed."""
    rows = connection.execute(
        "SELECT name FROM media.models WHERE (active OR followed) AND name <> %s ORDER BY id", (except_name,)
    ).fetchall()
    return [name for (name,) in rows]


def register(connection: Connection, named: ModelSettings, cpus: float) -> ModelInfo:
    """Return the model of the settings, registered and with a partition for its vectors.

    If the model is new and its folder does not state its facts, a worker loads it; `cpus` are reserved for that worker.

    Raises:
        Rejected: the model does not exist, or another one is registered under its name.
    """
    from pipelines.models import encoder

    files = encoder.digest(named.name)
    registered = _known(connection, named.name, files) or _stated(connection, named.name, files)
    return registered or retry(lambda: _registered(connection, named, cpus, files))


def _known(connection: Connection, name: str, files: str) -> ModelInfo | None:
    """Return the registered model of this name if its files are the same, or None."""
    row = connection.execute(
        "SELECT id, name, image_size, fit, fingerprint FROM media.models"
        " WHERE name = %s AND files = %s AND files <> '' AND image_size IS NOT NULL",
        (name, files),
    ).fetchone()
    return ModelInfo(*row) if row else None


def _stated(connection: Connection, name: str, files: str) -> ModelInfo | None:
    """Register a model by the facts that its folder states; None if it states none.

    The actors that embed compare the fingerprint, so a wrong statement puts no vector into the catalogue.
    """
    from pipelines.models import encoder

    facts = encoder.stated(name)
    return remember(connection, name, facts, files) if facts else None


def _registered(connection: Connection, named: ModelSettings, cpus: float, files: str) -> ModelInfo:
    """Load the model in a worker, and register it."""
    import ray

    try:
        facts = ray.get(ray.remote(num_cpus=cpus, max_retries=2)(facts_of).remote(named))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error  # the error itself, without the worker's traceback
    return remember(connection, named.name, facts, files)


def remember(connection: Connection, name: str, facts: Mapping[str, Any], files: str) -> ModelInfo:
    """Register a model, to be identified by the digest of its files from now on.

    Args:
        connection: Connection to the primary.
        name: Name of the model.
        facts: What `Encoder.facts` returns.
        files: Digest of its files; empty if it has no local folder.

    Returns:
        The registered model.

    Raises:
        Rejected: a model with other weights is registered under this name.
    """
    try:
        row = connection.execute(
            "SELECT media.register_model(%s, %s, %s)", (name, facts["dimensions"], facts["fingerprint"])
        ).fetchone()
    except psycopg.errors.UniqueViolation as error:
        detail, hint = (
            f"model {name} was registered with other weights",
            "vectors of both do not compare: rename it",
        )
        raise Rejected(detail, code="model-changed", hint=hint) from error
    assert row is not None  # a function call returns a row
    connection.execute(
        "UPDATE media.models SET files = %s, image_size = %s, fit = %s WHERE id = %s",
        (files, facts["image_size"], facts["fit"], row[0]),
    )
    return ModelInfo(row[0], name, facts["image_size"], facts["fit"], facts["fingerprint"])


def facts_of(named: ModelSettings) -> dict[str, Any]:
    """Load a model and return its dimensions, fingerprint, image size and fit."""
    from pipelines.models import encoder

    return encoder.load(named.name, device=named.device, threads=named.threads).facts()
