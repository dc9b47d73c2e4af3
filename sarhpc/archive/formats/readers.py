"""The known file formats, in order of recognition, and opening the SAR image of a scene."""

from __future__ import annotations

import functools
from pathlib import Path

from hpc.errors import DataError
from hpc.plugins import load_plugins
from sarhpc.archive.formats.format import ArchiveReader, Format
from sarhpc.archive.header_checks import check_header
from sarhpc.archive.scene import Scene

ENTRY_POINTS = "sarhpc.formats"
"""Group of entry points through which an institute's own file format plugs in."""


@functools.cache
def known_formats() -> tuple[Format, ...]:
    """All formats: installed plug-ins by name, then those of this package.

    Plug-ins come first, since a suffix such as `.h5` is shared by many layouts.

    Raises:
        ConfigError: a plug-in cannot be loaded, or is no `Format`.
    """
    from sarhpc.archive.formats.geotiff.reader import FORMAT as GEOTIFF
    from sarhpc.archive.formats.nisar.reader import FORMAT as NISAR
    from sarhpc.archive.formats.nitf import FORMAT as NITF
    from sarhpc.archive.formats.safe.reader import FORMAT as SAFE
    from sarhpc.archive.formats.sicd.reader import FORMAT as SICD
    from sarhpc.archive.formats.sidd.reader import FORMAT as SIDD

    # Packages before the plain rasters whose suffix they share.
    own = (NISAR, SICD, SIDD, NITF, SAFE, GEOTIFF)
    installed = load_plugins(ENTRY_POINTS, Format, "file format")
    return (*(form for _, form in installed), *own)


def find_format(path: Path, quantity: str | None = None) -> Format | None:
    """The first format that recognises the file at `path`; None if none does.

    Args:
        path: the file.
        quantity: declared or catalogued; one of BAND_QUANTITIES makes a NITF a plain raster.

    Raises:
        DataError: the file cannot be read.
        ConfigError: a plug-in cannot be loaded.
    """
    return next((form for form in known_formats() if form.matches(path, quantity)), None)


def raster_suffixes() -> frozenset[str]:
    """Suffixes of the files of all formats."""
    return frozenset(suffix for form in known_formats() for suffix in form.suffixes)


def open_sar(scene: Scene, assume_calibrated: bool = False) -> ArchiveReader:
    """An open `SarReader` of the scene's `sar` asset; pixels are read by window.

    Args:
        scene: what the archive found.
        assume_calibrated: take values of unknown calibration as sigma0 amplitude.

    Raises:
        DataError: no `sar` asset, an unknown format, a file that cannot be read, or an image whose
            position or range direction is unknown.
        ConfigError: a file format plug-in cannot be loaded.
    """
    path = scene.assets.get("sar")
    if path is None:
        others = ", ".join(sorted(scene.assets)) or "none"
        raise DataError(
            f"scene {scene.id} has no asset 'sar' (only {others}); "
            "name its image so in the STAC item"
        )
    form = find_format(path, scene.properties.get("sarhpc:quantity"))
    if form is None:
        raise DataError(
            f"{path} of scene {scene.id} is in none of the known formats "
            f"({', '.join(known.name for known in known_formats())}); convert it, or leave it out"
        )
    return open_checked(form, scene, path, assume_calibrated)


def open_checked(
    form: Format, scene: Scene, path: Path, assume_calibrated: bool = False
) -> ArchiveReader:
    """The reader of `form` of the image at `path`, with a header that can be right.

    Raises:
        DataError: the file cannot be read, or its header states what no SAR image has.
    """
    reader = form.open(scene, assume_calibrated)
    try:
        check_header(reader.header, path)
    except BaseException:
        reader.close()
        raise
    return reader
