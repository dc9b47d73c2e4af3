"""The description of a file format: how it is recognised, catalogued and opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from sarhpc.archive.scene import SarReader, Scene

Role = Literal["sar", "optical"]

Quantity = Literal["complex", "iq", "amplitude", "intensity", "db"]
"""Meaning of the stored pixels; `iq` is a complex image as two real bands, I and Q."""

BAND_QUANTITIES = ("iq", "amplitude", "intensity", "db")
"""Quantities that describe plain bands of a NITF, whatever its metadata say."""


class ArchiveReader(SarReader, Protocol):
    """A `SarReader` that the catalogue can probe."""

    def is_empty(self) -> bool:
        """Whether no pixel is valid; may read the whole image, once."""
        ...


@dataclass(frozen=True)
class Layer:
    """One image of a file that may hold several."""

    name: str | None = None
    """Value of `sarhpc:layer`; None for a file that is one image."""
    suffix: str = ""
    """Appended to the scene id, after a hyphen."""


def _always(path: Path, quantity: str | None) -> bool:
    return True


def _sar(path: Path) -> Role:
    return "sar"


def _one_image(path: Path) -> Sequence[Layer]:
    return (Layer(),)


def _never(path: Path) -> bool:
    return False


@dataclass(frozen=True)
class Format:
    """A file format; functions raise DataError for files that are damaged or cannot be used.

    The entry-point group `sarhpc.formats` takes values of this class, and so does the list in
    `sarhpc.archive.formats.readers`.
    """

    name: str
    """As messages name it."""

    suffixes: tuple[str, ...]
    """Suffixes of its files, in lower case and with the dot."""

    properties: Callable[[Path, str | None], Mapping[str, Any]]
    """STAC properties that the layer of a file states itself; None marks an unknown one."""

    open: Callable[[Scene, bool], ArchiveReader]
    """Reader of the `sar` asset of a scene; the flag takes unknown calibration as sigma0."""

    recognises: Callable[[Path, str | None], bool] = _always
    """Whether a file with one of the suffixes, of a declared or catalogued quantity, is of this
    format. The default accepts every one."""

    role: Callable[[Path], Role] = _sar
    """Whether a file is a SAR or an optical image, where that is not declared."""

    layers: Callable[[Path], Sequence[Layer]] = _one_image
    """Images of a file; each becomes a scene."""

    accompanies: Callable[[Path], bool] = _never
    """Whether a file is only part of one of this format (an annotation, a header): the catalogue
    ignores it."""

    media_type: str | None = None
    """Media type of the asset; None takes the one that STAC files of this suffix have."""

    def matches(self, path: Path, quantity: str | None) -> bool:
        """Whether the file at `path` is of this format."""
        return path.suffix.lower() in self.suffixes and self.recognises(path, quantity)
