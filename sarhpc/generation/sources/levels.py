"""Levels of images to begin with: what the model's contract makes of their pixels, or a refusal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from hpc.errors import DataError
from sarhpc.generation.sources.found import PICTURE_MEMBERS, FoundImage
from sarhpc.shards.contract import PixelContract, differences
from sarhpc.shards.images import decode_array
from sarhpc.shards.pictures import opened_picture
from sarhpc.shards.radiometry import Normalisation, master_amplitude
from sarhpc.shards.sample import SAMPLE_SCHEMA
from sarhpc.shards.tile_contract import contract_of_tiles

_MODES = {
    "1": "1 bit a pixel", "LA": "an alpha channel", "RGBA": "an alpha channel",
    "PA": "an alpha channel", "P": "a palette of colours", "RGB": "colours", "CMYK": "colours",
    "YCbCr": "colours", "LAB": "colours", "HSV": "colours",
}  # fmt: skip


def levels_of(found: FoundImage, contract: PixelContract | None) -> tuple[NDArray[np.float32], str]:
    """Levels (H, W) in [0, 1] under the law of the model's pictures, and the member they are from.

    The picture, where it is of that law as far as anybody says; else the 16-bit or complex member,
    whose amplitude the law is applied to. Nothing is resampled, turned or stretched.

    Raises:
        DataError: pixels of another kind than the model's, or such that nothing is known of them.
    """
    other = [] if contract is None else _other_pixels(found.meta, contract)
    kinds = [line for line in other if not line.startswith("normalisation")]
    if kinds:
        raise DataError(
            f"its pixels mean something else than the model's: {'; '.join(kinds)} of the model"
        )
    pictures = [name for name in PICTURE_MEMBERS if name in found.members]
    if pictures and not other:
        return _picture_levels(found.members[pictures[0]]), pictures[0]
    masters = [name for name in ("sar16.npy", "sar.npy") if name in found.members]
    if not masters:
        raise DataError(
            f"{other[0]} of the model, and there is no 16-bit or complex member to apply the "
            "model's law to"
        )
    amplitude = _amplitude(found, masters[0])
    return _law(found.meta, contract, other).levels(amplitude), masters[0]


def states_nothing(meta: Mapping[str, Any]) -> bool:
    """Whether metadata say neither spacing, band, normalisation nor direction of range."""
    facts = _facts(meta)
    names = ("pixel_m", "band", "normalisation", "range_direction")
    return all(facts.get(name) is None for name in names)


def _other_pixels(meta: Mapping[str, Any], contract: PixelContract) -> list[str]:
    return differences(contract_of_tiles([_facts(meta)]), contract)


def _facts(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """The metadata in the words of the schema of samples; unknown stays unknown."""
    if meta.get("schema") == SAMPLE_SCHEMA:
        return meta
    known = {"plane": None, **meta}
    # As public sets (SARLO-80) state it.
    along, across = (meta.get(f"spacing_eff_{axis}") for axis in ("az", "rg"))
    if isinstance(along, int | float) and isinstance(across, int | float) and along * across > 0:
        known |= {"pixel_m": float(along * across) ** 0.5, "plane": "slant"}
    return known


def _picture_levels(data: bytes) -> NDArray[np.float32]:
    with opened_picture(data) as image:
        refused = _refused(image)
        pixels = None if refused else np.asarray(image)
    if pixels is None:
        raise DataError(f"not a gray picture of 8 bits: {refused}")
    return pixels.astype(np.float32) / np.float32(255)


def _refused(image: Image) -> str | None:
    """Why a picture is no gray one of 8 bits; None if it is."""
    mode, alpha = image.mode, "transparency" in image.info
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        return f"a file of {frames} pictures; give each a file of its own"
    if mode == "L" and not alpha:
        return None
    if mode[0] in "IF":
        return (
            f"it has more than 8 bits (mode {mode}), and nothing says what amplitude they are; "
            "make tiles of such images (imported.path, imported.level_scope=set) and name those"
        )
    found = "an alpha channel" if alpha else _MODES.get(mode, f"mode {mode}")
    return f"it has {found}; convert it to gray without alpha, by the law of the model's pictures"


def _amplitude(found: FoundImage, name: str) -> NDArray[np.float32]:
    values = decode_array(found.members[name])
    kind = np.uint16 if name == "sar16.npy" else np.complex64
    if values.ndim != 2 or values.dtype != kind or not np.isfinite(values).all():
        raise DataError(
            f"{name} is {values.dtype} {values.shape}, not finite {kind.__name__} (H, W)"
        )
    if name == "sar.npy":
        return np.abs(values).astype(np.float32)
    if "master_scale" not in found.meta and found.meta.get("master_law", "linear") != "level":
        raise DataError("its metadata do not say what amplitude a code of sar16.npy is")
    return master_amplitude(values, found.meta)


def _law(
    meta: Mapping[str, Any], contract: PixelContract | None, other: list[str]
) -> Normalisation:
    """The law to apply to amplitude: the model's own, else that of the image if it is of its kind.

    Raises:
        DataError: the model's law needs constants that nobody knows.
    """
    span = None if contract is None else contract.normalisation
    if contract is None or span is None:
        raise DataError(
            "it has no 8-bit picture, and the model has no contract that says how amplitude becomes"
            " one: write it with `sarhpc contract MODEL --tiles FOLDER`, or give pictures"
        )
    if span.law is not None and contract.calibration == meta.get("calibration") == "sigma0":
        return span.law
    own = meta.get("normalisation")
    if other or not isinstance(own, Mapping) or own.get("mode") != span.mode:
        raise DataError(
            f"its amplitude cannot be brought under the model's law {span.mode}, whose constants "
            "follow each scene or are of another calibration: make tiles of these images by "
            f"tile.normalisation={span.mode}, and name those"
        )
    return Normalisation.from_json(own)
