"""The autoencoder stage: train, track the floor, publish the best model with its report."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from PIL import Image

from hpc.errors import DataError
from hpc.publish import publish_bytes, publish_json, publishing_directory
from sarhpc.diffusion.autoencoder import (
    Log,
    TrainingState,
    reconstruct,
    set_scaling_factor,
    train_autoencoder,
)
from sarhpc.diffusion.config import AutoencoderConfig
from sarhpc.diffusion.crops import SarCrops, TilePool, as_gray8, as_input, as_rgb8
from sarhpc.measures import autoencoder_fidelity as fidelity

Tile = NDArray[np.uint8]

CROPS = 32
"""Held-out crops of each kind that the report is computed on."""


def run_autoencoder(
    cfg: AutoencoderConfig,
    pool: TilePool,
    held_out: TilePool,
    folder: Path,
    *,
    log: Log = print,
    until: int | None = None,
) -> Path:
    """Train on `pool` and return `folder/vae`, the best model by its floor on `held_out`.

    If the encoder is frozen from some step on, only models after that step are considered, so that
    all published ones share their latents. `vae/report.json` holds the floor, and under `nulls` how
    its distances stand in those between real crops of different images. `folder` keeps the
    checkpoint and a panel of reconstructions for each. Called again, it resumes.

    Raises:
        NumericalError: the loss is not finite.
        DataError: the checkpoint is damaged, an image is smaller than a crop, or no checkpoint
            reconstructs the crops.
    """
    optical, drawn = held_out.fixed(CROPS, cfg.final_crop_px)
    sar = drawn.crops
    best = Best(folder)

    def observe(state: TrainingState) -> dict[str, Any]:
        """The floor of the averaged weights; publishes a panel of their reconstructions."""
        model = state.average
        originals, decoded = _round_trip(model, [*optical, *sar])
        numbers = assess(originals, decoded)
        numbers["scaling_factor"] = set_scaling_factor(model, _inputs([*optical, *sar]))
        publish_bytes(folder / f"panel_{state.step:06d}.png", panel(originals, decoded))
        final = cfg.encoder_steps is None or state.step > cfg.encoder_steps
        if final and best.improved_by(numbers):
            nulls = _nulls(drawn, decoded[len(optical) :])
            report = {**numbers, "nulls": nulls, "step": state.step, "crops": CROPS}
            _publish(folder / "vae", model, {**report, "config": asdict(cfg)})
        return {key: value for key, value in numbers.items() if isinstance(value, float)}

    train_autoencoder(cfg, pool, folder, log=log, until=until, observe=observe)
    if until is None and not (folder / "vae").is_dir():
        raise DataError(
            f"no checkpoint in {folder} can be published: each has a constant reconstruction of a "
            "SAR crop, or still trains the encoder; train for more steps, and see the panels there"
        )
    return folder / "vae"


def _nulls(drawn: SarCrops, decoded: Sequence[Tile]) -> dict[str, dict[str, Any]]:
    """How the reconstructions of the crops that are not constant stand in the nulls."""
    rows = zip(drawn.crops, decoded, drawn.sources, strict=True)
    held = [row for row in rows if row[0].min() < row[0].max()]
    real, fake, sources = zip(*held, strict=True)
    return fidelity.against_nulls(real, fake, sources)


class Best:
    """The best score so far, restored after a restart from the report published with it."""

    def __init__(self, folder: Path) -> None:
        self.score = math.inf
        report = folder / "vae" / "report.json"
        if report.is_file():
            self.score = float(json.loads(report.read_text())["score"])

    def improved_by(self, numbers: dict[str, Any]) -> bool:
        """Whether these numbers are the best; if so, they are recorded."""
        better = math.isfinite(numbers["score"]) and bool(numbers["score"] <= self.score)
        if better:
            self.score = numbers["score"]
        return better


def _inputs(tiles: Sequence[Tile]) -> torch.Tensor:
    return torch.stack([as_input(tile) for tile in tiles])


def _round_trip(model: AutoencoderKL, tiles: Sequence[Tile]) -> tuple[list[Tile], list[Tile]]:
    """The tiles and their reconstructions in 8 bits; gray tiles stay gray."""
    decoded = [
        reconstruct(model, _inputs(tiles[at : at + 8]), at) for at in range(0, len(tiles), 8)
    ]
    images = torch.cat(decoded)
    pairs = zip(tiles, images, strict=True)
    back = [as_gray8(image) if tile.ndim == 2 else as_rgb8(image) for tile, image in pairs]
    return list(tiles), back


def assess(originals: Sequence[Tile], decoded: Sequence[Tile]) -> dict[str, Any]:
    """The floor on SAR tiles, `optical_l1` in codes of 255, and one `score` to rank checkpoints.

    The score adds the distances, each in units of a difference that is just visible to an expert:
    2 dB of LSD, 0.5 dB of W1, 0.05 of autocorrelation, a tenth of the ENL, 10 codes of optical. It
    is infinite, and the floor is missing, where a reconstruction is constant.
    """
    pairs = list(zip(originals, decoded, strict=True))
    # Constant crops, as of calm water, have no speckle to compare.
    sar = [pair for pair in pairs if pair[0].ndim == 2 and pair[0].min() < pair[0].max()]
    optical = [pair for pair in pairs if pair[0].ndim == 3]
    optical_l1 = float(np.mean([np.abs(a.astype(np.int16) - b).mean() for a, b in optical]))
    real, fake = [a for a, _ in sar], [b for _, b in sar]
    if any(tile.min() == tile.max() for tile in fake):
        # Early in a training a reconstruction may have one code only.
        return {"optical_l1": optical_l1, "score": math.inf}
    numbers: dict[str, Any] = {**fidelity.compare(real, fake), "optical_l1": optical_l1}
    acf = max(numbers["acf_azimuth_difference"], numbers["acf_range_difference"])
    enl = abs(math.log(numbers["enl_mode"] / numbers["enl_mode_real"]))
    numbers["score"] = (
        numbers["lsd_db"] / 2
        + numbers["histogram_w1_db"] / 0.5
        + acf / 0.05
        + enl / 0.1
        + numbers["optical_l1"] / 10
    )
    return numbers


def panel(originals: Sequence[Tile], decoded: Sequence[Tile], columns: int = 8) -> bytes:
    """PNG of four rows: optical tiles, their reconstructions, SAR tiles, their reconstructions."""
    rows = []
    for channels in (3, 2):
        of_kind = [k for k, tile in enumerate(originals) if tile.ndim == channels][:columns]
        rows += [[tiles[k] for k in of_kind] for tiles in (originals, decoded)]
    strips = [np.concatenate([_rgb(tile) for tile in row], axis=1) for row in rows]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(strips, axis=0)).save(buffer, format="PNG")
    return buffer.getvalue()


def _rgb(tile: Tile) -> Tile:
    return np.repeat(tile[..., None], 3, axis=2) if tile.ndim == 2 else np.asarray(tile)


def _publish(target: Path, model: AutoencoderKL, report: dict[str, Any]) -> None:
    """Publish the model as a diffusers folder that includes its report."""
    with publishing_directory(target) as staging:
        model.save_pretrained(staging, safe_serialization=True)
        publish_json(staging / "report.json", report)
        for weights in staging.glob("*.safetensors"):
            weights.chmod(0o644)
