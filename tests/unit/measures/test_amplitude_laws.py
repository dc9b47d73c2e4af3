"""E2: shapes, their intervals and the law itself, from intensities drawn from each law at L = 1."""

from __future__ import annotations

import numpy as np
import pytest

from sarhpc.measures.amplitude_laws import LAWS, LawFit, fit_laws, law_cumulants
from sarhpc.measures.log_cumulants import LogCumulants, log_cumulants

MILLION = 10**6
TEXTURED = [("k", 1.5), ("k", 4.0), ("g0", 1.5), ("g0", 4.0)]


def draw(law: str, shape: float, n: int, rng: np.random.Generator, looks: float = 1) -> np.ndarray:
    if law == "weibull":
        return rng.weibull(shape, n)
    if law == "nakagami":
        return rng.gamma(shape, size=n)
    speckle = rng.gamma(looks, size=n)
    if law == "gamma":
        return speckle
    texture = rng.gamma(shape, size=n)
    return speckle * texture if law == "k" else speckle / texture


def fits_of(law: str, shape: float, n: int, rng: np.random.Generator) -> tuple[LawFit, ...]:
    return fit_laws(log_cumulants(draw(law, shape, n, rng)))


def of(fits: tuple[LawFit, ...], law: str) -> LawFit:
    return next(fit for fit in fits if fit.law == law)


@pytest.mark.parametrize(("law", "shape"), [*TEXTURED, ("weibull", 0.8), ("nakagami", 0.7)])
def test_a_million_intensities_give_law_and_shape(law: str, shape: float) -> None:
    """Standard deviation of the shape: 0.3 % at 1.5 and 1.1 % at 4 (Var k2 / psi_2^2)."""
    fits = fits_of(law, shape, MILLION, np.random.default_rng(1))
    assert fits[0].law == law
    assert fits[0].shape == pytest.approx(shape, rel=0.05)


@pytest.mark.parametrize("law", ["k", "g0"])
def test_weak_texture_is_within_20_percent(law: str) -> None:
    """Standard deviation of the shape at 12: 4 %, its effect on k2 being 0.087 +- 0.0035."""
    fits = fits_of(law, 12.0, MILLION, np.random.default_rng(2))
    assert of(fits, law).shape == pytest.approx(12, rel=0.2)
    assert of(fits, "gamma").p_value < 1e-6


def trials(law: str, shape: float, n: int) -> tuple[int, int]:
    """Of 100 draws: how many intervals hold the shape, and how many find the law."""
    rng = np.random.default_rng(3)
    draws = [fits_of(law, shape, n, rng) for _ in range(100)]
    intervals = [of(fits, law).interval for fits in draws]
    covered = sum(low <= shape <= high for low, high in intervals)
    return covered, sum(fits[0].law == law for fits in draws)


@pytest.mark.slow
@pytest.mark.parametrize(("law", "shape"), TEXTURED)
def test_intervals_hold_the_shape_and_the_law_is_found_in_95_of_100_draws(
    law: str, shape: float
) -> None:
    """90 to 99 is the 98 % range of a binomial of 100 and 0.95.

    At shape 4, K and G0 are 0.16 apart in k3, which 250,000 samples know to 0.035: 1 % mistakes.
    """
    covered, right = trials(law, shape, MILLION // (20 if shape < 4 else 4))
    assert 90 <= covered <= 99
    assert right >= 95


@pytest.mark.long
@pytest.mark.parametrize(("law", "shape"), TEXTURED)
def test_the_law_of_a_million_is_found_in_95_of_100_draws(law: str, shape: float) -> None:
    covered, right = trials(law, shape, MILLION)
    assert 90 <= covered <= 99
    assert right >= 95


@pytest.mark.long
@pytest.mark.parametrize("law", ["k", "g0"])
def test_weak_texture_is_found_but_not_its_law(law: str) -> None:
    """At shape 12, K and G0 are 0.015 apart in k3, which a million samples know to 0.018."""
    covered, right = trials(law, 12.0, MILLION)
    print(f"\n{law} 12: {covered} intervals hold the shape, {right} laws are right")
    assert 90 <= covered <= 99
    assert right >= 40


def test_p_values_of_the_right_law_are_uniform() -> None:
    """Refused at 5 % in 5 of 100 draws: 0 to 11 is the 99 % range."""
    rng = np.random.default_rng(4)
    draws = [fits_of("k", 1.5, 20_000, rng) for _ in range(100)]
    assert sum(of(fits, "k").p_value < 0.05 for fits in draws) <= 11
    assert sum(of(fits, "g0").p_value < 0.05 for fits in draws) == 100


def test_speckle_alone_is_gamma_and_its_texture_may_be_none() -> None:
    """Texture fits by chance in 16 % of draws (chi2 of one degree above 2): at least 70 of 100."""
    rng = np.random.default_rng(5)
    draws = [fits_of("gamma", 1, 20_000, rng) for _ in range(100)]
    assert sum(fits[0].law == "gamma" for fits in draws) >= 70
    assert sum(of(fits, "k").interval[1] == np.inf for fits in draws) >= 90


def test_looks_move_the_point_of_speckle() -> None:
    I = draw("k", 2.0, MILLION // 4, np.random.default_rng(6), looks=4)  # noqa: E741
    sample = log_cumulants(I)
    known = fit_laws(sample, looks=4)
    assert known[0].law == "k"
    assert known[0].shape == pytest.approx(2, rel=0.03)
    assert of(fit_laws(sample, looks=1), "k").shape == np.inf


@pytest.mark.parametrize("law", LAWS)
def test_a_point_of_the_diagram_is_fitted_by_its_law_exactly(law: str) -> None:
    shape = {"gamma": 1.0, "weibull": 0.7}.get(law, 2.5)
    k2, k3 = law_cumulants(law, shape)
    fits = fit_laws(LogCumulants(0.0, k2, k3, (1e-6, 0.0, 1e-5)))
    assert fits[0].law == law
    assert fits[0].shape == pytest.approx(shape)
    assert fits[0].chi2 == pytest.approx(0, abs=1e-9)


def test_a_narrow_weibull_law_is_fitted_by_its_shape() -> None:
    """Shape 2 has k2 = 0.41, below that of single-look speckle."""
    k2, k3 = law_cumulants("weibull", 2.0)
    sample = LogCumulants(0.0, k2, k3, (1e-4, 0.0, 1e-4))
    fit = next(fit for fit in fit_laws(sample) if fit.law == "weibull")
    assert fit.shape == pytest.approx(2.0)


def test_k_bends_down_and_g0_up_from_speckle() -> None:
    speckle = law_cumulants("gamma", 1)
    k, g0 = law_cumulants("k", 2.0), law_cumulants("g0", 2.0)
    assert speckle == pytest.approx((np.pi**2 / 6, -2.404114), rel=1e-6)
    assert k[0] == g0[0] > speckle[0]
    assert k[1] < speckle[1] < g0[1]
    assert speckle[1] - k[1] == pytest.approx(g0[1] - speckle[1])


def test_bad_looks_and_laws_are_refused() -> None:
    sample = log_cumulants(draw("gamma", 1, 100, np.random.default_rng(0)))
    for looks in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="give the number of looks"):
            fit_laws(sample, looks)
    with pytest.raises(ValueError, match="law 'rayleigh'"):
        law_cumulants("rayleigh", 1)
    with pytest.raises(ValueError, match="shape -1"):
        law_cumulants("k", -1)
