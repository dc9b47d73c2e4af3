"""Contrastive fine-tuning of CLIP on captioned radar tiles: the work of `sarhpc clip-train`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from hpc.errors import DataError
from hpc.job.agreement import RankGroup
from hpc.publish import publish_json, publishing_directory
from sarhpc.captioning.captioners.clip import Clip, load_clip
from sarhpc.captioning.captioners.pretrained import cpu_threads
from sarhpc.captioning.contrastive.build import save_clip
from sarhpc.captioning.contrastive.checks import check_clip_training
from sarhpc.captioning.contrastive.config import ClipTrainConfig
from sarhpc.captioning.contrastive.task import ClipTask, Record
from sarhpc.captioning.contrastive.tiles import CaptionedTiles
from sarhpc.captioning.tuning.ranks import StopCheck
from sarhpc.shards.contract import CONTRACT_FILE, PixelContract
from sarhpc.shards.stretch import STRETCH
from sarhpc.shards.subset import spread

REPORT = "clip_train.json"
"""File beside the weights: configuration, what a step contrasts, how well held-out tiles do."""
NEGATIVES = "every other tile of the global batch whose caption is another text"
"""What each tile is contrasted with, for the report."""

Fit = Callable[[ClipTask], int]
"""Trains the task to its end and loads what is published; the step it was learnt at. Collective."""


def train_clip(
    clip: Clip,
    train: CaptionedTiles,
    val: CaptionedTiles,
    cfg: ClipTrainConfig,
    out: Path,
    ranks: RankGroup,
    fit: Fit,
    check_stop: StopCheck,
    record: Record,
    contract: PixelContract | None = None,
) -> None:
    """Fine-tune `clip` as `cfg` says and publish the folder `out`, which stock CLIP classes load.

    Collective. Equal configuration, tiles, ranks and thread count give equal weights. Called again
    after an end before its time, it goes on from what it left. `record` publishes what `cfg.judge`
    finds; `contract` says what a pixel of the tiles means.

    Raises:
        ConfigError: a number or a name that cannot be meant.
        DataError: captions do not tell tiles apart, or there is nothing to judge by.
        NumericalError: the loss is no longer finite; nothing was published.
        StopRequestedError: a stop was requested; what was learnt is saved.
    """
    check_clip_training(cfg)
    require_captions(train, val, cfg)
    with cpu_threads(cfg.threads):
        task = ClipTask(clip, train, val, cfg, ranks, record)
        step = fit(task)
        with contextlib.ExitStack() as stack:
            folder = None
            if ranks.rank == 0:
                folder = stack.enter_context(publishing_directory(out))
                save_clip(clip, folder, getattr(torch, cfg.save_dtype))
            published = Path(ranks.broadcast(str(folder or out)))
            found = _measured(published, task, val, cfg, ranks, check_stop)
            if folder is not None:
                if contract is not None:
                    publish_json(folder / CONTRACT_FILE, contract.to_json())
                publish_json(folder / REPORT, _report(clip, train, val, cfg, step, found))
            ranks.barrier()


def require_captions(train: CaptionedTiles, val: CaptionedTiles, cfg: ClipTrainConfig) -> None:
    """Raise DataError unless there are captions to tell tiles apart by, in training and judging.

    Raises:
        DataError: all captions are the same, or too few of the held-out tiles differ.
    """
    if len({train.caption(row) for row in spread(range(len(train)), 4096)}) < 2:
        raise DataError(
            f"clip-train: the captions of the {len(train)} tiles to learn from are all the same, "
            "so that nothing tells one tile from another; caption them (caption.captioner), or "
            "learn another text (clip_train.text)"
        )
    if cfg.judge is None:
        return
    different = len({val.caption(row) for row in spread(range(len(val)), cfg.val_tiles)})
    if different < cfg.judge.among:
        raise DataError(
            f"clip_train.judge: {different} different captions among the held-out tiles, and "
            f"{cfg.judge.among} are needed; start a new run with other fractions "
            "(tile.split.fractions), search among fewer (clip_train.judge.among), or leave "
            "clip_train.judge out"
        )


def _measured(
    published: Path,
    task: ClipTask,
    val: CaptionedTiles,
    cfg: ClipTrainConfig,
    ranks: RankGroup,
    check_stop: StopCheck,
) -> dict[str, float]:
    """How the published weights, rounded to `save_dtype`, do on the held-out tiles. Collective."""
    if not task.has_held_out:
        return {}
    task.replace_clip(load_clip(published, str(ranks.device), "float32"))
    rounds = task.judged()
    while True:
        try:
            next(rounds)
        except StopIteration as end:
            found: dict[str, float] = end.value
            return found
        check_stop()


def _report(
    clip: Clip,
    train: CaptionedTiles,
    val: CaptionedTiles,
    cfg: ClipTrainConfig,
    step: int,
    found: Mapping[str, float],
) -> dict[str, Any]:
    """What travels with the model; without folders, which mean nothing elsewhere."""
    chosen = {} if cfg.judge is None or cfg.judge.choose != "best" else {"chosen": "best val_r1"}
    return {
        "steps": cfg.steps,
        "step": step,
        **chosen,
        "global_batch": cfg.batch,
        "negatives": NEGATIVES,
        "train_tiles": len(train),
        "val_tiles": len(val),
        "after": dict(found),
        "parameters": sum(p.numel() for p in clip.model.parameters()),
        "picture": STRETCH,
        "config": {**asdict(cfg), "base_model": cfg.base_model and Path(cfg.base_model).name},
    }
