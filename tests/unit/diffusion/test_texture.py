"""The texture terms see blur and wrong correlation, and do not see another draw of the speckle."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sarhpc.diffusion import texture
from sarhpc.diffusion.crops import as_gray8, as_input
from sarhpc.measures import autoencoder_fidelity as fidelity

Term = Callable[[Tensor, Tensor], Tensor]
TERMS: list[Term] = [
    texture.spectral_distance,
    texture.histogram_distance,
    texture.increment_distance,
    texture.autocorrelation_distance,
]


def _speckle(seed: int, side: int = 128) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    spectrum = np.fft.fft2(rng.normal(size=(side, side)) + 1j * rng.normal(size=(side, side)))
    outside = np.abs(np.fft.fftfreq(side)) > 0.25
    spectrum[outside] = 0
    spectrum[:, outside] = 0
    amplitude = np.abs(np.fft.ifft2(spectrum))
    top = amplitude.mean() + 3 * amplitude.std()
    return np.rint(255 * np.minimum(amplitude / top, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def draws() -> tuple[Tensor, Tensor]:
    """Two independent draws of the same speckle, (4, 3, 128, 128)."""
    first, second = (
        torch.stack([as_input(_speckle(seed + k)) for seed in range(4)]) for k in (0, 100)
    )
    return first, second


def _blurred(images: Tensor) -> Tensor:
    return functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)


def _shuffled(images: Tensor) -> Tensor:
    order = torch.randperm(128 * 128, generator=torch.Generator().manual_seed(0))
    return images.flatten(2)[..., order].reshape(images.shape)


def _compare(term: Term, real: Tensor, fake: Tensor) -> Tensor:
    amplitudes = texture.amplitude(real), texture.amplitude(fake)
    if term is texture.autocorrelation_distance:
        return term(*amplitudes)
    level = texture.local_level(amplitudes[0])
    return term(*(texture.log_amplitude(amplitude, level) for amplitude in amplitudes))


def _value(term: Term, real: Tensor, fake: Tensor) -> float:
    return float(_compare(term, real, fake))


@pytest.mark.parametrize("term", TERMS)
def test_every_term_penalises_blur_and_not_another_realisation(
    term: Term, draws: tuple[Tensor, Tensor]
) -> None:
    real, again = draws
    assert _value(term, real, real) == pytest.approx(0, abs=1e-6)
    assert _value(term, real, again) < 0.55 * _value(term, real, _blurred(real))


@pytest.mark.parametrize(
    ("term", "factor"),
    [
        (texture.spectral_distance, 3),
        (texture.increment_distance, 1.3),
        (texture.autocorrelation_distance, 5),
    ],
)
def test_shuffled_pixels_are_penalised_by_all_terms_on_neighbours(
    term: Term, factor: float, draws: tuple[Tensor, Tensor]
) -> None:
    real, again = draws
    assert _value(term, real, _shuffled(real)) > factor * _value(term, real, again)


@pytest.mark.parametrize("term", TERMS)
def test_gradients_are_finite_even_below_zero_amplitude(
    term: Term, draws: tuple[Tensor, Tensor]
) -> None:
    fake = (draws[1] - 0.5).requires_grad_()
    _compare(term, draws[0], fake).backward()
    assert fake.grad is not None
    assert torch.isfinite(fake.grad).all()
    assert float(fake.grad.abs().max()) > 0


def test_amplitudes_out_of_range_are_clipped_but_keep_a_gradient() -> None:
    values = torch.tensor([-1.5, -1.0, 1.0, 1.5]).reshape(4, 1, 1, 1).expand(4, 3, 1, 1).clone()
    values.requires_grad_()
    amplitudes = texture.amplitude(values)
    assert amplitudes.flatten().tolist() == [0, 0, 1, 1]
    amplitudes.sum().backward()
    assert values.grad is not None
    assert (values.grad > 0).all()


def test_dark_and_bright_speckle_have_equal_weight(draws: tuple[Tensor, Tensor]) -> None:
    real, blurred = draws[0], _blurred(draws[0])
    dark_real, dark_blurred = ((image + 1) * 0.4 - 1 for image in (real, blurred))
    for term in TERMS:
        bright, dark = _value(term, real, blurred), _value(term, dark_real, dark_blurred)
        assert dark == pytest.approx(bright, rel=0.05)


def test_the_training_term_and_the_report_agree_on_the_autocorrelation(
    draws: tuple[Tensor, Tensor],
) -> None:
    from_torch = texture.autocorrelation(texture.amplitude(draws[0])).mean(0).numpy()
    tiles = [as_gray8(image) for image in draws[0]]
    reported = fidelity.compare(tiles, tiles)
    from_numpy = np.array([reported["acf_azimuth"], reported["acf_range"]])
    # The term counts from 0 what a local mean of 9 x 9 px lowers by 1/20; the report corrects it.
    assert np.abs(from_torch + 0.05 - from_numpy).max() < 0.05


def test_the_floor_of_a_set_with_itself_is_zero_and_its_speckle_single_look() -> None:
    tiles = [_speckle(seed) for seed in range(12)]
    same = fidelity.compare(tiles, tiles)
    assert same["lsd_db"] == same["histogram_jsd_bits"] == same["histogram_w1_db"] == 0
    assert same["acf_range_difference"] == 0
    assert same["enl_mode_real"] == pytest.approx(1.0, abs=0.2)


def test_the_report_agrees_with_the_theory_of_speckle_correlation() -> None:
    # |rho(d)|^2 with rho = sinc(B d), B = 0.5 cycles per pixel, the band kept above.
    tiles = [_speckle(seed) for seed in range(12)]
    reported = fidelity.compare(tiles, tiles)
    expected = np.sinc(0.5 * np.arange(1, 6)) ** 2
    for axis in ("acf_azimuth", "acf_range"):
        assert reported[axis] == pytest.approx(expected, abs=0.03)


def test_a_gain_of_one_decibel_is_one_decibel_of_distance() -> None:
    tiles = [_speckle(seed) // 2 for seed in range(4)]
    brighter = [np.rint(tile * 10 ** (1 / 20)).astype(np.uint8) for tile in tiles]
    reported = fidelity.compare(tiles, brighter)
    assert reported["histogram_w1_db"] == pytest.approx(1.0, abs=0.1)


def test_blur_shows_in_enl_spectrum_and_correlation_and_a_new_draw_in_none() -> None:
    tiles = [_speckle(seed) for seed in range(16)]
    again = [_speckle(seed + 100) for seed in range(16)]
    blurred = [as_gray8(_blurred(as_input(tile)[None])[0]) for tile in tiles]
    new, blur = fidelity.compare(tiles, again), fidelity.compare(tiles, blurred)
    for key in ("lsd_db", "histogram_w1_db", "acf_range_difference", "acf_azimuth_difference"):
        assert float(new[key]) < 0.2 * float(blur[key]), key  # type: ignore[arg-type]
    assert float(blur["enl_mode"]) > 2 * float(new["enl_mode"])  # type: ignore[arg-type]


def test_lines_of_an_eight_pixel_grid_are_reported() -> None:
    tiles = [_speckle(seed) for seed in range(8)]
    grid = np.ones((128, 128))
    grid[::8] = grid[:, ::8] = 0.3
    lined = [(tile * grid).astype(np.uint8) for tile in tiles]
    assert abs(float(fidelity.compare(tiles, tiles)["grid_lines_db"])) < 2  # type: ignore[arg-type]
    assert float(fidelity.compare(tiles, lined)["grid_lines_db"]) > 5  # type: ignore[arg-type]


def test_reconstructions_are_held_against_distances_between_real_crops() -> None:
    tiles = [_speckle(seed) for seed in range(16)]
    blurred = [as_gray8(_blurred(as_input(tile)[None])[0]) for tile in tiles]
    exact = fidelity.against_nulls(tiles, tiles, range(16))
    blur = fidelity.against_nulls(tiles, blurred, range(16))
    for name in ("E4_acf", "E5_lsd"):
        assert exact[name]["p_value"] > 0.05, name
        assert exact[name]["raw"] > 0, "tiles of some images against those of the others"
        assert blur[name]["p_value"] < 0.01, name
        assert blur[name]["raw"] > 3 * blur[name]["null_95"], name
    few = fidelity.against_nulls(tiles, blurred, [number // 4 for number in range(16)])
    assert "of 4 scenes" in few["E5_lsd"]["reason"]
    assert few["E5_lsd"]["raw"] > blur["E5_lsd"]["null_95"]
