"""Captioned images in the layouts they are published in, and in shards."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc.documents import parse_json
from hpc.errors import ConfigError, DataError
from hpc.regular_files import decoded_text
from sarhpc.captioning.config import CaptionSetConfig
from sarhpc.captioning.tuning.published import LAYOUTS, find_published, require_sets
from sarhpc.shards.images import decode_rgb8
from sarhpc.shards.pictures import opened_picture
from sarhpc.shards.reader import ShardIndex
from sarhpc.shards.sample import decode_meta
from sarhpc.shards.samples import ShardedSamples, find_shards

_OPTICAL = "optic.png"
_MOST_TEXT = 1 << 30
"""Bytes of a file of captions, unpacked; the largest published one has 10 MB."""


@dataclass(frozen=True)
class CaptionedImage:
    """An image that is read when needed, and everything that was said of it.

    RSICD repeats captions until there are five: `captions` keeps them all, as published scores
    need, `distinct` drops the repetitions, as training wants.
    """

    name: str
    captions: tuple[str, ...]
    read: Callable[[], NDArray[np.uint8]]

    @property
    def distinct(self) -> tuple[str, ...]:
        """Captions that differ in more than case, spaces and final stop, in their first order."""
        first: dict[str, str] = {}
        for text in self.captions:
            first.setdefault(" ".join(text.lower().split()).rstrip(" ."), text)
        return tuple(first.values())


def open_set(cfg: CaptionSetConfig) -> list[CaptionedImage]:
    """Images of one set, in its order.

    Raises:
        ConfigError: the settings cannot be right (`require_sets`).
        DataError: a file cannot be read, or there are no images.
    """
    require_sets([cfg])
    found = list(_open_set(cfg))
    if not found:
        raise DataError(f"no captioned images in {cfg.path} ({cfg.kind}, split {cfg.split}).")
    return found


def _open_set(cfg: CaptionSetConfig) -> Iterable[CaptionedImage]:
    path, images = Path(cfg.path), None if cfg.images is None else Path(cfg.images)
    if cfg.kind == "shards":
        left_out = _left_out(Path(cfg.without)) if cfg.without is not None else frozenset()
        images_of_shards = read_shard_images(path, cfg.split, cfg.source)
        return (image for image in images_of_shards if image.name not in left_out)
    if cfg.kind in LAYOUTS:
        captions, folder = find_published(cfg.kind, path, images)
        read = read_nwpu if LAYOUTS[cfg.kind].by_category else read_karpathy
        return read(captions, folder, cfg.split, cfg.skip_missing)
    assert images is not None
    if cfg.kind == "karpathy":
        return read_karpathy(path, images, cfg.split, cfg.skip_missing)
    return read_jsonl(path, images, cfg.skip_missing)


def read_karpathy(
    path: Path, images: Path, split: str, skip_missing: bool = False
) -> list[CaptionedImage]:
    """Images of one split of a Karpathy-layout file, in its order: RSICD, UCM, Sydney, RSITMD.

    Captions are the `raw` sentences: the `tokens` of UCM carry misspellings that `raw` has not.
    `restval` belongs to `train`.

    Raises:
        DataError: the file is not of that layout, has no such split, or an image is missing.
    """
    try:
        rows = [
            (
                _text(image["split"]),
                _text(image["filename"]),
                [_text(sentence["raw"]) for sentence in image["sentences"]],
            )
            for image in parse_json(_read_text(path))["images"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is not in the Karpathy layout (images[] with filename, split and "
            f"sentences[].raw): {error!r}."
        ) from error
    return _with_files(_of_split(rows, split, path), images, path, skip_missing)


def read_nwpu(
    path: Path, images: Path, split: str, skip_missing: bool = False
) -> list[CaptionedImage]:
    """Images of one split of `dataset_nwpu.json`, in its order, each in its category's folder.

    The file lists images for each category, with sentences `raw`, `raw_1`, ... `raw_4`.

    Raises:
        DataError: the file is not of that layout, has no such split, or an image is missing.
    """
    try:
        rows = [
            (_text(row["split"]), f"{category}/{_text(row['filename'])}", _nwpu_sentences(row))
            for category, listed in parse_json(_read_text(path)).items()
            for row in listed
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is not in the layout of NWPU-Captions (category: [filename, split, raw, "
            f"raw_1, ...]): {error!r}."
        ) from error
    return _with_files(_of_split(rows, split, path), images, path, skip_missing)


def _nwpu_sentences(row: Mapping[str, str]) -> list[str]:
    sentences = [row["raw"], *(row.get(f"raw_{number}", "") for number in range(1, 5))]
    return [text for text in sentences if _text(text).strip()]


def _text(value: Any) -> str:
    """`value`, or TypeError where it is no text."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value


def _of_split(
    rows: Sequence[tuple[str, str, list[str]]], split: str, path: Path
) -> list[tuple[str, list[str]]]:
    """File names and captions of `split`; `restval` belongs to `train`.

    Raises:
        DataError: the file has other splits, but not this one.
    """
    wanted = {"train", "restval"} if split == "train" else {split}
    found = [(filename, captions) for where, filename, captions in rows if where in wanted]
    if rows and not found:
        known = ", ".join(sorted({where for where, _, _ in rows}))
        raise DataError(f"{path} has no images of the split {split!r}, but of: {known}.")
    return found


def read_jsonl(path: Path, images: Path, skip_missing: bool = False) -> list[CaptionedImage]:
    """Images of a file with one `{"filename": ..., "captions": [...]}` per line, in its order.

    Raises:
        DataError: a line is not of that layout, or an image is missing.
    """
    rows = []
    # Lines end at a line feed only: captions may hold any other separator.
    for number, line in enumerate(_read_text(path).removesuffix("\n").split("\n"), 1):
        try:
            row = parse_json(line)
            rows.append((_text(row["filename"]), _texts(row["captions"])))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}, line {number}: expected filename and captions: {error!r}."
            ) from error
    return _with_files(rows, images, path, skip_missing)


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list):
        raise TypeError(f"{values!r:.40} is no list of texts")
    return [_text(value) for value in values]


def read_shard_images(root: Path, split: str, source: str = "truth") -> Iterator[CaptionedImage]:
    """Images of the shards in `<root>/<split>`, in order, that have `optic.png` and a caption.

    `source`: `truth` is the archive's own caption, `raw` what a captioner said (`caption_raw`).

    Raises:
        ConfigError: an unknown source.
        DataError: there are no shards, or one is damaged.
    """
    if source not in ("truth", "raw"):
        raise ConfigError(f"source={source!r}: take `truth` or `raw`.")
    shards = find_shards(root, split)
    samples = ShardedSamples(shards)
    for number, members in enumerate(_member_names(shards)):
        if not {_OPTICAL, "meta.json"} <= members:
            continue
        meta = decode_meta(samples.member(number, "meta.json"), samples.key(number))
        truth = meta.get("truth")
        said = truth.get("caption") if isinstance(truth, dict) else None
        caption = said if source == "truth" else meta.get("caption_raw")
        if caption and isinstance(caption, str):
            read = partial(_read_optical, samples, number)
            yield CaptionedImage(samples.key(number), (caption,), read)


def _left_out(path: Path) -> frozenset[str]:
    try:
        return frozenset(parse_json(path.read_bytes())["duplicates"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} names no `duplicates` ({error!r}): finish tiling first."
        ) from error


def _member_names(shards: Sequence[Path]) -> Iterator[set[str]]:
    for path in shards:
        index = ShardIndex.scan(path)
        yield from (set(index.members(row)) for row in range(len(index)))


def _read_optical(samples: ShardedSamples, number: int) -> NDArray[np.uint8]:
    return decode_rgb8(samples.member(number, _OPTICAL) or b"")


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
                data = file.read(_MOST_TEXT + 1)
        if len(data) > _MOST_TEXT:
            raise DataError(f"{path} holds more than {_MOST_TEXT >> 20} MiB: no file of captions.")
        return decoded_text(data)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"cannot read captions from {path}: {error}.") from error


def _with_files(
    rows: Sequence[tuple[str, list[str]]], images: Path, path: Path, skip_missing: bool
) -> list[CaptionedImage]:
    """Rows whose image exists, by its listed path or by its bare name under `images`."""
    found, missing = [], []
    for filename, captions in rows:
        candidates = [images / name for name in _names(filename)]
        file = next(filter(_is_file, candidates), None)
        if file is None:
            missing.append(filename)
        elif captions:
            found.append(CaptionedImage(filename, tuple(captions), partial(read_image, file)))
    if missing and not skip_missing:
        raise DataError(
            f"{len(missing)} of {len(rows)} images of {path} are not in {images} (first: "
            f"{missing[0]}). Complete the folder, or set skip_missing=true."
        )
    return found


def _names(filename: str) -> list[str]:
    """Where an image may lie below its folder: as listed, unless that leaves it, or by its name."""
    listed = PurePosixPath(filename)
    leaves = listed.is_absolute() or ".." in listed.parts
    return [listed.name] if leaves else [filename, listed.name]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


def read_image(path: Path) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) of a JPEG, PNG or TIFF file; gray and alpha become RGB.

    Raises:
        DataError: the file cannot be decoded.
    """
    try:
        with opened_picture(path, ("JPEG", "PNG", "TIFF")) as image:
            return np.asarray(image.convert("RGB"))
    except DataError as error:
        raise DataError(f"cannot read the image {path}: {error}.") from error
