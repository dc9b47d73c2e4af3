"""Opening the SAR image of a scene with the reader its format needs."""

from __future__ import annotations

from hpc.errors import DataError
from sarhpc.archive.formats.geotiff import BAND_QUANTITIES, GeoTiffReader
from sarhpc.archive.formats.hdf5 import HDF5_SUFFIXES
from sarhpc.archive.formats.nisar import NisarReader
from sarhpc.archive.formats.nitf import NITF_SUFFIXES, nitf_kind
from sarhpc.archive.formats.safe import SafeReader
from sarhpc.archive.formats.safe_metadata import annotation_of
from sarhpc.archive.formats.sicd import SicdReader
from sarhpc.archive.formats.sidd import SiddReader
from sarhpc.archive.scene import Scene

GEOTIFF_SUFFIXES = (".tif", ".tiff")


ArchiveReader = GeoTiffReader | NisarReader | SafeReader | SicdReader | SiddReader


def open_sar(scene: Scene, assume_calibrated: bool = False) -> ArchiveReader:
    """An open `SarReader` of the scene's `sar` asset; pixels are read by window, never all at once.

    Args:
        scene: what the archive found.
        assume_calibrated: take values of unknown calibration as sigma0 amplitude.

    Raises:
        DataError: no `sar` asset, an unknown format, a file that cannot be read, or an image whose
            position or range direction is unknown.
    """
    path = scene.assets.get("sar")
    if path is None:
        raise DataError(
            f"scene {scene.id} has no asset 'sar' (only {', '.join(sorted(scene.assets))}); "
            "name its image so in the STAC item"
        )
    suffix = path.suffix.lower()
    if suffix in GEOTIFF_SUFFIXES:
        if annotation_of(path) is not None:
            return SafeReader(scene, assume_calibrated)
        return GeoTiffReader(scene, assume_calibrated)
    if suffix in NITF_SUFFIXES:
        kind = nitf_kind(path)
        if kind == "sidd":
            return SiddReader(scene, assume_calibrated)
        if kind == "plain" or scene.properties.get("sarhpc:quantity") in BAND_QUANTITIES:
            return GeoTiffReader(scene, assume_calibrated)
        return SicdReader(scene, assume_calibrated)
    if suffix in HDF5_SUFFIXES:
        return NisarReader(scene, assume_calibrated)
    raise DataError(
        f"{path} of scene {scene.id} is neither GeoTIFF nor NITF nor HDF5; convert it, or leave it "
        "out"
    )
