"""Pixels and labels of the images that networks of E12 learn from, as arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc.errors import DataError
from sarhpc.evaluation.comparison_plan import amplitude_scales, facts_of_drawn
from sarhpc.evaluation.drawing import Drawn
from sarhpc.evaluation.image_sets import Image, ImageSet, read_images
from sarhpc.evaluation.pixels import (
    amplitude_member,
    code_member,
    fault_of,
    measured_pixels,
    picture_format,
)
from sarhpc.evaluation.set_facts import AMPLITUDE, comparison_of
from sarhpc.evaluation.use.config import LEAST_SIZE_PX, SEGMENTATION, UseConfig
from sarhpc.evaluation.use.labels import (
    LAND_COVER,
    ClassOf,
    Labelled,
    LabelledSet,
    labelled_images,
)
from sarhpc.evaluation.use.split import UnusableSetsError, UseSplit, split_sets
from sarhpc.shards.images import decode_array

TRAIN, TEST, SYNTHETIC = "train", "test", "synthetic"
UNKNOWN = 255
"""Target of a pixel whose class is not known, or is not one of the classes."""
ASKED = 20
"""Images of a set whose label is asked, for each that is used at most."""
LEAST_DB = -60.0
_LEAST_SHARE = 1e-3
"""Share of the pixels of each part that a class of land cover has, to be one of the classes."""
_REAL, _OTHER = "real", "synthetic"


@dataclass(frozen=True)
class UseInputs:
    """Two sets and what is asked of them; from these follows everything else."""

    real: ImageSet
    synthetic: ImageSet
    config: UseConfig
    splits: Sequence[str]
    """Splits of real images to test on."""
    class_of: ClassOf
    code_names: Mapping[int, str]
    """Names of codes of land cover."""
    seed: int = 0
    one_law: bool = False
    """As of `plan_comparison`."""


@dataclass(frozen=True)
class UsePlan:
    """Which images are used, of those whose label is known."""

    inputs: UseInputs
    split: UseSplit
    flips: bool


@dataclass(frozen=True)
class UseData:
    """Images and targets of each part: `train` and `test` (real), `synthetic`."""

    classes: tuple[str, ...]
    images: Mapping[str, NDArray[np.float16]]
    """(N, H, W), dB relative to code 255 or to mean + 3 sigma."""
    targets: Mapping[str, NDArray[np.uint8]]
    """(N,) number of the class, or (N, H, W) with `UNKNOWN` where there is none."""
    groups: Mapping[str, tuple[str, ...]]
    flips: bool
    notes: tuple[str, ...]
    pixels: str
    grouped: bool

    @property
    def per_pixel(self) -> bool:
        """Whether targets are of pixels."""
        return self.targets[TRAIN].ndim == 3

    def digest(self) -> str:
        """SHA-256 over all of it."""
        found = hashlib.sha256(repr((self.classes, self.flips, self.pixels)).encode())
        for part in (TRAIN, TEST, SYNTHETIC):
            found.update(self.images[part].tobytes())
            found.update(self.targets[part].tobytes())
            found.update(repr((self.images[part].shape, self.groups[part])).encode())
        return found.hexdigest()


def plan_use(inputs: UseInputs) -> UsePlan:
    """The labelled images of both sets and their parts; only metadata and captions are read.

    Raises:
        UnusableSetsError: nothing can be learned from the sets, and why.
        DataError: a tar is cut short or damaged.
    """
    config, per_pixel = inputs.config, inputs.config.task == SEGMENTATION
    sets: list[LabelledSet] = [
        labelled_images(
            images, inputs.class_of, config.classes, ASKED * config.tiles, per_pixel=per_pixel
        )
        for images in (inputs.real, inputs.synthetic)
    ]
    split = split_sets(sets[0], sets[1], config, inputs.splits, inputs.seed)
    return UsePlan(inputs, split, sets[0].flips and sets[1].flips)


def read_use(plan: UsePlan) -> UseData:
    """The images of a plan as arrays, with their targets.

    Raises:
        ConfigError: the sets cannot be compared, and why.
        UnusableSetsError: no two classes of land cover are in every part.
        DataError: an image cannot be read.
    """
    inputs, split = plan.inputs, plan.split
    sources = {TRAIN: inputs.real, TEST: inputs.real, SYNTHETIC: inputs.synthetic}
    parts: dict[str, Sequence[Labelled]] = {
        TRAIN: split.train, TEST: split.test, SYNTHETIC: split.synthetic,
    }  # fmt: skip
    drawn = {
        _REAL: _drawn(inputs.real, [*split.train, *split.test]),
        _OTHER: _drawn(inputs.synthetic, split.synthetic),
    }
    facts = {name: facts_of_drawn(one) for name, one in drawn.items()}
    compared = comparison_of(facts[_REAL], facts[_OTHER], inputs.one_law)
    scales = amplitude_scales(drawn, facts, compared.pixels, [compared])
    px = min(_least_px(one, facts[name].px) for name, one in drawn.items())
    if px < LEAST_SIZE_PX:
        raise UnusableSetsError(
            f"the smallest image has {px} px; a network needs {LEAST_SIZE_PX}: give larger images"
        )
    images: dict[str, NDArray[np.float16]] = {}
    planes: dict[str, NDArray[np.uint8]] = {}
    faults: list[str] = []
    for name, ones in list(parts.items()):
        read = _Reader(
            compared.pixels, px, scales[_OTHER if name == SYNTHETIC else _REAL], inputs.config.size
        )
        found = list(read.all(sources[name], ones, faults, per_pixel=not split.classes))
        if not found:
            raise UnusableSetsError(f"no image can be read: {faults[0]}")
        parts[name] = [one for one, _, _ in found]
        images[name] = np.stack([pixels for _, pixels, _ in found])
        planes[name] = np.stack([plane for _, _, plane in found])
    classes, targets = _targets(split, parts, planes, inputs.code_names)
    return UseData(
        classes, images, targets,
        {name: tuple(one.group for one in ones) for name, ones in parts.items()},
        plan.flips, (*split.notes, *compared.notes, *_fault_note(faults)), compared.pixels,
        split.grouped,
    )  # fmt: skip


def _fault_note(faults: Sequence[str]) -> list[str]:
    if not faults:
        return []
    named = ", ".join(faults[:5]) + ("" if len(faults) <= 5 else ", ...")
    return [f"{len(faults)} images cannot be learned from and are left out: {named}."]


def _drawn(images: ImageSet, ones: Sequence[Labelled]) -> Drawn:
    rows: dict[str, list[int]] = {}
    for one in ones:
        rows.setdefault(one.file, []).append(one.row)
    order = [file for file in images.files if file in rows]
    return Drawn(images, tuple((file, tuple(sorted(rows[file]))) for file in order), {})


def _least_px(drawn: Drawn, first: tuple[int, int]) -> int:
    """Smallest side of an image; those of a tar are of one size."""
    least = min(first)
    for file, rows in drawn.places:
        if not file.endswith(".tar"):
            [image] = read_images(drawn.images, file, rows[:1], code_member)
            least = min(least, *picture_format(image)[0])
    return least


@dataclass(frozen=True)
class _Reader:
    """How images of a set are read."""

    pixels: str
    px: int
    scale: float | None
    size: int

    def all(
        self, images: ImageSet, ones: Sequence[Labelled], faults: list[str], *, per_pixel: bool
    ) -> Iterator[tuple[Labelled, NDArray[np.float16], NDArray[np.uint8]]]:
        """Yield dB (H, W), and the codes of land cover or nothing, of each image without a fault.

        Those of the others are appended to `faults`.
        """
        for one in ones:
            [image] = read_images(images, one.file, [one.row], self._members)
            pixels = measured_pixels(image, self.pixels, (self.px, self.px), self.scale)
            fault = fault_of(pixels)
            if fault:
                faults.append(f"{image.key} ({fault})")
                continue
            plane = self._plane(image) if per_pixel else np.zeros((), np.uint8)
            yield one, self._decibels(pixels), plane

    def _members(self, names: Collection[str]) -> list[str]:
        chosen = amplitude_member(names) if self.pixels == AMPLITUDE else code_member(names)
        return [*chosen, *(name for name in names if name == LAND_COVER)]

    @property
    def _factor(self) -> int:
        return -(-self.px // self.size)

    def _decibels(self, pixels: NDArray[Any]) -> NDArray[np.float16]:
        """Mean intensity of blocks in dB, so that a larger image fits the network."""
        full = 255.0 if pixels.dtype == np.uint8 else 1.0
        intensity = np.square(pixels.astype(np.float32) / np.float32(full))
        factor, side = self._factor, self.px // self._factor
        whole = intensity[: side * factor, : side * factor]
        mean = whole.reshape(side, factor, side, factor).mean((1, 3))
        level = 10 * np.log10(np.maximum(mean, 10 ** (LEAST_DB / 10)))
        decibels: NDArray[np.float16] = level.astype(np.float16)
        return decibels

    def _plane(self, image: Image) -> NDArray[np.uint8]:
        """Codes of land cover of every `factor`-th pixel; 0 where it is not known."""
        found = decode_array(image.members[LAND_COVER])
        codes, known = (found[0], found[1]) if found.ndim == 3 else (found, np.ones_like(found))
        if codes.dtype != np.uint8 or min(codes.shape) < self.px:
            raise DataError(f"{LAND_COVER} of {image.key} of {image.file} does not fit its image")
        row, col = ((side - self.px) // 2 for side in codes.shape)
        middle = np.where(known > 0, codes, 0)[row : row + self.px, col : col + self.px]
        factor, side = self._factor, self.px // self._factor
        plane: NDArray[np.uint8] = middle[factor // 2 :: factor, factor // 2 :: factor]
        return plane[:side, :side].astype(np.uint8)


def _targets(
    split: UseSplit,
    parts: Mapping[str, Sequence[Labelled]],
    planes: Mapping[str, NDArray[np.uint8]],
    names: Mapping[int, str],
) -> tuple[tuple[str, ...], dict[str, NDArray[np.uint8]]]:
    if split.classes:
        numbers = {name: number for number, name in enumerate(split.classes)}
        return split.classes, {
            name: np.array([numbers[one.label] for one in ones], np.uint8)
            for name, ones in parts.items()
        }
    shares = {name: np.bincount(p.ravel(), minlength=256) / p.size for name, p in planes.items()}
    common = [
        code for code in range(1, 256) if all(of[code] >= _LEAST_SHARE for of in shares.values())
    ]
    if len(common) < 2:
        raise UnusableSetsError(
            f"{len(common)} classes of land cover are in every part, and two are needed: real "
            "images to train on and to test on, and synthetic ones must show the same"
        )
    lookup = np.full(256, UNKNOWN, np.uint8)
    lookup[common] = np.arange(len(common))
    classes = tuple(names.get(code, f"code {code}") for code in common)
    return classes, {name: lookup[plane] for name, plane in planes.items()}
