"""A model of ViT-B/32's size with random weights: its costs are real, its results mean nothing."""

from __future__ import annotations

import json
from pathlib import Path

from cluster.settings import Settings

ARCHITECTURE = "ViT-B-32"


def folder(settings: Settings) -> Path:
    """Return the folder of the model in open_clip's format; it is made at the first call."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    made = settings.data_dir / ARCHITECTURE
    if not (made / "open_clip_config.json").is_file():
        made.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(1)
        model = open_clip.create_model(ARCHITECTURE)
        save_file(model.state_dict(), made / "open_clip_model.safetensors")
        preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
        config = {"model_cfg": open_clip.get_model_config(ARCHITECTURE), "preprocess_cfg": preprocess}
        (made / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    return made
