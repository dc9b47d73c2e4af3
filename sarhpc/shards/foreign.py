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
from hpc.regular_files import decoded_text, files_under
from sarhpc.shards.reader import ShardIndex, read_member
from sarhpc.shards.tar import read_exactly

PICTURES = ("png", "jpg", "jpeg", "webp", "tif", "tiff", "bmp")
"""Extensions of pictures, the one to take first."""

RADAR = ("sar.png", *PICTURES, "sar.npy")
"""Members of a tar that may be the image, the one to take first."""

LAYERS = ("optic.png", "sar.npy", "landcover.npy", "sicd.xml")
"""Members that are kept beside the image where they fit it."""

_TEXTS = ("txt", "caption")
_METAS = ("meta.json", "json")
_REPEATS = re.compile(r"\d+_(.+)")
_MOST_META = 65_536
_PICTURE_ENDS = tuple(f".{extension}" for extension in PICTURES)


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
    undecodable: str | None = None
    """Which text beside it is in an encoding that is not known, and where."""
    lengths: Mapping[str, str] | None = None
    """SHORT, MID and LONG of its metadata, where the caption is one of them."""


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
    unread: dict[Path, str] = {}
    files = [root] if root.is_file() else sorted(files_under(root, unread))
    tars = files if root.is_file() else [path for path in files if path.suffix == ".tar"]
    listing = _list_tars(root, tars, with_facts) if tars else _list_pictures(root, files)
    left_out = {path.relative_to(root).as_posix(): reason for path, reason in unread.items()}
    listing = Listing(listing.items, {**listing.left_out, **left_out})
    if not listing.items:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(listing.left_out.items())[:5])
        raise DataError(
            f"{root} holds no images ({why or 'no tar, no picture'}); name a folder of pictures "
            f"({', '.join(PICTURES)}) or of WebDataset tars"
        )
    return listing


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
            items += _list_tar(path, source, with_facts, left_out)
        except DataError as error:
            left_out[source] = str(error)
    return Listing(tuple(items), left_out)


def _stats_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}_stats.json")


def _list_tar(path: Path, source: str, with_facts: bool, left_out: dict[str, str]) -> list[Item]:
    index = ShardIndex.scan(path, ended=False)
    names = []
    for row in range(len(index)):
        members = index.members(row).keys()
        if set(RADAR) & members:
            names.append(index.key(row))
        elif pictures := [name for name in members if name.endswith(_PICTURE_ENDS)]:
            left_out[f"{source}/{index.key(row)}"] = (
                f"the key of a member ends at the first dot of its name, so {len(pictures)} "
                f"pictures (such as {pictures[0]!r}) are members of this one sample and none is "
                f"its image ({', '.join(RADAR)}); rename them without dots in the key"
            )
    facts: dict[str, Mapping[str, Any]] = {}
    if with_facts:
        for extension in reversed(_METAS):
            found = read_member(path, extension, ended=False)
            facts |= {key: _parsed(data) for key, data in found}
    return [Item(source, name, facts.get(name, {})) for name in names]


def _list_pictures(root: Path, files: Sequence[Path]) -> Listing:
    items: list[Item] = []
    left_out: dict[str, str] = {}
    tables = [path for path in files if path.name == "metadata.jsonl"]
    for table in tables:
        items += _list_table(root, table, left_out)
    if not tables:
        for path in files:
            if path.suffix.lower().lstrip(".") not in PICTURES:
                continue
            name = path.relative_to(root).as_posix()
            if path.is_symlink() and not path.exists():
                left_out[name] = f"a link to {path.readlink()}, which is not there"
            else:
                items.append(Item("", name))
    return Listing(tuple(sorted(items, key=lambda item: item.name)), left_out)


def _list_table(root: Path, table: Path, left_out: dict[str, str]) -> list[Item]:
    items = []
    # Lines end at a line feed only: captions may hold any other separator.
    for number, line in enumerate(_lines_of(table), 1):
        if isinstance(line, UnicodeDecodeError):
            place = table.relative_to(root).as_posix()
            left_out[f"{place} line {number}"] = f"no UTF-8 text ({line.reason})"
            continue
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


def _lines_of(table: Path) -> Iterator[str | UnicodeDecodeError]:
    """The lines of a table; of one that is not in the encoding of the others, why."""
    try:
        data = table.read_bytes()
    except OSError as error:
        raise DataError(f"{table} cannot be read ({error})") from error
    try:
        yield from decoded_text(data).split("\n")
    except UnicodeDecodeError:
        for line in data.split(b"\n"):
            try:
                yield decoded_text(line)
            except UnicodeDecodeError as error:
                yield error


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


def read_foreign(
    root: Path, items: Sequence[Item], kinds: Sequence[str] = RADAR
) -> Iterator[ForeignSample]:
    """Yield the images of `items`, which share one source, in their order; one at a time in memory.

    Args:
        root: as for `list_foreign`.
        items: the images.
        kinds: members of a tar that may be the image, the one to take first.

    Raises:
        DataError: the tar cannot be read, or lost a sample since it was listed.
        OSError: a file cannot be read.
    """
    if items and items[0].source:
        yield from _read_tar(root if root.is_file() else root / items[0].source, items, kinds)
    else:
        for item in items:
            yield _read_picture(root, item)


def _read_tar(path: Path, items: Sequence[Item], kinds: Sequence[str]) -> Iterator[ForeignSample]:
    index = ShardIndex.scan(path, ended=False)
    rows = {index.key(row): row for row in range(len(index))}
    with path.open("rb") as file:
        for item in items:
            if item.name not in rows:
                raise DataError(
                    f"{path} lost its sample {item.name} since it was listed; plan anew"
                )
            members = index.members(rows[item.name])
            kind = next(name for name in kinds if name in members)
            wanted = {kind, *LAYERS, *_TEXTS, *_METAS} & members.keys()
            found = {name: read_exactly(file, members[name], path) for name in wanted}
            meta = next((_parsed(found[name]) for name in _METAS if name in found), {})
            layers = {name: found[name] for name in LAYERS if name in found}
            caption, undecodable = _caption(found, meta)
            yield ForeignSample(
                item, kind, found[kind], caption, meta, layers, undecodable, _lengths(meta, caption)
            )


def _read_picture(root: Path, item: Item) -> ForeignSample:
    path = root / item.name
    texts = {
        name: beside.read_bytes()
        for name in _TEXTS
        for beside in (path.with_suffix(f".{name.upper()}"), path.with_suffix(f".{name}"))
        if beside.is_file()
    }
    caption, undecodable = _caption(texts, item.facts)
    if caption is None and undecodable is None and (folder := _REPEATS.fullmatch(path.parent.name)):
        caption = folder[1].replace("_", " ")
    kind = path.suffix.lower().lstrip(".")
    return ForeignSample(item, kind, path.read_bytes(), caption, item.facts, {}, undecodable)


def _caption(texts: Mapping[str, bytes], meta: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The text beside an image, else the one in its metadata (the longest of three lengths), and
    why one beside it cannot be decoded.
    """
    said: list[Any] = []
    for name in _TEXTS:
        try:
            said += [decoded_text(texts[name])] if name in texts else []
        except UnicodeDecodeError as error:
            return None, f"its .{name} is no UTF-8 text ({error.reason} at byte {error.start})"
    for name in ("text", "caption"):
        value = meta.get(name)
        lengths = value if isinstance(value, dict) else {"LONG": value}
        said += [lengths.get(length) for length in ("LONG", "MID", "SHORT")]
    said += [meta.get(length) for length in ("LONG", "MID", "SHORT")]
    words = (" ".join(text.replace("\0", " ").split()) for text in said if isinstance(text, str))
    return next((text for text in words if text), None), None


def _lengths(meta: Mapping[str, Any], caption: str | None) -> Mapping[str, str] | None:
    """The three lengths in metadata, in single spaces; None where they are not the caption."""
    for value in (meta.get("text"), meta.get("caption"), meta):
        if isinstance(value, dict):
            said = {name: value.get(name) for name in ("SHORT", "MID", "LONG")}
            texts = {k: " ".join(v.split()) for k, v in said.items() if isinstance(v, str)}
            if len(texts) == 3 and all(texts.values()) and texts["LONG"] == caption:
                return texts
    return None


def kept_meta(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """Metadata to carry along as they are; empty where they are longer than 64 KiB."""
    return meta if len(json.dumps(meta)) <= _MOST_META else {}
