from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from archive_files import write_tif
from pyproj import Transformer
from pystac.validation import validate_dict
from rasterio.warp import transform_bounds

from hpc.errors import ConfigError, DataError
from sarhpc.archive.ancillary.optical_resampling import read_optical
from sarhpc.archive.catalog_builder import CatalogReport, catalog_directory
from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.scene import Scene
from sarhpc.archive.stac_catalog import StacArchive

pytestmark = pytest.mark.slow

GOTCHA = """
defaults: {band: X, polarization: HH, platform: gotcha, instrument_mode: spotlight}
files:
  # The antenna stood at x = +7.1 km, elevation 45.7 degrees; x grows with the columns.
  "derived_*_slc_*.tif": {id: gotcha, range_direction: "-col", incidence_deg: 44.3}
  "derived_*_amp_*.tif": {role: skip}
"""
SPACENET = """
defaults: {band: X, platform: capella-airborne, datetime: 2019-08-23}
files:
  sar_??.tif: {range_direction: "+col", look_side: right}
  rgb_unmasked.tif: {datetime: "2019-08-31T12:00:00+02:00"}
"""


def linked(source: Path, folder: Path, sidecar: str = "") -> Path:
    """A folder of links to real files, with a sidecar of its own."""
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).symlink_to(path)
    if sidecar:
        (folder / "sarhpc.yaml").write_text(sidecar)
    return folder


def scenes_of(report: CatalogReport) -> dict[str, Scene]:
    return {scene.id: scene for scene in StacArchive(report.catalogue).search()}


def reasons(report: CatalogReport) -> dict[str, str]:
    return {item.path.name: item.reason for item in report.skipped}


@pytest.fixture
def gotcha(test_data: Path, tmp_path: Path) -> CatalogReport:
    folder = linked(test_data / "gotcha_xband", tmp_path / "gotcha", GOTCHA)
    return catalog_directory(folder, tmp_path / "catalogue")


@pytest.fixture
def spacenet(test_data: Path, tmp_path: Path) -> CatalogReport:
    folder = linked(test_data / "spacenet6_solaris", tmp_path / "spacenet", SPACENET)
    return catalog_directory(folder, tmp_path / "catalogue")


def test_a_local_scene_is_catalogued_without_an_invented_place_or_time(
    gotcha: CatalogReport,
) -> None:
    document = json.loads((gotcha.catalogue.parent / "gotcha" / "gotcha.json").read_text())
    assert gotcha.scenes == ("gotcha",)
    assert document["geometry"] is None
    assert "bbox" not in document
    assert document["properties"]["datetime"] is None
    assert document["properties"]["proj:code"] is None
    assert document["properties"]["proj:transform"] == [0.2, 0.0, -64.0, 0.0, -0.2, 64.0]
    assert "optical" not in document["assets"]


def test_a_catalogued_scene_opens_as_declared(gotcha: CatalogReport) -> None:
    (scene,) = StacArchive(gotcha.catalogue).search(band="X", polarization="HH")
    header = open_sar(scene).header
    assert header.range_direction == "-col"
    assert header.incidence_deg == 44.3
    assert header.calibration == "none"
    assert header.spacing_m == (0.2, 0.2)
    assert scene.properties["sar:pixel_spacing_range"] == 0.2


def test_every_file_that_is_no_scene_has_a_reason(gotcha: CatalogReport) -> None:
    why = reasons(gotcha)
    assert why["derived_gotcha_az1-4_HH_amp_u16_0p2m.tif"] == "declared to be skipped"
    assert ".mat" in why["data_3dsar_pass1_az001_HH.mat"]
    assert len(why) == 7


def test_real_items_are_valid_stac_with_their_extensions(
    gotcha: CatalogReport, spacenet: CatalogReport
) -> None:
    for path in sorted(spacenet.catalogue.parent.glob("*/*.json")):
        document = json.loads(path.read_text())
        validate_dict(document, pystac.STACObjectType.ITEM, extensions=[])
        assert any("projection/v2" in uri for uri in document["stac_extensions"])
        prefixes = {key.partition(":")[0] for key in document["properties"] if ":" in key}
        assert prefixes <= {"sar", "view", "proj", "product", "sarhpc"}
    names = {item.id for item in pystac.Catalog.from_file(str(spacenet.catalogue)).get_items()}
    assert names == set(spacenet.scenes)


def test_channels_are_calibrated_each_by_its_own_factor(spacenet: CatalogReport) -> None:
    scenes = scenes_of(spacenet)
    assert set(scenes) == {"sar_hh", "sar_hv", "sar_vh", "sar_vv"}
    scales = {name: scene.properties["sarhpc:scale"] for name, scene in scenes.items()}
    assert scales["sar_hh"] == pytest.approx(2.7775e-4, rel=1e-4)
    assert scales["sar_hv"] == pytest.approx(5.9879e-5, rel=1e-4)
    for name, scene in scenes.items():
        assert scene.properties["sarhpc:calibration"] == "sigma0"
        assert scene.properties["sar:polarizations"] == [name[-2:].upper()]
        assert open_sar(scene).header.calibration == "sigma0"


def test_scenes_are_paired_with_the_optical_image_over_them(spacenet: CatalogReport) -> None:
    assert {path.name for path in spacenet.optical.values()} == {"rgb_unmasked.tif"}
    scene = scenes_of(spacenet)["sar_vv"]
    header = open_sar(scene).header
    _, covered = read_optical(scene.assets["optical"], header.affine, header.crs, header.shape)
    assert covered.all()
    assert scene.datetime == "2019-08-23T00:00:00Z"
    assert scene.properties["sarhpc:optical_datetime"] == "2019-08-31T10:00:00Z"
    why = reasons(spacenet)
    assert why["pan1.tif"] == why["ms2.tif"] == "optical image over none of the scenes"
    assert "4 bands" in why["sar_masked.tif"]


def test_the_footprint_lies_where_the_harbour_is(spacenet: CatalogReport) -> None:
    """Inside the optical image's own bounds, and of the scene's 500 m."""
    scene = scenes_of(spacenet)["sar_hh"]
    with rasterio.open(scene.assets["optical"]) as dataset:
        bounds = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    west, south, east, north = scene.bbox
    assert bounds[0] < west < east < bounds[2]
    assert bounds[1] < south + 1e-5
    assert north < bounds[3]
    assert (north - south) * 111_200 == pytest.approx(503, abs=10)
    centre = (4.349, 51.887, 4.3491, 51.8871)
    assert len(list(StacArchive(spacenet.catalogue).search(bbox=centre))) == 4


def test_a_catalogue_has_the_same_bytes_every_time(test_data: Path, tmp_path: Path) -> None:
    folder = linked(test_data / "spacenet6_solaris", tmp_path / "data", SPACENET)
    written = []
    for _ in range(2):
        root = catalog_directory(folder, tmp_path / "catalogue").catalogue.parent
        written.append({p.name: p.read_bytes() for p in sorted(root.rglob("*.json"))})
    assert written[0] == written[1]


def test_sicd_needs_no_declaration_and_others_get_a_reason(test_data: Path, tmp_path: Path) -> None:
    report = catalog_directory(test_data / "nitf_six", tmp_path)
    scenes = scenes_of(report)
    assert set(scenes) == {"cropped_sicd_110", "sicd_50x50"}
    rcm = scenes["sicd_50x50"]
    assert rcm.datetime == "2019-10-28T22:43:39.923000Z"
    assert rcm.band == "C"
    assert rcm.bbox == pytest.approx((-73.5909, 45.2921, -73.5835, 45.2941), abs=1e-4)
    header = open_sar(rcm).header
    assert (header.range_direction, header.calibration, header.crs) == ("+row", "sigma0", None)
    why = reasons(report)
    assert "no valid pixel" in why["cropped_sidd.nitf"]
    assert "describes no plane" in why["sidd_1.0.0.nitf"]
    assert "without SICD" in why["i_3128b.ntf"]
    assert "1.0.1" in why["cropped_sicd_101.nitf"]


def test_difficult_sentinel_files_are_listed_and_the_usable_one_taken(
    test_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "s1"
    folder.mkdir()
    for path in (test_data / "sentinel1").glob("*"):
        if not path.name.startswith("s1a-s3"):
            (folder / path.name).symlink_to(path)
    declared = {
        "defaults": {"range_direction": "+col", "band": "C"},
        "files": {"s1b-*": {"spacing_m": [10, 10]}, "*_db.tif": {"calibrated": True}},
    }
    report = catalog_directory(folder, tmp_path / "out", declarations=declared)
    scenes = scenes_of(report)
    assert len(scenes) == 2
    bent = scenes["cog_gcps"].properties
    assert "proj:transform" not in bent
    assert bent["sarhpc:geolocation"]["gcps"] == 210
    with rasterio.open(test_data / "sentinel1" / "cog_gcps.tif") as dataset:
        lon, lat = zip(*((gcp.x, gcp.y) for gcp in dataset.gcps[0]), strict=True)
    around = (min(lon), min(lat), max(lon), max(lat))
    assert scenes["cog_gcps"].bbox == pytest.approx(around, abs=0.001)
    scene = scenes["S1A__IW___A_20150309T173017_VV_grd_mli_geo_norm_db"]
    assert scene.properties["sarhpc:quantity"] == "db"
    assert scene.properties["sar:polarizations"] == ["VV"]
    assert open_sar(scene).header.calibration == "sigma0"
    why = reasons(report)
    assert "no valid pixel" in next(why[name] for name in why if name.startswith("s1b"))


def test_bad_files_are_listed_and_never_stop_the_good_ones(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    good = np.full((40, 40), 500, np.uint16)
    write_tif(folder / "sar_good.tif", good)
    write_tif(folder / "sar_empty.tif", np.zeros((40, 40), np.uint16))
    write_tif(folder / "sar_nan.tif", np.full((40, 40), np.nan, np.complex64))
    write_tif(folder / "grey.tif", good)
    (folder / "sar_zero.tif").touch()
    whole = write_tif(folder / "sar_short.tif", np.tile(good, (9, 9))).read_bytes()
    (folder / "sar_short.tif").write_bytes(whole[: len(whole) - 2000])
    report = catalog_directory(
        folder, folder / "catalogue", declarations={"defaults": {"range_direction": "+row"}}
    )
    again = catalog_directory(
        folder, folder / "catalogue", declarations={"defaults": {"range_direction": "+row"}}
    )
    why = reasons(report)
    assert report.scenes == ("sar_good",)
    assert "no valid pixel" in why["sar_empty.tif"]
    assert "no valid pixel" in why["sar_nan.tif"]
    assert "cannot tell" in why["grey.tif"]
    assert "the file is empty" in why["sar_zero.tif"]
    assert "cannot read" in why["sar_short.tif"]
    assert again.skipped == report.skipped


def test_a_folder_without_one_scene_says_why(test_data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"PROVENANCE\.md: not a raster"):
        catalog_directory(test_data / "captions_rs", tmp_path / "out")
    with pytest.raises(DataError, match="no folder"):
        catalog_directory(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_scene_of_unknown_range_direction_is_listed_with_what_to_declare(
    test_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"declare range_direction in sarhpc\.yaml"):
        catalog_directory(test_data / "gotcha_xband", tmp_path)


def test_two_files_of_one_name_do_not_hide_each_other(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "data" / name).mkdir(parents=True)
        write_tif(tmp_path / "data" / name / "sar.tif", np.full((8, 8), 5, np.uint16))
    declared = {"defaults": {"range_direction": "+row"}}
    report = catalog_directory(tmp_path / "data", tmp_path / "out", declarations=declared)
    assert report.scenes == ("sar",)
    assert "declare another id" in reasons(report)["sar.tif"]
    declared["files"] = {"two/*": {"id": "second"}}
    report = catalog_directory(tmp_path / "data", tmp_path / "out", declarations=declared)
    assert report.scenes == ("sar", "second")


def test_an_optical_image_is_paired_with_a_local_scene_by_declaration_only(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    frame = Affine(1, 0, 0, 0, -1, 0)
    write_tif(folder / "sar.tif", np.full((8, 8), 5, np.uint16), frame, crs=None)
    write_tif(folder / "rgb.tif", np.full((3, 8, 8), 9, np.uint8), frame, crs=None)
    declared = {"defaults": {"range_direction": "+row"}, "files": {}}
    report = catalog_directory(folder, tmp_path / "out", declarations=declared)
    assert report.optical == {}
    declared["files"] = {"sar.tif": {"optical": "rgb.tif"}, "rgb.tif": {"frame": "scene"}}
    report = catalog_directory(folder, tmp_path / "out", declarations=declared)
    assert report.optical["sar"].name == "rgb.tif"
    assert scenes_of(report)["sar"].properties["sarhpc:optical_frame"] == "scene"
    declared["files"]["sar.tif"] = {"optical": "gone.tif"}
    with pytest.raises(ConfigError, match=r"gone\.tif.*rgb\.tif"):
        catalog_directory(folder, tmp_path / "out", declarations=declared)


def test_the_image_that_covers_more_wins_then_colour_then_resolution(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write_tif(folder / "sar.tif", np.full((64, 64), 5, np.uint16))
    place = Affine(1, 0, 600_000, 0, -1, 5_700_000)
    colour = np.full((3, 64, 64), 9, np.uint8)
    write_tif(folder / "rgb_half.tif", colour, place @ Affine.translation(32, 0))
    write_tif(folder / "pan_whole.tif", np.full((128, 128), 9, np.uint8), place @ Affine.scale(0.5))
    declared = {"defaults": {"range_direction": "+row"}}
    report = catalog_directory(folder, tmp_path / "out", declarations=declared)
    assert report.optical["sar"].name == "pan_whole.tif"
    write_tif(folder / "rgb_whole.tif", colour, place)
    report = catalog_directory(folder, tmp_path / "out", declarations=declared)
    assert report.optical["sar"].name == "rgb_whole.tif"


def test_images_in_another_zone_are_compared_on_the_same_ground(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write_tif(folder / "sar.tif", np.full((64, 64), 5, np.uint16))
    to_next_zone = Transformer.from_crs("EPSG:32631", "EPSG:32632", always_xy=True)
    for name, east in (("rgb_near", 600_000), ("rgb_far", 603_000)):
        x, y = to_next_zone.transform(east, 5_700_000)
        frame = Affine(2, 0, x - 64, 0, -2, y + 64)
        write_tif(
            folder / f"{name}.tif", np.full((3, 128, 128), 9, np.uint8), frame, crs="EPSG:32632"
        )
    declared = {"defaults": {"range_direction": "+row"}}
    report = catalog_directory(folder, tmp_path / "out", declarations=declared)
    assert report.optical["sar"].name == "rgb_near.tif"
    assert "rgb_far.tif" in reasons(report)


@pytest.mark.parametrize("out", ["", "sub/.."])
def test_a_catalogue_does_not_replace_the_folder_of_its_files(tmp_path: Path, out: str) -> None:
    """All files lay below `out`, which is not searched: "no files"."""
    (tmp_path / "sub").mkdir()
    for folder in (tmp_path, tmp_path / "sub"):
        with pytest.raises(ConfigError, match="give an empty folder"):
            catalog_directory(folder, tmp_path / out)
