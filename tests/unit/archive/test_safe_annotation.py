"""The real annotation of whole Sentinel-1 products, whose TIFFs hold no control points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pyproj import Transformer

from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.formats.safe.bursts import burst_layers
from sarhpc.archive.formats.safe.metadata import read_safe
from sarhpc.archive.scene import Scene

GRDH = "S1B_IW_GRDH_1SDV_20210401T052623_20210401T052648_026269_032297_ECC8.SAFE"


@pytest.fixture(scope="module")
def products(test_data: Path) -> Path:
    folder = test_data / "sentinel1_safe"
    if not folder.is_dir():
        pytest.skip(f"no Sentinel-1 products at {folder}")
    return folder


def measurement(product: Path) -> Path:
    return next((product / "measurement").glob("*.tiff"))


def test_an_image_without_control_points_is_placed_by_the_annotation(products: Path) -> None:
    path = measurement(products / GRDH)
    header = open_sar(Scene("x", {"sar": path})).header
    assert header.spacing_m == pytest.approx((10, 10), rel=0.02)
    assert header.placement is not None
    # Corner of the first line and sample in the annotation, at pixel centres.
    x, y = header.placement.to_map(np.array([[0.5, 0.5]]))[0]
    to_degrees = Transformer.from_crs(header.crs, "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(x, y)
    assert (lon, lat) == pytest.approx((12.43266946006738, 47.11702756724707), abs=2e-4)
    assert header.look_side == "right"


def test_looks_of_grd_are_the_equivalent_ones(products: Path) -> None:
    metadata = read_safe(measurement(products / GRDH))
    assert metadata.looks == (5, 1)
    assert metadata.equivalent_looks == 4.4
    assert open_sar(Scene("x", {"sar": measurement(products / GRDH)})).header.looks == 4.4


def test_looks_of_slc_are_one(products: Path) -> None:
    for product in sorted(products.glob("*SLC*.SAFE")):
        assert read_safe(measurement(product)).equivalent_looks == 1.0


def test_every_image_of_every_product_is_placed(products: Path) -> None:
    for product in sorted(products.glob("*.SAFE")):
        path = measurement(product)
        layers = burst_layers(path)
        for layer in (layers[0], layers[-1]) if layers else (None,):
            known = {} if layer is None else {"sarhpc:layer": layer}
            header = open_sar(Scene("x", {"sar": path}, known)).header
            assert header.placement is not None
            assert header.placement.to_json()["held_out_m"] < 500, product.name
            assert all(2 < metres < 25 for metres in header.spacing_m), product.name
