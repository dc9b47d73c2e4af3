"""E10 in an evaluation: how images and captions fit, by a CLIP that reads both.

For each set: the CLIP score, R-precision, the class that a caption names against the one that the
CLIP recognises, and relations against the same caption with the relation exchanged. Each has a
bootstrap interval over scenes, and its value with the captions of other images, which is what a
set would have whose images have nothing to do with their captions.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.evaluation.caption_content import class_of
from sarhpc.evaluation.text_config import TextConfig
from sarhpc.measures.relations import RELATIONS, swapped
from sarhpc.measures.text_alignment import (
    classified,
    clip_score,
    macro_f1,
    preferred,
    retrieved,
)

TEXT_SCHEMA = "sarhpc.text/1"
LEAST = 8
"""Fewest images behind a number."""
_EXCHANGES = 20
"""Rounds in which images that would keep their own text are exchanged with others."""

Vectors = NDArray[np.float32]
Read = Callable[[Sequence[str]], Vectors]
"""Unit vectors of texts."""
Statistic = Callable[[NDArray[np.int64]], float]
"""Value over the images at these rows, some of them several times."""


@dataclass(frozen=True)
class CaptionedVectors:
    """The images of a set that have a caption."""

    images: Vectors
    """Unit vectors (N, D)."""
    captions: tuple[str, ...]
    groups: tuple[Hashable, ...]
    """Scene of each image; empty where it is not known, and each is its own."""
    without_caption: int = 0
    """Further images of the set."""


def judge_text(
    of: CaptionedVectors, read: Read, cfg: TextConfig, draws: int, seed: int
) -> dict[str, Any]:
    """What E10 measures of a set, as plain values; a part that cannot be measured says why.

    Args:
        of: its images and captions.
        read: of the CLIP that made the vectors of the images.
        cfg: classes, prompts, and how many captions are searched.
        draws: of the bootstrap.
        seed: of bootstrap, of captions drawn, and of the control.
    """
    found: dict[str, Any] = {
        "images": len(of.captions),
        "without_caption": of.without_caption,
        "different_captions": len(set(of.captions)),
    }
    if len(of.captions) < LEAST:
        return {**found, "left_out": f"{len(of.captions)} images have a caption, {LEAST} needed"}
    judge = _Judge(of, read, cfg, draws, seed)
    return {
        **found,
        "score": judge.score(),
        "r_precision": judge.r_precision(),
        "classes": judge.classes(),
        "relations": {name: judge.relation(pair) for name, pair in RELATIONS.items()},
    }


class _Judge:
    """One set as it is judged."""

    def __init__(
        self, of: CaptionedVectors, read: Read, cfg: TextConfig, draws: int, seed: int
    ) -> None:
        self._of, self._read, self._cfg = of, read, cfg
        self._draws, self._seed = draws, seed
        self._texts = read(of.captions)
        self._others = other_captions(of.captions, seed)

    def score(self) -> dict[str, Any]:
        """CLIP score, 0 to 100."""
        return self._values(
            clip_score(self._of.images, self._texts),
            clip_score(self._of.images, self._texts[self._others]),
        )

    def r_precision(self) -> dict[str, Any]:
        """Share of images whose own caption is nearest of some."""
        among, captions = self._cfg.among, self._of.captions
        different = len(set(captions))
        if different < among:
            return {"left_out": f"{different} different captions, and R@1 of {among} needs {among}"}
        own = retrieved(self._of.images, self._texts, captions, among, self._seed)
        moved = [captions[row] for row in self._others]
        others = retrieved(self._of.images, self._texts[self._others], moved, among, self._seed)
        return {"among": among, "chance": 1.0 / among, **self._values(own, others)}

    def classes(self) -> dict[str, Any]:
        """Macro-F1 of the class that the CLIP recognises against the one a caption names."""
        names = list(self._cfg.classes)
        asked = [class_of(caption, self._cfg.classes) for caption in self._of.captions]
        rows = np.array([row for row, name in enumerate(asked) if name is not None], np.int64)
        labels = np.array([names.index(name) for name in asked if name is not None], np.int64)
        counts = {name: int(np.sum(labels == n)) for n, name in enumerate(names)}
        if len(set(labels.tolist())) < 2 or len(rows) < LEAST:
            return {
                "left_out": f"{len(rows)} captions name a class, of {len(set(labels.tolist()))} "
                f"classes, and {LEAST} of two classes are needed (evaluate.text.classes)",
                "asked": counts,
            }
        read = self._recognised(rows, labels)
        shuffled = np.random.default_rng(self._seed).permutation(labels)
        confusion = np.zeros((len(names), len(names)), int)
        np.add.at(confusion, (labels, read), 1)
        return {
            **self._interval(lambda at: macro_f1(labels[at], read[at]), rows),
            "shuffled": self._interval(lambda at: macro_f1(shuffled[at], read[at]), rows),
            "names": names,
            "asked": counts,
            "confusion": confusion.tolist(),
        }

    def _recognised(self, rows: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Class of each image: that whose captions in this set are nearest to it on average."""
        known = np.unique(labels)
        means = np.stack([self._texts[rows[labels == label]].mean(0) for label in known])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        return np.asarray(known[classified(self._of.images[rows], means)], np.int64)

    def relation(self, pair: tuple[str, str]) -> dict[str, Any]:
        """Share of images nearer to their caption than to that with the relation exchanged."""
        found = [swapped(caption, pair) for caption in self._of.captions]
        rows = np.array([row for row, text in enumerate(found) if text is not None], np.int64)
        if len(rows) < LEAST:
            return {"left_out": f"{len(rows)} captions name {pair[0]} or {pair[1]}, {LEAST} needed"}
        images, own = self._of.images[rows], self._texts[rows]
        exchanged = self._read([text for text in found if text is not None])
        # Both texts of another image: on average as often right as wrong.
        moved = np.random.default_rng(self._seed).permutation(len(rows))
        right = preferred(images, own, exchanged)
        control = preferred(images, own[moved], exchanged[moved])
        return {"chance": 0.5, **self._values(right, control, rows)}

    def _values(
        self,
        values: NDArray[np.float64],
        control: NDArray[np.float64],
        rows: NDArray[np.int64] | None = None,
    ) -> dict[str, Any]:
        """Mean of a value an image with its interval, and the same of the control."""
        rows = np.arange(len(values)) if rows is None else rows
        return {
            **self._interval(lambda at: float(values[at].mean()), rows),
            "shuffled": self._interval(lambda at: float(control[at].mean()), rows),
        }

    def _interval(self, statistic: Statistic, rows: NDArray[np.int64]) -> dict[str, Any]:
        groups = [self._of.groups[row] or (int(row),) for row in rows]
        return interval(statistic, groups, self._draws, self._seed)


def interval(
    statistic: Statistic, groups: Sequence[Hashable], draws: int, seed: int
) -> dict[str, Any]:
    """Value over all images, and its 95 % interval by a bootstrap over their groups."""
    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    held = [np.array(rows, np.int64) for rows in members.values()]
    rng = np.random.default_rng(seed)
    drawn = [
        statistic(np.concatenate([held[n] for n in rng.integers(len(held), size=len(held))]))
        for _ in range(draws)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {
        "value": statistic(np.arange(len(groups))),
        "low": float(low),
        "high": float(high),
        "images": len(groups),
        "groups": len(held),
    }


def other_captions(captions: Sequence[str], seed: int) -> NDArray[np.int64]:
    """For each image the row of another whose caption it is given in the control.

    A random permutation; those that would keep their own text are exchanged with others, as far as
    there are any with another text.
    """
    rng = np.random.default_rng(seed)
    texts = np.array(captions)
    moved = rng.permutation(len(texts))
    for _ in range(_EXCHANGES):
        for row in np.flatnonzero(texts[moved] == texts):
            other = int(rng.integers(len(texts)))
            moved[row], moved[other] = int(moved[other]), int(moved[row])
    return moved


def common_classes(sets: Mapping[str, Mapping[str, Any]], real: str) -> dict[str, str]:
    """Set -> why its classes do not compare with those of the real one, where they do not."""
    reasons = {}
    known = _asked(sets.get(real, {}))
    for name, one in sets.items():
        asked = _asked(one)
        if name != real and known and asked and not known & asked:
            reasons[name] = (
                f"captions of {name} name {', '.join(sorted(asked))} and those of {real} "
                f"{', '.join(sorted(known))}: no class in common"
            )
    return reasons


def _asked(found: Mapping[str, Any]) -> set[str]:
    counts = found.get("classes", {}).get("asked", {})
    return {name for name, count in counts.items() if count}
