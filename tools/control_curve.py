"""How well images follow their sketch over the training of a ControlNet, as a table.

    python tools/control_curve.py RUN [--images 48] [--steps 0 250 1000]

For each checkpoint that RUN kept: 1 - AUC of the edges (`tiling.pairs.edge_fidelity`) of images
that the drawn edges of held-out tiles steer, evenly over these tiles and with their captions, and
the 95 % interval of its mean over images. Beside it the same images by the edges of other tiles, in
which nothing can be found, and the gain: the mean difference with its interval, paired by image.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HALF_WIDTH = 1.96


def main() -> None:
    """Print the table of one run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=48, help="held-out tiles that steer")
    parser.add_argument("--steps", type=int, nargs="*", help="checkpoints; all that were kept")
    parser.add_argument("--guidance", type=float, help="instead of generate.guidance")
    parser.add_argument("--scale", type=float, help="instead of generate.steer.scale")
    args = parser.parse_args()
    print(
        "| images | 1 - AUC | by the edges of other tiles | gain |\n|---|---|---|---|", flush=True
    )
    for name, images, layers in image_sets(args):
        print(row(name, images, layers), flush=True)


def row(name: str, images: NDArray[np.uint8], layers: NDArray[np.uint8]) -> str:
    """A line of the table: the mean of each measure over images, with its interval."""
    from sarhpc.tiling.pairs.edge_fidelity import misplaced_edges

    def measured(of: NDArray[np.uint8]) -> NDArray[np.float64]:
        """1 - AUC of each image by the layer at its place."""
        return np.array([misplaced_edges(*pair) for pair in zip(images, of, strict=True)])

    # Half-way round: neighbours in order may overlap in their scene.
    own, other = measured(layers), measured(np.roll(layers, len(layers) // 2, axis=0))
    cells = [interval(values) for values in (own, other, other - own)]
    return f"| {name} | {' | '.join(cells)} |"


def interval(values: NDArray[np.float64]) -> str:
    """Mean and its 95 % interval."""
    found = values[np.isfinite(values)]
    half = HALF_WIDTH * found.std(ddof=1) / len(found) ** 0.5
    return f"{found.mean():.3f} ({found.mean() - half:.3f} to {found.mean() + half:.3f})"


def image_sets(
    args: argparse.Namespace,
) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
    """Name, images and layers of each line, all (N, H, W)."""
    from hpc.store.rundir import open_run
    from sarhpc.shards.samples import ShardedSamples
    from sarhpc.stages.inputs.paths import model_folder
    from sarhpc.stages.inputs.prompts import held_out_splits, sample_shards
    from sarhpc.stages.run_config import load_run_config
    from sarhpc.training.checkpoints.checkpointing import read_weights
    from sarhpc.training.denoising.start import load_base
    from sarhpc.training.export import with_weights

    run = open_run(args.run)
    config = load_run_config(run)
    held_out = ShardedSamples(sample_shards(run, held_out_splits(run, config.evaluate.real_splits)))
    numbers = [int(n) for n in np.linspace(0, len(held_out) - 1, args.images)]
    layers = np.stack([grey(held_out, n, "edges.png") for n in numbers])
    yield "real tiles", np.stack([grey(held_out, n, "sar.png") for n in numbers]), layers
    base = load_base(config.train, Path(model_folder(config.train.base_model)))
    yield "reconstructed by the autoencoder", reconstructed(base, held_out, numbers), layers
    yield "after 0 steps", steered(args, config, base, held_out, numbers), layers
    for step, folder in kept(run.stage("train")):
        if args.steps and step not in args.steps:
            continue
        weights = read_weights(folder, average=config.train.ema_decay > 0)
        images = steered(args, config, with_weights(base, weights), held_out, numbers)
        yield f"after {step} steps", images, layers


def kept(train: Path) -> list[tuple[int, Path]]:
    """Checkpoints that a training kept, by step."""
    found = [f for f in train.rglob("step_*") if f.is_dir() and f.name[5:].isdigit()]
    return sorted((int(folder.name[5:]), folder) for folder in found)


def grey(tiles: Any, number: int, member: str) -> NDArray[np.uint8]:
    """A grey member of a tile (H, W)."""
    image, _ = tiles.load(number, member, None)
    return np.asarray(np.rint((image[..., 0] + 1) * 127.5), np.uint8)


def reconstructed(base: Any, tiles: Any, numbers: list[int]) -> NDArray[np.uint8]:
    """The tiles encoded and decoded: no image of this model can be closer to its layer."""
    import torch

    images = []
    with torch.no_grad():
        for number in numbers:
            tile = torch.from_numpy(tiles.load(number, "sar.png", None)[0]).permute(2, 0, 1)[None]
            decoded = base.vae.decode(base.vae.encode(tile).latent_dist.mean).sample
            images.append(decoded[0].mean(0).clamp(-1, 1).numpy())
    return np.asarray(np.rint((np.stack(images) + 1) * 127.5), np.uint8)


def steered(
    args: argparse.Namespace, config: Any, bundle: Any, tiles: Any, numbers: list[int]
) -> NDArray[np.uint8]:
    """Images (N, H, W) of the captions of tiles, steered by their edges."""
    from dataclasses import replace

    from diffusers import DDIMScheduler

    from sarhpc.generation.plan import ImageRequest
    from sarhpc.generation.sampler import sample_images
    from sarhpc.generation.steering import SteeringLayer

    steer = config.generate.steer
    scale = steer.scale if args.scale is None else args.scale
    cfg = replace(config.generate, steer=replace(steer, scale=scale))
    cfg = cfg if args.guidance is None else replace(cfg, guidance=args.guidance)
    for model in bundle.models.values():
        model.eval()
    pipeline = bundle.pipeline()
    pipeline.scheduler = DDIMScheduler.from_config(bundle.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    images = []
    for start in range(0, len(numbers), cfg.batch):
        part = numbers[start : start + cfg.batch]
        asked = [ImageRequest(n, tiles.load(n, "sar.png")[1], seed=n) for n in part]
        loaded = [(tiles.load(n, "edges.png", None)[0] + 1) / 2 for n in part]
        steers = [SteeringLayer(layer, str(n), "") for n, layer in zip(part, loaded, strict=True)]
        images.append(sample_images(pipeline, asked, cfg, cfg.batch, threads=1, steers=steers))
    return np.asarray(np.rint(np.concatenate(images).mean(axis=3) * 255), np.uint8)


if __name__ == "__main__":
    main()
