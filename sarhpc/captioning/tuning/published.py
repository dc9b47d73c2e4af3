"""Where the published caption sets of remote sensing keep their captions and images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hpc.errors import ConfigError, DataError
from sarhpc.captioning.config import CaptionSetConfig


@dataclass(frozen=True)
class Layout:
    """Names under which a set's captions and images lie in its folder, the first found counts."""

    captions: tuple[str, ...]
    images: tuple[str, ...]
    by_category: bool = False
    """Captions by category, one key for each sentence (NWPU), rather than Karpathy's list."""


LAYOUTS = {
    "rsicd": Layout(
        ("dataset_rsicd.json", "annotations_rsicd/dataset_rsicd.json"), ("RSICD_images", "images")
    ),
    "ucm": Layout(("dataset.json", "dataset_ucm.json"), ("imgs", "UCM_images", "images")),
    "sydney": Layout(("dataset.json", "dataset_sydney.json"), ("imgs", "Sydney_images", "images")),
    "nwpu": Layout(("dataset_nwpu.json",), ("NWPU_images", "images"), by_category=True),
    "rsitmd": Layout(("dataset_RSITMD.json", "dataset_rsitmd.json"), ("images", "RSITMD_images")),
}
"""RSICD (Lu et al. 2017), UCM-captions and Sydney-captions (Qu et al. 2016), NWPU-Captions (Cheng
et al. 2022) and RSITMD (Yuan et al. 2022), by the kind that names them."""

KINDS = ("shards", *LAYOUTS, "karpathy", "jsonl")


def require_sets(sets: Iterable[CaptionSetConfig]) -> None:
    """Raise ConfigError unless the settings of all `sets` are valid; the disk is not read.

    Raises:
        ConfigError: an unknown kind, a kind without what it needs, or a weight not above 0.
    """
    for cfg in sets:
        if cfg.kind not in KINDS:
            raise ConfigError(
                f"caption_train: kind={cfg.kind!r} of {cfg.path}: take one of {', '.join(KINDS)}."
            )
        if cfg.kind in ("karpathy", "jsonl") and cfg.images is None:
            raise ConfigError(
                f"caption_train: kind={cfg.kind} of {cfg.path} needs `images`, the folder of its "
                "images."
            )
        if not cfg.weight > 0:
            raise ConfigError(
                f"caption_train: weight={cfg.weight} of {cfg.path}: give more than 0, or no set."
            )


def find_published(kind: str, path: Path, images: Path | None = None) -> tuple[Path, Path]:
    """The captions file and the folder of images of a set of `kind` in the folder `path`.

    A file as `path` is taken for the captions themselves, `images` for their folder.

    Raises:
        DataError: one of the two is not there.
    """
    layout = LAYOUTS[kind]
    names = [name + ending for name in layout.captions for ending in ("", ".gz")]
    folder = path.parent if path.is_file() else path
    candidates = [path] if path.is_file() else [path / name for name in names]
    captions = next((file for file in candidates if file.is_file()), None)
    if captions is None:
        raise DataError(f"no captions of {kind} in {path}: expected one of {', '.join(names)}.")
    folders = [images] if images is not None else [folder / name for name in layout.images]
    pictures = next((place for place in folders if place.is_dir()), None)
    if pictures is None:
        expected = ", ".join(str(place) for place in folders)
        raise DataError(f"no images of {kind}: expected a folder {expected}; or set `images`.")
    return captions, pictures
