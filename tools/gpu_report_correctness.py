"""Whether trainings, images, captions and latents on this device are those of the CPU."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_step import RandomTiles
from numpy.typing import NDArray

from hpc.errors import ConfigError
from hpc.job.checkpoint import CheckpointStore
from hpc.job.stop import StopReason, StopRequest

STEPS = 6
FP32_TOLERANCE, BF16_TOLERANCE = 2e-3, 3e-2
"""Largest relative distance of a loss from that of the CPU."""
TRAININGS: Mapping[str, dict[str, Any]] = {
    "ZeRO 0 fp32": {"precision": "fp32", "zero_stage": 0},
    "ZeRO 1 fp32": {"precision": "fp32", "zero_stage": 1},
    "ZeRO 2 fp32": {"precision": "fp32", "zero_stage": 2},
    "ZeRO 3 fp32": {"precision": "fp32", "zero_stage": 3},
    "ZeRO 1 bf16": {"precision": "bf16", "zero_stage": 1},
    "ZeRO 2 bf16": {"precision": "bf16", "zero_stage": 2},
    "ZeRO 3 bf16": {"precision": "bf16", "zero_stage": 3},
    "checkpointed fp32": {"precision": "fp32", "zero_stage": 0, "gradient_checkpointing": True},
    "channels last fp32": {"precision": "fp32", "zero_stage": 0, "channels_last": True},
    "compiled bf16": {"precision": "bf16", "zero_stage": 1, "compile": True},
}
_REFERENCES = ("ZeRO 0 fp32",)
_EMBEDDED = Path(__file__).resolve().parents[1] / "sarhpc" / "embedded"

Tell = Callable[..., None]


def tiny_bundle(folder: Path, *, xl: bool = False) -> Path:
    """A diffusers folder with random weights for tiles of 32 px, the same each time."""
    from bench_step import CAPTIONS

    from sarhpc.diffusion.bundle import new_bundle, save_bundle
    from sarhpc.diffusion.config import AutoencoderShape, BundleConfig, TextShape, UNetShape
    from sarhpc.diffusion.tokenizer import train_clip_tokenizer

    target = folder / ("xl" if xl else "sd")
    if (target / "bundle").exists():
        return target / "bundle"
    levels: dict[str, Any] = {"level_heads": [1, 2], "size_embedding": 8} if xl else {}
    second = TextShape(24, layers=2, heads=2, intermediate=32, positions=16, activation="gelu")
    shapes = BundleConfig(
        unet=UNetShape(4, [8, 16], [not xl, xl], attention_heads=2, norm_groups=4, **levels),
        text=TextShape(hidden=16, layers=2, heads=2, intermediate=32, positions=16),
        text_2=second if xl else None,
        vae=AutoencoderShape([4, 4, 8, 8], norm_groups=4, sample_size=32),
    )
    torch.manual_seed(0)
    tokenizer = train_clip_tokenizer(CAPTIONS, 540, target / "tokenizer", max_length=16)
    save_bundle(new_bundle(shapes, tokenizer), target / "bundle")
    return target / "bundle"


def losses(bundle: Path, folder: Path, stop_at: int | None = None, **options: Any) -> list[float]:
    """Loss of each step of a training in `folder`, resumed if it was stopped there before."""
    from sarhpc.training.config import TrainConfig
    from sarhpc.training.context import TrainContext
    from sarhpc.training.denoising.task import train
    from sarhpc.training.metrics.log import read_rows
    from sarhpc.training.ranks import join

    cfg = TrainConfig(
        global_batch=4, micro_batch=2, max_steps=STEPS, epochs=100, warmup_steps=0,
        ema_decay=0.0, validation_every_steps=0, checkpoint_every_s=float("inf"), **options,
    )  # fmt: skip
    ranks = join(1, deterministic=True, seed=0)
    stop = StopRequest(ranks) if stop_at is None else StopAt(stop_at)
    ctx = TrainContext(folder, CheckpointStore(folder / "checkpoints", ranks, 1), stop)
    train(cfg, bundle, RandomTiles(8, 32), ranks, ctx)
    return [row["loss"] for row in read_rows(folder / "metrics.jsonl")]


class StopAt:
    """A request to stop after so many steps, as a signal makes one."""

    def __init__(self, step: int) -> None:
        self._left = step + 1

    def agree(self) -> StopReason | None:
        """The reason, once the steps are done."""
        return self.agreed(self.urgency())

    def agreed(self, urgency: int) -> StopReason | None:
        """The reason of that number."""
        return StopReason(urgency) if urgency else None

    def urgency(self) -> int:
        """The number of the reason; asked before each step ends, and before the first."""
        self._left -= 1
        return StopReason.PREEMPT if self._left <= 0 else 0


def make_reference(folder: Path, tell: Tell) -> None:
    """Losses, images, captions and latents on the CPU, for the next phase."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    torch.cuda.is_available = lambda: False  # type: ignore[assignment]
    found: dict[str, Any] = {}
    for name in _REFERENCES:
        found[name] = losses(tiny_bundle(folder), folder / "reference", **TRAININGS[name])
    found["captions"] = captions("cpu")
    np.save(folder / "images.npy", images(tiny_bundle(folder), "cpu", (0, 1, 2)))
    np.save(folder / "latents.npy", latents(tiny_bundle(folder), "cpu"))
    (folder / "reference.json").write_text(json.dumps(found))
    tell(result="reference", losses=found[_REFERENCES[0]], captions=found["captions"])


def check_against(folder: Path, tell: Tell) -> None:
    """Compare this device with the reference."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    reference = json.loads((folder / "reference.json").read_text())
    expected = np.array(reference["ZeRO 0 fp32"])
    for number, (name, options) in enumerate(TRAININGS.items()):
        try:
            found = np.array(losses(tiny_bundle(folder), folder / f"train-{number}", **options))
        except ConfigError as error:
            tell(check=f"losses, {name}", refused=str(error))
            continue
        apart = float(np.abs(found / expected - 1).max())
        limit = FP32_TOLERANCE if "fp32" in name else BF16_TOLERANCE
        tell(check=f"losses, {name}", holds=apart <= limit, apart=apart, limit=limit)
    check_resume(folder, tell)
    check_images(folder, device, tell)
    same = captions(device) == reference["captions"]
    tell(check="captions", holds=same if device == "cpu" else None, same=same)
    apart = float(
        np.abs(latents(tiny_bundle(folder), device) - np.load(folder / "latents.npy")).max()
    )
    tell(check="latents", holds=apart <= FP32_TOLERANCE, apart=apart)


def check_resume(folder: Path, tell: Tell) -> None:
    """Three steps, a stop, and three more are six, bit for bit."""
    options = TRAININGS["ZeRO 2 bf16"]
    whole = losses(tiny_bundle(folder), folder / "whole", **options)
    stopped = losses(tiny_bundle(folder), folder / "halves", stop_at=3, **options)
    halves = losses(tiny_bundle(folder), folder / "halves", **options)
    tell(check="save on a stop request", holds=len(stopped) == 3, steps=len(stopped))
    tell(check="3 + 3 steps are 6", holds=halves == whole, whole=whole, halves=halves)


def check_images(folder: Path, device: str, tell: Tell) -> None:
    """Images do not depend on their neighbours or on a new start, and are those of the CPU."""
    made = images(tiny_bundle(folder), device, (0, 1, 2))
    swapped = images(tiny_bundle(folder), device, (2, 1, 0))
    tell(check="image under other neighbours", holds=bool(np.array_equal(made, swapped[::-1])))
    again = images(tiny_bundle(folder), device, (0, 1, 2))
    tell(check="image after a new start", holds=bool(np.array_equal(made, again)))
    apart = float(np.abs(made - np.load(folder / "images.npy")).max())
    tell(check="images in fp32", holds=apart <= 1 / 255, apart=apart)
    half = images(tiny_bundle(folder, xl=True), device, (0,), dtype="float16")
    tell(check="SDXL in fp16 is finite", holds=bool(np.isfinite(half).all()))


def images(
    bundle: Path, device: str, order: tuple[int, ...], dtype: str = "float32"
) -> NDArray[np.float32]:
    """Images (N, H, W, 3) of three requests in this order."""
    from bench_step import CAPTIONS

    from sarhpc.generation.config import GenerateConfig
    from sarhpc.generation.model import load_pipeline
    from sarhpc.generation.plan import ImageRequest
    from sarhpc.generation.sampler import sample_images

    cfg = GenerateConfig(steps=3, batch=3, dtype=dtype)
    pipeline = load_pipeline(bundle, cfg, device)
    requests = [ImageRequest(n, CAPTIONS[n % 2], 7 + n) for n in order]
    return sample_images(pipeline, requests, cfg, cfg.batch, 1)


def captions(device: str) -> list[str]:
    """Captions of two random images by the embedded BLIP, in fp32."""
    from sarhpc.captioning.captioners.blip import load_blip
    from sarhpc.captioning.captioners.writer import WritingCaptioner

    captioner = WritingCaptioner(load_blip(_EMBEDDED / "blip", device, "float32"), batch=2)
    drawn = [np.random.default_rng(n).integers(0, 255, (128, 128, 3), np.uint8) for n in range(2)]
    return captioner.caption(drawn)


def latents(bundle: Path, device: str) -> NDArray[np.float32]:
    """Moments of a batch of tiles."""
    from sarhpc.diffusion.bundle import load_autoencoder
    from sarhpc.training.denoising.latents import LatentEncoder

    encoder = LatentEncoder(load_autoencoder(bundle / "vae"), torch.device(device), cache=False)
    tiles = np.stack([RandomTiles(4, 32).load(n, "")[0].transpose(2, 0, 1) for n in range(4)])
    return np.asarray(encoder.encode(torch.from_numpy(tiles)).cpu().numpy())
