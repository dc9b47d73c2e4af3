"""Fine-tuning of BLIP on captioned images: the work of `sarhpc caption-train`."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from hpc.errors import ConfigError, DataError
from hpc.job.agreement import RankGroup
from hpc.publish import publish_json, publish_text, publishing_directory
from sarhpc.captioning.captioners.blip import Blip, load_blip
from sarhpc.captioning.captioners.build import new_blip
from sarhpc.captioning.captioners.pretrained import cpu_threads
from sarhpc.captioning.checks import check_fine_tuning
from sarhpc.captioning.config import CaptionTrainConfig
from sarhpc.captioning.tuning.datasets import CaptionedImage
from sarhpc.captioning.tuning.judging import (
    CaptionEvaluator,
    Judged,
    Scores,
    make_evaluator,
)
from sarhpc.captioning.tuning.mixture import ImageSet, concatenate, join_sets, mixed_order
from sarhpc.captioning.tuning.ranks import StopCheck
from sarhpc.captioning.tuning.table import render_table
from sarhpc.captioning.tuning.task import CaptionTask, Record
from sarhpc.captioning.tuning.tokenizer import train_bert_tokenizer
from sarhpc.shards.subset import spread

REPORT = "caption_train.json"
"""File beside the weights: configuration, metrics before and after, example captions."""
TABLE = "table.md"
"""File beside the rows of progress: Table 1 of the paper with our rows."""

BEFORE = "before.json"
"""File beside the rows of progress: scores of the model it started from."""
METRICS = "metrics.jsonl"
"""The rows of progress."""

TRAINED_DTYPE = "float32"
"""Weights that a fine-tuning starts from and that are scored before and after it, on any device.
In float16, as captions are written on a GPU, it would start from rounded weights."""

_EXAMPLES = 8


@dataclass(frozen=True)
class CaptionTrainResult:
    """What a fine-tuning reached on the held-out images; empty where none were given."""

    steps: int
    before: dict[str, float]
    after: dict[str, float]
    examples: list[dict[str, Any]]
    """Some held-out images: name, references, caption."""
    before_sets: dict[str, dict[str, float]] = field(default_factory=dict)
    """Metrics before, by held-out set; those of all sets first where there are several."""
    after_sets: dict[str, dict[str, float]] = field(default_factory=dict)
    """Metrics after, likewise."""


Fit = Callable[[CaptionTask], int]
"""Trains the task to its end and loads what is published; the step it was learnt at. Collective."""


def train_captioner(
    cfg: CaptionTrainConfig,
    out: Path,
    folder: Path,
    ranks: RankGroup,
    fit: Fit,
    check_stop: StopCheck,
    record: Record,
) -> CaptionTrainResult:
    """Fine-tune as `cfg` says and publish the BLIP folder `out`; rows of progress go to `folder`.

    Collective. Equal configuration, data, ranks and thread count give equal weights. An existing
    `out` stays as it is until the new one is whole. Called again after an end before its time, it
    goes on from what it left. `record` publishes what `cfg.judge` finds.

    Raises:
        ConfigError: no training set, or a number or format that cannot be meant.
        DataError: a set or the base model cannot be used, or there is nothing to judge by.
        NumericalError: the loss is no longer finite; nothing was published.
        StopRequestedError: a stop was requested; what was learnt is saved.
    """
    if not cfg.train:
        raise ConfigError("caption_train.train names no set of captioned images: give at least one")
    check_fine_tuning(cfg)
    learnt, held = join_sets(cfg.train, cfg.val, cfg.readers)
    train, val = concatenate(learnt), concatenate(held)
    if cfg.judge is not None and not val:
        raise DataError(
            "caption_train.judge: the held-out sets have no captioned image that is not in the "
            "training sets too; name others in caption_train.val, or leave judge out"
        )
    evaluator = make_evaluator(held, cfg)
    folder.mkdir(parents=True, exist_ok=True)
    with cpu_threads(cfg.threads):
        blip = _start(cfg, train, str(ranks.device))
        before = _scores_before(blip, evaluator, folder, ranks, check_stop)
        sets = {"train_sets": _rows(learnt), "val_sets": _rows(held)}
        counts = {"train_images": len(train), "val_images": len(val)}
        opening = [{"event": "start", **counts, **sets}, *_score_rows("before", before)]
        order = mixed_order(learnt, cfg.seed)
        step = fit(CaptionTask(blip, train, val, cfg, ranks, order, opening, record))
        facts = {**sets, **_chosen(cfg, step)}
        result = _publish(blip, evaluator, cfg, out, before, facts, ranks, check_stop)
    if ranks.rank == 0:
        _write_scores_after(evaluator, result, cfg.steps, folder)
    return result


def _chosen(cfg: CaptionTrainConfig, step: int) -> dict[str, Any]:
    """How the published weights were chosen, for the report."""
    if cfg.judge is None or cfg.judge.choose != "best":
        return {}
    return {"chosen": {"step": step, "by": cfg.judge.by}}


def _scores_before(
    blip: Blip, evaluator: CaptionEvaluator, folder: Path, ranks: RankGroup, check_stop: StopCheck
) -> Mapping[str, Scores]:
    """Scores of the model it starts from: measured once, whatever interrupts the training."""
    path = folder / BEFORE
    is_known = ranks.rank == 0 and path.is_file()
    known: dict[str, Scores] | None = json.loads(path.read_text()) if is_known else None
    if (known := ranks.broadcast(known)) is not None:
        return known
    scores = evaluator.judge(blip, ranks, check_stop).scores
    if ranks.rank == 0:
        publish_text(path, json.dumps(scores))  # the first is that of all sets
    return scores


def _write_scores_after(
    evaluator: CaptionEvaluator, result: CaptionTrainResult, steps: int, folder: Path
) -> None:
    """Put the scores after into metrics.jsonl, once, and into the table beside it."""
    path = folder / METRICS
    lines = path.read_text().splitlines() if path.is_file() else []
    kept = [line for line in lines if not str(json.loads(line).get("event")).startswith("after")]
    rows = _score_rows("after", result.after_sets)
    kept += [json.dumps({"step": steps, **row, "time": time.time()}) for row in rows]
    publish_text(path, "".join(f"{line}\n" for line in kept))
    if evaluator.parts:
        scores = (result.before_sets, result.after_sets)
        table = render_table(*scores, evaluator.images, evaluator.without_meteor)
        publish_text(folder / TABLE, table)


def _rows(sets: Sequence[ImageSet]) -> list[dict[str, Any]]:
    return [asdict(one.counts) for one in sets]


def _score_rows(event: str, scores: Mapping[str, Scores]) -> list[dict[str, Any]]:
    """The scores of everything held out, then those of each of several sets."""
    rows = [{"event": event, **next(iter(scores.values()), {})}]
    if len(scores) > 1:
        rows += [{"event": f"{event}_set", "set": name, **row} for name, row in scores.items()]
    return rows


def _start(cfg: CaptionTrainConfig, train: Sequence[CaptionedImage], device: str) -> Blip:
    if cfg.base_model is not None:
        return load_blip(cfg.base_model, device, TRAINED_DTYPE)
    captions = (caption for image in train for caption in image.distinct)
    tokenizer = train_bert_tokenizer(captions, cfg.new.vocabulary)
    blip = new_blip(cfg.new, tokenizer, cfg.seed)
    blip.model.to(device)
    return blip


def _publish(
    blip: Blip,
    evaluator: CaptionEvaluator,
    cfg: CaptionTrainConfig,
    out: Path,
    before: Mapping[str, Scores],
    facts: Mapping[str, Any],
    ranks: RankGroup,
    check_stop: StopCheck,
) -> CaptionTrainResult:
    """Publish the folder, and measure what was published: weights as rounded to `save_dtype`.

    Rank 0 writes it; all ranks load what it wrote, and divide the held-out images.
    """
    with contextlib.ExitStack() as stack:
        folder = None
        if ranks.rank == 0:
            folder = stack.enter_context(publishing_directory(out))
            blip.save(folder, getattr(torch, cfg.save_dtype))
        after = Judged({}, [])
        published = Path(ranks.broadcast(str(folder or out)))
        if evaluator.parts:
            after = evaluator.judge(load_published(published, ranks), ranks, check_stop)
        examples = [
            {"name": image.name, "references": list(image.captions), "caption": caption}
            for image, caption in spread(after.captions, _EXAMPLES)
        ]
        result = CaptionTrainResult(
            cfg.steps,
            dict(next(iter(before.values()), {})),
            after.overall,
            examples,
            dict(before),
            dict(after.scores),
        )
        if folder is not None:
            parameters = sum(p.numel() for p in blip.model.parameters())
            report = {**asdict(result), **facts, "parameters": parameters, "config": _portable(cfg)}
            publish_json(folder / REPORT, report)
    return result


def load_published(folder: Path, ranks: RankGroup) -> Blip:
    """The BLIP that was published in `folder`, as the one it started from was scored."""
    return load_blip(folder, str(ranks.device), TRAINED_DTYPE)


def _portable(cfg: CaptionTrainConfig) -> dict[str, Any]:
    """`cfg` without folders: the report travels with the model, where they mean nothing."""
    fields = asdict(cfg)
    for entry in (*fields["train"], *fields["val"]):
        del entry["path"], entry["images"], entry["without"]
    fields["base_model"] = cfg.base_model and Path(cfg.base_model).name
    return fields
