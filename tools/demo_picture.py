"""The picture of real and generated tiles in the README, from a run of `make demo`.

    python tools/demo_picture.py build/demo docs/pictures/demo.png

A row for each class. On the left held-out tiles of the simulated archive, in the middle images by
the model of the run, on the right by `embedded:sar`, which the same recipe trained for longer. Each
column has the first images of the class in the order of their keys: nothing is chosen.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from sarhpc.shards.reader import read_shard
from sarhpc.shards.sample import Sample
from sarhpc.stages.inputs.prompts import asked_class, land_cover

CLASSES = ("water", "forest", "field", "town")
COLUMNS, PIXELS, GAP, BETWEEN, TOP, LEFT = 2, 112, 4, 24, 24, 60


def samples_of(folder: Path) -> Iterator[Sample]:
    """The samples of a folder, in the order of shards and keys."""
    for shard in sorted(folder.glob("*.tar")):
        yield from read_shard(shard)


def first_of_each(
    folder: Path, class_of: Callable[[dict[str, Any]], str | None]
) -> dict[str, list[Image.Image]]:
    """The first images of each class."""
    found: dict[str, list[Image.Image]] = {name: [] for name in CLASSES}
    for sample in samples_of(folder):
        name = class_of(sample.meta)
        if name in found and len(found[name]) < COLUMNS:
            with Image.open(io.BytesIO(sample.members["sar.png"])) as picture:
                found[name].append(picture.convert("L"))
    return found


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="run of the demo, complete")
    parser.add_argument("out", type=Path, help="PNG file")
    arguments = parser.parse_args()
    data = arguments.run / "data"
    of_text = {
        sample.members["txt"].decode(): land_cover(sample.meta)
        for sample in samples_of(data / "samples/val")
    }

    def class_asked(meta: dict[str, Any]) -> str | None:
        """The label of its prompt, else the class of the tile whose text was the prompt."""
        return asked_class(meta) or of_text.get(meta["prompt"])

    blocks = (
        ("simulated, held out", first_of_each(data / "samples/val", land_cover)),
        ("this run, 200 steps", first_of_each(data / "synthetic", class_asked)),
        ("embedded:sar, 2,400 steps", first_of_each(data / "compare/full recipe", class_asked)),
    )
    block = COLUMNS * PIXELS + (COLUMNS - 1) * GAP
    width = LEFT + len(blocks) * block + (len(blocks) - 1) * BETWEEN
    height = TOP + len(CLASSES) * (PIXELS + GAP) - GAP
    sheet = Image.new("L", (width, height), 255)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for row, name in enumerate(CLASSES):
        top = TOP + row * (PIXELS + GAP)
        draw.text((0, top + PIXELS // 2 - 8), name, fill=0, font=font)
        for number, (title, found) in enumerate(blocks):
            left = LEFT + number * (block + BETWEEN)
            draw.text((left, 2), title, fill=0, font=font)
            for column, picture in enumerate(found[name]):
                size = (PIXELS, PIXELS)
                at = (left + column * (PIXELS + GAP), top)
                sheet.paste(picture.resize(size, Image.Resampling.BOX), at)
    # 16 grays: speckle hardly compresses, and a page is to stay small.
    sheet.quantize(16).save(arguments.out, optimize=True)
    print(
        f"{arguments.out}: {sheet.width} x {sheet.height}, {arguments.out.stat().st_size:,} bytes"
    )


if __name__ == "__main__":
    main()
