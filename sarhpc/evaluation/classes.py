"""Prompt conformity: whether a classifier reads in an image the class of its prompt.

A small convolutional network learns the land-cover class from real tiles whose truth is known,
is judged on held-out real tiles, and then reads the synthetic ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hpc.errors import DataError

EPOCHS = 12
BATCH = 32
CROP_PX = 96
LEAST_RECALL = 0.7
LEAST_TILES = 20


@dataclass(frozen=True)
class Conformity:
    """Balanced accuracy of a set's images against the classes of their prompts."""

    balanced_accuracy: float
    recall: dict[str, float]
    """Per class: share of its images read as that class."""
    confusion: list[list[int]]
    """Rows: class of the prompt; columns: class read; in the order of `classes`."""
    images: int

    @property
    def trusted(self) -> bool:
        """Whether a classifier that reads real tiles like this may judge others.

        The project's own bar: no class below `LEAST_RECALL` nor with fewer than `LEAST_TILES`.
        """
        fewest = min(sum(row) for row in self.confusion)
        return min(self.recall.values()) >= LEAST_RECALL and fewest >= LEAST_TILES


@dataclass(frozen=True)
class Classifier:
    """A trained land-cover classifier, and its accuracy on held-out real tiles."""

    classes: tuple[str, ...]
    network: nn.Module
    real: Conformity


def train_classifier(
    tiles: NDArray[np.uint8],
    labels: Sequence[str],
    held_out: NDArray[np.uint8],
    held_out_labels: Sequence[str],
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
) -> Classifier:
    """A classifier trained on real tiles (N, H, W) uint8 and judged on held-out ones.

    Raises:
        DataError: fewer than two classes to tell apart.
    """
    classes = tuple(sorted({*labels, *held_out_labels}))
    if len(set(labels)) < 2:
        raise DataError(f"cannot train a classifier on the single class {classes}")
    torch.manual_seed(seed)
    network = _network(len(classes))
    inputs, targets = _inputs(tiles), torch.tensor([classes.index(name) for name in labels])
    weights = 1.0 / torch.bincount(targets, minlength=len(classes)).clamp(min=1)
    loss_of = nn.CrossEntropyLoss(weight=weights / weights.sum() * len(classes))
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-3)
    steps = epochs * max(1, len(inputs) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        index = torch.randint(len(inputs), (BATCH,), generator=generator)
        loss = loss_of(network(_crop(inputs[index], generator)), targets[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    return Classifier(
        classes, network, _conformity(network, classes, held_out, list(held_out_labels))
    )


def judge(classifier: Classifier, tiles: NDArray[np.uint8], labels: Sequence[str]) -> Conformity:
    """How a set of images (N, H, W) uint8 conforms to the classes of its prompts."""
    return _conformity(classifier.network, classifier.classes, tiles, list(labels))


def _network(classes: int) -> nn.Module:
    def stage(i: int, o: int) -> list[nn.Module]:
        return [nn.Conv2d(i, o, 3, stride=2, padding=1), nn.GroupNorm(4, o), nn.SiLU()]

    return nn.Sequential(
        *stage(1, 16), *stage(16, 32), *stage(32, 48), *stage(48, 64),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, classes),
    )  # fmt: skip


def _inputs(tiles: NDArray[np.uint8]) -> torch.Tensor:
    db = 20.0 * np.log10(np.maximum(tiles.astype(np.float32), 0.5) / 255.0)
    return torch.from_numpy(((db + 20.0) / 12.0)[:, None])


def _crop(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random azimuth flips and crops; range is never flipped."""
    size = min(CROP_PX, batch.shape[-1], batch.shape[-2])
    top, left = (
        int(torch.randint(extent - size + 1, (1,), generator=generator))
        for extent in batch.shape[-2:]
    )
    cropped = batch[:, :, top : top + size, left : left + size]
    flip = torch.rand(len(batch), generator=generator) < 0.5
    return torch.where(flip[:, None, None, None], cropped.flip(2), cropped)


def _conformity(
    network: nn.Module, classes: tuple[str, ...], tiles: NDArray[np.uint8], labels: list[str]
) -> Conformity:
    with torch.inference_mode():
        read = torch.cat(
            [network(part).argmax(1) for part in torch.split(_inputs(tiles), 64)]
        ).numpy()
    confusion = np.zeros((len(classes), len(classes)), dtype=int)
    for label, column in zip(labels, read, strict=True):
        confusion[classes.index(label), column] += 1
    present = [i for i in range(len(classes)) if confusion[i].sum()]
    recall = {classes[i]: float(confusion[i, i] / confusion[i].sum()) for i in present}
    return Conformity(
        float(np.mean(list(recall.values()))), recall, confusion.tolist(), len(labels)
    )
