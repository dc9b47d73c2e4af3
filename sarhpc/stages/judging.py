"""Judging the validation grids of a training against real tiles."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

from hpc.errors import DataError
from hpc.store.rundir import RunDir
from sarhpc.evaluation.config import MIN_TILES
from sarhpc.stages.inputs.prompts import sample_shards
from sarhpc.stages.inputs.real_tiles import even_tiles
from sarhpc.stages.work.sharded import sealed_records
from sarhpc.training.config import TrainConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sarhpc.evaluation.image_score import RealReference
    from sarhpc.training.denoising.validation import Judge

log = logging.getLogger(__name__)

LEAST_TILES = 2 * MIN_TILES
"""Fewest real tiles whose halves can be compared with each other."""


def require_judges(run: RunDir, cfg: TrainConfig) -> None:
    """Raise DataError if a judge is configured and its splits have too few tiles."""
    if cfg.judge is None:
        return
    counts = samples_by_split(run, "caption")
    if sum(counts.get(split, 0) for split in cfg.judge.splits) < LEAST_TILES:
        raise DataError(
            f"train.judge needs {LEAST_TILES} tiles or more in {', '.join(cfg.judge.splits)}; "
            f"there are {counts}. Start a new run with other fractions (tile.split.fractions), "
            "judge by another split (train.judge.splits), or leave train.judge out"
        )


def samples_by_split(run: RunDir, stage: str) -> dict[str, int]:
    """Samples that a sealed stage of shards has in each split."""
    counts: dict[str, int] = {}
    for record in sealed_records(run, stage):
        split = record.detail["split"]
        counts[split] = counts.get(split, 0) + record.samples
    return counts


def grid_judge(run: RunDir, cfg: TrainConfig) -> Judge | None:
    """Function that compares a grid with real tiles, which it reads once; None without a judge."""
    if cfg.judge is None:
        return None
    judge = cfg.judge

    @functools.cache
    def _real() -> RealReference:
        from sarhpc.evaluation.image_score import real_reference

        tiles, scenes = even_tiles(sample_shards(run, judge.splits), judge.tiles)
        log.info("judge tiles=%d scenes=%d", len(tiles), len(set(scenes)))
        return real_reference(tiles, scenes)

    def _judge(images: NDArray[np.uint8]) -> dict[str, float] | None:
        from sarhpc.evaluation.image_score import score_images

        constant = [number for number, image in enumerate(images) if image.min() == image.max()]
        if constant:
            log.warning("grid is not judged: images %s are constant", constant)
            return None
        return score_images(images, _real())

    return _judge
