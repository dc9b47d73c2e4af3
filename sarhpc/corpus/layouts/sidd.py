"""SIDD 3.0, one file per image, at a place and of a collection that are declared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from math import radians, sin
from pathlib import Path

import yaml

from hpc.documents import built, load_yaml
from hpc.errors import ConfigError, DataError
from hpc.publish import publishing
from sarhpc.archive.formats.sidd.writer import CollectionDeclaration, write_sidd
from sarhpc.corpus.layouts.layout import Layout, image_path, pixels_of
from sarhpc.corpus.reading import IndexedImage, Row
from sarhpc.corpus.rows import IMAGE
from sarhpc.shards.images import decode_gray8

NEEDS_DECLARATION = (
    "a SIDD states where on Earth its image is and by which sensor it was taken; a generated image "
    "has neither, and none is invented: declare a nominal collection in a file and name it with "
    "--declare (docs/guide/corpus.md)"
)


def read_declaration(path: Path) -> CollectionDeclaration:
    """The declared collection in a YAML file.

    Raises:
        ConfigError: it cannot be read, lacks an entry, or has a value that no collection has.
    """
    try:
        return built(CollectionDeclaration, load_yaml(path.read_text(encoding="utf-8-sig")))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the declaration {path}: {error}") from error


def ground_spacing(row: Row, declared: CollectionDeclaration) -> tuple[float, float]:
    """Spacing (rows, columns) on the ground, m; of the slant plane by the angle of incidence.

    Raises:
        DataError: the image does not say its spacing, or that range grows with columns.
    """
    for name, what in (("pixel_m", "pixel spacing"), ("range_direction", "direction of range")):
        if row[name] is None:
            raise DataError(
                f"image {row['key']} does not state its {what}, which a SIDD must: generate with a "
                "model that has a contract (docs/guide/pixels.md), or package the corpus again"
            )
    spacing = float(row["pixel_m"])
    slant = row["plane"] == "slant"
    return spacing, spacing / sin(radians(declared.incidence_deg)) if slant else spacing


def sidd_layout(declared: CollectionDeclaration) -> Layout:
    """The layout, at a declared place."""

    def write_shard(out: Path, _shard: str, images: Iterable[IndexedImage]) -> int:
        """Write one SIDD per image: its 8-bit picture."""
        count = 0
        for image in images:
            row, path = image.row, out / image_path(image.row, "nitf")
            if not path.exists():
                picture = decode_gray8(image.sample.members[IMAGE])
                spacing = ground_spacing(row, declared)
                with publishing(path) as file:
                    write_sidd(file, picture, spacing, declared, row["key"], row["polarization"])
            count += 1
        return count

    def check(row: Row) -> None:
        ground_spacing(row, declared)

    return Layout(
        name="sidd",
        summary="SIDD 3.0 by split and class, at a declared place",
        write_shard=write_shard,
        bytes_of=lambda row: pixels_of(row) + 12_000.0,
        check=check,
        options={"declared": asdict(declared)},
        about=_ABOUT,
    )


_ABOUT = """\
`SPLIT/CLASS/SHARD/KEY.nitf`: SIDD 3.0, 8-bit gray (MONO8I). **Place, time and sensor are not those
of the images**, which have none: they were declared for this export (`export.json`) and are the
same in all files. `ProductName` and `Collection` begin with SYNTHETIC, `ProductClass` is `Synthetic
Image`.
"""
