"""Log-cumulants of samples and how they scatter, against the exact values of known laws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.special import polygamma
from speckle_fields import speckle

from sarhpc.measures.log_cumulants import diagram_distance, inverse_trigamma, log_cumulants


def psi(order: int, x: float) -> float:
    return float(polygamma(order, x))


@pytest.mark.parametrize("looks", [1, 4])
def test_gamma_intensities_have_the_polygammas_of_their_looks(looks: int) -> None:
    """Cumulants of ln I are psi_0, psi_1, psi_2; within 4 of the sampling deviations reported."""
    I = np.random.default_rng(1).gamma(looks, 3.0, (500, 400))  # noqa: E741
    found = log_cumulants(I)
    deviations = np.sqrt([found.covariance[0], found.covariance[2]])
    assert found.k1 == pytest.approx(psi(0, looks) + np.log(3), abs=4 * np.sqrt(found.k2 / I.size))
    assert abs(found.k2 - psi(1, looks)) < 4 * deviations[0]
    assert abs(found.k3 - psi(2, looks)) < 4 * deviations[1]


def test_the_covariance_is_that_of_the_cumulants_of_the_law() -> None:
    """k-statistics (Anfinsen and Eltoft 2011): n Var k2 = c4 + 2 c2^2 and so on, c_n = psi_n-1(L).

    10^6 samples give the sixth moment of ln I within 2 %.
    """
    n, L = 10**6, 2
    found = log_cumulants(np.random.default_rng(2).gamma(L, size=n))
    c2, c3, c4, c5, c6 = (psi(order, L) for order in range(1, 6))
    exact = (
        c4 + 2 * c2**2,
        c5 + 6 * c2 * c3,
        c6 + 9 * c2 * c4 + 9 * c3**2 + 6 * c2**3,
    )
    assert np.array(found.covariance) * n == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize(("band", "counted"), [(0.8, 1.0), (0.5, 0.68)])
def test_speckle_correlates_k2_only_to_second_order(band: float, counted: float) -> None:
    """Scatter of k2 over 150 tiles of 128 px; a variance of 150 draws is known to 12 %."""
    rng = np.random.default_rng(11)
    tiles = [log_cumulants(speckle(rng, 128, 1, (band, band))) for _ in range(150)]
    predicted = np.mean([tile.covariance[0] for tile in tiles])
    assert predicted / np.var([tile.k2 for tile in tiles]) == pytest.approx(counted, rel=0.25)


def test_fewer_independent_samples_scatter_more() -> None:
    I = np.random.default_rng(3).gamma(1, size=4000)  # noqa: E741
    all_, quarter = log_cumulants(I), log_cumulants(I, 1000)
    assert np.array(quarter.covariance) == pytest.approx(np.array(all_.covariance) * 4)
    assert (all_.k1, all_.k2, all_.k3) == (quarter.k1, quarter.k2, quarter.k3)


def test_a_gain_moves_k1_alone() -> None:
    I = np.random.default_rng(4).gamma(1, size=4000)  # noqa: E741
    before, after = log_cumulants(I), log_cumulants(10 * I)
    assert after.k1 - before.k1 == pytest.approx(np.log(10))
    assert (after.k2, after.k3) == pytest.approx((before.k2, before.k3))


@pytest.mark.parametrize("x", [1e-6, 0.01, 0.3, 1.0, 1.5, 12.0, 1e4, 1e9])
def test_trigamma_is_inverted(x: float) -> None:
    assert inverse_trigamma(psi(1, x)) == pytest.approx(x, rel=1e-9)


def test_no_variance_is_an_infinite_argument() -> None:
    assert inverse_trigamma(0.0) == np.inf
    assert inverse_trigamma(-0.1) == np.inf


def test_distance_of_clouds_is_that_of_their_gaussians() -> None:
    rng = np.random.default_rng(5)
    a = rng.standard_normal((50, 2)) @ [[1.0, 0.4], [0.0, 2.0]]
    b = rng.standard_normal((70, 2)) @ [[0.5, 0.0], [0.9, 1.0]] + [3.0, -1.0]
    A, B = np.cov(a.T, bias=True), np.cov(b.T, bias=True)
    joint = np.trace(sqrtm(sqrtm(A) @ B @ sqrtm(A))).real
    square = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(A) + np.trace(B) - 2 * joint
    assert diagram_distance(a, b) == pytest.approx(np.sqrt(square))
    assert diagram_distance(a, a) == pytest.approx(0, abs=1e-7)
    assert diagram_distance(a, a + np.array([0.3, 0.4])) == pytest.approx(0.5)


def test_weights_of_tiles_are_repetitions() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((6, 2)), rng.standard_normal((5, 2))
    weighted = diagram_distance(a, b, weights_a=np.array([2.0, 1, 1, 1, 1, 3]))
    assert weighted == pytest.approx(diagram_distance(np.vstack([a, a[[0, 5, 5]]]), b))


def test_bad_samples_are_refused() -> None:
    I = np.random.default_rng(7).gamma(1, size=100)  # noqa: E741
    with pytest.raises(ValueError, match="5 values are 0 and have no logarithm"):
        log_cumulants(np.concatenate([I, np.zeros(5)]))
    with pytest.raises(ValueError, match="NaN"):
        log_cumulants(np.append(I, np.nan))
    with pytest.raises(ValueError, match="60 values, at least 64"):
        log_cumulants(I[:60])
    with pytest.raises(ValueError, match="101 given for 100 values"):
        log_cumulants(I, 101)
    with pytest.raises(ValueError, match="1 given for 100 values"):
        log_cumulants(I, 1)
    with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
        diagram_distance(np.eye(2), np.eye(2))
    with pytest.raises(ValueError, match="NaN or infinite: leave out the tile"):
        diagram_distance(np.full((4, 2), np.nan), np.eye(2))
