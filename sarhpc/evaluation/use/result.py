"""E12 from the networks that were trained: scores with intervals, controls, gains, verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.evaluation.use.settings import (
    CONTROLS,
    MIXED,
    ONLY_SYNTHETIC,
    REAL,
)

USE_SCHEMA = "sarhpc.use/1"
GAIN, LOSS, NO_DIFFERENCE, NO_VERDICT = "gain", "loss", "no difference seen", "no verdict"
LEAST_GROUPS = 6
"""Fewest scenes that are drawn again for an interval."""
LEAST_PER_CLASS = 10
"""Fewest test images of a class for a verdict."""
CONTROL_TOLERANCE = 0.05
"""Score of shuffled labels above chance that is no sign of a leak."""
DRAWS = 1000
REAL_ON_SYNTHETIC = "real, tested on synthetic"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """Balanced accuracy of the networks of one setting."""

    setting: str
    share: float
    labels: int
    """Real labels learned from."""
    synthetic: int
    value: float
    low: float
    high: float
    """Interval of 95 % over test groups and seeds."""
    seeds: list[float]
    iou: float | None = None
    """Mean intersection over union, where labels are of pixels."""


@dataclass(frozen=True)
class Difference:
    """Score of mixed less that of real alone, with the same real labels."""

    share: float
    labels: int
    value: float
    low: float
    high: float
    verdict: str
    reason: str = ""


@dataclass(frozen=True)
class UseResult:
    """The block `use` of an evaluation."""

    task: str
    classes: list[str]
    chance: float
    images: Mapping[str, int]
    test_groups: int
    """Scenes of the test images; 0 where they name none, and images are drawn again."""
    scores: list[Score]
    gains: list[Difference]
    ratio: Score | None
    """Synthetic over real at the largest share: TSTR / TRTR; None where TRTR can be 0."""
    reason: str
    """Why there is no verdict; empty where there is one."""
    ratio_reason: str = ""
    """Why the ratio says nothing, though gains do."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Share -> why."""
    notes: list[str] = field(default_factory=list)
    pixels: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values for `evaluation.json`."""
        return {"schema": USE_SCHEMA, **asdict(self)}

    def lines(self) -> list[str]:
        """What is printed and noted of it."""
        said = [f"E12, {self.task}: {note}" for note in self.notes]
        said += [f"E12: share left out: {reason}." for reason in self.left_out.values()]
        if self.reason:
            said.append(f"E12: no verdict: {self.reason}.")
        elif self.ratio_reason:
            said.append(f"E12: no verdict on synthetic over real: {self.ratio_reason}.")
        for one in self.gains:
            said.append(
                f"E12, {one.labels} real labels ({one.share:.3g}): synthetic images beside them "
                f"change the balanced accuracy by {one.value:+.3f} "
                f"({one.low:+.3f} to {one.high:+.3f}): {one.verdict}."
            )
        return said


def combine(
    facts: Mapping[str, Any], fits: Sequence[Mapping[str, Any]], draws: int = DRAWS, seed: int = 0
) -> UseResult:
    """The result of all fits.

    Args:
        facts: of the data, as `part.facts_of` has them.
        fits: what each part published.
        draws: resamplings over test groups and seeds.
        seed: of the resamplings.
    """
    classes = list(facts["classes"])
    by_setting: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for one in sorted(fits, key=lambda one: (one["setting"], one["share"], one["seed"])):
        by_setting.setdefault((one["setting"], one["share"]), []).append(one)
    groups = int(facts["groups"]["test"])
    draw = _Draws(len(classes), draws, seed)
    tables = {key: draw.table(of, "test", groups) for key, of in by_setting.items()}
    scores = [draw.score(*key, by_setting[key], tables[key], facts) for key in tables]
    for (setting, share), of in by_setting.items():
        if setting == REAL:
            table = draw.table(of, "synthetic", int(facts["groups"]["synthetic"]))
            scores.append(draw.score(REAL_ON_SYNTHETIC, share, of, table, facts))
    reason = _no_verdict(facts, classes, scores)
    gains = [
        draw.gain(share, by_setting[REAL, share], tables[MIXED, share], table, reason)
        for (setting, share), table in tables.items()
        if setting == REAL
    ]
    largest = max(share for setting, share in tables if setting == REAL)
    return UseResult(
        task=facts["task"],
        classes=classes,
        chance=1 / len(classes),
        images=facts["images"],
        test_groups=groups if facts["grouped"] else 0,
        scores=scores,
        gains=gains,
        ratio=draw.ratio(tables[ONLY_SYNTHETIC, 0.0], tables[REAL, largest], largest),
        reason=reason,
        ratio_reason=_no_ratio(scores, largest, 1 / len(classes)),
        left_out=dict(facts["left_out"]),
        notes=list(facts["notes"]),
        pixels=facts["pixels"],
    )


def _no_verdict(facts: Mapping[str, Any], classes: Sequence[str], scores: Sequence[Score]) -> str:
    if facts["grouped"] and facts["groups"]["test"] < LEAST_GROUPS:
        return (
            f"the test images are of {facts['groups']['test']} scenes, and {LEAST_GROUPS} are "
            "needed for an interval"
        )
    few = {name: n for name, n in facts["per_class"].items() if n < LEAST_PER_CLASS}
    if few:
        name, count = min(few.items(), key=lambda item: item[1])
        return f"class {name} has {count} of the {LEAST_PER_CLASS} test images that it needs"
    chance = 1 / len(classes)
    for one in scores:
        if one.setting in CONTROLS and one.low > chance + CONTROL_TOLERANCE:
            return (
                f"networks that learned shuffled labels ({one.setting}) reach {one.value:.3f} "
                f"where chance is {chance:.3f}: the classes show without any label"
            )
    return ""


def _no_ratio(scores: Sequence[Score], share: float, chance: float) -> str:
    """Why the ratio says nothing: chance over chance is 1."""
    [real] = [one for one in scores if (one.setting, one.share) == (REAL, share)]
    if real.low > chance:
        return ""
    return (
        f"networks that learned from {real.labels} real labels reach {real.value:.3f} "
        f"({real.low:.3f} to {real.high:.3f}) where chance is {chance:.3f}: give more steps "
        "(evaluate.use.steps) or more labelled images"
    )


@dataclass(frozen=True)
class _Draws:
    """Resamplings over groups and seeds; the same for every setting, so that gains are paired."""

    classes: int
    draws: int
    seed: int

    def table(self, fits: Sequence[Mapping[str, Any]], part: str, groups: int) -> Floats:
        """Counts (seeds, groups, true class, class read)."""
        found = np.zeros((len(fits), groups, self.classes, self.classes))
        for number, one in enumerate(fits):
            for group, true, read, count in one["confusions"][part]:
                found[number, group, true, read] += count
        return found

    def scores(self, table: Floats) -> Floats:
        """(draws,) mean over drawn seeds of the score over drawn groups."""
        seeds, groups = table.shape[:2]
        rng = np.random.default_rng([self.seed, seeds, groups])
        times = rng.multinomial(groups, np.full(groups, 1 / groups), self.draws).astype(float)
        of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), self.draws) / seeds
        drawn = np.stack(
            [(times @ one.reshape(groups, -1)).reshape(-1, *one.shape[1:]) for one in table]
        )
        return np.asarray(np.einsum("ds,sd->d", of_seeds, balanced_accuracy(drawn)))

    def score(
        self, setting: str, share: float, fits: Sequence[Mapping[str, Any]], table: Floats,
        facts: Mapping[str, Any],
    ) -> Score:  # fmt: skip
        """Balanced accuracy of one setting at one share with its 95 % interval."""
        whole = table.sum(1)
        each = balanced_accuracy(whole)
        low, high = np.percentile(self.scores(table), [2.5, 97.5])
        iou = float(_mean_iou(whole).mean()) if facts["task"] == "segmentation" else None
        return Score(
            setting, share, int(fits[0]["labels"]), int(fits[0]["synthetic"]),
            float(each.mean()), float(low), float(high), [float(one) for one in each], iou,
        )  # fmt: skip

    def gain(
        self, share: float, fits: Sequence[Mapping[str, Any]], mixed: Floats, real: Floats,
        reason: str,
    ) -> Difference:  # fmt: skip
        """Mixed less real at one share with the 95 % interval; no verdict where a `reason` is."""
        value = float(np.mean(balanced_accuracy(mixed.sum(1)) - balanced_accuracy(real.sum(1))))
        low, high = np.percentile(self.scores(mixed) - self.scores(real), [2.5, 97.5])
        verdict = GAIN if low > 0 else LOSS if high < 0 else NO_DIFFERENCE
        return Difference(
            share, int(fits[0]["labels"]), value, float(low), float(high),
            NO_VERDICT if reason else verdict, reason,
        )  # fmt: skip

    def ratio(self, synthetic: Floats, real: Floats, share: float) -> Score | None:
        """Synthetic over real; None where a network, or a draw, learned nothing from real ones."""
        ours, theirs = (balanced_accuracy(table.sum(1)) for table in (synthetic, real))
        drawn = self.scores(real)
        if not (theirs.all() and drawn.all()):
            return None
        each = ours / theirs
        low, high = np.percentile(self.scores(synthetic) / drawn, [2.5, 97.5])
        value = float(ours.mean() / theirs.mean())
        return Score(
            "synthetic / real",
            share,
            0,
            0,
            value,
            float(low),
            float(high),
            [float(r) for r in each],
        )


def balanced_accuracy(confusion: Floats) -> Floats:
    """Mean recall of the classes that there are; confusion (..., true class, class read)."""
    true = confusion.sum(-1)
    recall = np.divide(
        np.diagonal(confusion, axis1=-2, axis2=-1), true, out=np.zeros_like(true), where=true > 0
    )
    return np.asarray(recall.sum(-1) / np.maximum((true > 0).sum(-1), 1))


def _mean_iou(confusion: Floats) -> Floats:
    hit = np.diagonal(confusion, axis1=-2, axis2=-1)
    union = confusion.sum(-1) + confusion.sum(-2) - hit
    shares = np.divide(hit, union, out=np.zeros_like(hit), where=union > 0)
    return np.asarray(shares.sum(-1) / np.maximum((union > 0).sum(-1), 1))
