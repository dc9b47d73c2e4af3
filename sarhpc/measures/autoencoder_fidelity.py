"""The distances of SAR tiles to their reconstructions by an autoencoder, by name of its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.measures import distances as between
from sarhpc.measures.distances import DISTANCES, autocorrelation, looks, uniform
from sarhpc.measures.features import measure
from sarhpc.measures.nulls import Labels, verdicts
from sarhpc.measures.spectrum import grid_lines_db

JUDGED = ("E1_enl", "E3_jsd", "E3_w1", "E4_acf", "E5_lsd", "E5_lines")
"""Distances that are held against nulls."""


def compare(
    real: Sequence[NDArray[np.uint8]], fake: Sequence[NDArray[np.uint8]]
) -> dict[str, float | list[float]]:
    """E1, E3, E4 and E5 of `fake` against `real` SAR tiles in 8 bits, as plain numbers.

    Raises:
        ValueError: a tile is constant or smaller than 32 px; the message has its number.
    """
    r, g = measure(real), measure(fake)
    both = g, uniform(g), r, uniform(r)
    acf_real, acf_fake = autocorrelation(*both[2:]), autocorrelation(*both[:2])
    difference = np.abs(acf_real - acf_fake).max(1)
    return {
        "enl_mode_real": looks(*both[2:]),
        "enl_mode": looks(*both[:2]),
        "histogram_jsd_bits": between.jensen_shannon(*both),
        "histogram_w1_db": between.wasserstein_db(*both),
        "acf_azimuth_real": acf_real[0].round(4).tolist(),
        "acf_azimuth": acf_fake[0].round(4).tolist(),
        "acf_range_real": acf_real[1].round(4).tolist(),
        "acf_range": acf_fake[1].round(4).tolist(),
        "acf_azimuth_difference": float(difference[0]),
        "acf_range_difference": float(difference[1]),
        "lsd_db": between.log_spectral_distance(*both),
        "grid_lines_db": grid_lines_db(g.lines_db),
    }


def against_nulls(
    real: Sequence[NDArray[np.uint8]], fake: Sequence[NDArray[np.uint8]], groups: Labels
) -> dict[str, dict[str, Any]]:
    """E1, E3, E4 and E5 by name, each with its verdict as in `evaluation.json`.

    Reconstructions of tiles of some groups are compared with real tiles of the others, as the draws
    of the null are; so these distances are larger than those of `compare`, which are of the same
    tiles. With too few groups a distance has a `reason` in place of a verdict.

    Args:
        real: real tiles in 8 bits.
        fake: the reconstruction of each, in their order.
        groups: flight line, scene or image that each is of.

    Raises:
        ValueError: a tile is constant or smaller than 32 px; the message has its number.
    """
    distances = {name: DISTANCES[name][0] for name in JUDGED}
    found = verdicts(measure(fake), measure(real), groups, distances, copies=True)
    return {name: asdict(verdict) for name, verdict in found.items()}
