"""Cloud-optimised GeoTIFF, one per image, without a place."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hpc.publish import publish_bytes
from sarhpc.archive.formats.geotiff.writer import placeless_cog
from sarhpc.corpus.layouts.layout import Layout, image_path, known, pixels_of
from sarhpc.corpus.reading import IndexedImage, Row
from sarhpc.corpus.rows import IMAGE
from sarhpc.shards.images import decode_gray8

_TAGS = ("prompt", "seed", "key", "split", "label", "model_sha", "band", "polarization",
         "incidence_deg", "range_direction", "calibration")  # fmt: skip


def tags_of(row: Row) -> dict[str, str]:
    """GDAL metadata of an image; nothing that is unknown, and no place."""
    stated = known({name.upper(): row[name] for name in _TAGS})
    return {"SYNTHETIC": "YES", **{name: str(value) for name, value in stated.items()}}


def write_shard(out: Path, _shard: str, images: Iterable[IndexedImage]) -> int:
    """Write one COG per image: its 8-bit picture."""
    count = 0
    for image in images:
        path = out / image_path(image.row, "tif")
        if not path.exists():
            picture = decode_gray8(image.sample.members[IMAGE])
            publish_bytes(path, placeless_cog(picture, tags_of(image.row), image.row["pixel_m"]))
        count += 1
    return count


COG = Layout(
    name="cog",
    summary="cloud-optimised GeoTIFF by split and class, without a place",
    write_shard=write_shard,
    bytes_of=lambda row: 1.4 * pixels_of(row) + 4096,
    about="""\
`SPLIT/CLASS/SHARD/KEY.tif`: 8-bit gray. A generated image shows no place, so the files have no CRS,
no affine and no control points: GIS software puts them at pixel coordinates. The pixel spacing,
where it is known, is the tag `PIXEL_SPACING_M` and the resolution of the TIFF (pixels per
centimetre). Prompt, seed, model and what else is known are tags too, with `SYNTHETIC=YES`.
""",
)
