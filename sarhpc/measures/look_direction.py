"""E8: whether the tiles of an archive show their look direction, and whether other tiles share it.

No sign is assumed. A small network learns, on the archive's own real tiles, to distinguish a tile
from its range flip, and is asked on groups of tiles (flight lines, scenes) that it has not seen.
The same procedure on the transposed tiles is the control: nothing in a SAR image distinguishes
azimuth from its flip, so that there it must stay at chance. Only an archive that passes can judge
synthetic tiles.

Tiles are amplitudes (H, W) of any scale, range along columns, azimuth along rows. Every tile is its
own comparison: the score of a tile minus the score of its flip, so that chance is exactly 0.5.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sarhpc.measures.flip_classifier import Array, cross_validated, group_folds, judged, prepared

if TYPE_CHECKING:
    import torch

Tiles = Sequence[NDArray[Any]]

MIN_GROUPS = 6
"""With fewer groups, chance puts all of them on one side of 0.5 in more than 5 % of cases."""
STEPS = 400
FOLDS = 5


@dataclass(frozen=True)
class Share:
    """A fraction of tiles with its 95 % interval over groups."""

    value: float
    low: float
    high: float
    tiles: int
    groups: int


@dataclass(frozen=True)
class LookDirection:
    """What an archive's real tiles show of their look direction."""

    verdict: Literal["shown", "undecided"]
    reason: str
    range: Share
    """Held-out accuracy of distinguishing a tile from its range flip."""
    azimuth: Share
    """The same for the azimuth flip: the control, 0.5 where nothing but chance decides."""
    correct: Array
    """(N,) 1 for each real tile distinguished from its range flip when held out, else 0."""
    models: tuple[torch.nn.Module, ...]
    """Networks of the folds, by which other tiles are judged."""


@dataclass(frozen=True)
class Orientation:
    """How the look direction of other tiles compares with that of the real ones."""

    verdict: Literal["as real", "weaker than real", "reversed", "undecided"]
    reason: str
    unflipped: Share | None
    """Fraction of tiles judged unflipped, mean over the folds' networks; None if nothing was asked.
    A perfect generator reaches the held-out accuracy of the real tiles."""


def look_direction(
    tiles: Tiles,
    groups: Sequence[Hashable],
    *,
    seed: int = 0,
    steps: int = STEPS,
    folds: int = FOLDS,
) -> LookDirection:
    """Whether real tiles show their look direction: held-out accuracies, a verdict and its reason.

    The verdict is "shown" if the 95 % interval of the range accuracy lies above 0.5 and that of the
    azimuth accuracy contains 0.5, else "undecided".

    Args:
        tiles: N amplitude tiles (H, W), non-negative, range along columns; sizes may differ.
        groups: flight line or scene of each tile; no group is in both training and test.
        seed: of weights, folds and crops; the result repeats on one machine.
        steps: training steps of each fold, whatever the number of tiles; they bound the cost.
        folds: parts of the cross-validation.

    Raises:
        ValueError: tiles that are not finite, negative, constant or below 40 px; a number of groups
            that is not that of the tiles; fewer than six groups, two folds or two steps.
    """
    if folds < 2 or steps < 2:
        raise ValueError(f"folds={folds}, steps={steps}: give at least 2 of each")
    inputs = [prepared(tile, f"tile {index}") for index, tile in enumerate(tiles)]
    if len(groups) != len(inputs):
        raise ValueError(f"{len(groups)} groups for {len(inputs)} tiles: give each tile its own")
    names = list(dict.fromkeys(groups))
    if len(names) < MIN_GROUPS:
        raise ValueError(
            f"{len(names)} groups of tiles (flight lines or scenes) cannot show a look direction: "
            f"{MIN_GROUPS} are needed, so that those held out differ from those learned from"
        )
    index = np.array([names.index(group) for group in groups])
    parts = group_folds(index, folds, seed)
    correct, models = cross_validated(inputs, parts, seed, steps)
    control, _ = cross_validated([tile.T.copy() for tile in inputs], parts, seed, steps)
    # Folds that learn from common groups err together.
    overlap = len(parts) / (len(parts) - 1)
    along, across = share(correct, index, overlap), share(control, index, overlap)
    verdict, reason = _verdict(along, across)
    return LookDirection(verdict, reason, along, across, correct, models)


def orientation(
    real: LookDirection, tiles: Tiles, groups: Sequence[Hashable] | None = None
) -> Orientation:
    """Whether other tiles share the look direction of the real ones; a verdict and its reason.

    "reversed" if the 95 % interval of the fraction judged unflipped lies below 0.5; "weaker than
    real" if it reaches 0.5 and lies below that of the real accuracy; "as real" if it lies above 0.5
    and not below that; "undecided" otherwise, and wherever the real tiles do not show theirs.

    Args:
        real: what `look_direction` says of the real tiles.
        tiles: amplitude tiles (H, W) as there, of the same spacing.
        groups: what tiles have in common (prompt, scene); each tile on its own if omitted.

    Raises:
        ValueError: tiles as in `look_direction`; a number of groups that is not that of the tiles.
    """
    inputs = [prepared(tile, f"tile {index}") for index, tile in enumerate(tiles)]
    if groups is not None and len(groups) != len(inputs):
        raise ValueError(f"{len(groups)} groups for {len(inputs)} tiles: give each tile its own")
    if real.verdict != "shown":
        return Orientation(
            "undecided", f"not asked, as the real tiles are undecided: {real.reason}", None
        )
    if groups is None:
        groups = range(len(inputs))
    names = list(dict.fromkeys(groups))
    if len(names) < MIN_GROUPS:
        raise ValueError(
            f"{len(names)} independent tiles or groups cannot be judged: {MIN_GROUPS} are needed"
        )
    unflipped = np.mean([judged(model, inputs) for model in real.models], axis=0)
    found = share(unflipped, np.array([names.index(group) for group in groups]))
    reason = f"{_percent(found)} judged unflipped, {_percent(real.range)} of real tiles"
    return Orientation(_compared(found, real.range), reason, found)


def share(correct: Array, groups: NDArray[np.int64], overlap: float = 0.0) -> Share:
    """Mean of values (N,) in 0 to 1 with the 95 % interval of Korn and Graubard over groups.

    The interval is Clopper and Pearson's for the effective number of tiles: N over the design
    effect, which is the variance between groups over that of independent tiles, at least 1, and
    where all tiles agree, that as if one did not (Korn & Graubard, Survey Methodology 24(2) 1998).

    Args:
        correct: (N,) values of the tiles.
        groups: (N,) group of each tile; at least two different ones.
        overlap: by how much the variance grows because folds learn from common tiles: K/(K - 1) for
            K folds (Nadeau & Bengio, Machine Learning 52, 2003, corrected resampled t-test).
    """
    n, names = correct.size, np.unique(groups)
    count = names.size
    probe = correct.copy()
    if np.ptp(probe) == 0:
        probe[0] = 1 - probe[0] if probe[0] in (0, 1) else 0
    error = probe - probe.mean()
    sums = np.array([error[groups == name].sum() for name in names])
    between = count / (count - 1) * float((sums**2).sum())
    effective = n / max(1.0, between / (n / (n - 1) * float((error**2).sum())))
    effective *= float(stats.t.ppf(0.975, n - 1) / stats.t.ppf(0.975, count - 1)) ** 2
    effective /= 1 + overlap
    p = float(correct.mean())
    hits = p * effective
    low = stats.beta.ppf(0.025, hits, effective - hits + 1) if p > 0 else 0.0
    high = stats.beta.ppf(0.975, hits + 1, effective - hits) if p < 1 else 1.0
    return Share(p, float(low), float(high), n, count)


def _verdict(along: Share, across: Share) -> tuple[Literal["shown", "undecided"], str]:
    reason = f"range flips recognised in {_percent(along)}, azimuth flips in {_percent(across)}"
    if not across.low <= 0.5 <= across.high:
        return "undecided", f"{reason}: azimuth is not at chance, so more than shadows is learned"
    if along.low <= 0.5:
        return "undecided", f"{reason}: range flips are not recognised beyond chance"
    return "shown", reason


def _compared(
    found: Share, real: Share
) -> Literal["as real", "weaker than real", "reversed", "undecided"]:
    if found.high < 0.5:
        return "reversed"
    if found.high < real.low:
        return "weaker than real"
    return "as real" if found.low > 0.5 else "undecided"


def _percent(found: Share) -> str:
    return f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%}, {found.groups} groups)"
