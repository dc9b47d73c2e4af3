"""What a raster or an HDF5 file could make its reader do: nothing but read that file."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
from archive_files import scene_of, write_tif
from nisar_files import write_grid

from hpc.errors import DataError
from sarhpc.archive.ancillary.optical_images import list_optical
from sarhpc.archive.ancillary.optical_resampling import read_optical
from sarhpc.archive.catalog_builder import catalog_directory
from sarhpc.archive.formats.nisar.metadata import read_nisar
from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.opening import open_hdf5, open_raster
from sarhpc.archive.raster_files import RasterHandles, opened_raster
from sarhpc.archive.scene import Scene

GRAY = np.full((64, 64), 7, np.uint8)
SECRET = b"root:x:0:0:secret of the machine" * 40


def raw_vrt(source: Path, size: int = 32, metadata: str = "") -> str:
    """A VRT whose pixels are the bytes of any file."""
    return (
        f'<VRTDataset rasterXSize="{size}" rasterYSize="{size}">{metadata}'
        '<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">'
        f'<SourceFilename relativeToVRT="0">{source}</SourceFilename>'
        f"<ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset><LineOffset>{size}</LineOffset>"
        "</VRTRasterBand></VRTDataset>"
    )


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "outside" / "secret"
    path.parent.mkdir()
    path.write_bytes(SECRET)
    return path


@pytest.fixture
def requests_seen() -> Iterator[tuple[str, list[str]]]:
    """Address of a web server on this machine, and the paths it was asked for."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(404)
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()


def test_a_vrt_named_tif_is_none_of_the_formats(tmp_path: Path, secret: Path) -> None:
    path = tmp_path / "scene.tif"
    path.write_text(raw_vrt(secret))
    with rasterio.open(path) as dataset:
        assert dataset.read(1).tobytes()[:16] == SECRET[:16], "GDAL itself reads the file"
    with pytest.raises(DataError, match="none of the formats that are opened"):
        open_sar(scene_of(path, sarhpc__spacing_m=[1.0, 1.0]))
    with pytest.raises(DataError, match="none of the formats"):
        read_optical(path, (1, 0, 0, 0, -1, 0), None, (8, 8), same_frame=True)


def test_a_vrt_that_names_an_address_asks_for_nothing(
    tmp_path: Path, requests_seen: tuple[str, list[str]]
) -> None:
    address, seen = requests_seen
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.tif", "b.vrt", "c.png"):
        (folder / name).write_text(raw_vrt(Path(f"/vsicurl/{address}/x.tif")))
    write_tif(folder / "d.tif", GRAY, tags={"ns": "OVERVIEWS", "OVERVIEW_FILE": address})
    assert set(list_optical(str(folder)).left_out) == {"a.tif", "b.vrt", "c.png", "d.tif"}
    with pytest.raises(DataError, match="could be catalogued"):
        catalog_directory(folder, tmp_path / "catalogue")
    assert seen == []


def test_a_virtual_path_is_refused_before_gdal_sees_it(
    tmp_path: Path, requests_seen: tuple[str, list[str]]
) -> None:
    address, seen = requests_seen
    for text in (f"/vsicurl/{address}/x", f"/vsizip/{tmp_path}/x.zip/x", "/vsistdin/x"):
        with pytest.raises(DataError, match="virtual path"):
            open_sar(Scene("s", {"sar": Path(f"{text}.tif")}))
    assert seen == []


def test_overviews_named_in_the_metadata_of_a_tiff_are_refused(
    tmp_path: Path, secret: Path
) -> None:
    """The one reference that GDAL follows from a GeoTIFF whatever drivers and side cars may do."""
    (tmp_path / "any.vrt").write_text(raw_vrt(secret))
    path = write_tif(
        tmp_path / "scene.tif",
        GRAY,
        tags={"ns": "OVERVIEWS", "OVERVIEW_FILE": str(tmp_path / "any.vrt")},
    )
    with rasterio.open(path) as dataset:
        assert dataset.read(1, out_shape=(32, 32)).tobytes()[:16] == SECRET[:16]
    with pytest.raises(DataError, match="OVERVIEW_FILE"):
        open_raster(path)


def test_side_cars_are_not_opened(tmp_path: Path, secret: Path) -> None:
    path = write_tif(tmp_path / "scene.tif", GRAY)
    path.with_name("scene.tif.ovr").write_text(raw_vrt(secret))
    path.with_name("scene.tif.aux.xml").write_text(
        f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{secret}</MDI>'
        "</Metadata></PAMDataset>"
    )
    with rasterio.open(path) as dataset:
        assert dataset.overviews(1) == [2], "GDAL itself takes them"
    handles = RasterHandles(path)
    dataset = handles.get()
    # Side cars are looked for at first use, which may be after the block that opened the file.
    assert dataset.overviews(1) == []
    assert dataset.files == [str(path)]
    assert (dataset.read(1, out_shape=(32, 32)) == 7).all()
    handles.close()


def test_reduced_resolutions_beside_a_nitf_are_not_opened(
    test_data: Path, tmp_path: Path, secret: Path
) -> None:
    path = tmp_path / "a.ntf"
    path.write_bytes((test_data / "nitf_six" / "i_3128b.ntf").read_bytes())
    path.with_name("a.ntf.r1").write_text(raw_vrt(secret, 240))
    with rasterio.open(path) as dataset:
        assert dataset.overviews(1), "GDAL itself takes them"
    with opened_raster(path) as dataset:
        assert dataset.overviews(1) == []


def test_a_side_car_that_says_what_the_file_does_not_is_named(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "a.tif", GRAY)
    path.with_name("a.tif.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:32631</SRS><GeoTransform>0</GeoTransform></PAMDataset>"
    )
    with opened_raster(path) as dataset:
        assert dataset.crs is not None
    path.with_name("a.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>0</NoDataValue></PAMRasterBand>'
        "</PAMDataset>"
    )
    with pytest.raises(DataError, match=r"NoDataValue only in a\.tif\.aux\.xml"):
        open_raster(path)
    path.with_name("a.tif.aux.xml").unlink()
    path.with_name("a.tif.msk").write_bytes(b"")
    with pytest.raises(DataError, match=r"mask in a\.tif\.msk"):
        open_raster(path)


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tif")
    with pytest.raises(DataError, match="not a regular file"):
        open_sar(scene_of(tmp_path / "a.tif"))


def test_an_empty_tiff_of_40_gigapixels_is_left_out_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write_tif(folder / "good_sar.tif", np.full((64, 64), 9, np.uint16))
    huge = {"driver": "GTiff", "width": 200_000, "height": 200_000, "count": 1, "dtype": "uint8"}
    with rasterio.open(folder / "huge_sar.tif", "w", **huge, tiled=True, blockxsize=4096,
                       blockysize=4096, sparse_ok=True, compress="deflate"):  # fmt: skip
        pass
    assert (folder / "huge_sar.tif").stat().st_size < 500_000
    begun = time.process_time()
    report = catalog_directory(
        folder, tmp_path / "catalogue", declarations={"defaults": {"range_direction": "+col"}}
    )
    assert time.process_time() - begun < 5
    assert report.scenes == ("good_sar",)
    assert "40.0 GB" in report.skipped[0].reason


def test_a_block_that_is_decoded_whole_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    huge = {"driver": "GTiff", "width": 32_768, "height": 32_768, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", **huge, tiled=True, blockxsize=32_768, blockysize=32_768,
                       sparse_ok=True, compress="deflate"):  # fmt: skip
        pass
    with pytest.raises(DataError, match="a block of pixels"):
        open_raster(path)


def test_every_real_raster_is_opened(test_data: Path) -> None:
    """Among them emptied scenes of 5 GB in less than a megabyte."""
    suffixes = {".tif", ".tiff", ".ntf", ".nitf", ".png", ".jpg", ".jp2"}
    paths = [p for p in sorted(test_data.rglob("*")) if p.suffix.lower() in suffixes]
    opened = 0
    for path in paths:
        try:
            with rasterio.open(path) as dataset:
                profile = dict(dataset.profile)
        except rasterio.errors.RasterioIOError:
            continue
        with opened_raster(path) as dataset:
            assert dict(dataset.profile) == profile, path
        opened += 1
    assert opened > 50


def nisar(path: Path, change: Callable[[h5py.File], object]) -> Path:
    write_grid(path, {"HH": np.ones((8, 8), np.complex64)})
    with h5py.File(path, "a") as file:
        change(file)
    return path


GRIDS = "science/LSAR/GSLC/grids/frequencyA"


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("another file", lambda f: f.__setitem__(f"{GRIDS}/VV", h5py.ExternalLink("o.h5", "x"))),
        (
            "in another file",
            lambda f: f.create_dataset(
                f"{GRIDS}/VV", (8, 8), "u1", external=[("/etc/passwd", 0, 64)]
            ),
        ),
        (
            "virtual dataset",
            lambda f: f.create_virtual_dataset(f"{GRIDS}/VV", h5py.VirtualLayout((8, 8), "f4")),
        ),
        (
            "160.0 GB",
            lambda f: f.create_dataset(f"{GRIDS}/VV", (200_000, 200_000), "f4", chunks=(64, 64)),
        ),
        (
            "a block of pixels",
            lambda f: f.create_dataset(
                f"{GRIDS}/VV", (30_000, 30_000), "u1", chunks=(30_000, 30_000)
            ),
        ),
    ],
)
def test_an_hdf5_file_that_is_not_whole_or_too_large_is_refused(
    tmp_path: Path, reason: str, change: Callable[[h5py.File], object]
) -> None:
    path = nisar(tmp_path / "a.h5", change)
    with pytest.raises(DataError, match=reason):
        read_nisar(path, "LSAR/frequencyA/HH")
    with pytest.raises(DataError, match=reason):
        open_sar(scene_of(path))


def test_coordinates_that_are_read_whole_are_bounded(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        del file[f"{GRIDS}/xCoordinates"]
        file.create_dataset(f"{GRIDS}/xCoordinates", (100_000_000,), "f8", chunks=(1024,))

    with pytest.raises(DataError, match="declares 800000000 bytes of metadata"):
        read_nisar(nisar(tmp_path / "a.h5", change))


def test_links_inside_an_hdf5_file_are_followed(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        file["back"] = file["/"]
        file["soft"] = h5py.SoftLink("/science")
        file["nothing"] = h5py.Empty("f4")

    with open_hdf5(nisar(tmp_path / "a.h5", change)) as file:
        assert "soft/LSAR" in file


def test_groups_far_below_each_other_are_refused(tmp_path: Path) -> None:
    """Finding each of 3,000 took 16 s."""
    path = tmp_path / "deep.h5"
    with h5py.File(path, "w") as file:
        file.create_group("/".join("a" * 100))
    with pytest.raises(DataError, match="more than 64 groups below each other"):
        open_hdf5(path)


@pytest.mark.parametrize("options", [{}, {"BIGTIFF": "YES"}, {"ENDIANNESS": "BIG"}])
def test_much_metadata_of_a_tiff_is_refused(tmp_path: Path, options: dict[str, str]) -> None:
    """GDAL took 29 s for 80,000 items."""
    path = tmp_path / "a.tif"
    for length, refused in ((1000, False), (600_000, True)):
        with rasterio.open(
            path, "w", driver="GTiff", width=8, height=8, count=1, dtype="uint8", **options
        ) as file:
            file.update_tags(note="x" * length)
        if refused:
            with pytest.raises(DataError, match="bytes of GDAL metadata"):
                open_raster(path)
        else:
            open_raster(path).close()
