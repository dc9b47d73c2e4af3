"""Where tiles lie, drawn as SVG: a panel for each place on the Earth, in metres, north up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from sarhpc.evaluation.figures import COLOURS, GRID, INK, themed
from sarhpc.evaluation.survey import Outline, unwrapped
from sarhpc.shards.sample import SPLITS

METRES_PER_DEGREE = 111_320.0
SITE_DEGREES = 0.5
"""Tiles in neighbouring cells of this size are one site."""

MOST_SITES = 6
PANEL_PX = 320
WIDE_PX = 1060
"""Width of a panel, pixels; wide if it is the only one."""


@dataclass(frozen=True)
class Site:
    """Tiles that lie together."""

    outlines: Sequence[Outline]
    latitude: float
    longitude: float
    svg: str

    @property
    def title(self) -> str:
        """Its position and number of tiles."""
        north = f"{abs(self.latitude):.3f}° {'N' if self.latitude >= 0 else 'S'}"
        east = f"{abs(self.longitude):.3f}° {'E' if self.longitude >= 0 else 'W'}"
        return f"{north}, {east}: {len(self.outlines)} tiles"


def draw_sites(outlines: Sequence[Outline]) -> tuple[list[Site], int]:
    """The largest sites, each with its map, and how many sites are not shown."""
    groups = sorted(_sites(outlines), key=lambda group: (-len(group), group[0].key))
    px = WIDE_PX if len(groups) == 1 else PANEL_PX
    return [_draw(group, px) for group in groups[:MOST_SITES]], max(len(groups) - MOST_SITES, 0)


def split_colours(splits: Iterable[str]) -> dict[str, str]:
    """Split -> colour; the three usual ones always have the same."""
    order = [*SPLITS, *sorted(set(splits) - set(SPLITS))]
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(order)}


def _sites(outlines: Sequence[Outline]) -> list[list[Outline]]:
    """Groups of outlines in cells that touch; cells go around the Earth."""
    cells: dict[tuple[int, int], list[Outline]] = {}
    around = round(360 / SITE_DEGREES)
    for outline in outlines:
        lon, lat = np.mean(unwrapped(outline), axis=0)
        cell = (int(lat // SITE_DEGREES), int(lon // SITE_DEGREES) % around)
        cells.setdefault(cell, []).append(outline)
    groups = []
    while cells:
        waiting, group = [next(iter(cells))], []
        while waiting:
            row, col = waiting.pop()
            group += cells.pop((row, col), [])
            near = [(row + i, (col + j) % around) for i in (-1, 0, 1) for j in (-1, 0, 1)]
            waiting += [cell for cell in near if cell in cells]
        groups.append(group)
    return groups


def _draw(group: Sequence[Outline], px: int) -> Site:
    first = unwrapped(group[0])[0]
    shapes = [unwrapped(outline) for outline in group]
    # All longitudes beside the first one, so that a site on the antimeridian stays whole.
    shapes = [s - [360.0 * round((s[0, 0] - first[0]) / 360.0), 0.0] for s in shapes]
    lon, lat = np.vstack(shapes).mean(axis=0)
    scale = METRES_PER_DEGREE * np.array([max(np.cos(np.radians(lat)), 1e-6), -1.0])
    metres = [(s - [lon, lat]) * scale for s in shapes]
    svg = _svg_map(group, metres, px)
    return Site(group, float(lat), float((lon + 180) % 360 - 180), svg)


def _svg_map(group: Sequence[Outline], metres: Sequence[NDArray[np.float64]], px: int) -> str:
    corners = np.vstack(metres)
    low, high = corners.min(axis=0), corners.max(axis=0)
    # As wide as the panel, but no higher than a screen shows.
    extent = float(max(high[0] - low[0], (high[1] - low[1]) * px / min(px, 520), 1e-3))
    factor, pad = (px - 24) / extent, 12.0
    width, height = (high - low) * factor + 2 * pad
    colours = split_colours(outline.split for outline in group)
    shapes = "".join(
        _polygon(outline, (points - low) * factor + pad, colours[outline.split])
        for outline, points in zip(group, metres, strict=True)
    )
    return themed(
        f'<svg viewBox="0 0 {width:.0f} {height + 26:.0f}" width="{width:.0f}" '
        f'xmlns="http://www.w3.org/2000/svg" role="img" aria-label="map of footprints">'
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="none" stroke="{GRID}"/>'
        f"{shapes}{_scale_bar(extent, factor, height)}</svg>"
    )


def _polygon(outline: Outline, points: NDArray[np.float64], colour: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    label = escape(f"{outline.key} {outline.split} {outline.scene}".strip())
    return (
        f'<polygon points="{path}" fill="{colour}" fill-opacity=".3" stroke="{colour}" '
        f'stroke-width=".6"><title>{label}</title></polygon>'
    )


def _scale_bar(extent: float, factor: float, top: float) -> str:
    power = 10.0 ** np.floor(np.log10(extent / 2))
    length = max(step * power for step in (1, 2, 5) if step * power <= extent / 2)
    label = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    y = top + 10
    return (
        f'<path d="M12 {y:.0f} h{length * factor:.1f}" stroke="{INK}" stroke-width="2"/>'
        f'<text x="{length * factor + 18:.0f}" y="{y + 4:.0f}" font-size="11" '
        f'fill="{INK}">{label}</text>'
    )
