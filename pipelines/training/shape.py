"""The architecture of the bundled model, as an `open_clip_config.json`, and writing its folder.

A timm backbone for pixels, open_clip's own text transformer, and vectors of 256 dimensions. Weights are stored in half
precision. Any folder written here loads with plain open_clip: `local-dir:<folder>`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from pipelines.training import tokens

DIMENSIONS = 256
IMAGE_SIZE = 96  # pixels a side
CONTEXT = 24  # tokens
BACKBONE = "cs3darknet_s"  # plain convolutions need far fewer pictures than separable ones


def config(
    vocabulary: int,
    *,
    dimensions: int = DIMENSIONS,
    image_size: int = IMAGE_SIZE,
    backbone: str = BACKBONE,
    width: int = 192,
    layers: int = 3,
) -> dict[str, Any]:
    """Return open_clip's configuration of the model.

    Args:
        vocabulary: Entries of the tokenizer.
        dimensions: Of the vectors.
        image_size: Pixels a side.
        backbone: timm's name of the vision model.
        width: Of the text transformer.
        layers: Of the text transformer.

    Returns:
        The content of `open_clip_config.json`.
    """
    vision = {"timm_model_name": backbone, "timm_pool": "avg", "timm_proj": "", "image_size": image_size}
    text = {
        "context_length": CONTEXT,
        "vocab_size": vocabulary,
        "hf_tokenizer_name": "tokenizer.json",
        "width": width,
        "heads": width // 64,
        "layers": layers,
        "pad_id": 0,
        "eos_id": 1,
        "pool_type": "eos",
    }
    return {
        "model_cfg": {"embed_dim": dimensions, "custom_text": True, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
            "interpolation": "bilinear",
            "resize_mode": "squash",
        },
    }


def create(cfg: dict[str, Any]) -> torch.nn.Module:
    """Return a model of this configuration with random weights."""
    from open_clip.model import CustomTextCLIP

    model_cfg = {key: value for key, value in cfg["model_cfg"].items() if key != "custom_text"}
    model: torch.nn.Module = CustomTextCLIP(**model_cfg)
    return model


def write(folder: Path, cfg: dict[str, Any], model: torch.nn.Module, tokenizer: Tokenizer) -> None:
    """Write the folder that open_clip loads.

    Args:
        folder: The folder, created if need be.
        cfg: The configuration.
        model: The weights.
        tokenizer: The tokenizer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(cfg, indent=1) + "\n", encoding="utf-8")
    tokens.save(tokenizer, folder)
    weights = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in model.state_dict().items()
    }
    save_file(weights, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
