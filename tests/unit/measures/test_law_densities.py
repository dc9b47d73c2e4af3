from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import trapezoid

from sarhpc.measures.amplitude_laws import LAWS, law_cumulants
from sarhpc.measures.law_densities import log_intensity_density


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("shape", [0.8, 3.0, 40.0])
@pytest.mark.parametrize("looks", [1.0, 4.0])
def test_a_density_has_the_cumulants_of_its_law(law: str, shape: float, looks: float) -> None:
    x = np.linspace(-40, 40, 80_001)
    with np.errstate(over="ignore", under="ignore"):
        density = log_intensity_density(law, shape, looks, x)
    moments = [float(trapezoid(density * x**n, x)) for n in range(4)]
    k2, k3 = law_cumulants(law, shape, looks)
    assert moments == pytest.approx([1.0, 0.0, k2, k3], abs=2e-3, rel=2e-3)


def test_texture_that_vanishes_leaves_speckle() -> None:
    x = np.linspace(-8, 3, 100)
    speckle = log_intensity_density("gamma", 1.0, 1.0, x)
    for law in ("k", "g0"):
        for shape in (1e4, np.inf):
            found = log_intensity_density(law, shape, 1.0, x)
            assert np.abs(found - speckle).max() < 1e-3
    before, after = (log_intensity_density("k", nu, 1.0, x) for nu in (149.9, 150.1))
    assert np.abs(before - after).max() < 2e-3


def test_what_is_no_law_is_refused() -> None:
    with pytest.raises(ValueError, match="'cauchy'"):
        log_intensity_density("cauchy", 1.0, 1.0, np.zeros(1))
    with pytest.raises(ValueError, match="looks 0"):
        log_intensity_density("k", 1.0, 0.0, np.zeros(1))
