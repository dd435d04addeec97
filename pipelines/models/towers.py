"""Making the towers of a model cheaper without changing their results.

In the image tower, batch normalisations are folded into the convolutions before them. In the text tower, positions
behind the end of the text are not computed. A tower of another construction is left as it is. Knows nothing about
names, files or pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def fold(visual: torch.nn.Module) -> int:
    """Fold timm's batch normalisations into their convolutions, in place; return how many there were.

    A frozen normalisation is one factor and one summand per channel, which the convolution's weights can include. It saves a
    fifth of the bundled model's time on a CPU.
    """
    from timm.layers.conv_bn_act import ConvNormAct
    from timm.layers.norm_act import BatchNormAct2d
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    layers = [layer for layer in visual.modules() if isinstance(layer, ConvNormAct)]
    layers = [layer for layer in layers if isinstance(layer.bn, BatchNormAct2d) and not layer.bn.training]
    for layer in layers:
        layer.conv = fuse_conv_bn_eval(layer.conv, layer.bn)
        layer.bn = layer.bn.act
    return len(layers)


def text(model: Any, tokenizer: Any, device: str, probe_text: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a text tower that does not compute positions behind the end of the text.

    If it does not give the same vectors as the model's own tower, return that one.

    Args:
        model: open_clip's model.
        tokenizer: open_clip's tokenizer.
        device: torch's name of the device.
        probe_text: A text on which both towers are compared.

    Returns:
        A function from token ids (texts, positions) to vectors (texts, dimensions), not normalised.
    """
    import torch

    whole: Callable[[torch.Tensor], torch.Tensor] = model.encode_text
    tower = getattr(model, "text", model)
    pool = getattr(tower, "pool_type", getattr(tower, "text_pool_type", None))
    mask = getattr(tower, "attn_mask", None)
    if pool not in ("argmax", "eos") or mask is None or getattr(tower, "cls_emb", None) is not None:
        return whole

    end = int(getattr(tower, "eos_id", None) or getattr(tower, "text_eos_id", None) or 0)

    def ends(ids: torch.Tensor) -> torch.Tensor:  # (texts, positions) → (texts,)
        if pool == "argmax":
            return ids.argmax(dim=-1)
        return torch.eq(ids, end).int().argmax(dim=-1)

    def shortened(ids: torch.Tensor) -> torch.Tensor:
        end_positions = ends(ids)
        length = int(end_positions.max()) + 1
        x = tower.token_embedding(ids[:, :length]) + tower.positional_embedding[:length]  # (texts, length, width)
        x = tower.ln_final(tower.transformer(x, attn_mask=mask[:length, :length]))
        pooled: torch.Tensor = x[torch.arange(len(x), device=x.device), end_positions]
        projection = tower.text_projection
        if projection is None:
            return pooled
        projected: torch.Tensor = projection(pooled) if isinstance(projection, torch.nn.Module) else pooled @ projection
        return projected

    with torch.inference_mode():
        probe = tokenizer([probe_text, "dog"]).to(device)
        try:
            agrees = torch.allclose(shortened(probe), whole(probe), rtol=1e-4, atol=1e-5)
        except (AttributeError, RuntimeError, TypeError):  # a tower of another construction: leave it as it is
            agrees = False
    return shortened if agrees else whole
