"""How many replicas Serve is told to keep."""

from __future__ import annotations

from ray.serve.config import AutoscalingConfig

from serve import app
from serve.settings import SearchSettings


def test_replicas_are_a_number_or_scale_between_two_within_seconds() -> None:
    search = SearchSettings()
    assert app._scale(search, 2, 0, 8) == {"num_replicas": 2}
    assert app._scale(search, 2, 2, 8) == {"num_replicas": 2}
    told = AutoscalingConfig(**app._scale(search, 1, 6, 8)["autoscaling_config"])
    assert (told.min_replicas, told.max_replicas, told.target_ongoing_requests) == (1, 6, 8)
    assert told.upscale_delay_s <= 5 < told.downscale_delay_s
