"""The report of an autoencoder has the distances of `evaluate` by its own names."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from speckle_fields import speckle

from sarhpc.measures.autoencoder_fidelity import JUDGED, against_nulls, compare
from sarhpc.measures.distances import DISTANCES, autocorrelation, looks, uniform
from sarhpc.measures.features import measure
from sarhpc.measures.nulls import verdicts


def codes(seed: int, bands: tuple[float, float], looks: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    amplitudes = [np.sqrt(speckle(rng, 64, looks, bands=bands)) for _ in range(16)]
    return [np.rint(np.clip(80 * A, 0, 255)).astype(np.uint8) for A in amplitudes]


REAL, FAKE = codes(1, (0.8, 0.5)), codes(2, (0.5, 0.6), looks=2)


def test_each_number_is_the_distance_of_that_name() -> None:
    found, real, fake = compare(REAL, FAKE), measure(REAL), measure(FAKE)
    sides = fake, uniform(fake), real, uniform(real)
    for key, name in (
        ("histogram_jsd_bits", "E3_jsd"), ("histogram_w1_db", "E3_w1"), ("lsd_db", "E5_lsd"),
    ):  # fmt: skip
        assert found[key] == DISTANCES[name][0](*sides), key
    assert (found["enl_mode"], found["enl_mode_real"]) == (looks(*sides[:2]), looks(*sides[2:]))
    ours, theirs = autocorrelation(*sides[:2]), autocorrelation(*sides[2:])
    for axis, number in (("azimuth", 0), ("range", 1)):
        assert found[f"acf_{axis}"] == ours[number].round(4).tolist()
        assert found[f"acf_{axis}_real"] == theirs[number].round(4).tolist()
        largest = np.abs(ours[number] - theirs[number]).max()
        assert found[f"acf_{axis}_difference"] == pytest.approx(largest)


def test_nulls_are_those_of_copies() -> None:
    groups = [number // 2 for number in range(16)]
    distances = {name: DISTANCES[name][0] for name in JUDGED}
    expected = verdicts(measure(FAKE), measure(REAL), groups, distances, copies=True)
    found = against_nulls(REAL, FAKE, groups)
    assert found == {name: asdict(verdict) for name, verdict in expected.items()}
