"""Training steps of the denoiser on the pretended GPU, validation grids and stored latents."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from device import CUDA, counted
from loading import bundle, work_folder
from numpy.typing import NDArray
from tiny_bundle import CAPTIONS
from torch.utils._python_dispatch import _disable_current_modes

import sarhpc.training.stepper as stepper_module
from hpc.job.agreement import SingleProcess
from sarhpc.diffusion.config import AdapterConfig, ControlConfig, TokenConfig
from sarhpc.training.checkpoints.partition import Partition
from sarhpc.training.config import TrainConfig
from sarhpc.training.denoising import grids, validation
from sarhpc.training.denoising.data import TileBatch
from sarhpc.training.denoising.task import DenoisingTask
from sarhpc.training.stepper import Stepper, reduce_losses

PX = 32
MICRO_BATCHES = 2


@dataclasses.dataclass(frozen=True)
class OneGpu(SingleProcess):
    """A process alone with the pretended GPU."""

    @property
    def device(self) -> torch.device:
        """The GPU."""
        return CUDA


class StubEngine:
    """In place of DeepSpeed, which moves `.data` about: forward, backward, and no update."""

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.module, self.optimizer = model, optimizer

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        return self.module(*inputs, **named)

    def backward(self, loss: torch.Tensor) -> None:
        """Leave gradients."""
        loss.backward()

    def step(self) -> None:
        """Do nothing."""

    def zero_grad(self) -> None:
        """Do nothing."""

    def get_global_grad_norm(self) -> float:
        """DeepSpeed reads it once a step, where it decides about the update."""
        return 1.0


def stub_engine(
    cfg: Any, model: torch.nn.Module, optimizer: Any, _full: object, _ranks: object, _passes: int
) -> tuple[StubEngine, Partition]:
    """An engine whose weights have the precision of the training, as DeepSpeed gives them."""
    if cfg.precision == "bf16":
        model.to(torch.bfloat16)
    return StubEngine(model, optimizer), Partition([], (), (), replicated=cfg.zero_stage == 0)


stepper_module.wrap_in_engine = stub_engine
torch.distributed.all_reduce = lambda tensor: None  # of one rank


class Tiles:
    """Random tiles with captions."""

    def __len__(self) -> int:
        return 4

    def load(self, number: int, member: str) -> tuple[NDArray[np.float32], str]:
        """Image and caption."""
        drawn = np.random.default_rng(number).uniform(-1, 1, (PX, PX, 3))
        return drawn.astype(np.float32), CAPTIONS[number]

    def key(self, number: int) -> str:
        """Eleven digits."""
        return f"{number:011d}"


def batch(*, layers: bool = False, moments: bool = False) -> TileBatch:
    """The four tiles, two micro-batches."""
    tiles = Tiles()
    images = np.stack([tiles.load(n, "sar.png")[0].transpose(2, 0, 1) for n in range(4)])
    keys = tuple(tiles.key(n) for n in range(4))
    side = PX // 8
    generator = torch.Generator().manual_seed(0)
    return TileBatch(
        None if moments else torch.from_numpy(images),
        CAPTIONS,
        keys,
        (0,) * 4,
        (False,) * 4,
        torch.rand(4, 3, PX, PX, generator=generator) if layers else None,
        torch.randn(4, 8, side, side, generator=generator) if moments else None,
    )


def train_step(*, xl: bool = False, stored: bool = False, **options: Any) -> dict[str, Any]:
    """Counts of the passes of a step that is not logged, after one that was."""
    cfg = TrainConfig(global_batch=4, micro_batch=2, **options)
    tiles = batch(layers=cfg.control is not None, moments=stored)
    task, stepper = _started(cfg, OneGpu(), xl=xl)
    stepper.forward_backward(task, tiles)
    stepper.clock.exact = False
    with counted() as counts:
        losses = stepper.forward_backward(task, tiles)
    with counted() as after:
        reduced = reduce_losses(losses, False, task._ranks, urgency=3)
        before_update = after.waits
        gradient, _ = stepper.update(by_group=False)
        mean, late, urgency = reduced.read()
    assert (late, urgency) == (False, 3)
    assert mean["loss"] == pytest.approx(losses["loss"].item())
    loss_on_cpu = None
    if cfg.precision == "fp32":  # in bf16 the attention of the two rounds elsewhere
        with _disable_current_modes():
            loss_on_cpu = _loss_on_cpu(cfg, tiles, xl=xl)
    learned = [p for p in task.module.parameters() if p.requires_grad]
    return {
        **counts.as_json(),
        "micro_batches": MICRO_BATCHES,
        "before_update": before_update,
        "after_passes": after.waits,
        "sites_after": after.as_json()["sites"],
        "gradient": gradient,
        "loss": losses["loss"].item(),
        "loss_on_cpu": loss_on_cpu,
        "device": str(losses["loss"].device),
        "without_gradient": sum(p.grad is None for p in learned),
    }


def _started(cfg: TrainConfig, ranks: SingleProcess, *, xl: bool) -> tuple[Any, Stepper]:
    task = DenoisingTask(cfg, bundle(xl=xl), Tiles(), ranks, work_folder() / "train")
    return task, Stepper(task.loop, task, ranks)


def _loss_on_cpu(cfg: TrainConfig, tiles: TileBatch, *, xl: bool) -> float:
    """The loss of the same step by the same code without a GPU."""
    task, stepper = _started(cfg, SingleProcess(), xl=xl)
    return float(stepper.forward_backward(task, tiles)["loss"])


def validate(*, xl: bool) -> dict[str, Any]:
    """A validation grid in the precision of the training."""
    cfg = TrainConfig(
        validation_prompts=list(CAPTIONS[:1]), validation_seeds=[0], validation_steps=2
    )
    base = validation.load_base(cfg, bundle(xl=xl))
    images = grids.planned(cfg, 1, 0)
    folder = work_folder() / f"validation-{xl}"
    with counted() as counts:
        list(validation.sample_images(cfg, base, images, folder, OneGpu(), Tiles()))
    return {**counts.as_json(), "images": len(images), "written": _written(folder)}


def _written(folder: Path) -> int:
    return sum(1 for _ in folder.rglob("*.png"))


def encode() -> dict[str, Any]:
    """Latents of four tiles, also flipped."""
    from sarhpc.diffusion.bundle import load_autoencoder
    from sarhpc.training.denoising.latents import encode_samples

    model = load_autoencoder(bundle(xl=False) / "vae")
    with counted() as counts:
        found = list(encode_samples(Tiles(), model, CUDA, "sar.png", flipped=True))
    return {**counts.as_json(), "samples": len(found)}


def tune_decoder() -> dict[str, Any]:
    """Steps of the decoder's tuning, and its report's reconstructions."""
    from sarhpc.diffusion.bundle import load_autoencoder
    from sarhpc.diffusion.config import DecoderConfig
    from sarhpc.diffusion.decoder import DecoderTuning, reconstructions, tuning_step

    cfg = DecoderConfig(steps=4, batch=2, crop_px=PX)
    state = DecoderTuning.new(cfg, load_autoencoder(bundle(xl=False) / "vae").to(CUDA))
    images = batch().images
    assert images is not None
    tuning_step(state, images, cfg)
    with counted() as counts:
        terms = tuning_step(state, images, cfg)
    crops = [np.full((PX, PX), 100, np.uint8)] * 2
    made = reconstructions(state.model, crops)
    return {**counts.as_json(), "terms": len(terms), "reconstructed": len(made)}


TRAIN_DRIVES: Mapping[str, Callable[[], dict[str, Any]]] = {
    "train sd": lambda: train_step(),
    "train sd fp32": lambda: train_step(precision="fp32", zero_stage=0),
    "train sd cached": lambda: train_step(cache_latents=True),
    "train sd stored latents": lambda: train_step(stored=True),
    "train sd checkpointed channels_last": lambda: train_step(
        gradient_checkpointing=True, channels_last=True, min_snr_gamma=5.0, noise_offset=0.05
    ),
    "train sdxl": lambda: train_step(xl=True),
    "train sdxl fp32": lambda: train_step(xl=True, precision="fp32", zero_stage=0),
    "train sdxl checkpointed": lambda: train_step(xl=True, gradient_checkpointing=True),
    "train sd lora": lambda: train_step(adapter=AdapterConfig()),
    "train sd dylora": lambda: train_step(adapter=AdapterConfig(kind="dylora")),
    "train sd loha": lambda: train_step(adapter=AdapterConfig(kind="loha")),
    "train sd controlnet": lambda: train_step(control=ControlConfig(layer="edges")),
    "train sdxl token": lambda: train_step(
        xl=True, token=TokenConfig(text="<SAR>", initializer="river")
    ),
    "validation sd": lambda: validate(xl=False),
    "validation sdxl": lambda: validate(xl=True),
    "encode": encode,
    "decoder": tune_decoder,
}
