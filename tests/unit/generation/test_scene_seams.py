"""Scenes of the embedded model against single tiles: no seams, the looks of tiles; and controls."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import sarhpc
from sarhpc.measures.image_defects import LOOKS, measure_image
from sarhpc.measures.seams import Join, measure_seams
from sarhpc.measures.speckle_correlation import lag_products, speckle_autocorrelation

pytestmark = pytest.mark.slow

PROMPTS = ("a dense forest", "a field", "houses along a street")
TILE_PX, ACROSS = 128, 3
SIDE_PX = TILE_PX * ACROSS


@dataclass(frozen=True)
class Made:
    scene: NDArray[np.uint8]
    seams: dict[str, Any]
    tiles: NDArray[np.uint8]
    """(9, 128, 128), each of its own noise."""


@pytest.fixture(scope="module")
def made() -> list[Made]:
    """A scene of each prompt, and as many tiles as it has parts of their size."""
    logging.disable(logging.WARNING)  # the embedded model has no contract
    size = {"rows_px": SIDE_PX, "columns_px": SIDE_PX}
    model = sarhpc.load_model("embedded:sar", scene=size, steps=12, guidance=4.0, batch=8)
    single = dataclasses.replace(model, config=dataclasses.replace(model.config, scene=None))
    found = []
    for prompt in PROMPTS:
        scene = sarhpc.generate(model, prompt)
        tiles = sarhpc.generate(single, prompt, images=ACROSS**2)
        seams = scene.samples[0].meta["scene"]["seams"]
        found.append(Made(scene.images[0], seams, tiles.images))
    logging.disable(logging.NOTSET)
    return found


def parts(scene: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(9, 128, 128)"""
    blocks = scene.reshape(ACROSS, TILE_PX, ACROSS, TILE_PX)
    return blocks.transpose(0, 2, 1, 3).reshape(-1, TILE_PX, TILE_PX)


def abutted(tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    blocks = tiles.reshape(ACROSS, ACROSS, TILE_PX, TILE_PX)
    return blocks.transpose(0, 2, 1, 3).reshape(SIDE_PX, SIDE_PX)


def averaged(tiles: NDArray[np.uint8], overlap: int) -> NDArray[np.float64]:
    step = TILE_PX - overlap
    side = step * (ACROSS - 1) + TILE_PX
    total, count = np.zeros((side, side)), np.zeros((side, side))
    for number, tile in enumerate(tiles):
        row, column = (step * place for place in divmod(number, ACROSS))
        total[row : row + TILE_PX, column : column + TILE_PX] += tile
        count[row : row + TILE_PX, column : column + TILE_PX] += 1
    return total / count


def joins(step: int, width: int) -> list[Join]:
    return [Join(axis, step * place, width) for axis in (0, 1) for place in range(1, ACROSS)]


def test_scenes_show_no_seams_and_tiles_side_by_side_do(made: list[Made]) -> None:
    for prompt, one in zip(PROMPTS, made, strict=True):
        naive = measure_seams(abutted(one.tiles), joins(TILE_PX, 0))
        values = {test.name: float(f"{test.p_value:.1g}") for test in naive.tests}
        print(f"{prompt}: p of the scene {one.seams['p_values']}, of tiles side by side {values}")
        assert one.seams["passed"]
        assert not naive.passed


def interval(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float, float]:
    """Difference of the mean over prompts of medians, with its 95 % interval over parts."""
    rng = np.random.default_rng(0)

    def drawn(values: NDArray[np.float64]) -> NDArray[np.float64]:
        places = rng.integers(0, values.shape[1], (2000, *values.shape))
        again = np.take_along_axis(np.broadcast_to(values, places.shape), places, axis=2)
        return np.median(again, axis=2).mean(axis=1)

    low, high = np.quantile(drawn(one) - drawn(other), (0.025, 0.975))
    centre = np.median(one, axis=1).mean() - np.median(other, axis=1).mean()
    return float(centre), float(low), float(high)


def test_looks_and_correlation_of_scenes_are_those_of_tiles(made: list[Made]) -> None:
    def looks(images: NDArray[np.uint8]) -> list[float]:
        return [float(np.log(measure_image(image)[LOOKS])) for image in images]

    def correlation(images: NDArray[np.uint8]) -> list[float]:
        products = (lag_products(image.astype(np.float64) ** 2) for image in images)
        return [float(speckle_autocorrelation(product)[:, 0].mean()) for product in products]

    for name, measure, most in (("ln ENL", looks, 0.2), ("lag 1", correlation, 0.05)):
        scenes = np.array([measure(parts(one.scene)) for one in made])
        tiles = np.array([measure(one.tiles) for one in made])
        difference, low, high = interval(scenes, tiles)
        print(f"{name} of scenes less that of tiles: {difference:.3f} ({low:.3f} to {high:.3f})")
        assert low <= 0 <= high
        assert max(-low, high) < most, "the interval is narrow enough to say so"


def test_regions_lie_where_the_layout_has_them(made: list[Made], tmp_path: Path) -> None:
    """A disc of water in a forest: its level is that of water, and it is found by its level."""
    row, column = np.mgrid[: ACROSS * 16, : ACROSS * 16]
    disc = (np.hypot(row - 20, column - 26) < 12).astype(np.uint8)
    Image.fromarray(disc).save(tmp_path / "layout.png")
    scene = {"rows_px": SIDE_PX, "columns_px": SIDE_PX, "layout": str(tmp_path / "layout.png"),
             "regions": ["calm water"]}  # fmt: skip
    model = sarhpc.load_model("embedded:sar", scene=scene, steps=12, guidance=4.0, batch=8)
    image = sarhpc.generate(model, PROMPTS[0]).images[0]
    # Means of 16 x 16 px, two latent pixels a side: some 100 independent samples of speckle each.
    blocks = image.astype(np.float64) ** 2
    level = 10 * np.log10(blocks.reshape(24, 16, 24, 16).mean(axis=(1, 3)) + 1e-9)
    inside = disc.reshape(24, 2, 24, 2).mean(axis=(1, 3))
    water, forest = level[inside == 1], level[inside == 0]
    found = level < (np.median(water) + np.median(forest)) / 2
    iou = (found & (inside > 0.5)).sum() / (found | (inside > 0.5)).sum()
    tiles = 10 * np.log10((made[0].tiles.astype(np.float64) ** 2).mean(axis=(1, 2)))
    again = np.random.default_rng(0).choice(forest, (2000, forest.size)).mean(axis=1)
    print(f"IoU {iou:.2f}; water {np.median(water):.1f} dB, forest {np.median(forest):.1f} dB, "
          f"{np.quantile(again, 0.025):.1f} to {np.quantile(again, 0.975):.1f}, "
          f"of tiles {tiles.min():.1f} to {tiles.max():.1f}")  # fmt: skip
    assert iou > 0.8
    assert np.median(water) < np.median(forest) - 6


@pytest.mark.long
def test_looks_of_scenes_whose_predictions_are_averaged(
    made: list[Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows that overlap by half, their predictions averaged (MultiDiffusion): printed."""
    import torch

    size = {"height_px": SIDE_PX, "width_px": SIDE_PX}
    model = sarhpc.load_model("embedded:sar", steps=12, guidance=4.0, batch=1, **size)
    predict, side = model.pipeline.unet.forward, TILE_PX // 8

    def mean(sample: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        total, count = torch.zeros_like(sample), torch.zeros_like(sample)
        for row in range(0, sample.shape[2] - side + 1, side // 2):
            for column in range(0, sample.shape[3] - side + 1, side // 2):
                window = np.s_[:, :, row : row + side, column : column + side]
                total[window] += predict(sample[window], *arguments, **options)[0]
                count[window] += 1
        return (total / count,)

    monkeypatch.setitem(model.pipeline.unet.__dict__, "forward", mean)
    for prompt, one in zip(PROMPTS, made, strict=True):
        [other] = sarhpc.generate(model, prompt).images
        values = [measure_image(image)[LOOKS] for image in (one.scene, other)]
        print(f"{prompt}: ENL {values[0]:.3f} of one prediction, {values[1]:.3f} of averaged ones")
        assert np.isfinite(values).all()


def test_averaged_overlaps_of_decoded_tiles_have_more_looks(made: list[Made]) -> None:
    """What shifted windows avoid."""
    for prompt, one in zip(PROMPTS, made, strict=True):
        report = measure_seams(averaged(one.tiles, 32), joins(TILE_PX - 32, 32))
        looks = next(test for test in report.tests if test.name == "looks")
        ratio = np.exp(looks.joins - looks.controls)
        print(
            f"{prompt}: ENL in overlaps {ratio:.2f} times that beside them, p {looks.p_value:.1g}"
        )
        assert ratio > 1.2
        assert not report.passed
