"""How many replicas Serve is told to keep, and what they are given."""

from __future__ import annotations

import dataclasses

from ray import cloudpickle
from ray.serve.config import AutoscalingConfig

from cluster.roles import OWNER, PARTS
from cluster.settings import Settings
from serve import app
from serve.settings import SearchSettings


def test_replicas_are_a_number_or_scale_between_two_within_seconds() -> None:
    search = SearchSettings()
    assert app._scale(search, 2, 0, 8) == {"num_replicas": 2}
    assert app._scale(search, 2, 2, 8) == {"num_replicas": 2}
    told = AutoscalingConfig(**app._scale(search, 1, 6, 8)["autoscaling_config"])
    assert (told.min_replicas, told.max_replicas, told.target_ongoing_requests) == (1, 6, 8)
    assert told.upscale_delay_s <= 5 < told.downscale_delay_s


def test_what_replicas_are_started_with_holds_no_other_parts_url(settings: Settings) -> None:
    urls = {role.setting: f"postgresql://{role.part}:secret-of-{role.part}@h/db" for role in (OWNER, *PARTS)}
    made = settings.with_section(dataclasses.replace(settings.postgres, **urls))
    given = cloudpickle.dumps(app.application(made))
    assert [part for part in urls.values() if part.encode() in given] == [urls["serve_url"]]
    assert [role.part for role in (OWNER, *PARTS) if f"secret-of-{role.part}".encode() in given] == ["serve"]
