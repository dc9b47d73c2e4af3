"""What a raster file is, as far as the file itself tells: a SAR image or an optical one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import rasterio
from rasterio.enums import ColorInterp

from hpc.errors import DataError
from sarhpc.archive.formats.hdf5 import HDF5_SUFFIXES
from sarhpc.archive.formats.nisar_metadata import layers_of
from sarhpc.archive.formats.nitf import NITF_SUFFIXES, nitf_kind
from sarhpc.archive.formats.readers import GEOTIFF_SUFFIXES
from sarhpc.archive.formats.safe_metadata import annotation_of
from sarhpc.archive.handle import readable

Role = Literal["sar", "optical"]

_SAR_WORDS = {"sar", "slc", "amp", "grd", "mli", "sigma0", "gamma0", "beta0", "db"}
_OPTICAL_WORDS = {"rgb", "optical", "optic", "ortho", "pan", "ms", "vis"}
_POLARIZATIONS = {"hh", "hv", "vh", "vv"}


def recognise(path: Path) -> Role:
    """The role of the raster at `path`.

    Complex pixels, SICD and the layout of NISAR are SAR; colour is optical; one grey band is what
    its name or description says.

    Raises:
        DataError: the file is no raster this archive reads, is damaged, or could be either.
    """
    suffix = path.suffix.lower()
    if suffix in HDF5_SUFFIXES:
        layers_of(path)
        return "sar"
    if suffix not in GEOTIFF_SUFFIXES + NITF_SUFFIXES:
        raise DataError(f"not a raster that is read ({suffix or 'no suffix'})")
    if suffix in NITF_SUFFIXES:
        return _recognise_nitf(path)
    if annotation_of(path) is not None:
        return "sar"
    with readable(path), rasterio.open(path) as dataset:
        return _recognise_geotiff(dataset, path)


def _recognise_nitf(path: Path) -> Role:
    kind = nitf_kind(path)
    if kind != "plain":
        return "sar"
    raise DataError(
        "NITF without SICD metadata; if it is a SAR image declare role: sar and its quantity"
    )


def _recognise_geotiff(dataset: Any, path: Path) -> Role:
    words = words_of(path.stem) | words_of(dataset.tags().get("TIFFTAG_IMAGEDESCRIPTION", ""))
    if "complex" in dataset.dtypes[0]:
        return "sar"
    if words & (_SAR_WORDS | _POLARIZATIONS) and not words & _OPTICAL_WORDS:
        return "sar"
    colours = {ColorInterp.red, ColorInterp.green, ColorInterp.blue}
    if words & _OPTICAL_WORDS or colours <= set(dataset.colorinterp):
        return "optical"
    raise DataError("cannot tell whether this is SAR or optical; declare role: sar or optical")


def words_of(text: str) -> set[str]:
    """The words of a text or file name, lower case, also without a number at their end."""
    words = re.split(r"[^a-z0-9]+", text.lower())
    return {*words, *(re.sub(r"\d+$", "", word) for word in words)} - {""}


def name_polarization(path: Path) -> str | None:
    """The one polarisation that the file name mentions, else None."""
    found = sorted(words_of(path.stem) & _POLARIZATIONS)
    return found[0].upper() if len(found) == 1 else None
