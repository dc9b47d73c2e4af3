"""A draft of `sarhpc.yaml`: what the files of a folder state, and what is left to fill in."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from hpc.errors import DataError
from sarhpc.archive.catalog_builder import Skipped
from sarhpc.archive.declaration import CHOICES, UNFILLED
from sarhpc.archive.raster_files import crs_text, opened_raster

_MEANINGS = {
    "role": "skip leaves the file out",
    "range_direction": "where slant range grows in the stored image; +col: near range at the left",
    "band_index": "band that holds the image, from 1; or quantity: iq",
    "spacing_m": "[row, col], metres on the ground",
    "id": "of the scene; another file has the name",
    "quantity": "what a pixel is",
}
_OPTIONAL = (
    ("calibrated", "true", "|pixel|^2 is sigma0; tiling rejects a scene without this or a scale"),
    ("band", "X", f"one of {', '.join(CHOICES['band'])}"),
    ("polarization", "HH", f"one of {', '.join(CHOICES['polarization'])}"),
    ("incidence_deg", "45.0", "at the scene centre"),
    ("datetime", "2026-01-31T12:00:00Z", "acquisition, RFC 3339"),
    ("flight_line", "line-1", "scenes of one line can be kept in one split"),
    ("licence", "CC-BY-4.0", "an SPDX identifier"),
)


def draft_declarations(
    folder: Path, skipped: Iterable[Skipped], names: Sequence[str]
) -> str | None:
    """Text of a `sarhpc.yaml` for the files that lack nothing but declarations.

    Args:
        folder: that was catalogued.
        skipped: files that were left out.
        names: of all files in the folder, relative to it, that patterns are tried on.

    Returns:
        None where no file can be helped by a declaration.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Path]] = {}
    for item in skipped:
        if item.only:
            missing = tuple(
                (key, str(value) if key == "id" else UNFILLED)
                for key, value in item.missing.items()
            )
            paths = groups.setdefault(missing, [])
            if item.path not in paths:
                paths.append(item.path)
    if not groups:
        return None
    lines = [
        f"# Files of {json.dumps(str(folder))} that do not state what is needed of them. Replace",
        f"# each {UNFILLED} (of a file that is no SAR image the role is enough), drop the",
        "# sign # before what you know, and repeat the command. All entries: docs/scenes.md.",
        "defaults:",
        *(f"  # {f'{key}: {value}':<34} # {meaning}" for key, value, meaning in _OPTIONAL),
        "files:",
    ]
    for number, (missing, paths) in enumerate(groups.items(), 1):
        first, *others = _patterns(paths, folder, names)
        anchor = f" &same{number}" if others else ""
        lines.append(f"  {json.dumps(first)}:{anchor}  # {_described(paths[0])}")
        lines += [_entry(key, value) for key, value in missing]
        lines += [f"  {json.dumps(other)}: *same{number}" for other in others]
    return "\n".join(lines) + "\n"


def _entry(key: str, value: str) -> str:
    choices = ", ".join(CHOICES.get(key, ()))
    note = "; ".join(part for part in (choices, _MEANINGS.get(key, "")) if part)
    return f"    {key}: {json.dumps(value)}" + (f"  # {note}" if note else "")


def _patterns(paths: list[Path], folder: Path, names: Sequence[str]) -> list[str]:
    """One pattern that matches `paths` and no other of `names`; else the files themselves."""
    files = [path.relative_to(folder).as_posix() for path in paths]
    below, _, name = glob.escape(files[0]).rpartition("/")
    for pattern in (f"*{Path(name).suffix}", f"{below}/*{Path(name).suffix}"):
        matched = {
            other for other in names
            if fnmatchcase(other, pattern) or fnmatchcase(other.rpartition("/")[2], pattern)
        }  # fmt: skip
        if len(files) > 1 and matched == set(files):
            return [pattern]
    return [glob.escape(file) for file in files]


def _described(path: Path) -> str:
    """Type of pixels, size and grid of a raster, in a few words."""
    try:
        with opened_raster(path) as dataset:
            size = f"{dataset.height} x {dataset.width}"
            bands = f"{dataset.count} bands of " if dataset.count > 1 else ""
            crs = crs_text(dataset) or ("control points" if dataset.gcps[0] else "no CRS")
            crs = crs if crs.isprintable() and len(crs) < 20 else "another CRS"
            kind = dataset.dtypes[0] if dataset.count else "no image"
            return f"{bands}{kind}, {size}, {crs}"
    except DataError:
        return path.suffix.lstrip(".").upper() or "no suffix"
