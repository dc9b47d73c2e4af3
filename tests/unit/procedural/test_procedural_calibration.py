"""Radiometry of flat scenes against the table of backscatter and the laws of speckle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from sarhpc.archive.procedural.backscatter import (
    SCATTERING,
    dihedral_rcs,
    dihedral_sigma0,
    sigma0,
    trihedral_rcs,
)
from sarhpc.archive.procedural.config import LABELS, ProceduralConfig
from sarhpc.archive.procedural.imaging.texture import CORRELATION_PX, gamma_of_normal
from sarhpc.archive.procedural.noise import smooth_noise
from sarhpc.archive.procedural.simulate import ProceduralScene, scene_ids, simulate_scene
from sarhpc.imaging.streams import stream

FLAT = ProceduralConfig(seed=2, scenes=1, size_px=512, optical=False, nesz_db=-70.0)


def flat_scene(name: str, **changes: object) -> ProceduralScene:
    cfg = replace(FLAT, flat_class=name, **changes)
    return simulate_scene(cfg, scene_ids(cfg)[0])


def intensity(scene: ProceduralScene) -> np.ndarray:
    return np.abs(scene.sar).astype(np.float64) ** 2


@pytest.mark.parametrize("name", LABELS[1:])
def test_flat_scene_has_the_backscatter_of_its_class(name: str) -> None:
    mean_db = 10 * np.log10(intensity(flat_scene(name)).mean())
    assert mean_db == pytest.approx(SCATTERING[name].sigma0_db, abs=0.2)


@pytest.mark.parametrize("incidence", [30.0, 55.0])
def test_backscatter_follows_the_angular_law(incidence: float) -> None:
    scene = flat_scene("bare", incidence_deg=incidence, texture=False)
    assert scene.incidence.mean() == pytest.approx(incidence, abs=0.05)
    expected = sigma0("bare", incidence)
    assert 10 * np.log10(intensity(scene).mean() / expected) == pytest.approx(0.0, abs=0.1)
    columns = intensity(scene).mean(axis=0).reshape(4, 128).mean(axis=1)
    assert columns[0] > columns[-1], "near range must be brighter: incidence grows with range"


def test_noise_floor_adds_the_noise_equivalent_sigma0() -> None:
    mean = intensity(flat_scene("water", nesz_db=-28.0, texture=False)).mean()
    expected = 10 ** (SCATTERING["water"].sigma0_db / 10) + 10**-2.8
    assert 10 * np.log10(mean / expected) == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("looks", [1, 4])
def test_equivalent_number_of_looks_is_the_number_of_looks(looks: int) -> None:
    scene = flat_scene("grass", looks=looks, texture=False)
    power = intensity(scene)
    assert np.iscomplexobj(scene.sar) == (looks == 1)
    # Neighbours correlate over 1.5 px per axis: about 1e5 independent cells, 1 % of ENL.
    assert power.mean() ** 2 / power.var() == pytest.approx(looks, rel=0.03)


def test_single_look_amplitude_is_rayleigh() -> None:
    amplitude = np.abs(flat_scene("grass", texture=False).sar)
    variation = amplitude.std() / amplitude.mean()
    assert variation == pytest.approx(np.sqrt(4 / np.pi - 1), abs=0.005)


@pytest.mark.parametrize(("name", "nu"), [("urban", 1.5), ("forest", 4.0)])
def test_texture_survives_the_impulse_response(name: str, nu: float) -> None:
    power = intensity(flat_scene(name))
    measured = power.var() / power.mean() ** 2
    # K distribution of one look: 2 (1 + 1/nu) - 1; the response averages a little of it away.
    assert measured == pytest.approx(1 + 2 / nu, rel=0.12)


@pytest.mark.parametrize("nu", [1.5, 4.0, 20.0])
def test_texture_is_gamma_distributed_and_correlated(nu: float) -> None:
    normal = smooth_noise(stream(3, "test", "texture"), (1536, 1536), CORRELATION_PX)
    texture = gamma_of_normal(normal, nu)
    assert texture.mean() == pytest.approx(1.0, abs=0.02)
    assert texture.var() == pytest.approx(1 / nu, rel=0.06)
    thin = texture[::24, ::24].ravel()
    assert stats.kstest(thin, stats.gamma(nu, scale=1 / nu).cdf).pvalue > 0.01
    centred = texture - 1
    lag4 = (centred[:, 4:] * centred[:, :-4]).mean() / texture.var()
    assert lag4 > 0.5


def test_trihedral_returns_its_cross_section() -> None:
    scene = flat_scene("road", trihedrals=4, texture=False)
    points = [thing for thing in scene.objects if thing["kind"] == "trihedral"]
    assert len(points) == 4
    for point in points:
        r, c = point["row"], point["col"]
        around = intensity(scene)[max(r - 8, 0) : r + 9, max(c - 8, 0) : c + 9]
        clutter = sigma0("road", 45.0) * around.size
        measured = (around.sum() - clutter) * FLAT.pixel_m**2
        assert measured == pytest.approx(trihedral_rcs(point["side_m"]), rel=0.05)
        assert around.max() > 1e4 * sigma0("road", 45.0)


def test_reflector_formulas_have_their_textbook_values() -> None:
    # 4 pi a^4 / (3 lambda^2) at a = 0.5 m and 8 pi a^2 b^2 / lambda^2 at 1 m x 1 m, X band.
    assert 10 * np.log10(trihedral_rcs(0.5)) == pytest.approx(24.3, abs=0.1)
    assert 10 * np.log10(dihedral_rcs(1.0, 1.0)) == pytest.approx(44.1, abs=0.1)


def test_dihedral_fades_off_broadside() -> None:
    off = np.radians([0.0, 5.0, 11.0, 45.0])
    level = 10 * np.log10(dihedral_sigma0(6.0, off))
    assert (np.diff(level) < 0).all()
    assert 8 < level[0] < 22
    assert level[0] - level[2] == pytest.approx(4.3, abs=0.3)
    assert level[0] - level[-1] == pytest.approx(14, abs=0.5)
