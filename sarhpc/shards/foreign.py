"""Third-party images on disk: folders of pictures with texts, and WebDataset tars.

Folders: `metadata.jsonl` with `file_name` and `text` (diffusers), or a `.txt` or `.caption` beside
each picture (kohya; without one the words of its folder `10_words` are the caption). Tars: those of
img2dataset (jpg, txt, json) and of SARLO-80 and SARLAND (sar.png, sar.npy, optic.png,
landcover.npy, meta.json with SHORT, MID and LONG captions). Nothing is decoded here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from hpc.documents import parse_json
from hpc.errors import DataError
from sarhpc.shards.reader import ShardIndex, read_member
from sarhpc.shards.tar import read_exactly

PICTURES = ("png", "jpg", "jpeg", "webp", "tif", "tiff", "bmp")
"""Extensions of pictures, the one to take first."""

RADAR = ("sar.png", *PICTURES, "sar.npy")
"""Members of a tar that may be the image, the one to take first."""

LAYERS = ("optic.png", "sar.npy", "landcover.npy")
"""Members that are kept beside the image where they fit it."""

_TEXTS = ("txt", "caption")
_METAS = ("meta.json", "json")
_REPEATS = re.compile(r"\d+_(.+)")
_MOST_META = 65_536


@dataclass(frozen=True)
class Item:
    """An image that was found: its location, and its row in a table."""

    source: str
    """Tar, relative to the root; empty for a file of its own."""
    name: str
    """Key in the tar, or path relative to the root."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Its row of `metadata.jsonl`, or, where they were asked for, its metadata in the tar."""


@dataclass(frozen=True)
class Listing:
    """The images under a root, in order, and files left out with the reason."""

    items: tuple[Item, ...]
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class ForeignSample:
    """One image with what goes with it; bytes as they were found."""

    item: Item
    kind: str
    """Extension of the image: one of `RADAR`."""
    image: bytes
    caption: str | None
    meta: Mapping[str, Any]
    layers: Mapping[str, bytes]


def list_foreign(root: Path, with_facts: bool = False) -> Listing:
    """The images under `root`: of its tars if it has any, else its pictures.

    Args:
        root: a folder, or a single tar.
        with_facts: read the metadata of samples in tars too.

    Raises:
        DataError: there is nothing, or `metadata.jsonl` cannot be read.
    """
    if not root.exists():
        raise DataError(f"{root} does not exist; name a folder of images or of tars")
    tars = [root] if root.is_file() else sorted(p for p in root.rglob("*.tar") if _visible(p, root))
    listing = _list_tars(root, tars, with_facts) if tars else _list_pictures(root)
    if not listing.items:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(listing.left_out.items())[:5])
        raise DataError(
            f"{root} holds no images ({why or 'no tar, no picture'}); name a folder of pictures "
            f"({', '.join(PICTURES)}) or of WebDataset tars"
        )
    return listing


def _visible(path: Path, root: Path) -> bool:
    return not any(part.startswith(".") for part in path.relative_to(root).parts)


def _list_tars(root: Path, tars: Sequence[Path], with_facts: bool) -> Listing:
    items: list[Item] = []
    left_out: dict[str, str] = {}
    marked = {path.parent for path in tars if _stats_of(path).exists()}
    for path in tars:
        source = path.name if path == root else path.relative_to(root).as_posix()
        if path.parent in marked and not _stats_of(path).exists():
            # img2dataset writes `_stats.json` last: a tar without one was not finished.
            left_out[source] = "unfinished: no _stats.json beside it"
            continue
        try:
            items += _list_tar(path, source, with_facts)
        except DataError as error:
            left_out[source] = str(error)
    return Listing(tuple(items), left_out)


def _stats_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}_stats.json")


def _list_tar(path: Path, source: str, with_facts: bool) -> list[Item]:
    index = ShardIndex.scan(path)
    names = [index.key(row) for row in range(len(index)) if set(RADAR) & index.members(row).keys()]
    facts: dict[str, Mapping[str, Any]] = {}
    if with_facts:
        for extension in reversed(_METAS):
            facts |= {key: _parsed(data) for key, data in read_member(path, extension)}
    return [Item(source, name, facts.get(name, {})) for name in names]


def _list_pictures(root: Path) -> Listing:
    items: list[Item] = []
    left_out: dict[str, str] = {}
    tables = sorted(p for p in root.rglob("metadata.jsonl") if _visible(p, root))
    for table in tables:
        items += _list_table(root, table, left_out)
    if not tables:
        pictures = (p for p in root.rglob("*") if p.suffix.lower().lstrip(".") in PICTURES)
        names = sorted(p.relative_to(root).as_posix() for p in pictures if _visible(p, root))
        items = [Item("", name) for name in names]
    return Listing(tuple(items), left_out)


def _list_table(root: Path, table: Path, left_out: dict[str, str]) -> list[Item]:
    items = []
    # Lines end at a line feed only: captions may hold any other separator.
    for number, line in enumerate(_read_table(table).split("\n"), 1):
        if not line.strip():
            continue
        row = _parsed(line)
        file_name = row.get("file_name")
        if not isinstance(file_name, str):
            raise DataError(f"{table} line {number} is no JSON object with a `file_name`")
        if PurePosixPath(file_name).is_absolute() or ".." in PurePosixPath(file_name).parts:
            left_out[file_name] = "its path leaves the folder"
            continue
        path = table.parent / file_name
        name = path.relative_to(root).as_posix()
        if _is_file(path):
            items.append(Item("", name, row))
        else:
            left_out[name] = "named in metadata.jsonl and not there"
    return sorted(items, key=lambda item: item.name)


def _read_table(table: Path) -> str:
    try:
        return table.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{table} cannot be read as UTF-8 text ({error})") from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


def _parsed(data: str | bytes) -> Mapping[str, Any]:
    """The JSON object in `data`; empty where it is none."""
    try:
        value = parse_json(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def read_foreign(root: Path, items: Sequence[Item]) -> Iterator[ForeignSample]:
    """Yield the images of `items`, which share one source, in their order; one at a time in memory.

    Raises:
        DataError: the tar cannot be read, or lost a sample since it was listed.
        OSError: a file cannot be read.
    """
    if items and items[0].source:
        yield from _read_tar(root if root.is_file() else root / items[0].source, items)
    else:
        for item in items:
            yield _read_picture(root, item)


def _read_tar(path: Path, items: Sequence[Item]) -> Iterator[ForeignSample]:
    index = ShardIndex.scan(path)
    rows = {index.key(row): row for row in range(len(index))}
    with path.open("rb") as file:
        for item in items:
            if item.name not in rows:
                raise DataError(
                    f"{path} lost its sample {item.name} since it was listed; plan anew"
                )
            members = index.members(rows[item.name])
            kind = next(name for name in RADAR if name in members)
            wanted = {kind, *LAYERS, *_TEXTS, *_METAS} & members.keys()
            found = {name: read_exactly(file, members[name], path) for name in wanted}
            meta = next((_parsed(found[name]) for name in _METAS if name in found), {})
            layers = {name: found[name] for name in LAYERS if name in found}
            yield ForeignSample(item, kind, found[kind], _caption(found, meta), meta, layers)


def _read_picture(root: Path, item: Item) -> ForeignSample:
    path = root / item.name
    texts = {
        name: path.with_suffix(f".{name}").read_bytes()
        for name in _TEXTS
        if path.with_suffix(f".{name}").is_file()
    }
    caption = _caption(texts, item.facts)
    if caption is None and (folder := _REPEATS.fullmatch(path.parent.name)):
        caption = folder[1].replace("_", " ")
    kind = path.suffix.lower().lstrip(".")
    return ForeignSample(item, kind, path.read_bytes(), caption, item.facts, {})


def _caption(texts: Mapping[str, bytes], meta: Mapping[str, Any]) -> str | None:
    """The text beside an image, else the one in its metadata: the longest of three lengths."""
    said: list[Any] = [texts[name].decode(errors="replace") for name in _TEXTS if name in texts]
    for name in ("text", "caption"):
        value = meta.get(name)
        lengths = value if isinstance(value, dict) else {"LONG": value}
        said += [lengths.get(length) for length in ("LONG", "MID", "SHORT")]
    said += [meta.get(length) for length in ("LONG", "MID", "SHORT")]
    words = (" ".join(text.replace("\0", " ").split()) for text in said if isinstance(text, str))
    return next((text for text in words if text), None)


def kept_meta(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """Metadata to carry along as they are; empty where they are longer than 64 KiB."""
    return meta if len(json.dumps(meta)) <= _MOST_META else {}
