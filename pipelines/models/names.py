"""Which models a job may ask for: those in the settings, the bundled ones, and those with vectors in the database.

A name in a request could be any folder of the machine or any address on a hub, so it is checked here before anything is
loaded. Knows names, no weights.
"""

from __future__ import annotations

from psycopg import Connection

from cluster.errors import Rejected
from cluster.settings import Settings
from pipelines.models import registry
from pipelines.models.encoder import MODELS
from pipelines.settings import ModelSettings


def require_known(settings: Settings, connection: Connection, name: str) -> None:
    """Refuse a model that jobs may not ask for; an empty name stands for that of the settings.

    Raises:
        Rejected: the model is unknown.
    """
    model_settings = settings.section(ModelSettings)
    known = {model_settings.name, *model_settings.allowed, *bundled(), *registry.names(connection)}
    if not name or name in known:
        return
    public_names = sorted(each for each in known if not each.startswith(("/", "~", ".")))  # without local folders
    hint = f"known: {', '.join(public_names) or 'only the one of the settings'}; [model] allowed adds others"
    raise Rejected(f"there is no model {name[:200]!r} to choose", status=422, code="unknown-model", hint=hint)


def bundled() -> list[str]:
    """Return the names of the models that come with Pixr."""
    return sorted(folder.name for folder in MODELS.iterdir() if folder.is_dir())
