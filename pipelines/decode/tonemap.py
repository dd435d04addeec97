"""Tone mapping: HDR and wide-gamut pictures become 8 bits of sRGB.

PQ and HLG are decoded to light, BT.2020 colours are converted to BT.709, and light brighter than paper white is
compressed, as players do it; a plain conversion looks flat and pale. Works on pictures that are scaled down already.
Knows colours, not files.
"""

from __future__ import annotations

from functools import lru_cache

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorTrc, VideoReformatter

from pipelines.media import Bytes8, Floats

WHITE_NITS = 203.0  # paper white: ITU-R BT.2408
PEAK_NITS = 1000.0  # the screen that most films are graded on, and the nominal one of HLG
PQ_NITS = 10_000.0  # code 1 of PQ
KNEE = 0.3  # of paper white; below it light is unchanged (the default of FFmpeg's `tonemap=mobius`)
HLG_GAMMA = 1.2  # for a screen of 1000 nits: ITU-R BT.2100
SDR_GAMMA = 2.4  # ITU-R BT.1886
STEPS_BITS = 12  # entries of the tables below are 2 ** 12
STEPS = 1 << STEPS_BITS

LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)  # (3,), weights of BT.2020
TO_BT709 = np.array(  # (3, 3): ITU-R BT.2087
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)


def is_wide(frame: av.VideoFrame) -> bool:
    """Whether a frame is HDR (PQ or HLG) or of wide gamut (BT.2020)."""
    return frame.color_trc in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67) or _is_bt2020(frame)


def _is_bt2020(frame: av.VideoFrame) -> bool:
    """Whether a frame has the primaries of BT.2020."""
    return bool(frame.color_primaries == ColorPrimaries.BT2020)


def pixels(frame: av.VideoFrame, width: int, height: int, scaler: VideoReformatter) -> Bytes8:
    """Convert a frame for which `is_wide` is true to sRGB.

    Args:
        frame: The decoded frame.
        width: Pixels of the result.
        height: Pixels of the result.
        scaler: Scaler to use.

    Returns:
        uint8 (height, width, 3).
    """
    codes = np.asarray(scaler.reformat(frame, width, height, "rgb48le").to_ndarray(), np.uint16)  # (height, width, 3)
    light = _linear(frame.color_trc)[codes >> (16 - STEPS_BITS)]  # (height, width, 3), 1 is paper white
    if frame.color_trc == ColorTrc.ARIB_STD_B67:  # HLG codes the light of the scene; convert it to that of the screen
        light *= (np.maximum(light @ LUMA, 1e-6) ** (HLG_GAMMA - 1) * (PEAK_NITS / WHITE_NITS))[..., None]
    if _is_bt2020(frame):
        light = np.maximum(light @ TO_BT709.T, 0)
    if frame.color_trc in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67):
        light *= _gain(light.max(axis=-1))[..., None]
    shown: Bytes8 = _srgb()[(np.clip(light, 0, 1) * (STEPS - 1) + 0.5).astype(np.uint16)]
    return shown


def _gain(brightest: Floats) -> Floats:
    """Return the factor (height, width) by which to scale light of this brightness.

    It is 1 up to KNEE; above that a Möbius curve compresses light so that PEAK_NITS becomes 1.
    """
    peak, knee = PEAK_NITS / WHITE_NITS, KNEE
    a = -(knee**2) * (peak - 1) / (knee**2 - 2 * knee + peak)
    b = (knee**2 - 2 * knee * peak + peak) / (peak - 1)
    bright = np.maximum(brightest, knee)
    curve = (b**2 + 2 * b * knee + knee**2) / (b - a) * (bright + a) / (bright + b)
    gain: Floats = np.where(brightest > knee, curve / bright, 1).astype(np.float32)
    return gain


@lru_cache(maxsize=4)
def _linear(transfer: int) -> Floats:
    """Return the light for each code, (STEPS,): 1 is paper white; for HLG 1 is the brightest light of the scene."""
    code = np.linspace(0, 1, STEPS)
    if transfer == ColorTrc.SMPTE2084:  # SMPTE ST 2084
        root = code ** (32 / 2523)
        light = (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (8192 / 1305)
        return (light * (PQ_NITS / WHITE_NITS)).astype(np.float32)
    if transfer == ColorTrc.ARIB_STD_B67:  # ITU-R BT.2100, inverse OETF
        bright = (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12
        return np.where(code <= 0.5, code**2 / 3, bright).astype(np.float32)
    return (code**SDR_GAMMA).astype(np.float32)


@lru_cache(maxsize=1)
def _srgb() -> Bytes8:
    """Return the sRGB code for each step of light, (STEPS,): IEC 61966-2-1."""
    light = np.linspace(0, 1, STEPS)
    code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(code * 255).astype(np.uint8)
