"""Content of plain rasters from header and file name: role, quantity, polarisation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rasterio.enums import ColorInterp

from hpc.documents import parse_json
from hpc.errors import DataError
from sarhpc.archive.formats.declared import UndeclaredError
from sarhpc.archive.formats.format import Quantity, Role
from sarhpc.archive.raster_files import opened_raster

_SAR_WORDS = {"sar", "slc", "amp", "grd", "mli", "sigma0", "gamma0", "beta0", "db"}
_OPTICAL_WORDS = {"rgb", "optical", "optic", "ortho", "pan", "ms", "vis"}
_POLARIZATIONS = {"hh", "hv", "vh", "vv"}
_IQ_NAMES = {("i", "q"), ("real", "imag"), ("real", "imaginary"), ("re", "im")}
_DB_NAME = re.compile(r"(^|[_.-])db([_.-]|$)", re.IGNORECASE)


def role_of(path: Path) -> Role:
    """Whether the raster at `path` is a SAR or an optical image.

    Complex pixels are SAR; three colours are optical; a grey band is what its name or description
    says.

    Raises:
        DataError: the file is damaged, or could be either.
    """
    with opened_raster(path) as dataset:
        require_bands(dataset, path)
        description = dataset.tags().get("TIFFTAG_IMAGEDESCRIPTION", "")
        words = _words_of(path.stem) | _words_of(description)
        if "complex" in dataset.dtypes[0]:
            return "sar"
        if words & (_SAR_WORDS | _POLARIZATIONS) and not words & _OPTICAL_WORDS:
            return "sar"
        colours = {ColorInterp.red, ColorInterp.green, ColorInterp.blue}
        if words & _OPTICAL_WORDS or colours <= set(dataset.colorinterp):
            return "optical"
    raise UndeclaredError(
        "cannot tell whether this is SAR or optical; declare role: sar or optical", role="sar"
    )


def raster_properties(path: Path, layer: str | None = None) -> dict[str, Any]:
    """STAC properties that header and name of a raster give; it has no layers.

    Raises:
        DataError: the file cannot be read.
    """
    with opened_raster(path) as dataset:
        require_bands(dataset, path)
        scale = stored_scale(dataset)
        quantity = quantity_of(dataset, path)
    polarization = _name_polarization(path)
    return {
        "sarhpc:quantity": quantity,
        "sarhpc:scale": scale,
        "sarhpc:calibration": "none" if scale is None else "sigma0",
        "sar:polarizations": None if polarization is None else [polarization],
    }


def require_bands(dataset: Any, path: Path) -> None:
    """Raise DataError for a file without bands, such as a NITF that lost its image segment."""
    if dataset.count == 0:
        raise DataError(f"{path} holds no image; restore the file, or leave it out")


def quantity_of(dataset: Any, path: Path) -> Quantity:
    """Quantity of the pixels from data type, band names, units or file name; else amplitude."""
    if "complex" in dataset.dtypes[0]:
        return "complex"
    names = tuple(str(name).strip().lower() for name in dataset.descriptions[:2])
    if names in _IQ_NAMES:
        return "iq"
    units = [*dataset.units, dataset.tags().get("units"), dataset.tags(1).get("units")]
    if any(str(unit).lower() == "db" for unit in units) or _DB_NAME.search(path.stem):
        return "db"
    return "amplitude"


def stored_scale(dataset: Any) -> float | None:
    """The amplitude multiplier in the metadata of the file, if there is one.

    Capella products (SpaceNet 6 among them) hold one per channel, as JSON in the TIFF image
    description under collect.image.scale_factor. It multiplies the *amplitude*: over the common
    ground of the SpaceNet 6 sample, 20 log10(k|s|) averaged in intensity agrees with the published
    dB product within 0.3 dB in all four channels, while taking k as a factor of power would
    miss it by 35 to 42 dB.
    """
    text = dataset.tags().get("TIFFTAG_IMAGEDESCRIPTION", "")
    try:
        return float(parse_json(text)["collect"]["image"]["scale_factor"])
    except (ValueError, KeyError, TypeError):
        return None


def _words_of(text: str) -> set[str]:
    """The words of a text or file name, lower case, also without a number at their end."""
    words = re.split(r"[^a-z0-9]+", text.lower())
    return {*words, *(re.sub(r"\d+$", "", word) for word in words)} - {""}


def _name_polarization(path: Path) -> str | None:
    """The one polarisation that the file name mentions, else None."""
    found = sorted(_words_of(path.stem) & _POLARIZATIONS)
    return found[0].upper() if len(found) == 1 else None
