"""What E1, E2 and E4 read on speckle that went wrong; `pytest -s` prints the table of the guide."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from speckle_fields import speckle, theory

from sarhpc.measures.log_cumulants import log_cumulants
from sarhpc.measures.looks import enl_mode, local_enl_histogram
from sarhpc.measures.speckle_correlation import lag_products, speckle_autocorrelation

SIDE = 512


def shuffled(I: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: E741
    blocks = I.reshape(SIDE // 8, 8, SIDE // 8, 8).swapaxes(1, 2).reshape(-1, 64)
    mixed = rng.permuted(blocks, axis=1).reshape(SIDE // 8, SIDE // 8, 8, 8)
    return mixed.swapaxes(1, 2).reshape(SIDE, SIDE)


def codes_of_8_bits(I: np.ndarray, mean_code: float) -> np.ndarray:  # noqa: E741
    A = np.sqrt(I)
    codes = np.minimum(np.round(A * mean_code / A.mean()), 255)
    return np.maximum(codes, 0.5) ** 2


@pytest.fixture(scope="module")
def read():  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(1)
    whole = speckle(rng)
    images = {
        "speckle": whole,
        "blur 0.6 px": gaussian_filter(np.sqrt(whole), 0.6, mode="wrap") ** 2,
        "two fields averaged": (whole + speckle(rng)) / 2,
        "white speckle": rng.exponential(size=(SIDE, SIDE)),
        "8 x 8 px shuffled": shuffled(whole, rng),
        "band 0.5 in range": speckle(rng, SIDE, 1, (0.8, 0.5)),
        "8-bit codes, mean 99": codes_of_8_bits(whole, 99),
        "8-bit codes, mean 5": codes_of_8_bits(whole, 5),
    }
    return {name: _row(name, image) for name, image in images.items()}


def _row(name: str, I: np.ndarray) -> tuple[float, float, float, float, float]:  # noqa: E741
    acf = speckle_autocorrelation(lag_products(I))
    sample = log_cumulants(I)
    row = (enl_mode(local_enl_histogram(I), acf), sample.k2, sample.k3, acf[0, 0], acf[1, 0])
    print(f"\n{name:26}" + "".join(f"{value:8.3f}" for value in row), end="")
    return row


def test_each_defect_moves_what_it_should(read) -> None:  # type: ignore[no-untyped-def]
    near = partial(pytest.approx, abs=0.02)
    assert read["speckle"] == pytest.approx((1, 1.645, -2.404, 0.408, 0.408), abs=0.05)
    assert read["blur 0.6 px"][0] > 1.8
    assert min(read["blur 0.6 px"][3:]) > 0.6
    # k2 and k3 of two looks, psi_1(2) and psi_2(2).
    assert read["two fields averaged"] == pytest.approx((2, 0.645, -0.404, 0.408, 0.408), abs=0.05)
    assert read["white speckle"][3:] == near((0, 0))
    assert read["8 x 8 px shuffled"][1:3] == pytest.approx(read["speckle"][1:3])
    assert max(read["8 x 8 px shuffled"][3:]) < 0.1
    assert read["band 0.5 in range"][3:] == near(tuple(theory((0.8, 0.5))[:, 0]))


def test_codes_of_8_bits_keep_looks_and_correlation_but_not_log_cumulants(read) -> None:  # type: ignore[no-untyped-def]
    """Rounding is harmless at the level of uniform speckle, and not where the scene is dark."""
    codes, dark = read["8-bit codes, mean 99"], read["8-bit codes, mean 5"]
    assert codes[0] == pytest.approx(read["speckle"][0], abs=0.02)
    assert codes[3:] == pytest.approx(read["speckle"][3:], abs=0.01)
    assert abs(dark[2] - read["speckle"][2]) > 0.3
