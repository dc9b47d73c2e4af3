r"""A picture of the same prompt and seeds under several settings of generation, a row for each.

    python tools/settings_picture.py OUT.png embedded:sar --prompt "a lake" \
        --row '{"scheduler": "euler"}' --row '{"scheduler": "euler", "schedule": "trailing"}'

Each row is what `sarhpc.load_model(MODEL, **row)` generates; nothing is chosen.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import sarhpc

TITLE, GAP = 18, 4


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="PNG file")
    parser.add_argument("model", help="diffusers folder, or embedded:NAME")
    parser.add_argument("--prompt", required=True, help="description")
    parser.add_argument("--row", action="append", required=True, help="settings, a JSON object")
    parser.add_argument("--images", type=int, default=5, help="columns (default 5)")
    parser.add_argument("--shared", default="{}", help="settings of every row, a JSON object")
    parser.add_argument("--px", type=int, default=96, help="side of an image in the picture")
    arguments = parser.parse_args()
    rows = []
    for row in arguments.row:
        settings = {"batch": arguments.images, **json.loads(arguments.shared), **json.loads(row)}
        model = sarhpc.load_model(arguments.model, **settings)
        made = sarhpc.generate(model, arguments.prompt, arguments.images)
        rows.append((row.strip("{}").replace('"', ""), made.images))
    side = arguments.px
    size = (arguments.images * (side + GAP) - GAP, len(rows) * (side + TITLE + GAP) - GAP)
    sheet = Image.new("L", size, 255)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, (title, images) in enumerate(rows):
        top = number * (side + TITLE + GAP)
        draw.text((0, top + 2), title or "(as it is)", fill=0, font=font)
        for column, image in enumerate(np.asarray(images)):
            tile = Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS)
            sheet.paste(tile, (column * (side + GAP), top + TITLE))
    # 32 grays are enough to look at, and halve the file.
    sheet.quantize(32).save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()
