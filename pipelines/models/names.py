"""Which models a job may ask for: those that the settings name, the bundled ones, and those that have vectors already.

A name that comes with a request may be any folder of the machine or any address of a hub, so it is looked up here before
anything is loaded. Knows names, no weights.
"""

from __future__ import annotations

from psycopg import Connection

from cluster.errors import Rejected
from cluster.settings import Settings
from pipelines.models.encoder import MODELS
from pipelines.settings import ModelSettings


def require_known(settings: Settings, connection: Connection, name: str) -> None:
    """Refuse a model that nobody who runs Pixr has named. An empty name is the settings' own.

    Raises:
        Rejected: it is none of them.
    """
    own = settings.section(ModelSettings)
    rows = connection.execute("SELECT name FROM media.models").fetchall()
    known = {own.name, *own.allowed, *bundled(), *(row[0] for row in rows)}
    if not name or name in known:
        return
    shown = sorted(each for each in known if not each.startswith(("/", "~", ".")))  # folders are the machine's affair
    hint = f"known: {', '.join(shown) or 'only the one of the settings'}; [model] allowed adds others"
    raise Rejected(f"there is no model {name[:200]!r} to choose", status=422, code="unknown-model", hint=hint)


def bundled() -> list[str]:
    """The names of the models that come with Pixr."""
    return sorted(each.name for each in MODELS.iterdir() if each.is_dir())
