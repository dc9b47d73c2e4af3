"""A small network that learns to distinguish tiles from their flips along columns.

It scores a crop and its flip, and prefers one of them: no threshold, and chance is exactly 0.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Array = NDArray[np.float64]
Tile = NDArray[np.float32]

CROP_PX = 80
MARGIN_PX = 8
"""Crops leave at least this much of a tile, so that no grid of 8 px (JPEG, a decoder) shows the
orientation by its phase."""
MIN_SIDE_PX = 40
FLOOR = 1e-3
"""Smallest amplitude relative to the root mean square of the tile, -60 dB."""
BATCH = 24


def prepared(tile: NDArray[Any], name: str) -> Tile:
    """Log amplitude of zero mean and unit variance, in single precision.

    Raises:
        ValueError: not (H, W) of 40 px or more, not finite, negative or constant.
    """
    A = np.asarray(tile, dtype=np.float64)
    if A.ndim != 2 or min(A.shape) < MIN_SIDE_PX:
        raise ValueError(
            f"{name} has shape {A.shape}: give (H, W) with at least {MIN_SIDE_PX} px each"
        )
    if not np.isfinite(A).all() or (A < 0).any():
        raise ValueError(
            f"{name} has NaN, infinite or negative amplitudes: leave it out or mask it"
        )
    rms = float(np.sqrt((A * A).mean()))
    field = np.log(np.maximum(A, FLOOR * rms)) if rms > 0 else A
    deviation = float(field.std())
    if deviation < 1e-6:
        raise ValueError(f"{name} is constant and shows no direction: leave it out")
    standard: Tile = ((field - field.mean()) / deviation).astype(np.float32)
    return standard


def group_folds(groups: NDArray[np.int64], folds: int, seed: int) -> list[NDArray[np.int64]]:
    """Indices of the tiles of each fold: whole groups, the largest first to the smallest fold."""
    rng = np.random.default_rng(seed)
    sizes = np.bincount(groups)
    order = rng.permutation(sizes.size)
    parts: list[list[int]] = [[] for _ in range(min(folds, sizes.size))]
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        min(parts, key=lambda part: int(sizes[part].sum())).append(int(group))
    return [np.flatnonzero(np.isin(groups, part)) for part in parts]


def cross_validated(
    inputs: list[Tile], parts: list[NDArray[np.int64]], seed: int, steps: int
) -> tuple[Array, tuple[torch.nn.Module, ...]]:
    """Whether each tile was distinguished from its flip by the network that never saw its group."""
    correct, models = np.empty(len(inputs)), []
    for number, held_out in enumerate(parts):
        learned = np.delete(np.arange(len(inputs)), held_out)
        model = _trained([inputs[i] for i in learned], seed * len(parts) + number, steps)
        correct[held_out] = judged(model, [inputs[i] for i in held_out])
        models.append(model)
    return correct, tuple(models)


def _network() -> torch.nn.Module:
    from torch import nn

    def stage(i: int, o: int, kernel: int = 3, stride: int = 2) -> list[nn.Module]:
        convolution = nn.Conv2d(i, o, kernel, stride=stride, padding=kernel // 2)
        return [convolution, nn.GroupNorm(4, o), nn.SiLU()]

    return nn.Sequential(
        *stage(1, 16, kernel=5, stride=4), *stage(16, 24), *stage(24, 32), *stage(32, 48, stride=1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 1, bias=False),
    )  # fmt: skip


def _preference(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Score (B,) of each crop minus that of its flip: positive where it is judged unflipped."""
    import torch

    both: torch.Tensor = model(torch.cat([batch, batch.flip(-1)]))[:, 0]
    return both[: len(batch)] - both[len(batch) :]


def _trained(tiles: list[Tile], seed: int, steps: int) -> torch.nn.Module:
    import torch

    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _network()
    side = _crop_side(tiles)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(steps):
        crops = [_random_crop(tiles[i], side, rng) for i in rng.integers(len(tiles), size=BATCH)]
        wanted = _preference(model, torch.from_numpy(np.stack(crops)[:, None]))
        loss = torch.nn.functional.softplus(-wanted).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    return model.eval()


def _crop_side(tiles: list[Tile]) -> int:
    smallest = min(min(tile.shape) for tile in tiles)
    return int(min(CROP_PX, smallest - MARGIN_PX))


def _random_crop(tile: Tile, side: int, rng: np.random.Generator) -> Tile:
    top, left = (int(rng.integers(extent - side + 1)) for extent in tile.shape)
    return tile[top : top + side, left : left + side]


def judged(model: torch.nn.Module, tiles: list[Tile]) -> Array:
    """(N,) 1 where a tile is judged unflipped, 0 where flipped, 0.5 where neither."""
    import torch

    side = _crop_side(tiles)
    preferred = []
    with torch.inference_mode():
        for tile in tiles:
            crops = torch.from_numpy(np.stack(_even_crops(tile, side))[:, None])
            preferred.append(float(_preference(model, crops).mean()))
    return (np.sign(preferred) + 1) / 2


def _even_crops(tile: Tile, side: int) -> list[Tile]:
    """One to nine crops spread evenly over the tile, mirrored by its flips."""
    starts = []
    for extent in tile.shape:
        count = min(3, -(-extent // side))
        starts.append(np.round(np.linspace(0, extent - side, count)).astype(int))
    return [tile[top : top + side, left : left + side] for top in starts[0] for left in starts[1]]
