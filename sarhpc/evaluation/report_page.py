"""The page of a report: one self-contained HTML file of bounded size."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from sarhpc.evaluation.page import page_environment, policy, script
from sarhpc.evaluation.page_sections import make_sections
from sarhpc.evaluation.report import Report
from sarhpc.evaluation.report_context import report_context

log = logging.getLogger(__name__)

MAX_PAGE_BYTES = 6_000_000
"""Of a page with all its pictures."""
PICTURE_BYTES = 3_600_000
"""Of these, for tiles side by side; the rest is for progress, sections and figures."""
BYTES_PER_PX = 1.3
"""Of a PNG of speckle in base64: it cannot be compressed."""
LEAST_SIDE_PX = 96
"""Of a tile, below which fewer rows are shown instead."""


def render(report: Report) -> str:
    """The page as HTML with every picture, style and figure inside; at most `MAX_PAGE_BYTES`.

    Tiles are shown at native resolution, and where all pixels of all tiles would be too many, the
    middle of each. Should sections bring so many pictures that the page is larger still, a warning
    says so.
    """
    rows, side = picture_room(report)
    context = report_context(report, rows)
    page = _rendered(report, context, side)
    for side_px in (side * 2 // 3, side // 2, side // 3):
        if len(page.encode()) > MAX_PAGE_BYTES:
            page = _rendered(report, context, side_px)
    if len(page.encode()) > MAX_PAGE_BYTES:
        log.warning("page of %d bytes, more than %d", len(page.encode()), MAX_PAGE_BYTES)
    return page


def picture_room(report: Report) -> tuple[int, int]:
    """Rows of tiles that the page has room for, and pixels on a side of each."""
    groups = report.examples or report.synthetic
    tiles = [one.image for of in groups.values() for one in of]
    if not tiles:
        return 0, LEAST_SIDE_PX
    whole = max(max(image.shape[:2]) for image in tiles)
    beside = len(groups) + bool(report.real and not report.examples)
    most = max(len(of) for of in groups.values())
    room = PICTURE_BYTES / BYTES_PER_PX / beside
    rows = min(most, max(1, int(room / LEAST_SIDE_PX**2)))
    return rows, min(whole, max(LEAST_SIDE_PX, int((room / rows) ** 0.5) // 16 * 16))


def _rendered(report: Report, context: Mapping[str, Any], side_px: int) -> str:
    environment = page_environment(side_px)
    return environment.get_template("report.html.j2").render(
        **context,
        resolution=_resolution(report, side_px),
        row_px=_row_px(report, context, side_px),
        sections=list(make_sections(report.blocks, report.folder, environment, context["judged"])),
        policy=policy(),
        script=script(),
    )


def _row_px(report: Report, context: Mapping[str, Any], side_px: int) -> int:
    """Width of a row of tiles with its frame, px: as many rows as fit are shown side by side."""
    groups = report.examples or report.synthetic
    widths = [one.image.shape[1] for of in groups.values() for one in of]
    shown = min(max(widths, default=0), side_px) * int(context["times"])
    return int(context["row"]) * (shown + 8) + 22


def _resolution(report: Report, side_px: int) -> str:
    """What is shown of tiles, in words."""
    groups = report.examples or report.synthetic
    sizes = {one.image.shape[:2] for of in groups.values() for one in of}
    if not sizes:
        return ""
    rows, columns = max(sizes)
    if max(rows, columns) <= side_px:
        return f"Tiles are shown pixel by pixel, {rows} x {columns} px."
    return (
        f"Of {rows} x {columns} px the middle {min(rows, side_px)} x {min(columns, side_px)} are "
        "shown pixel by pixel, so that the page can be sent by mail."
    )
