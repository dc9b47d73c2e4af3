"""Drawings and what a model with a ControlNet makes of them, in one PNG.

    python tools/sketch_picture.py MODEL docs/pictures/sketches --out docs/pictures/sketch.png

A row for each drawing: the drawing as the layer that the ControlNet reads, an image of its prompt
without it (weight 0), and one with it from the same noise. Prompts are used in turn; grey is in 32
levels, which keeps the file small.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PROMPTS = ("fields of crop and grass", "a lake beside a forest", "a river through a field")
STEP = 8
GAP = 4


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("model", type=Path, help="exported model with a ControlNet for `edges`")
    parser.add_argument("sketch", help=".png, .svg, or a folder of them")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prompts", nargs="*", default=PROMPTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.5, help="weight of the ControlNet")
    parser.add_argument("--token", default="A SAR image of {prompt}")
    args = parser.parse_args()
    save(args.out, rows(args))


def rows(args: argparse.Namespace) -> list[list[NDArray[np.uint8]]]:
    """For each drawing its layer, and an image of its prompt without it and with it."""
    from sarhpc.generation.config import GenerateConfig, SteerConfig
    from sarhpc.generation.controls.drawn import DrawnLayers, drawings
    from sarhpc.generation.model import load_pipeline
    from sarhpc.generation.plan import ImageRequest, within_template
    from sarhpc.generation.sampler import sample_images

    steers = [SteerConfig(sketch=args.sketch, scale=scale) for scale in (0.0, args.scale)]
    settings = [GenerateConfig(steps=25, guidance=1.0, steer=steer) for steer in steers]
    pipeline = load_pipeline(args.model, settings[0])
    side = int(pipeline.unet.config.sample_size) * pipeline.vae_scale_factor
    layers = DrawnLayers(drawings(args.sketch), (side, side))
    found = []
    for number in range(len(layers)):
        steer = layers.load(number)
        prompt = within_template(args.token, args.prompts[number % len(args.prompts)])
        asked = [ImageRequest(0, prompt, seed=args.seed + 100 * number)]
        made = [
            sample_images(pipeline, asked, cfg, 1, threads=1, steers=[steer])[0] for cfg in settings
        ]
        found.append([grey(image) for image in (steer.layer, *made)])
    return found


def grey(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Grey codes (H, W) of an image (H, W, 3) in [0, 1]."""
    return np.asarray(np.rint(image.mean(axis=2) * 255), np.uint8)


def save(path: Path, found: list[list[NDArray[np.uint8]]]) -> None:
    """Write the rows of images as one grey PNG with white gaps."""
    from PIL import Image

    lines = []
    for images in found:
        white = np.full((images[0].shape[0], GAP), 255, np.uint8)
        line = np.concatenate([part for image in images for part in (image, white)][:-1], axis=1)
        lines += [line, np.full((GAP, line.shape[1]), 255, np.uint8)]
    whole = np.concatenate(lines[:-1])
    Image.fromarray(np.minimum(whole // STEP * STEP + STEP // 2, 255).astype(np.uint8)).save(
        path, optimize=True
    )


if __name__ == "__main__":
    main()
