"""What the card says of a sensor sweep: settings, and what they are not."""

from __future__ import annotations

from sarhpc.corpus.tally import SETTINGS, Tally

_WORDS = {
    "incidence_deg": "incidence asked for, degrees",
    "band": "band asked for",
    "pixel_m": "pixel spacing asked for, m",
    "resolution_m": "resolution (IRW), m",
    "looks": "looks",
    "noise_db": "added noise, dB",
    "speckle_draw": "speckle draw",
}
_DRAWN = """\
Speckle of these images was drawn by a sensor model, not by the text-to-image model: fully developed
complex speckle over the reflectivity that a speckle filter estimated from the model's image,
band-limited to the resolution, with noise, averaged over looks (`sweep` in `meta.json`). Structure
is no finer than the model's image after that filter, points fade as clutter does, and draws of one
number share their scatterers at every resolution, number of looks and noise level."""


def sweep_text(tally: Tally) -> str:
    """The section of the card about a sweep, with an empty line after it; nothing without one."""
    if not tally.layouts:
        return ""
    rows = [
        f"| {_WORDS[name]} | {', '.join(_levels(tally, name))} |"
        for name in SETTINGS
        if len(tally.sensors[name]) > 1
    ]
    table = "\n".join(["| setting | values (images) |", "|---|---|", *rows])
    drawn = any(value is not None for value in tally.sensors["resolution_m"])
    parts = [
        "## Sensor sweep",
        f"{len(tally.layouts):,} layouts, each under several sensor settings: images with the same "
        "`layout` in the index show the same ground. They are next to each other in one shard, and "
        "in one split.",
        table,
        *([_DRAWN] if drawn else []),
    ]
    return "\n\n".join(parts) + "\n\n"


def _levels(tally: Tally, name: str) -> list[str]:
    counts = tally.sensors[name]
    ordered = sorted(counts, key=lambda value: (value is not None, value))
    return [f"{'none' if v is None else v} ({counts[v]:,})" for v in ordered]
