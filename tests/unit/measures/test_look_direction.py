"""E8 on tiles whose look direction is known: measured chips, and texture made for the purpose."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from speckle_tiles import scene

from sarhpc.measures.flip_classifier import group_folds
from sarhpc.measures.look_direction import LookDirection, Share, look_direction, orientation, share

pytestmark = pytest.mark.slow

Tiles = list[NDArray[np.float64]]
GOTCHA = "derived_gotcha_az1-4_HH_amp_u16_0p2m.tif"


def chips(archive: Path, per_class: int) -> tuple[Tiles, list[str]]:
    """Amplitudes of MSTAR chips with near range on the left, and their classes.

    Shadows fall towards the top of the pictures: range runs up, and to the right once transposed.
    """
    rng, members, tiles, classes = np.random.default_rng(0), {}, [], []
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            if member.name.endswith(".jpeg"):
                members.setdefault(member.name.split("/")[1], []).append(member)
        for name, chosen in sorted(members.items()):
            for index in rng.choice(len(chosen), min(per_class, len(chosen)), replace=False):
                picture = Image.open(io.BytesIO(tar.extractfile(chosen[index]).read()))
                tiles.append(np.maximum(np.asarray(picture.convert("L"))[::-1].T, 0.5))
                classes.append(name)
    return tiles, classes


def flipped(tiles: Tiles) -> Tiles:
    return [tile[:, ::-1] for tile in tiles]


def texture(seed: int, groups: int, each: int) -> tuple[Tiles, list[int]]:
    """Speckle over bright walls, each with its shadow on the far side."""
    rng = np.random.default_rng(seed)
    names = [group for group in range(groups) for _ in range(each)]
    # Rolled, so that where the walls stand tells nothing.
    return [np.roll(scene(rng, 64), rng.integers(64, size=2), (0, 1)) for _ in names], names


def speckle(seed: int, groups: int, each: int) -> tuple[Tiles, list[int]]:
    rng = np.random.default_rng(seed)
    names = [group for group in range(groups) for _ in range(each)]
    return [np.sqrt(rng.exponential(size=(64, 64))) for _ in names], names


@pytest.fixture(scope="module")
def textured() -> LookDirection:
    return look_direction(*texture(1, groups=8, each=8), steps=60, folds=2)


def test_measured_chips_show_their_look_direction(test_data: Path) -> None:
    tiles, classes = chips(test_data / "mstar_soc" / "train.tar", 20)
    found = look_direction(tiles, classes, steps=150, folds=2)
    assert found.verdict == "shown", found.reason
    # 200 chips: three standard errors, 3 sqrt(0.95 * 0.05 / 200), below 0.95.
    assert found.range.value >= 0.95 - 0.046, found.reason
    assert found.azimuth.low < 0.5 < found.azimuth.high
    assert (found.range.tiles, found.range.groups) == (200, 10)

    others, of_class = chips(test_data / "mstar_soc" / "test.tar", 10)
    assert orientation(found, others, of_class).verdict == "as real"
    assert orientation(found, flipped(others), of_class).verdict == "reversed"
    assert orientation(found, [tile[::-1] for tile in others], of_class).verdict == "as real"


@pytest.mark.long
def test_every_class_of_chips_shows_it_though_never_learned_from(test_data: Path) -> None:
    tiles, classes = chips(test_data / "mstar_soc" / "train.tar", 100)
    found = look_direction(tiles, classes)
    print(f"real: {found.verdict}: {found.reason}")
    assert found.verdict == "shown"
    assert found.range.value >= 0.95
    assert found.azimuth.low < 0.5 < found.azimuth.high
    for name in sorted(set(classes)):
        accuracy = found.correct[np.array(classes) == name].mean()
        print(f"{name}: {accuracy:.3f}")
        # 100 chips of each class: three standard errors below 0.95.
        assert accuracy >= 0.95 - 0.065, name
    others, of_class = chips(test_data / "mstar_soc" / "test.tar", 40)
    for what, those, verdict in (
        ("15 degrees", others, "as real"),
        ("15 degrees, range flip", flipped(others), "reversed"),
        ("15 degrees, azimuth flip", [tile[::-1] for tile in others], "as real"),
    ):
        judged = orientation(found, those, of_class)
        print(f"{what}: {judged.verdict}: {judged.reason}")
        assert judged.verdict == verdict


def test_texture_with_shadows_is_shown_and_its_flip_is_reversed(textured: LookDirection) -> None:
    others, _ = texture(2, groups=40, each=1)
    assert textured.verdict == "shown", textured.reason
    assert orientation(textured, others).verdict == "as real"
    judged, reverse = orientation(textured, others), orientation(textured, flipped(others))
    assert reverse.verdict == "reversed"
    # A tile is judged by itself against its flip, so that the two sets are each other's complement.
    assert judged.unflipped.value + reverse.unflipped.value == pytest.approx(1)


def test_a_set_with_some_tiles_flipped_is_weaker_than_real(textured: LookDirection) -> None:
    others, _ = texture(3, groups=100, each=1)
    mixed = others[:66] + flipped(others[66:])
    assert orientation(textured, mixed).verdict == "weaker than real"
    half = others[:50] + flipped(others[50:])
    assert orientation(textured, half).verdict == "weaker than real"
    # Of as few as twelve nothing can be said.
    assert orientation(textured, half[42:54]).verdict == "undecided"


def test_speckle_alone_is_undecided_and_judges_nothing(textured: LookDirection) -> None:
    tiles, groups = speckle(1, groups=8, each=8)
    found = look_direction(tiles, groups, steps=20, folds=2)
    assert found.verdict == "undecided"
    assert "range flips are not recognised beyond chance" in found.reason
    assert found.range.low < 0.5 < found.range.high
    judged = orientation(found, texture(2, groups=8, each=1)[0])
    assert (judged.verdict, judged.unflipped) == ("undecided", None)
    assert judged.reason.startswith(
        "not asked, as the real tiles are undecided: range flips recognised"
    )
    assert orientation(textured, tiles).verdict == "weaker than real"


def test_tiles_whose_azimuth_is_told_are_undecided() -> None:
    tiles, groups = texture(1, groups=8, each=8)
    both = [tile * np.linspace(0.2, 3, 64)[:, None] for tile in tiles]
    found = look_direction(both, groups, steps=60, folds=2)
    assert found.azimuth.low > 0.5
    assert found.verdict == "undecided"
    assert "azimuth is not at chance" in found.reason


def test_the_result_repeats_whatever_the_scale_of_amplitude() -> None:
    tiles, groups = texture(4, groups=6, each=4)
    one = look_direction(tiles, groups, seed=3, steps=10)
    other = look_direction([1024 * tile for tile in tiles], groups, seed=3, steps=10)
    assert (one.range, one.azimuth) == (other.range, other.azimuth)
    assert np.array_equal(one.correct, other.correct)


def test_no_group_is_learned_from_and_asked() -> None:
    groups = np.repeat(np.arange(11), [30, 1, 1, 1, 8, 8, 8, 8, 9, 2, 2])
    parts = group_folds(groups, 5, seed=0)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(groups.size))
    asked = [set(groups[part]) for part in parts]
    assert sum(len(names) for names in asked) == 11
    assert max(len(part) for part in parts) == 30


def test_the_interval_is_that_of_clopper_and_pearson_where_groups_do_not_matter() -> None:
    # 8 of 10 in tiles that are groups of their own: Clopper and Pearson's (0.444, 0.975).
    found = share(np.array([1.0] * 8 + [0.0] * 2), np.arange(10))
    assert (found.value, found.tiles, found.groups) == (0.8, 10, 10)
    assert found.low == pytest.approx(0.4439, abs=1e-3)
    assert found.high == pytest.approx(0.9748, abs=1e-3)
    # Copies of a tile in its group say nothing more.
    copies = share(np.repeat([1.0] * 8 + [0.0] * 2, 50), np.repeat(np.arange(10), 50))
    assert copies.low < found.low + 0.03
    assert copies.high > found.high - 0.03
    # All of 20 right: Clopper and Pearson's lower end, 0.025 ** (1 / 20).
    assert share(np.ones(20), np.arange(20)).low == pytest.approx(0.025 ** (1 / 20))
    assert share(np.zeros(20), np.arange(20)).high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert share(np.full(20, 0.5), np.arange(20)).low < 0.35


def test_the_interval_covers_where_groups_differ() -> None:
    # 400 draws: the standard error of 95 % is 1.1 %, and the interval is known to be wide.
    rng, inside = np.random.default_rng(0), 0
    groups = np.repeat(np.arange(12), 10)
    for _ in range(400):
        rate = rng.beta(6, 4, size=12)
        found = share((rng.random(120) < rate[groups]).astype(float), groups)
        inside += found.low <= 0.6 <= found.high
    assert inside / 400 >= 0.95 - 0.033


@pytest.mark.long
def test_scenes_without_a_direction_are_seldom_shown_or_refused() -> None:
    """Scenes of their own slope and texture, whose tiles are alike: what cross-validation may
    mistake for a direction of all scenes."""
    below = above = 0
    for draw in range(40):
        rng = np.random.default_rng(1000 + draw)
        tiles, groups = [], []
        for group in range(8):
            row, column = np.mgrid[:160, :160] / 160 - 0.5
            angle = rng.uniform(0, 2 * np.pi)
            ground = gaussian_filter(rng.standard_normal((160, 160)), 6)
            ground = ground / ground.std() + 3 * (np.cos(angle) * column + np.sin(angle) * row)
            for top, left in rng.integers(0, 96, (8, 2)):
                level = np.exp(0.7 * ground[top : top + 64, left : left + 64])
                tiles.append(level * np.sqrt(rng.exponential(size=(64, 64))))
                groups.append(group)
        found = look_direction(tiles, groups, seed=draw, steps=50)
        for flip in (found.range, found.azimuth):
            above += flip.low > 0.5
            below += flip.high < 0.5
    print(f"of 80 intervals {above} lie above 0.5 and {below} below")
    # 2.5 % of 80 on each side is 2; three standard errors more are 6.2.
    assert above <= 6
    assert below <= 6


def test_few_folds_widen_the_interval() -> None:
    values, groups = np.tile([1.0, 1.0, 0.0], 40), np.repeat(np.arange(12), 10)
    plain, cross = share(values, groups), share(values, groups, overlap=5 / 4)
    assert isinstance(cross, Share)
    assert cross.low < plain.low < plain.high < cross.high


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda tile: np.full_like(tile, 3.0), "tile 5 is constant"),
        (lambda tile: np.zeros_like(tile), "tile 5 is constant"),
        (lambda tile: np.where(tile > 2, np.nan, tile), "tile 5 has NaN, infinite or negative"),
        (lambda tile: tile - 1, "tile 5 has NaN, infinite or negative"),
        (lambda tile: tile[:39], re.escape("tile 5 has shape (39, 64): give (H, W) with at least")),
        (lambda tile: tile[None], re.escape("tile 5 has shape (1, 64, 64)")),
    ],
)
def test_tiles_that_show_nothing_are_refused(textured: LookDirection, spoil, says: str) -> None:
    tiles, groups = speckle(2, groups=8, each=1)
    tiles[5] = spoil(tiles[5])
    with pytest.raises(ValueError, match=says):
        look_direction(tiles, groups)
    with pytest.raises(ValueError, match=says):
        orientation(textured, tiles)


def test_too_few_groups_are_refused(textured: LookDirection) -> None:
    tiles, groups = speckle(2, groups=5, each=2)
    with pytest.raises(ValueError, match=r"5 groups of tiles .* cannot show .*: 6 are needed"):
        look_direction(tiles, groups)
    with pytest.raises(ValueError, match="9 groups for 10 tiles"):
        look_direction(tiles, groups[1:])
    with pytest.raises(ValueError, match="9 groups for 10 tiles"):
        orientation(textured, tiles, groups[1:])
    with pytest.raises(ValueError, match="folds=1, steps=400: give at least 2"):
        look_direction(tiles, groups, folds=1)
    with pytest.raises(ValueError, match="5 independent tiles or groups cannot be judged"):
        orientation(textured, tiles, groups)


def test_a_single_real_scene_is_not_judged(test_data: Path) -> None:
    """GOTCHA is one scene of one pass: four quadrants, at best."""
    import rasterio

    with rasterio.open(test_data / "gotcha_xband" / GOTCHA) as dataset:
        A = dataset.read(1)
    corners = [(row, column) for row in range(0, 640, 128) for column in range(0, 640, 128)]
    blocks = [A[row : row + 128, column : column + 128] for row, column in corners]
    quadrants = [(row // 320, column // 320) for row, column in corners]
    with pytest.raises(ValueError, match=r"4 groups of tiles .* 6 are needed"):
        look_direction(blocks, quadrants)


def test_the_module_is_imported_without_torch() -> None:
    says = "import sys, sarhpc.measures.look_direction; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", says], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
