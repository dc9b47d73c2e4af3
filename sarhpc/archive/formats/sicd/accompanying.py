"""Facts of a SICD XML document that accompanies a tile cut by a third party."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from hpc.errors import DataError
from sarhpc.archive.formats.sicd.metadata import band_of

_MOST_BYTES = 16 << 20
_SIDES = {"L": "left", "R": "right"}
_PLANES = {"GROUND": "ground", "SLANT": "slant"}


def sicd_facts(data: bytes) -> dict[str, Any]:
    """Entries of tile metadata that the SICD XML in `data` states, without those it lacks.

    `band`, `polarization`, `platform`, `datetime`, `look_side`, `incidence_deg`, and `plane` of the
    image grid. Everything else of the document describes the whole scene.

    Raises:
        DataError: it is no XML, too large, or declares entities.
    """
    if len(data) > _MOST_BYTES or b"<!DOCTYPE" in data or b"<!ENTITY" in data or b"\0" in data:
        raise DataError(f"sicd.xml of {len(data)} bytes declares entities, or is no SICD")
    try:
        root = ElementTree.fromstring(data)  # noqa: S314 - entities are refused above
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise DataError(f"sicd.xml is no XML ({error})") from error

    def text(*names: str) -> str | None:
        """Text of the element at that path; None if it is absent or empty."""
        found = root.find("/".join([".", *(f"{{*}}{name}" for name in names)]))
        return None if found is None or not (found.text or "").strip() else found.text.strip()  # type: ignore[union-attr]

    def number(*names: str) -> float | None:
        """The same as a number; None for anything else."""
        try:
            return float(text(*names) or "")
        except ValueError:
            return None

    ends = [number("ImageFormation", "TxFrequencyProc", end) for end in ("MinProc", "MaxProc")]
    limits = [end for end in ends if end is not None]
    polarization = (text("ImageFormation", "TxRcvPolarizationProc") or "").replace(":", "")
    incidence = number("SCPCOA", "IncidenceAng")
    collector, start = text("CollectionInfo", "CollectorName"), text("Timeline", "CollectStart")
    facts = {
        "band": band_of(sum(limits) * 0.5e-9) if len(limits) == 2 else None,
        "polarization": polarization if polarization in ("HH", "HV", "VH", "VV") else None,
        "platform": None if collector is None else collector.lower(),
        "datetime": start,
        "look_side": _SIDES.get(text("SCPCOA", "SideOfTrack") or ""),
        "incidence_deg": incidence if incidence is not None and 0 < incidence < 90 else None,
        "plane": _PLANES.get(text("Grid", "ImagePlane") or ""),
    }
    return {name: value for name, value in facts.items() if value is not None}
