"""A layout of the embedded model under sensors of several resolutions and looks, as a picture.

`python tools/draw_sweep.py docs/pictures/sweep.png` makes the picture of docs/guide/generation.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    from sarhpc.shards.sample import Sample

EMBEDDED = Path(__file__).parents[1] / "sarhpc" / "embedded"
RESOLUTIONS, LOOKS = [0.5, 0.8, 1.3], [1, 4, 16]
CUT_PX, TITLE_PX, GRAYS = 96, 14, 24


def main() -> None:
    """Generate the layout and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the PNG")
    parser.add_argument("--prompt", default="a town with houses and streets")
    parser.add_argument("--seed", type=int, default=3)
    args = parser.parse_args()
    drawn(swept(args.prompt, args.seed)).save(args.out, optimize=True)
    print(f"{args.out}: {args.out.stat().st_size / 1e3:.0f} kB")


def swept(prompt: str, seed: int) -> list[Sample]:
    """The images of one layout."""
    from hpc.documents import read_json
    from sarhpc.generation.config import GenerateConfig
    from sarhpc.generation.image_shard import Provenance, generate_shard
    from sarhpc.generation.model import load_pipeline
    from sarhpc.generation.plan import plan_generation
    from sarhpc.generation.sweeps.config import SensorConfig, SweepConfig

    sweep = SweepConfig(sensor=SensorConfig(resolution_m=RESOLUTIONS, looks=LOOKS))
    cfg = GenerateConfig(
        prompts=[prompt], images=1, seed=seed, steps=20, guidance=4.0, batch=1, sweep=sweep
    )
    pipeline = load_pipeline(EMBEDDED / "sar", cfg, "cpu")
    [inputs] = plan_generation(cfg)
    # That of the same kind of tiles: the embedded generator came before contracts.
    inputs = {**inputs, "contract": read_json(EMBEDDED / "clip" / "contract.json")}
    return list(generate_shard(0, inputs, cfg, pipeline, Provenance("", "")).samples)


def drawn(samples: list[Sample]) -> Image:
    """Resolutions downwards, looks across, each a part of its image in few grays."""
    from PIL import Image, ImageDraw

    from sarhpc.shards.images import decode_gray8

    step = CUT_PX + TITLE_PX
    picture = Image.new("L", (CUT_PX * len(LOOKS), step * len(RESOLUTIONS)), 255)
    draw = ImageDraw.Draw(picture)
    for sample in samples:
        setting = sample.meta["sweep"]
        left = LOOKS.index(setting["looks"]) * CUT_PX
        top = RESOLUTIONS.index(setting["resolution_m"]) * step
        codes = decode_gray8(sample.members["sar.png"])[:CUT_PX, :CUT_PX]
        coarse = (codes.astype(float) * GRAYS / 256).astype(int) * (255 // (GRAYS - 1))
        picture.paste(Image.fromarray(coarse.clip(0, 255).astype("uint8")), (left, top + TITLE_PX))
        title = f"{setting['resolution_m']:g} m, L={setting['looks']}"
        draw.text((left + 3, top + 1), title, fill=0)
    return picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST)


if __name__ == "__main__":
    main()
