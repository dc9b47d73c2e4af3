"""Drawings in SVG: shapes only, rasterised by resvg.

What is rendered is what was checked: the document is parsed, checked against a list of shapes, and
written anew for the renderer. Nothing else is read and nothing runs: no fonts, pictures, style
sheets, scripts, entities, references or filters.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hpc.errors import DataError
from hpc.regular_files import open_regular

MOST_BYTES = 4_000_000
"""Largest SVG file."""
MOST_ELEMENTS = 20_000
"""Most elements of one."""

_NAMESPACE = "http://www.w3.org/2000/svg"
_SHAPES = frozenset(
    ("svg", "g", "path", "line", "polyline", "polygon", "rect", "circle", "ellipse")
)
_SILENT = frozenset(("title", "desc", "metadata", "defs"))
"""Elements that draw nothing; what they contain is left out."""
_ADVICE = {
    "text": "convert it to paths",
    "image": "draw it, or give it as a PNG",
    "use": "unlink clones, so that each shape stands there itself",
    "style": "write the style at each shape",
    "script": "remove it",
}


def rasterise_svg(path: Path, width: int, height: int) -> bytes:
    """PNG bytes of the drawing on white paper, as large as fits into `width` x `height` px.

    Raises:
        DataError: the file is too large, no SVG, or has anything but shapes in it.
    """
    import resvg_py

    try:
        with open_regular(path) as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if len(data) > MOST_BYTES:
        raise DataError(f"{path} has more than {MOST_BYTES / 1e6:g} MB: simplify its paths")
    text = _checked(data, path)
    try:
        return bytes(
            resvg_py.svg_to_bytes(
                svg_string=text,
                width=width,
                height=height,
                background="#ffffff",
                skip_system_fonts=True,
                # Of CSS; without it, lengths in mm or in are of no size.
                dpi=96,
            )
        )
    except ValueError as error:
        raise DataError(f"cannot draw {path}: {error}; save it again as plain SVG") from error


def _checked(data: bytes, path: Path) -> str:
    """The document with nothing but shapes in it, as text."""
    from lxml import etree

    if b"<!ENTITY" in data:
        raise DataError(f"{path} declares entities: save it again as plain SVG")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False,
        remove_comments=True, remove_pis=True,
    )  # fmt: skip
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise DataError(f"{path} is no SVG: {error}") from error
    if root.tag != f"{{{_NAMESPACE}}}svg":
        raise DataError(f"{path} is no SVG: its root is {root.tag}")
    elements = list(root.iter(etree.Element))
    if len(elements) > MOST_ELEMENTS:
        raise DataError(
            f"{path} has {len(elements)} elements, of at most {MOST_ELEMENTS}: simplify it"
        )
    _remove_silent(root)
    for element in root.iter(etree.Element):
        _require_shape(element, path)
    return str(etree.tostring(root, encoding="unicode"))


def _remove_silent(root: Any) -> None:
    """Remove what draws nothing, and elements of other namespaces, which editors add."""
    from lxml import etree

    for element in list(root.iter(etree.Element)):
        space, _, name = element.tag.rpartition("}")
        foreign = space.lstrip("{") != _NAMESPACE
        parent = element.getparent()
        if parent is not None and (foreign or name in _SILENT):
            parent.remove(element)


def _require_shape(element: Any, path: Path) -> None:
    name = element.tag.rpartition("}")[2]
    where = f"{path} line {element.sourceline}"
    if name not in _SHAPES:
        advice = _ADVICE.get(name, "draw plain paths instead")
        raise DataError(f"{where} has an element <{name}>, which is not drawn: {advice}")
    for attribute, value in element.attrib.items():
        plain = attribute.rpartition("}")[2].lower()
        if plain == "href" or plain.startswith("on") or re.search(r"url\s*\(|@import", value, re.I):
            raise DataError(
                f"{where} refers to something else by {plain}={value[:40]!r}: give shapes plain "
                "colours, without links, scripts, gradients, masks or filters"
            )
