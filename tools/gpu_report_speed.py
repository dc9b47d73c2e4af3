"""How fast this device trains, samples and captions, beside the stock diffusers path."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_step import CAPTIONS, RandomTiles
from gpu_report_models import base_model

from hpc.errors import HpcError
from hpc.job.checkpoint import CheckpointStore
from hpc.job.stop import StopRequest

Tell = Callable[..., None]


@dataclass(frozen=True)
class TrainSpeed:
    """What is measured of one shape."""

    px: int
    micro_batch: int
    steps: int
    warmup: int
    sides: Mapping[str, Mapping[str, Any]]
    """Side -> settings of the training."""


_GPU = torch.cuda.is_available()
_BF16: dict[str, Any] = {"precision": "bf16", "zero_stage": 1}
_CACHED: dict[str, Any] = {**_BF16, "cache_latents": True}
_LOOSE: dict[str, Any] = {**_CACHED, "deterministic": False}
_PUBLISHED = {
    "sd15": TrainSpeed(512, 32, 8, 5, {
        "as shipped": {**_BF16, "micro_batch": 2, "gradient_checkpointing": True},
        "latents cached": _CACHED,
        "not deterministic": _LOOSE,
        "channels last": {**_LOOSE, "channels_last": True},
        "compiled": {**_LOOSE, "compile": True},
    }),
    "sdxl": TrainSpeed(1024, 4, 6, 3, {
        "latents cached": _LOOSE,
        "checkpointed": {**_LOOSE, "gradient_checkpointing": True},
    }),
}  # fmt: skip
_TINY = TrainSpeed(32, 2, 2, 1, {"latents cached": _CACHED})


def train_speed(shape: str) -> Callable[[str, Path, Tell], None]:
    """The phase that measures the training of a shape."""

    def phase(size: str, folder: Path, tell: Tell) -> None:
        """Stock first, then each side of ours, and one profile."""
        asked = _TINY if size == "tiny" else _PUBLISHED[shape]
        base = base_model(size, shape, folder)
        with _told(tell, side="stock", shape=shape):
            _tell_stock(asked, base, tell, shape)
        for name, settings in asked.sides.items():
            with _told(tell, side=name, shape=shape):
                _tell_ours(
                    asked, base, folder / name.replace(" ", "-"), settings, tell, (shape, name)
                )

    return phase


@contextmanager
def _told(tell: Tell, **facts: Any) -> Iterator[None]:
    """Write what a side refuses, or why it does not fit, and go on with the next."""
    _reset_memory()
    try:
        yield
    except (HpcError, torch.OutOfMemoryError) as error:
        tell(**facts, refused=f"{type(error).__name__}: {str(error)[:300]}")


def _tell_stock(asked: TrainSpeed, base: Path, tell: Tell, shape: str) -> None:
    from stock_recipe import stock_steps

    sizes = {"global_batch": asked.micro_batch, "micro_batch": asked.micro_batch}
    counts = {"steps": asked.steps, "warmup": asked.warmup, "samples": 2 * asked.micro_batch}
    arguments = argparse.Namespace(threads=1, precision="bf16", bundle=base, **sizes, **counts)
    found = stock_steps(arguments)
    step = statistics.median(found["seconds"])
    tell(
        result="training", shape=shape, side="stock", micro_batch=asked.micro_batch,
        images_per_s=asked.micro_batch / step, step_s=step, memory_gb=found["memory_gb"],
    )  # fmt: skip


def _tell_ours(
    asked: TrainSpeed,
    base: Path,
    folder: Path,
    settings: Mapping[str, Any],
    tell: Tell,
    names: tuple[str, str],
) -> None:
    from sarhpc.training.config import TrainConfig
    from sarhpc.training.context import TrainContext
    from sarhpc.training.denoising.task import train
    from sarhpc.training.metrics.log import PARTS, read_rows
    from sarhpc.training.ranks import join

    micro = int(settings.get("micro_batch", asked.micro_batch))
    cfg = TrainConfig(**{
        "global_batch": asked.micro_batch, "micro_batch": micro, "epochs": 10**6,
        # One row at the end of the warm-up, one at the end: no clock is read between them.
        "max_steps": 2 * asked.steps, "log_every_steps": asked.steps,
        "ema_decay": 0.0, "validation_every_steps": 0,
        "checkpoint_every_s": float("inf"), **settings,
    })  # fmt: skip
    ranks = join(1, deterministic=cfg.deterministic, seed=0)
    torch.use_deterministic_algorithms(cfg.deterministic, warn_only=True)
    ctx = TrainContext(folder, _NoCheckpoints(folder, ranks, 1), StopRequest(ranks))
    began = time.perf_counter()
    train(cfg, base, RandomTiles(2 * asked.micro_batch, asked.px), ranks, ctx)
    first, row = read_rows(folder / "metrics.jsonl")
    step = (row["time"] - first["time"]) / asked.steps
    flops = row["tflops"] * row["step_s"]
    tell(
        result="training", shape=names[0], side=names[1], settings=dict(settings),
        micro_batch=micro,
        images_per_s=cfg.global_batch / step, step_s=step, memory_gb=row["memory_gb"],
        tflops=flops / step, loss=row["loss"],
        mfu=row["mfu"] * row["step_s"] / step if "mfu" in row else None,
        parts={part: row[f"{part}_s"] for part in PARTS}, with_start_s=time.perf_counter() - began,
    )  # fmt: skip


class _NoCheckpoints(CheckpointStore):
    """Nothing is saved: gigabytes on a disk say nothing about the GPU."""

    def begin(self, step: int, write: Any, state: Any) -> None:
        """Write nothing."""

    def finish(self, timeout_s: float = 0.0) -> Path | None:
        """Nothing is whole."""
        return None


def _reset_memory() -> None:
    if _GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def generate_speed(shape: str) -> Callable[[str, Path, Tell], None]:
    """The phase that measures the images per second of a shape."""

    def phase(size: str, folder: Path, tell: Tell) -> None:
        """Stock, then our sampler by batch and scheduler."""
        from sarhpc.generation.config import GenerateConfig

        base = base_model(size, shape, folder)
        dtype = "bfloat16" if _GPU else "float32"
        steps = 2 if size == "tiny" else 20
        batches = (2,) if size == "tiny" else ((4, 16, 32) if shape == "sd15" else (2, 8))
        cfg = GenerateConfig(steps=steps, batch=batches[0], dtype=dtype)
        with _told(tell, side="stock", shape=shape):
            _tell_images(tell, shape, "stock", cfg, _stock_images(base, cfg))
        for batch in batches:
            for scheduler in ("ddim", "euler") if batch == batches[-1] else ("ddim",):
                cfg = GenerateConfig(steps=steps, batch=batch, dtype=dtype, scheduler=scheduler)
                with _told(tell, side="ours", batch=batch):
                    _tell_images(tell, shape, "ours", cfg, _our_images(base, cfg))

    return phase


def _tell_images(tell: Tell, shape: str, side: str, cfg: Any, sample: Callable[[], Any]) -> None:
    sample()
    began = time.perf_counter()
    images = sample()
    took = time.perf_counter() - began
    tell(
        result="generation", shape=shape, side=side, batch=cfg.batch, steps=cfg.steps,
        scheduler=cfg.scheduler, dtype=cfg.dtype, images_per_s=len(images) / took,
        memory_gb=torch.cuda.max_memory_allocated() / 1e9 if _GPU else None,
        finite=bool(np.isfinite(images).all()),
    )  # fmt: skip


def _stock_images(base: Path, cfg: Any) -> Callable[[], Any]:
    import diffusers

    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        str(base), dtype=getattr(torch, cfg.dtype), local_files_only=True
    ).to("cuda" if _GPU else "cpu")
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)

    def images() -> Any:
        """A batch of the stock pipeline."""
        return pipeline(
            [CAPTIONS[n % 2] for n in range(cfg.batch)],
            num_inference_steps=cfg.steps,
            guidance_scale=cfg.guidance,
            generator=[torch.Generator().manual_seed(n) for n in range(cfg.batch)],
            output_type="np",
        ).images

    return images


def _our_images(base: Path, cfg: Any) -> Callable[[], Any]:
    from sarhpc.generation.embeddings import TextEmbeddings
    from sarhpc.generation.model import load_pipeline
    from sarhpc.generation.plan import ImageRequest
    from sarhpc.generation.sampler import sample_images

    pipeline = load_pipeline(base, cfg)
    embeddings = TextEmbeddings(pipeline, cfg.batch)
    requests = [ImageRequest(n, CAPTIONS[n % 2], n) for n in range(cfg.batch)]
    return lambda: sample_images(
        pipeline, requests, cfg, cfg.batch, cfg.threads, embeddings=embeddings
    )


def caption_speed(size: str, folder: Path, tell: Tell) -> None:
    """Captions per second of the embedded BLIP, and with published sizes of BLIP-base's shape."""
    from transformers import BlipConfig, BlipForConditionalGeneration

    from sarhpc.captioning.captioners.blip import load_blip
    from sarhpc.captioning.captioners.writer import WritingCaptioner

    device = "cuda" if _GPU else "cpu"
    blip = load_blip(Path(__file__).resolve().parents[1] / "sarhpc" / "embedded" / "blip", device)
    batch = 2 if size == "tiny" else 64
    drawn = [
        np.random.default_rng(n).integers(0, 255, (128, 128, 3), np.uint8) for n in range(batch)
    ]
    captioner = WritingCaptioner(blip, batch=batch, max_tokens=20)
    captioner.caption(drawn)
    began = time.perf_counter()
    captioner.caption(drawn)
    tell(
        result="captions",
        model="embedded",
        batch=batch,
        per_s=batch / (time.perf_counter() - began),
    )
    if size == "tiny":
        return
    with torch.device(device):
        model = BlipForConditionalGeneration(BlipConfig()).to(blip.model.dtype).eval()
    pixels = torch.randn(batch, 3, 384, 384, device=device, dtype=blip.model.dtype)
    for _ in range(2):
        began = time.perf_counter()
        model.generate(pixel_values=pixels, max_new_tokens=20, min_new_tokens=20, num_beams=3)
        torch.cuda.synchronize()
    tell(result="captions", model="BLIP-base shape, 384 px", batch=batch,
         per_s=batch / (time.perf_counter() - began))  # fmt: skip


SPEED: Mapping[str, Callable[[str, Path, Tell], None]] = {
    "train-sd15": train_speed("sd15"),
    "train-sdxl": train_speed("sdxl"),
    "generate-sd15": generate_speed("sd15"),
    "generate-sdxl": generate_speed("sdxl"),
    "captions": caption_speed,
}
