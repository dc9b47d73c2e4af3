"""Conditioning layers of a tile: inputs for conditional generation, in the pixels of the tile.

`edges.png` is a line drawing from ratios of averages, `segmentation.png` the land cover in colours,
`coarse.png` the same radar image at a lower resolution, `other.png` the cross-band layer
(`sarhpc.tiling.pairs.cross_band`); `optical` requires `optic.png`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sarhpc.shards.images import encode_gray8, encode_rgb8
from sarhpc.shards.radiometry import Normalisation
from sarhpc.tiling.config import TileConfig
from sarhpc.tiling.pairs.cross_band import CrossBandLayer

CROSS_BAND = "other"
"""The cross-band layer in `tile.conditions`, shard inputs and `meta.json`."""

CONDITIONS = ("edges", "segmentation", "optical", "coarse", CROSS_BAND)

EDGE_REACH = 7
"""Pixels on either side of an edge that are averaged, and along it."""

FULL_EDGE_DB = 10.0
"""Ratio of the two sides, dB, that is drawn white."""

_EDGE_SIGMAS = 4.0
_PIXELS_PER_CELL = 2

PALETTE = np.array(
    [
        (0, 0, 0),
        (36, 84, 180),
        (120, 120, 120),
        (196, 160, 104),
        (152, 208, 96),
        (240, 216, 72),
        (168, 96, 168),
        (24, 112, 40),
        (208, 48, 48),
    ],
    np.uint8,
)
"""Colours of the land-cover codes 0 nodata, 1 water, 2 road, 3 bare, 4 grass, 5 crop, 6 shrub,
7 forest, 8 urban; codes beyond them are black."""


@dataclass(frozen=True)
class TileLayers:
    """Images of a tile from which conditioning layers are made."""

    amplitude: NDArray[np.float32]
    valid: NDArray[np.bool_]
    optic: NDArray[np.uint8] | None
    land_cover: NDArray[np.uint8] | None
    """(2, H, W) = label and where it is known."""
    cross_band: CrossBandLayer | None = None


def make_conditions(
    layers: TileLayers, enl: float, normalisation: Normalisation, cfg: TileConfig
) -> tuple[dict[str, bytes], dict[str, Any]] | None:
    """Members and `conditions` metadata of a tile; None if a requested layer cannot be made.

    Args:
        layers: the tile.
        enl: expected looks of the tile, which set the threshold between edges and speckle.
        normalisation: law of the scene's pictures, which `coarse.png` follows too.
        cfg: `conditions` names the layers requested.
    """
    wanted = set(cfg.conditions)
    if "optical" in wanted and layers.optic is None:
        return None
    if "segmentation" in wanted and layers.land_cover is None:
        return None
    if CROSS_BAND in wanted and layers.cross_band is None:
        return None
    members: dict[str, bytes] = {}
    notes: dict[str, Mapping[str, Any]] = {}
    if "edges" in wanted:
        threshold = edge_threshold_db(enl)
        ratios = edge_ratios_db(layers.amplitude, layers.valid)
        members["edges.png"] = encode_gray8(draw_edges(ratios, threshold))
        notes["edges"] = {"threshold_db": round(threshold, 3), "full_db": FULL_EDGE_DB}
    if "segmentation" in wanted and layers.land_cover is not None:
        members["segmentation.png"] = encode_rgb8(colours_of(layers.land_cover[0]))
        notes["segmentation"] = {"palette": "landcover/1"}
    if "coarse" in wanted:
        coarse = coarse_amplitude(layers.amplitude, layers.valid, cfg.coarse_factor)
        members["coarse.png"] = encode_gray8(normalisation.encode(coarse))
        notes["coarse"] = {"factor": cfg.coarse_factor}
    if CROSS_BAND in wanted and layers.cross_band is not None:
        members["other.png"] = encode_gray8(layers.cross_band.codes)
        notes[CROSS_BAND] = layers.cross_band.note
    if "optical" in wanted:
        notes["optical"] = {"member": "optic.png"}
    return members, {"conditions": notes}


def edge_threshold_db(enl: float) -> float:
    """Ratio of two averages that speckle of `enl` looks rarely reaches, dB.

    Their logarithms deviate by 4.34 / sqrt(n enl) dB each, for n pixels a side; neighbouring
    pixels share resolution cells, taken as two to a cell.
    """
    looks = max(enl, 1.0) * EDGE_REACH * (2 * EDGE_REACH + 1) / _PIXELS_PER_CELL
    return _EDGE_SIGMAS * 4.343 * math.sqrt(2 / looks)


def edge_ratios_db(amplitude: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Ratio of mean intensity on both sides of a pixel along rows and columns (2, H, W), dB.

    The ratio of averages of Touzi, Lopes and Bousquet (IEEE TGRS 26, 1988), along and across
    range: a difference would detect edges wherever speckle is bright, a ratio has a constant rate
    of false alarms. Zero beside gaps; within EDGE_REACH pixels of the border the image is
    reflected.
    """
    power = np.square(amplitude, dtype=np.float32)
    ratios = np.zeros((2, *amplitude.shape), np.float32)
    reach = (EDGE_REACH + 1) // 2
    for axis in (0, 1):
        size = [2 * EDGE_REACH + 1, 2 * EDGE_REACH + 1]
        size[axis] = EDGE_REACH
        mean = ndimage.uniform_filter(power, size, mode="reflect")
        level = 10 * np.log10(np.maximum(mean, max(float(mean.max()) * 1e-7, 1e-30)))
        ratios[axis] = np.abs(_shifted(level, axis, -reach) - _shifted(level, axis, reach))
    if not valid.all():
        ratios[:, ndimage.binary_dilation(~valid, iterations=2 * EDGE_REACH)] = 0
    return ratios


def _shifted(image: NDArray[np.float32], axis: int, by: int) -> NDArray[np.float32]:
    """`image` (H, W) shifted along `axis`, with its edge repeated."""
    index = np.clip(np.arange(image.shape[axis]) + by, 0, image.shape[axis] - 1)
    return np.take(image, index, axis=axis)


def draw_edges(ratios_db: NDArray[np.float32], threshold_db: float) -> NDArray[np.uint8]:
    """Lines three pixels wide (H, W) along the crests of the ratios (2, H, W).

    A crest is the largest ratio within EDGE_REACH pixels along its axis and above the threshold;
    its grey grows to white at FULL_EDGE_DB.
    """
    crest = np.zeros(ratios_db.shape[1:], np.float32)
    for axis in (0, 1):
        ratio = ratios_db[axis]
        highest = ndimage.maximum_filter1d(ratio, 2 * EDGE_REACH + 1, axis=axis, mode="nearest")
        np.maximum(crest, np.where((ratio >= highest) & (ratio >= threshold_db), ratio, 0), crest)
    wide = ndimage.maximum_filter(crest, 3, mode="constant")
    return np.asarray(np.rint(255 * np.minimum(wide / FULL_EDGE_DB, 1)), np.uint8)


def colours_of(label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Land-cover codes (H, W) in the colours (H, W, 3) of PALETTE."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(PALETTE)] = PALETTE
    return np.asarray(table[label], np.uint8)


def coarse_amplitude(
    amplitude: NDArray[np.float32], valid: NDArray[np.bool_], factor: int
) -> NDArray[np.float32]:
    """The tile (H, W) averaged to `factor` times its pixel, each pixel repeated.

    Intensity is averaged over boxes, gaps left out; looks rise by up to `factor` squared.
    """
    height, width = amplitude.shape
    pad = ((0, -height % factor), (0, -width % factor))
    boxes = ((height + pad[0][1]) // factor, factor, (width + pad[1][1]) // factor, factor)
    power = np.pad(np.where(valid, np.square(amplitude, dtype=np.float64), 0), pad)
    share = np.pad(valid.astype(np.float64), pad).reshape(boxes).sum(axis=(1, 3))
    mean = power.reshape(boxes).sum(axis=(1, 3)) / np.maximum(share, 1)
    whole = np.sqrt(mean).astype(np.float32).repeat(factor, axis=0).repeat(factor, axis=1)
    return np.ascontiguousarray(whole[:height, :width])
