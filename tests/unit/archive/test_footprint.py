from __future__ import annotations

import numpy as np
import pytest
from affine import Affine

from sarhpc.archive.footprint import (
    covered_share,
    geojson_bbox,
    geojson_polygon,
    outline,
    wgs84_outline,
)

SQUARE = np.array([(0, 0), (10, 0), (10, 10), (0, 10)]) + np.array([600_000.0, 5_700_000.0])
EAST = np.array([1.0, 0.0])


@pytest.mark.parametrize("order", [1, -1])
def test_the_covered_share_does_not_depend_on_the_turn_of_the_outlines(order: int) -> None:
    half = SQUARE + 5 * EAST
    assert covered_share(SQUARE[::order], half) == pytest.approx(0.5)
    assert covered_share(SQUARE, half[::order]) == pytest.approx(0.5)


def test_the_covered_share_of_inside_outside_and_rotated_images() -> None:
    centre = SQUARE.mean(axis=0)
    assert covered_share(SQUARE, (SQUARE - centre) * 3 + centre) == pytest.approx(1)
    assert covered_share(SQUARE, (SQUARE - centre) / 2 + centre) == pytest.approx(0.25)
    assert covered_share(SQUARE, SQUARE + 20 * EAST) == 0
    turn = np.sqrt(0.5) * np.array([(1, -1), (1, 1)])
    octagon = 2 * (np.sqrt(2) - 1)
    assert covered_share(SQUARE, (SQUARE - centre) @ turn + centre) == pytest.approx(octagon)


def test_outlines_follow_pixel_edges_of_a_mirrored_grid() -> None:
    affine = tuple(Affine(0, -2, 100, 2, 0, 50))[:6]
    corners = outline(affine, (3, 4))
    assert corners.tolist() == [[100, 50], [100, 58], [94, 58], [94, 50]]


def test_a_utm_scene_is_outlined_in_degrees() -> None:
    affine = (1000.0, 0.0, 500_000.0, 0.0, -1000.0, 100_000.0)
    polygon = geojson_polygon(wgs84_outline(affine, (100, 50), "EPSG:32631"))
    ring = np.array(polygon["coordinates"][0])
    assert (ring[0] == ring[-1]).all()
    assert geojson_bbox(polygon) == pytest.approx((3.0, 0.0, 3.4493, 0.9044), abs=1e-3)
    x, y = ring.T
    assert (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() > 0


def test_a_bbox_across_the_antimeridian_runs_from_west_to_east() -> None:
    polygon = geojson_polygon([(179.5, 1.0), (-179.5, 1.0), (-179.5, 2.0), (179.5, 2.0)])
    assert geojson_bbox(polygon) == (179.5, 1.0, -179.5, 2.0)
