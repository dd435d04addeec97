"""The encoder loads any model by one path, needs no network, and sees what a model's own preparation sees."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cluster.errors import Rejected
from pipelines.models import encoder, towers
from pipelines.models.relevance import Calibration, Curve, general
from pipelines.samples import world, world_words
from pipelines.training import shape, tokens
from pipelines.training.pictures import Studio

BUNDLED = "pixr-emoji"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def bundled() -> encoder.Encoder:
    return encoder.load(BUNDLED)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of other dimensions with random weights."""
    folder = tmp_path_factory.mktemp("models") / "other"
    words = tokens.build(["a dog and a cat", "in a forest"])
    cfg = shape.config(
        words.get_vocab_size(),
        dimensions=48,
        image_size=64,
        backbone="mobilenetv4_conv_small_035",
        width=64,
        layers=1,
    )
    shape.write(folder, cfg, shape.create(cfg), words)
    return folder


def pictures(count: int, height: int, width: int) -> np.ndarray:
    """Soft random pictures; noise would be all edges."""
    small = np.random.default_rng(3).integers(0, 256, (count, 9, 9, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(p).resize((width, height), Image.Resampling.BICUBIC)) for p in small])


def test_the_bundled_model_gives_unit_vectors_of_256_dimensions(bundled: encoder.Encoder) -> None:
    frames = bundled.frames(pictures(3, bundled.image_size, bundled.image_size))
    texts = bundled.texts(["a dog", "a rocket at night"])
    assert frames.shape == (3, 256)
    assert texts.shape == (2, 256)
    assert np.allclose(np.linalg.norm(np.concatenate([frames, texts]), axis=1), 1, atol=1e-5)
    assert bundled.texts([]).shape == bundled.frames(np.empty((0, 8, 8, 3), np.uint8)).shape == (0, 256)


def test_the_bundled_weights_are_small_and_of_half_precision() -> None:
    from safetensors import safe_open

    file = encoder.MODELS / BUNDLED / "open_clip_model.safetensors"
    assert file.stat().st_size <= 12_000_000
    with safe_open(file, "pt") as weights:
        kinds = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118  # no mapping
    assert kinds <= {"F16", "I64"}


def test_the_bundled_model_understands_scenes_of_seeds_it_was_never_trained_with(bundled: encoder.Encoder) -> None:
    lesson = Studio(world.artwork(), seed=1 << 42, others=0.0).lesson(256, bundled.image_size)
    captions = [world_words.plain(scene, world.artwork().concepts) for scene in lesson.scenes]
    order = np.argsort(-(bundled.texts(captions) @ bundled.frames(lesson.pixels).T), axis=1)
    found = order[:, :5] == np.arange(len(order))[:, None]
    assert found[:, 0].mean() >= 0.9
    assert found.any(1).mean() >= 0.97


def test_a_folder_of_other_dimensions_loads_by_the_same_path(other: Path, bundled: encoder.Encoder) -> None:
    model = encoder.load(str(other))
    assert (model.dimensions, model.image_size) == (48, 64)
    assert model.frames(pictures(2, 64, 64)).shape == (2, 48)
    assert model.texts(["a dog"]).shape == (1, 48)
    assert model.fingerprint != bundled.fingerprint


def test_the_fingerprint_follows_from_the_files(other: Path) -> None:
    assert encoder.load(str(other)).fingerprint == encoder.load(str(other)).fingerprint


def test_the_digest_of_its_files_stands_for_a_model_that_has_a_folder(other: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(other, tmp_path / "copy"))
    assert encoder.digest(str(other)) == encoder.digest(str(copy)) != ""
    (copy / "open_clip_config.json").write_text("{}", encoding="utf-8")
    assert encoder.digest(str(copy)) != encoder.digest(str(other))
    assert encoder.digest("ViT-B-32/laion2b_s34b_b79k") == ""


@pytest.mark.parametrize(
    "name",
    [
        "",
        "no-such-model",
        "/no/such/folder",
        "./nothing",
        "hf-hub:nobody/nothing",
        "ViT-B-32",
        "ViT-B-32/no-such-tag",
    ],
)
def test_a_missing_model_is_one_clear_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "_reachable", lambda _url: False)
    with pytest.raises(Rejected) as refused:
        encoder.load(name)
    line = str(refused.value)
    assert "\n" not in line
    assert refused.value.hint


def test_weights_that_are_not_here_and_cannot_be_fetched_are_rejected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoder, "_reachable", lambda _url: False)
    with pytest.raises(Rejected, match="not on this machine"):
        encoder.load("ViT-B-32/laion2b_s34b_b79k")


def test_a_broken_folder_says_which(other: Path, tmp_path: Path) -> None:
    for file in other.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(Rejected, match=str(tmp_path)):
        encoder.load(str(tmp_path))


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder.MODELS / "pixr-emoji", tmp_path / "other"))
    config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))
    config["model_cfg"]["embed_dim"] += 8
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(Rejected, match="does not load"):
        encoder.load(str(folder))
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(Rejected, match="does not load"):
        encoder.load(str(folder))


def test_a_machine_in_trouble_is_no_fault_of_the_model() -> None:
    """A process that may open no more files, and one that gets no more memory."""
    script = """
import resource, sys
import open_clip, safetensors, torch
from cluster.errors import Temporary
from pipelines.models import encoder
kind, most = sys.argv[1:]
encoder.load("pixr-emoji")
held = []
if kind == "files":
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    try:
        while True:
            held.append(open("/dev/null"))
    except OSError:
        pass
else:
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + int(most), size + int(most)))
try:
    encoder.load("pixr-emoji")
except Temporary as error:
    held.clear()
    print("temporary", error)
"""

    def run(trouble: tuple[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", script, *trouble], capture_output=True, text=True, check=False)

    with ThreadPoolExecutor() as side_by_side:
        for done in side_by_side.map(run, (("files", "0"), ("memory", "4000000"))):
            assert done.stdout.startswith("temporary"), (done.args[3:], done.stdout, done.stderr[-2000:])


def test_the_bundled_model_touches_no_network() -> None:
    script = """
import os, sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        print("network touched:", event, arguments, file=sys.stderr)
        os._exit(3)
sys.addaudithook(refuse)
import numpy as np
from pipelines.models import encoder
model = encoder.load("pixr-emoji")
model.texts(["a dog"]); model.frames(np.zeros((1, 96, 96, 3), np.uint8))
print("quiet", flush=True)
encoder._reachable("https://127.0.0.1")  # the hook does see what touches the network
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "quiet", ran.stderr[-500:]
    assert ran.returncode == 3
    assert "127.0.0.1" in ran.stderr


def test_importing_the_encoder_loads_no_torch() -> None:
    script = "import sys; from pipelines.models import encoder; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


@pytest.mark.parametrize(("height", "width"), [(96, 96), (270, 480), (640, 360), (50, 80)])
def test_frames_see_what_the_models_own_preparation_sees(bundled: encoder.Encoder, height: int, width: int) -> None:
    import open_clip
    import torch

    model, prepare = open_clip.create_model_from_pretrained(f"local-dir:{encoder.MODELS / BUNDLED}")
    frames = pictures(4, height, width)
    with torch.inference_mode():
        theirs = model.eval().encode_image(torch.stack([prepare(Image.fromarray(f)) for f in frames]), normalize=True)
    assert (bundled.frames(frames) * theirs.numpy()).sum(1).min() >= 0.999


@pytest.mark.parametrize("fit", ["shortest", "longest"])
def test_other_fits_agree_with_their_own_preparation_too(other: Path, tmp_path: Path, fit: str) -> None:
    import open_clip
    import torch

    for file in other.iterdir():
        text = file.read_bytes()
        (tmp_path / file.name).write_bytes(text.replace(b'"squash"', f'"{fit}"'.encode()))
    ours = encoder.load(str(tmp_path))
    model, prepare = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")
    frames = pictures(2, 120, 201)
    with torch.inference_mode():
        theirs = model.eval().encode_image(torch.stack([prepare(Image.fromarray(f)) for f in frames]), normalize=True)
    assert ours.fit == fit
    assert (ours.frames(frames) * theirs.numpy()).sum(1).min() >= 0.999


def test_neighbours_in_a_batch_change_nothing(bundled: encoder.Encoder) -> None:
    frames = pictures(40, 96, 96)
    assert np.array_equal(bundled.frames(frames)[35:38], bundled.frames(frames[35:38]))


def test_a_large_model_answers_in_bf16_as_in_float32_or_stays_in_float32(
    other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = encoder.load(str(other))
    monkeypatch.setattr(encoder, "BF16_PARAMETERS_MIN", 0)
    fast = encoder.load(str(other))
    frames = pictures(40, 64, 64)
    assert not exact.bf16
    assert (exact.frames(frames) * fast.frames(frames)).sum(1).min() >= encoder.AGREEMENT_MIN


class Small:
    """An image tower on a device whose memory holds so many frames."""

    def __init__(self, model: encoder.Encoder, frames_max: int) -> None:
        self._tower, self._frames_max = model._image_tower, frames_max

    def __call__(self, pixels: Any) -> Any:
        import torch

        if len(pixels) > self._frames_max:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self._tower(pixels)


def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    bundled: encoder.Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    model, frames = encoder.load(BUNDLED), pictures(40, 64, 64)
    monkeypatch.setattr(model, "_image_tower", Small(model, 10))
    assert (bundled.frames(frames) * model.frames(frames)).sum(1).min() >= encoder.AGREEMENT_MIN
    assert model.batch_frames == 8
    monkeypatch.setattr(model, "_image_tower", Small(model, 0))
    with pytest.raises(torch.OutOfMemoryError):
        model.frames(frames)


@pytest.mark.slow
def test_a_compiled_tower_gives_the_same_vectors(other: Path) -> None:
    plain, compiled = encoder.load(str(other)), encoder.load(str(other), compiled=True)
    frames = pictures(40, 64, 64)
    assert (plain.frames(frames) * compiled.frames(frames)).sum(1).min() >= 0.9999


@pytest.mark.gpu
def test_a_gpu_gives_the_vectors_of_the_cpu(bundled: encoder.Encoder) -> None:
    fast, frames = encoder.load(BUNDLED, device="cuda"), pictures(40, 96, 96)
    assert (bundled.frames(frames) * fast.frames(frames)).sum(1).min() >= encoder.AGREEMENT_MIN
    assert (bundled.texts(["a dog"]) * fast.texts(["a dog"])).sum() >= encoder.AGREEMENT_MIN


def test_images_of_any_mode_and_size_are_encoded(bundled: encoder.Encoder) -> None:
    images = [Image.new("L", (30, 200)), Image.new("RGBA", (500, 20)), Image.new("P", (1, 1))]
    assert bundled.images(images).shape == (3, 256)


def test_cutting_the_text_tower_at_the_end_of_the_text_changes_nothing(bundled: encoder.Encoder) -> None:
    import torch

    texts = ["dog", "a dog, an apple and a rocket in a forest at night", "word " * 60]
    with torch.inference_mode():
        whole = bundled._model.encode_text(bundled._tokenizer(texts), normalize=True).numpy()
    assert np.allclose(bundled.texts(texts), whole, atol=1e-5)


@pytest.mark.parametrize("which", ["bundled", "other"])
def test_folding_the_normalisations_changes_nothing(which: str, request: pytest.FixtureRequest) -> None:
    import open_clip
    import torch

    folder = encoder.MODELS / BUNDLED if which == "bundled" else request.getfixturevalue("other")
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    pixels = torch.randn(4, 3, *model.visual.image_size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        before = model.eval().encode_image(pixels)
        assert towers.fold(model.visual) > 10
        assert torch.allclose(model.encode_image(pixels), before, rtol=1e-3, atol=1e-4)


def test_the_tokenizer_is_small_and_ends_every_text(bundled: encoder.Encoder) -> None:
    ids = bundled._tokenizer(["a dog", "", "zyx qqq \N{DOG FACE}", "long " * 100])
    assert ids.shape == (4, shape.CONTEXT)
    assert bool((ids == 1).any(dim=1).all())
    assert len(bundled._tokenizer.tokenizer) <= tokens.VOCABULARY_MAX


@pytest.mark.parametrize("asked_by_text", [True, False])
def test_relevance_is_monotone_and_within_bounds(bundled: encoder.Encoder, asked_by_text: bool) -> None:
    for ppm in (bundled.relevance_ppm, general().ppm):
        values = ppm(np.linspace(-1, 1, 501), asked_by_text=asked_by_text)
        assert values.dtype == np.int64
        assert values.min() >= 0
        assert values.max() <= 1_000_000
        assert bool((np.diff(values) >= 0).all())
        assert values[-1] > 900_000 > 100_000 > values[0]


def test_a_model_folder_without_a_calibration_gets_the_general_one(other: Path) -> None:
    assert Calibration.of(other) == Calibration.of(None) == general()
    assert Calibration.of(encoder.MODELS / BUNDLED) != general()


def test_a_picture_needs_more_likeness_than_a_text_for_the_same_relevance() -> None:
    for calibration in (Calibration.of(encoder.MODELS / BUNDLED), general()):
        cosines = np.linspace(0, 1, 1001)
        half = [int(np.argmax(curve.ppm(cosines) >= 500_000)) for curve in (calibration.texts, calibration.pictures)]
        assert half[0] < half[1]


@pytest.mark.parametrize(
    ("cosines", "ppm"),
    [
        ((0.1,), (5,)),
        ((0.1, 0.1), (0, 1)),
        ((0.1, 0.2), (5, 4)),
        ((0.1, 0.2), (0, 1_000_001)),
        ((0.1, 0.2), (0,)),
    ],
)
def test_a_calibration_that_is_none_is_refused(cosines: tuple[float, ...], ppm: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="calibration"):
        Curve(cosines, ppm)
