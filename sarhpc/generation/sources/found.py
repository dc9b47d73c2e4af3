"""Images to begin with as they are found: in shards, or in a folder of pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.errors import DataError
from hpc.regular_files import decoded_text, files_under, open_regular
from sarhpc.shards.foreign import PICTURES, Item, list_foreign, read_foreign
from sarhpc.shards.sample import decode_meta
from sarhpc.shards.samples import ShardedSamples

PICTURE_MEMBERS = ("sar.png", *PICTURES)
"""Members of a shard that may be the 8-bit picture, the one to take first."""
MASTER_MEMBERS = ("sar16.npy", "sar.npy")
"""Members with more than 8 bits, which stand in where there is no picture of the model's law."""


@dataclass(frozen=True)
class FoundImage:
    """One image with what goes with it; bytes as they were found."""

    name: str
    """Path in the folder, or key of the sample."""
    members: Mapping[str, bytes]
    """Picture, masters and `sicd.xml`, by member name or extension."""
    meta: Mapping[str, Any]
    caption: str | None
    """Scene description: the SHORT one of its metadata, else the text beside it."""


class ShardImages:
    """The images in shards, by number."""

    def __init__(self, shards: Sequence[Path]) -> None:
        """Index the shards.

        Raises:
            DataError: a shard is cut short or damaged.
        """
        self._samples = ShardedSamples(shards)

    def __len__(self) -> int:
        return len(self._samples)

    def read(self, number: int) -> FoundImage:
        """Image `number`.

        Raises:
            DataError: it cannot be read, or has no image.
        """
        key = self._samples.key(number)
        members = self._picture(number) or self._members(number, MASTER_MEMBERS)
        if not members:
            names = ", ".join((*PICTURE_MEMBERS, *MASTER_MEMBERS))
            raise DataError(f"{key} has no image ({names})")
        members |= self._members(number, (*MASTER_MEMBERS, "sicd.xml"))
        data = self._samples.member(number, "meta.json")
        data = self._samples.member(number, "json") if data is None else data
        meta = {} if data is None else decode_meta(data, key)
        return FoundImage(key, members, meta, self._caption(number, key, meta))

    def _picture(self, number: int) -> dict[str, bytes]:
        for name in PICTURE_MEMBERS:
            if found := self._members(number, (name,)):
                return found
        return {}

    def _members(self, number: int, names: Sequence[str]) -> dict[str, bytes]:
        found = ((name, self._samples.member(number, name)) for name in names)
        return {name: data for name, data in found if data is not None}

    def _caption(self, number: int, key: str, meta: Mapping[str, Any]) -> str | None:
        texts = self._members(number, ("txt", "caption"))
        try:
            beside = next((decoded_text(data) for data in texts.values()), None)
        except UnicodeDecodeError as error:
            raise DataError(f"{key}: its text is no UTF-8 ({error.reason})") from error
        return _description(meta, beside)


class FolderImages:
    """The pictures below a folder, by number, in the order of their names."""

    def __init__(self, root: Path) -> None:
        """List the pictures.

        Raises:
            DataError: there are none, or some cannot be begun with.
        """
        self._root = root
        listing = list_foreign(root)
        if listing.left_out:
            raise DataError(f"{root}: " + "; ".join(_some(listing.left_out)))
        self._items: tuple[Item, ...] = listing.items

    def __len__(self) -> int:
        return len(self._items)

    def read(self, number: int) -> FoundImage:
        """Picture `number`.

        Raises:
            DataError: it cannot be read, or the text beside it is in an unknown encoding.
        """
        item = self._items[number]
        name = printable(item.name)
        try:
            # Nothing else is waited for: a pipe that is called a picture would be.
            open_regular(self._root / item.name).close()
            [found] = read_foreign(self._root, [item])
        except OSError as error:
            raise DataError(f"{name} cannot be read ({error.strerror or error})") from error
        if found.undecodable is not None:
            raise DataError(f"{name}: {found.undecodable}")
        caption = _description(found.meta, found.caption)
        return FoundImage(name, {found.kind: found.image}, found.meta, caption)


def images_below(path: Path) -> ShardImages | FolderImages:
    """The images of a folder: of its shards if it has any, else its pictures.

    Raises:
        DataError: there are none, or a shard is cut short or damaged.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; name a folder of pictures or of shards")
    files = [path] if path.is_file() else sorted(files_under(path))
    shards = [file for file in files if file.suffix == ".tar"]
    return ShardImages(shards) if shards else FolderImages(path)


def _description(meta: Mapping[str, Any], beside: str | None) -> str | None:
    captions = meta.get("caption")
    short = captions.get("SHORT") if isinstance(captions, Mapping) else None
    text = short if isinstance(short, str) and short.strip() else beside
    return " ".join(text.split()) or None if text else None


def _some(reasons: Mapping[str, str]) -> list[str]:
    return [f"{printable(name)}: {why}" for name, why in list(reasons.items())[:5]]


def printable(name: str) -> str:
    """A file name as text: bytes that are no UTF-8 and control characters are escaped."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
