"""One network of E12: the labels that it gets, its training, and how it does on images held out."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from sarhpc.evaluation.use.data import SYNTHETIC, TEST, TRAIN, UNKNOWN, UseData
from sarhpc.evaluation.use.network import Segmenter, classifier
from sarhpc.evaluation.use.settings import (
    CONTROLS,
    FROM_REAL,
    FROM_SYNTHETIC,
    SHUFFLED,
    SHUFFLED_SYNTHETIC,
    FitSettings,
)
from sarhpc.evaluation.use.split import labels_of_share

BATCH, BATCH_OF_PLANES = 32, 8
CROP = 0.6875
"""Side of a random crop over that of the image: 44 of 64 px, 88 of 128."""
RATE = 4e-3
CHECKS, PATIENCE = 12, 5
"""How often a network is validated, and after how many checks without a better one it stops."""
LEAST_TO_VALIDATE = 5
"""Labels of a class of which one is kept to validate with."""
_TEST_BATCH = 256

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Fit:
    """A trained network, by what it does on images that it has not seen."""

    labels: int
    """Real labels that it learned from, validation included."""
    synthetic: int
    steps: int
    """Steps until it stopped."""
    validation: float | None
    """Balanced accuracy on the labels kept to validate with; None without any."""
    confusions: Mapping[str, list[list[int]]]
    """`test` and `synthetic`: rows of number of the image's group, true class, class read, count;
    without `synthetic` where the network learned from synthetic images."""


def groups_of(data: UseData, part: str) -> tuple[list[str], Numbers]:
    """Names of the groups of a part and the number of that of each image; else of the image."""
    groups = data.groups[part]
    if not all(groups):
        return [], np.arange(len(groups))
    names = sorted({*groups})
    numbers = {name: number for number, name in enumerate(names)}
    return names, np.array([numbers[group] for group in groups], np.int64)


def fit(data: UseData, settings: FitSettings, steps: int, device: str = "cpu") -> Fit:
    """Train one network and test it; on a CPU the same numbers each time.

    Args:
        data: images and targets.
        settings: what it learns from, and the seed.
        steps: training steps at most.
        device: of torch.
    """
    rng = np.random.default_rng([settings.seed, round(1e4 * settings.share)])
    sources = _sources(data, settings, rng)
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        trained = _train(data, sources, rng, steps, device)
        parts = (TEST,) if settings.setting in FROM_SYNTHETIC else (TEST, SYNTHETIC)
        draw = rng if settings.setting in CONTROLS else None
        confusions = {part: _confusions(data, part, trained, draw) for part in parts}
    counts = Counter(source.part for source in sources for _ in source.all)
    return Fit(counts[TRAIN], counts[SYNTHETIC], trained.steps, trained.validation, confusions)


@dataclass(frozen=True)
class _Source:
    """Images of one part that a network learns from, with the labels that it is given."""

    part: str
    learned: Numbers
    kept: Numbers
    """To validate with."""
    targets: NDArray[np.uint8]
    """Of every image of the part."""

    @property
    def all(self) -> Numbers:
        return np.concatenate([self.learned, self.kept])


def _sources(data: UseData, settings: FitSettings, rng: np.random.Generator) -> list[_Source]:
    parts = []
    if settings.setting in FROM_REAL:
        parts.append((TRAIN, _share(data, settings, rng), settings.setting == SHUFFLED))
    if settings.setting in FROM_SYNTHETIC:
        every = np.arange(len(data.images[SYNTHETIC]))
        parts.append((SYNTHETIC, every, settings.setting == SHUFFLED_SYNTHETIC))
    sources = []
    for number, (part, images, shuffled) in enumerate(parts):
        targets = data.targets[part]
        if shuffled:
            targets = _shuffled(targets, images, rng)
        # Synthetic images beside real ones do not say when to stop.
        kept = _kept(targets, images, rng) if number == 0 else images[:0]
        sources.append(_Source(part, np.setdiff1d(images, kept), kept, targets))
    return sources


def _share(data: UseData, settings: FitSettings, rng: np.random.Generator) -> Numbers:
    """A share of the real training images: of each class at least one, as evenly as that goes."""
    count = len(data.images[TRAIN])
    order = rng.permutation(count)
    if settings.share >= 1:
        return np.sort(order)
    wanted = labels_of_share(settings.share, count)
    if data.per_pixel:
        return np.sort(order[: max(wanted, 1)])
    turn = np.zeros(count)
    for number in range(len(data.classes)):
        members = order[data.targets[TRAIN][order] == number]
        turn[members] = (np.arange(members.size) + rng.random()) / members.size
        turn[members[:1]] = -1
    return np.sort(np.argsort(turn, kind="stable")[: max(wanted, len(data.classes))])


def _shuffled(
    targets: NDArray[np.uint8], images: Numbers, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Targets without information: dealt out in turn to the images of each class in random order.

    A random permutation of a few labels still agrees with some class by chance.
    """
    dealt = targets.copy()
    if targets.ndim == 3:
        dealt[images] = targets[rng.permutation(images)]
        return dealt
    order = rng.permutation(images)
    order = order[np.argsort(targets[order], kind="stable")]
    dealt[order] = np.arange(order.size) % (int(targets.max()) + 1)
    return dealt


def _kept(targets: NDArray[np.uint8], images: Numbers, rng: np.random.Generator) -> Numbers:
    """Every fifth image of each class, to validate with; none of a class with fewer."""
    order = rng.permutation(images)
    if targets.ndim == 3:
        return np.sort(order[: order.size // LEAST_TO_VALIDATE])
    parts = [order[targets[order] == number] for number in np.unique(targets[order])]
    return np.sort(np.concatenate([part[: part.size // LEAST_TO_VALIDATE] for part in parts]))


@dataclass(frozen=True)
class _Trained:
    network: nn.Module
    mean: float
    deviation: float
    device: str
    steps: int
    validation: float | None

    def read(
        self, images: NDArray[np.float16], *, whole: bool, draw: np.random.Generator | None = None
    ) -> NDArray[np.int64]:
        """Class of each image, of its middle crop; of each pixel of the whole one.

        With `draw` it is drawn by the probabilities. Where these are nearly equal, the largest is
        an accident that all images of a class share, and a score of the most probable class
        deviates from chance by as much as one of a single image.
        """
        side = images.shape[-1] if whole else _crop(images.shape[-1])
        low = (images.shape[-1] - side) // 2
        found = []
        with torch.inference_mode():
            for first in range(0, len(images), _TEST_BATCH):
                batch = images[first : first + _TEST_BATCH, low : low + side, low : low + side]
                logits = self.network(self.inputs(batch)).cpu().numpy()
                if draw is not None:
                    logits = logits + draw.gumbel(size=logits.shape)
                found.append(logits.argmax(1))
        return np.concatenate(found)

    def inputs(self, batch: NDArray[np.float16]) -> torch.Tensor:
        scaled = (batch.astype(np.float32) - self.mean) / self.deviation
        return torch.from_numpy(scaled[:, None]).to(self.device)


def _crop(side: int) -> int:
    return max(round(CROP * side / 4) * 4, 16)


def _train(
    data: UseData, sources: list[_Source], rng: np.random.Generator, steps: int, device: str
) -> _Trained:
    count = len(data.classes)
    network = (Segmenter(count) if data.per_pixel else classifier(count)).to(device)
    levels = np.concatenate(
        [data.images[s.part][s.learned].ravel()[:: 1 + s.learned.size // 64] for s in sources]
    ).astype(np.float64)
    trained = _Trained(
        network, float(levels.mean()), float(levels.std()) or 1.0, device, steps, None
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    weights = _class_weights(data, sources).to(device) if data.per_pixel else None
    checks = {round(steps * n / CHECKS) for n in range(1, CHECKS + 1)}
    best, state, waited, step = -1.0, network.state_dict(), 0, 0
    for step in range(1, steps + 1):
        images, targets = _batch(data, sources, rng)
        loss = functional.cross_entropy(
            network(trained.inputs(images)),
            torch.from_numpy(targets.astype(np.int64)).to(device),
            weight=weights,
            ignore_index=UNKNOWN,
        )
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        if step in checks and sources[0].kept.size:
            score = _validated(data, sources[0], trained)
            waited = 0 if score > best else waited + 1
            if score >= best:
                best, state = score, copy.deepcopy(network.state_dict())
            if waited == PATIENCE:
                break
    if best >= 0:
        network.load_state_dict(state)
    network.eval()
    return _Trained(
        network, trained.mean, trained.deviation, device, step, best if best >= 0 else None
    )


def _class_weights(data: UseData, sources: list[_Source]) -> torch.Tensor:
    """Inverse square roots of the shares of the classes, so that rare ones are learned too."""
    counts = np.ones(len(data.classes))
    for source in sources:
        known = source.targets[source.learned].ravel()
        counts += np.bincount(known[known != UNKNOWN], minlength=len(data.classes))
    weights = 1 / np.sqrt(counts / counts.mean())
    return torch.from_numpy((weights / weights.mean()).astype(np.float32))


def _batch(
    data: UseData, sources: list[_Source], rng: np.random.Generator
) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """Random crops: as many of each source, and of each class as often as of any other."""
    size = (BATCH_OF_PLANES if data.per_pixel else BATCH) // len(sources)
    images, targets = [], []
    side = data.images[TRAIN].shape[-1]
    crop = side if data.per_pixel else _crop(side)
    for source in sources:
        for n in _chosen(source, size, rng):
            top, left = (int(rng.integers(side - crop + 1)) for _ in range(2))
            image = data.images[source.part][n, top : top + crop, left : left + crop]
            target = source.targets[n]
            if data.flips and rng.random() < 0.5:
                image, target = image[::-1], target[::-1] if target.ndim else target
            images.append(image)
            targets.append(target)
    return np.stack(images), np.stack(targets)


def _chosen(source: _Source, size: int, rng: np.random.Generator) -> Numbers:
    if source.targets.ndim == 3:
        return rng.choice(source.learned, size)
    of_each = source.targets[source.learned]
    present = np.unique(of_each)
    wanted = rng.choice(present, size)
    return np.array([rng.choice(source.learned[of_each == number]) for number in wanted])


def _validated(data: UseData, source: _Source, trained: _Trained) -> float:
    trained.network.eval()
    read = trained.read(data.images[source.part][source.kept], whole=data.per_pixel)
    trained.network.train()
    true = source.targets[source.kept]
    known = true != UNKNOWN
    right = (read == true)[known]
    return float(np.mean([right[true[known] == n].mean() for n in np.unique(true[known])]))


def _confusions(
    data: UseData, part: str, trained: _Trained, draw: np.random.Generator | None
) -> list[list[int]]:
    """Rows of group, true class, class read, and count, sorted."""
    _, groups = groups_of(data, part)
    true = data.targets[part]
    read = trained.read(data.images[part], whole=data.per_pixel, draw=draw)
    numbers = np.broadcast_to(groups.reshape(-1, *[1] * (true.ndim - 1)), true.shape)
    known = true != UNKNOWN
    rows = np.stack([numbers[known], true[known], read[known]], axis=1)
    unique, counts = np.unique(rows, axis=0, return_counts=True)
    return [[*map(int, row), int(count)] for row, count in zip(unique, counts, strict=True)]


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread: the number of threads changes the last bits, and fits run beside each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
