"""Cloud-optimised GeoTIFF, one per image, without a place."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hpc.errors import DataError
from hpc.publish import publish_bytes
from sarhpc.archive.formats.geotiff.writer import placeless_cog
from sarhpc.corpus.layouts.layout import Layout, image_path, known, pixels_of
from sarhpc.corpus.reading import IndexedImage, Row
from sarhpc.corpus.rows import IMAGE
from sarhpc.shards.images import decode_array, decode_gray8
from sarhpc.shards.radiometry import master_amplitude

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


def require_master(row: Row) -> None:
    """Raise DataError unless an image has a 16-bit master, from which levels are.

    Raises:
        DataError: its model has no contract.
    """
    if row["contract_sha"] is None:
        raise DataError(
            f"image {row['key']} has no 16-bit master, since its model has no contract that says "
            "what a level is: export 8-bit pictures (--layout cog), or write the contract (sarhpc "
            "contract) and generate again"
        )


def write_level_shard(out: Path, _shard: str, images: Iterable[IndexedImage]) -> int:
    """Write one COG per image: its level in dB, from the 16-bit master."""
    count = 0
    for image in images:
        path = out / image_path(image.row, "tif")
        if not path.exists():
            codes = decode_array(image.sample.members["sar16.npy"])
            meta = {**image.sample.meta, "key": image.sample.key}
            amplitude = master_amplitude(codes, meta).astype(np.float64)
            with np.errstate(divide="ignore"):
                level = (20 * np.log10(amplitude)).astype(np.float32)
            level[~np.isfinite(level)] = np.nan
            known_scale = image.row["calibration"] == "sigma0"
            tags = {"QUANTITY": "sigma0_db" if known_scale else "relative_db", "UNITS": "dB"}
            stated = tags_of(image.row) | tags
            publish_bytes(path, placeless_cog(level, stated, image.row["pixel_m"]))
        count += 1
    return count


COG_DB = Layout(
    name="cog-db",
    summary="cloud-optimised GeoTIFF of sigma0 in dB by split and class, without a place",
    write_shard=write_level_shard,
    bytes_of=lambda row: 4.5 * pixels_of(row) + 4096,
    check=require_master,
    about="""\
`SPLIT/CLASS/SHARD/KEY.tif`: one band of 32-bit floats, in dB, from the 16-bit master by the
contract of the model. The tag `QUANTITY` is `sigma0_db` where the contract is calibrated, and
otherwise `relative_db`, 0 dB being code 255 of the 8-bit picture. NaN is zero amplitude. A
generated image shows no place, so the files have no CRS, no affine and no control points. The pixel
spacing, where it is known, is the tag `PIXEL_SPACING_M` and the resolution of the TIFF;
`RANGE_DIRECTION=+col` is near range at column 0. Prompt, seed, model and what else is known are
tags too, with `SYNTHETIC=YES`.
""",
)

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
