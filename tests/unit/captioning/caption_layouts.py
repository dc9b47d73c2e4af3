"""Caption sets written in the layouts they are published in."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caption_tiles import Rgb
from PIL import Image

Entry = tuple[str, str, Sequence[str]]
"""File name, split and captions of an image."""


def karpathy(entries: Sequence[Entry], dataset: str) -> dict[str, Any]:
    """The JSON of RSICD, UCM, Sydney and RSITMD."""
    images = [
        {
            "filename": filename,
            "imgid": number,
            "split": split,
            "sentences": [
                {"raw": text, "tokens": text.split(), "imgid": number} for text in captions
            ],
            "sentids": [5 * number + index for index in range(len(captions))],
        }
        for number, (filename, split, captions) in enumerate(entries)
    ]
    return {"images": images, "dataset": dataset}


def nwpu(entries: Mapping[str, Sequence[Entry]]) -> dict[str, Any]:
    """The JSON of NWPU-Captions: images by category, a key for each sentence."""
    return {
        category: [
            {
                "filename": filename,
                "split": split,
                "imgid": number,
                **{f"raw_{index}" if index else "raw": text for index, text in enumerate(captions)},
            }
            for number, (filename, split, captions) in enumerate(listed)
        ]
        for category, listed in entries.items()
    }


def save(folder: Path, captions: Mapping[str, Any], name: str, images: Mapping[str, Rgb]) -> Path:
    """Write the captions file `name` and `images` by path into `folder`; returns the folder."""
    for path, pixels in images.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / path)
    (folder / name).write_text(json.dumps(captions))
    return folder


def real_rsicd(test_data: Path, folder: Path, held_out: frozenset[str] = frozenset()) -> Path:
    """The eleven real images of RSICD with their five captions in the published layout."""
    source = test_data / "captions_rs"
    names = (source / "amfmn_rsicd" / "train_filename.txt").read_text().split()
    with gzip.open(source / "amfmn_rsicd" / "train_caps.txt.gz", "rt") as file:
        lines = file.read().splitlines()
    # The list names an image once for each of its captions, or once for all.
    step = len(lines) // len(names)
    said: dict[str, list[str]] = {}
    for number, name in enumerate(names):
        said.setdefault(name, []).extend(lines[step * number : step * (number + 1)])
    (folder / "RSICD_images").mkdir(parents=True)
    entries: list[Entry] = []
    for path in sorted((source / "images_rsicd").iterdir()):
        (folder / "RSICD_images" / path.name).symlink_to(path)
        split = "test" if path.name in held_out else "train"
        entries.append((path.name, split, said[path.name]))
    (folder / "dataset_rsicd.json").write_text(json.dumps(karpathy(entries, "rsicd")))
    return folder
