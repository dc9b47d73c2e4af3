"""Which labelled images networks learn from and which they are tested on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hpc.errors import DataError
from sarhpc.evaluation.use.config import LEAST_IMAGES, SEGMENTATION, UseConfig
from sarhpc.evaluation.use.labels import Labelled, LabelledSet, missing_labels
from sarhpc.shards.subset import spread

LEAST_GROUPS = 4
"""Fewest scenes of real images that are parted where they name no split."""
_DRAWS = 50

Images = Sequence[Labelled]


class UnusableSetsError(DataError):
    """Nothing can be learned from these sets; the message says why and what to do."""


@dataclass(frozen=True)
class UseSplit:
    """Labelled images by what they are for."""

    train: tuple[Labelled, ...]
    test: tuple[Labelled, ...]
    synthetic: tuple[Labelled, ...]
    classes: tuple[str, ...]
    """Empty where labels are of pixels."""
    grouped: bool
    """Whether every test image names its scene."""
    notes: tuple[str, ...]


def split_sets(
    real: LabelledSet, synthetic: LabelledSet, config: UseConfig, splits: Sequence[str], seed: int
) -> UseSplit:
    """Real images to train and to test on, and synthetic ones, of the classes that all have.

    Real images are parted by the splits that they name, else by scenes, so that neighbours are
    never on both sides.

    Args:
        real: labelled real images.
        synthetic: labelled synthetic ones.
        config: how many.
        splits: names of the splits to test on.
        seed: of the scenes that are held out.

    Raises:
        UnusableSetsError: no labels, no two classes in common, no way to part the real images, or
            too few of them.
    """
    per_pixel = config.task == SEGMENTATION
    for one in (real, synthetic):
        if not one.labelled:
            raise UnusableSetsError(missing_labels(one, config.classes, per_pixel=per_pixel))
    notes = [
        f"{one.unlabelled} of {one.unlabelled + len(one.labelled)} images of {one.images.name} "
        "have no label and are left out."
        for one in (real, synthetic)
        if one.unlabelled
    ]
    train, test, note = _parted(real, config, splits, seed)
    notes += [note] if note else []
    sets = {"real to train on": train, "real to test on": test, "synthetic": synthetic.labelled}
    classes = () if per_pixel else _common_classes(real, synthetic, sets, notes)
    chosen = [_drawn(one, classes, config.tiles) for one in sets.values()]
    for name, images in zip(sets, chosen, strict=True):
        if len(images) < LEAST_IMAGES:
            raise UnusableSetsError(
                f"{len(images)} labelled images are {name}; learning needs {LEAST_IMAGES}, and "
                "some hundred to say much"
            )
    grouped = all(one.group for one in chosen[1])
    return UseSplit(chosen[0], chosen[1], chosen[2], classes, grouped, tuple(notes))


def labels_of_share(share: float, images: int) -> int:
    """Labels that are a share of those of so many images."""
    return round(share * images)


def _parted(
    real: LabelledSet, config: UseConfig, splits: Sequence[str], seed: int
) -> tuple[Images, Images, str]:
    """Real images to train on, those to test on, and what is to be said of it."""
    train = [one for one in real.labelled if one.split == "train"]
    test = [one for one in real.labelled if one.split in splits]
    if not train or not test:
        return (*_parted_by_group(real, config.test_share, seed), "")
    held_out = {one.group for one in test} - {""}
    apart = [one for one in train if one.group not in held_out]
    if len(apart) == len(train):
        return train, test, ""
    if not apart:
        raise UnusableSetsError(
            f"every scene of the training images of {real.images.name} has test images too, so "
            "that neighbours would be on both sides: split by scene or flight line"
        )
    return apart, test, (
        f"{len(train) - len(apart)} real training images are of scenes that have test images too, "
        "and are left out."
    )  # fmt: skip


def _parted_by_group(
    real: LabelledSet, test_share: float, seed: int
) -> tuple[list[Labelled], list[Labelled]]:
    """Scenes held out at random, such that as many classes as possible are on both sides."""
    groups = sorted({one.group for one in real.labelled})
    if "" in groups or len(groups) < LEAST_GROUPS:
        raise UnusableSetsError(
            f"{real.images.name} names neither train and test images nor {LEAST_GROUPS} scenes, so "
            "that neighbours would be on both sides: give folders `train` and `test`, each with a "
            "subfolder for each class, or `split` or `scene_id` in the metadata"
        )
    count = min(max(round(test_share * len(groups)), 1), len(groups) - 1)
    rng = np.random.default_rng([seed, len(groups)])
    most, best = -1, ({*groups[:count]})
    for _ in range(_DRAWS):
        drawn = {groups[n] for n in rng.permutation(len(groups))[:count]}
        sides = [
            {one.label for one in real.labelled if (one.group in drawn) is held}
            for held in (True, False)
        ]
        if len(sides[0] & sides[1]) > most:
            most, best = len(sides[0] & sides[1]), drawn
    return _where(real, lambda one: one.group not in best), _where(
        real, lambda one: one.group in best
    )


def _where(real: LabelledSet, holds: Callable[[Labelled], bool]) -> list[Labelled]:
    return [one for one in real.labelled if holds(one)]


def _common_classes(
    real: LabelledSet, synthetic: LabelledSet, sets: dict[str, Images], notes: list[str]
) -> tuple[str, ...]:
    found = {name: {one.label for one in images} for name, images in sets.items()}
    common = set.intersection(*found.values())
    if len(common) < 2:
        said = "; ".join(f"{name}: {_listed(labels)}" for name, labels in found.items())
        raise UnusableSetsError(
            f"{real.images.name} and {synthetic.images.name} have {len(common)} classes in common, "
            f"and two are needed ({said}); name the same classes in both"
        )
    others = set.union(*found.values()) - common
    if others:
        notes.append(f"Classes that not every part has are left out: {_listed(others)}.")
    return tuple(sorted(common))


def _listed(labels: set[str]) -> str:
    names = sorted(labels)
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _drawn(images: Images, classes: Sequence[str], most: int) -> tuple[Labelled, ...]:
    """At most so many images, as many of each class as of any other, evenly over the set."""
    if not classes:
        return tuple(spread(images, most))
    per_class = max(most // len(classes), 1)
    kept = {
        one
        for name in classes
        for one in spread([image for image in images if image.label == name], per_class)
    }
    return tuple(one for one in images if one in kept)
