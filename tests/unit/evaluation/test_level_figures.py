from __future__ import annotations

import numpy as np
import pytest

from sarhpc.evaluation.figures import set_styles
from sarhpc.evaluation.level_figures import (
    diagram_figure,
    fits_figure,
    fitted,
    is_coded,
    level_density,
    levels_figure,
    relative_density,
)
from sarhpc.measures.features import Features, measure
from sarhpc.measures.levels import LEVEL_EDGES_DB

STEP_DB = LEVEL_EDGES_DB[1] - LEVEL_EDGES_DB[0]


def amplitude(looks: float, texture: float | None, seed: int = 0) -> np.ndarray:
    """Uncorrelated speckle with gamma texture of a shape, or none; mean amplitude far from 1."""
    rng = np.random.default_rng(seed)
    intensity = rng.gamma(looks, 1 / looks, (4, 128, 128))
    if texture is not None:
        intensity *= rng.gamma(texture, 1 / texture, intensity.shape)
    return np.sqrt(intensity) * 0.2


def codes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def speckle() -> Features:
    return measure(amplitude(1.0, None))


def test_codes_are_drawn_without_the_comb_that_their_histogram_has(speckle: Features) -> None:
    eight = measure(codes(amplitude(1.0, None)))
    assert is_coded(eight)
    assert not is_coded(speckle)
    inner = slice(20, 150)
    assert (eight.histogram.mean(0)[inner] == 0).any()
    assert (level_density(eight)[inner] > 0).all()
    difference = np.abs(level_density(eight) - level_density(speckle))[inner]
    assert difference.max() < 0.2 * level_density(speckle).max()
    for features in (eight, speckle):
        assert level_density(features).sum() * STEP_DB == pytest.approx(1.0)
        assert relative_density(features).sum() * STEP_DB == pytest.approx(1.0, abs=0.02)


def test_the_law_that_made_the_pixels_is_the_nearest() -> None:
    fits = {fit.law: fit for fit in fitted(measure(amplitude(1.0, None)), 1.0)}
    assert abs(fits["gamma"].miss) < 0.2
    textured = fitted(measure(amplitude(4.0, 2.0)), 4.0)
    assert textured[0].law == "k"
    assert textured[0].shape == pytest.approx(2.0, rel=0.15)


def test_figures_say_in_words_what_they_show(speckle: Features) -> None:
    sets = {"real": speckle, "a <set>": measure(codes(amplitude(1.0, 3.0)))}
    styles = set_styles(list(sets))
    levels = levels_figure(sets, styles)
    assert "a <set>" in levels.alt
    assert "8-bit codes are drawn spread" in levels.note
    fits = fits_figure("a <set>", sets["a <set>"], 1.0, styles["a <set>"])
    assert "Nearest law: " in fits.alt
    assert "Rounding to 8 bits moves k3" in fits.note
    diagram = diagram_figure(sets, styles, 1.0)
    assert "Means of sets: real k2 1.6" in diagram.alt
    for figure in (levels, diagram):
        assert figure.svg.count('data-set="0"') >= 1
        assert figure.svg.count('data-set="1"') >= 1
    assert "a <set>" not in levels.svg + fits.svg + diagram.svg
