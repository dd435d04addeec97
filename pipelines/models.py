"""The table of models: what a job must know of an encoder before its actors have loaded it.

A model says what it is in `facts.json` beside its weights, or is loaded once to be asked, by a worker; from then on the
digest of its files answers for it. Knows no frames.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import Connection

from cluster.errors import Rejected
from cluster.resilience import retry
from pipelines.settings import ModelSettings
from pipelines.stages import Model


def register(connection: Connection, named: ModelSettings, cpus: float) -> Model:
    """The model of these settings, with a partition for its vectors. `cpus` are those of the worker that loads it.

    Raises:
        Rejected: there is no such model, or another one was registered under its name.
    """
    from pipelines import encoder

    files = encoder.digest(named.name)
    made = _known(connection, named.name, files) or _stated(connection, named.name, files)
    made = made or retry(lambda: _registered(connection, named, cpus, files))
    return dataclasses.replace(made, same=named.same(encoder.calibration(named.name).same))


def _known(connection: Connection, name: str, files: str) -> Model | None:
    row = connection.execute(
        "SELECT id, name, image_size, fit, fingerprint FROM media.models"
        " WHERE name = %s AND files = %s AND files <> '' AND image_size IS NOT NULL",
        (name, files),
    ).fetchone()
    return Model(*row) if row else None


def _stated(connection: Connection, name: str, files: str) -> Model | None:
    """By what lies beside its weights. Who embeds with it compares the fingerprint, so nothing is embedded on a wrong one."""
    from pipelines import encoder

    facts = encoder.stated(name)
    return remember(connection, name, facts, files) if facts else None


def _registered(connection: Connection, named: ModelSettings, cpus: float, files: str) -> Model:
    import ray

    try:
        facts = ray.get(ray.remote(num_cpus=cpus, max_retries=2)(facts_of).remote(named))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error  # what went wrong, not the worker's traceback
    return remember(connection, named.name, facts, files)


def remember(connection: Connection, name: str, facts: Mapping[str, Any], files: str) -> Model:
    """Write down what a model is (`facts`), for as long as its files have this digest.

    Raises:
        Rejected: another one was registered under its name.
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
    assert row is not None  # a function gives a row
    connection.execute(
        "UPDATE media.models SET files = %s, image_size = %s, fit = %s WHERE id = %s",
        (files, facts["image_size"], facts["fit"], row[0]),
    )
    return Model(row[0], name, facts["image_size"], facts["fit"], facts["fingerprint"])


def facts_of(named: ModelSettings) -> dict[str, Any]:
    """Load a model and say what it is."""
    from pipelines import encoder

    return encoder.load(named.name, device=named.device, threads=named.threads).facts()
