"""Which measures see which defects of the real tiles in a folder, as a table in Markdown.

    python tools/sensitivity_report.py FOLDER [--tiles 200] [--compared 40] [--seed 0]

FOLDER holds shards or images of linear amplitude, 8-bit or more. Groups are flight lines or scenes
of tiles, else the folder of an image, else each image.
"""

from __future__ import annotations

import argparse
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.evaluation.image_sets import Image, group_of, list_images, read_facts, read_images
from sarhpc.evaluation.pixels import amplitude, amplitude_member, fault_of
from sarhpc.evaluation.sensitivity import sensitivity
from sarhpc.measures.nulls import evenly_over_groups


def group(image: Image, root: Path) -> Hashable:
    """What an image shares with its neighbours."""
    folder = Path(image.file).parent
    if named := group_of(image.meta):
        return named
    return image.key if folder == root or image.file.endswith(".tar") else str(folder)


def read_tiles(root: Path, most: int) -> tuple[list[NDArray[Any]], list[Hashable]]:
    """At most `most` tiles, as evenly over their groups as possible, and the groups.

    Tiles are cut to squares of one size, a multiple of 8 px, and their mean intensity is 1.
    """
    images = list_images(root)
    known = [image for file in images.files for image in read_facts(images, file)]
    groups = [group(image, root) for image in known]
    tiles, kept = [], []
    for number in evenly_over_groups(groups, most).tolist():
        file, row = known[number].file, known[number].row
        [image] = read_images(images, file, [row], amplitude_member)
        tile = np.asarray(amplitude(image), dtype=np.float64)
        if not tile.all():
            tile = np.maximum(tile, tile[tile > 0].min(initial=1.0) / 2)
        if fault_of(tile) is None:
            tiles.append(tile)
            kept.append(groups[number])
    side = min(min(tile.shape) for tile in tiles) // 8 * 8
    unit = np.sqrt(np.mean([np.square(tile).mean() for tile in tiles]))
    return [tile[:side, :side] / unit for tile in tiles], kept


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiles", type=int, default=200, help="most tiles that are read")
    parser.add_argument("--compared", type=int, default=40, help="tiles on each side")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tiles, groups = read_tiles(arguments.folder, arguments.tiles)
    found = sensitivity(tiles, groups, arguments.compared, seed=arguments.seed)
    print(
        f"{len(tiles)} tiles of {tiles[0].shape[0]} px; {found.tiles} against "
        f"{found.reference_tiles} tiles of {found.groups_drawn} and other groups of "
        f"{found.groups}; false alarms {found.false_alarms:.2f}\n"
    )
    print("\n".join(found.lines()))


if __name__ == "__main__":
    main()
