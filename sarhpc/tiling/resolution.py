"""The resolution of tiles: width, band and weighting of their response, before and after."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.response import AxisResponse, sampled
from sarhpc.archive.scene import SarHeader
from sarhpc.tiling.block import Sampling
from sarhpc.tiling.grid import SceneFrame
from sarhpc.tiling.resampling import cutoff, roll_off


def resolution_facts(header: SarHeader, frame: SceneFrame, sampling: Sampling) -> dict[str, Any]:
    """The entry `resolution` of the metadata of a scene's tiles; empty where nothing is known.

    Lists are in the order of the tile's axes, rows (azimuth) and columns (range). Widths are at
    -3 dB on the ground, bands in cycles per metre. `after` is None for averaged intensity, whose
    response depends on the ground.
    """
    if header.response is None or sampling.method not in ("fft", "none", "multilook"):
        return {}
    axes = frame.orientation.pair(header.response)
    before = [_stated(axis, step) for axis, step in zip(axes, frame.spacing_m, strict=True)]
    after: list[dict[str, Any]] | None = None
    if sampling.method != "multilook":
        after = [
            _kept(axis, step, float(ratio), sampling.transition)
            for axis, step, ratio in zip(axes, frame.spacing_m, frame.ratio, strict=True)
        ]
    return {"resolution": {"before": _columns(before), "after": after and _columns(after)}}


def resolution_m(
    header: SarHeader, frame: SceneFrame, sampling: Sampling
) -> tuple[float, float] | None:
    """Resolution (azimuth, range) of a scene's tiles on their plane, metres; None if unknown.

    For averaged intensity that of the scene.
    """
    known = resolution_facts(header, frame, sampling).get("resolution")
    if known is None:
        return None
    azimuth, across = (known["after"] or known["before"])["irw_m"]
    return float(azimuth), float(across)


def _columns(axes: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [axis[name] for axis in axes] for name in axes[0]}


def _stated(axis: AxisResponse, spacing_m: float) -> dict[str, Any]:
    width, sidelobe = sampled(axis)
    stated = axis.irw_m if axis.irw_m is not None else width * spacing_m
    return {
        "irw_m": round(stated, 4),
        "band_per_m": round(axis.band / spacing_m, 5),
        "weighting": axis.name(),
        "pslr_db": round(sidelobe, 1),
    }


def _kept(axis: AxisResponse, spacing_m: float, ratio: float, transition: float) -> dict[str, Any]:
    """The response of an axis after its band was cut to that of the output grid."""
    half = cutoff(ratio)

    def kept(frequency: NDArray[np.float64]) -> NDArray[np.float64]:
        return roll_off(frequency, half, transition)

    if axis.band / 2 <= half * (1 - transition) or ratio >= 1:
        return _stated(axis, spacing_m)
    width, sidelobe = sampled(axis, kept)
    return {
        "irw_m": round(width * spacing_m, 4),
        "band_per_m": round(min(axis.band, 2 * half) / spacing_m, 5),
        "weighting": f"{axis.name()} cut to {2 * half / axis.band:.2f} of its band",
        "pslr_db": round(sidelobe, 1),
    }
