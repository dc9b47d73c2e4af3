"""JSON files of a static STAC catalogue: which items it links, and which files they refer to.

References are followed within the file system only. Links to items and catalogues stay in the
folder of the catalogue that was opened; assets may lie elsewhere, as `sarhpc catalog` writes them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from hpc.documents import parse_json
from hpc.errors import DataError
from sarhpc.archive.opening import require_local_file

MOST_DEPTH = 64
"""Catalogues below each other."""
MOST_BYTES = 64 << 20
"""Of one JSON file."""


def item_paths(catalogue: Path) -> Iterator[Path]:
    """The items of a catalogue and of those below it, in the order of their links.

    A catalogue that is linked twice, or from itself, is read once.

    Raises:
        DataError: a file cannot be read, catalogues are nested too deeply, or a link leaves the
            folder of the catalogue or is not to a local file.
    """
    top = Path(os.path.abspath(catalogue)).parent
    seen: set[Path] = set()
    pending = [(catalogue, 1)]
    while pending:
        path, depth = pending.pop()
        if path.resolve() in seen:
            continue
        seen.add(path.resolve())
        if depth > MOST_DEPTH:
            raise DataError(
                f"the STAC catalogue {catalogue} has more than {MOST_DEPTH} catalogues below each "
                f"other, down to {path}; catalogue its files again"
            )
        below = []
        for relation, href in _links(path):
            linked = local_path(href, path)
            if not Path(os.path.abspath(linked)).is_relative_to(top):
                raise DataError(
                    f"{href} in {path} leaves the folder of the catalogue {catalogue}; open the "
                    "catalogue above both, or catalogue the files again"
                )
            if relation == "item":
                yield linked
            else:
                below.append((linked, depth + 1))
        pending += reversed(below)


def _links(path: Path) -> Iterator[tuple[str, str]]:
    links = read_json(path).get("links", [])
    try:
        for link in links:
            if link.get("rel") in ("item", "child"):
                yield link["rel"], link["href"]
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not a valid STAC catalogue: {error!r} in its links; restore it, or "
            "catalogue again"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The STAC object in the file at `path`.

    Raises:
        DataError: it cannot be read, is no JSON object, or is too large or too deep for one.
    """
    try:
        require_local_file(path)
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path} is larger than {MOST_BYTES} bytes: no object of a catalogue")
        value = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read {path} of the STAC catalogue ({error}); restore it, or catalogue again"
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is not a STAC object; restore it, or catalogue again")
    return value


def local_path(href: Any, where: Path) -> Path:
    """The file that `href` in the JSON file `where` refers to; nothing is looked up.

    Raises:
        DataError: it is no text, has a scheme or a host, or is a virtual path of GDAL, however it
            is quoted.
    """
    if not isinstance(href, str):
        raise DataError(f"{href!r} in {where} is no reference to a file; catalogue again")
    path = Path(os.path.normpath(where.parent / unquote(href)))
    # GDAL decodes what follows its prefixes once more: no check of the rest would hold.
    if _is_remote(href) or os.path.abspath(path).startswith("/vsi") or "\0" in str(path):
        raise DataError(
            f"{href} in {where} is not a local file; download it and use relative references"
        )
    return path


def _is_remote(href: str) -> bool:
    """Whether a reference has a scheme or a host, or is malformed."""
    try:
        parts = urlsplit(href)
    except ValueError:
        return True
    return bool(parts.scheme or parts.netloc)
