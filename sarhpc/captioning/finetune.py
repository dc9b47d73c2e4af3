"""Fine-tuning of BLIP on captioned images: the work of `sarhpc caption-train`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from hpc.errors import ConfigError, NumericalError
from hpc.publish import publish_json, publish_text, publishing_directory
from sarhpc.captioning.batches import Batch, collate, training_batches
from sarhpc.captioning.blip import Blip, load_blip
from sarhpc.captioning.build import new_blip
from sarhpc.captioning.config import CaptionTrainConfig
from sarhpc.captioning.datasets import CaptionedImage
from sarhpc.captioning.judging import Judged, Judges, appoint_judges, chunks, open_writer, spread
from sarhpc.captioning.mixture import ImageSet, join_sets, mixed_order, together
from sarhpc.captioning.pretrained import cpu_threads, pick_device
from sarhpc.captioning.schedule import adamw, warmup_cosine
from sarhpc.captioning.table import render_table
from sarhpc.captioning.tokenizer import train_bert_tokenizer
from sarhpc.shards.loader import SampleOrder

REPORT = "caption_train.json"
"""File beside the weights: configuration, metrics before and after, example captions."""
TABLE = "table.md"
"""File beside the rows of progress: Table 1 of the paper with our rows."""

_DTYPES = {"float32": torch.float32, "float16": torch.float16}
_EXAMPLES = 8
_SHOWN = 4


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


def train_captioner(cfg: CaptionTrainConfig, out: Path, metrics: Path) -> CaptionTrainResult:
    """Fine-tune as `cfg` says and publish the BLIP folder `out`; rows of progress go to `metrics`.

    Equal configuration, data and thread count give equal weights. An existing `out` stays as it is
    until the new one is whole.

    Raises:
        ConfigError: no training set, or an unknown number format.
        DataError: a set or the base model cannot be used.
        NumericalError: the loss is no longer finite; nothing was published.
    """
    if not cfg.train or cfg.save_dtype not in _DTYPES:
        raise ConfigError(
            f"caption-train has {len(cfg.train)} training sets and save_dtype={cfg.save_dtype!r}: "
            "give at least one set, and float32 or float16."
        )
    learnt, held = join_sets(cfg.train, cfg.val, cfg.readers)
    train, val = together(learnt), together(held)
    judges = appoint_judges(held, cfg)
    metrics.parent.mkdir(parents=True, exist_ok=True)
    with cpu_threads(cfg.threads), metrics.open("a", buffering=1) as file:

        def log(row: dict[str, Any]) -> None:
            file.write(json.dumps(row, sort_keys=True) + "\n")

        blip = _start(cfg, train)
        sets = {"train_sets": _rows(learnt), "val_sets": _rows(held)}
        log({"event": "start", "train_images": len(train), "val_images": len(val), **sets})
        before = judges.judge(blip)
        _log_scores("before", before.scores, log)
        fit(blip, train, val, cfg, log, mixed_order(learnt, cfg.seed))
        result = _publish(blip, judges, cfg, out, before, sets)
        _log_scores("after", result.after_sets, log)
        if judges.parts:
            scores = (before.scores, result.after_sets)
            table = render_table(*scores, judges.images, judges.without_meteor)
            publish_text(metrics.with_name(TABLE), table)
    return result


def _rows(sets: Sequence[ImageSet]) -> list[dict[str, Any]]:
    return [asdict(one.counts) for one in sets]


def _log_scores(
    event: str, scores: Mapping[str, Mapping[str, float]], log: Callable[[dict[str, Any]], None]
) -> None:
    """Log the scores of everything held out, then those of each of several sets."""
    log({"event": event, **next(iter(scores.values()), {})})
    if len(scores) > 1:
        for name, row in scores.items():
            log({"event": f"{event}_set", "set": name, **row})


def _start(cfg: CaptionTrainConfig, train: Sequence[CaptionedImage]) -> Blip:
    device = pick_device(cfg.device)
    if cfg.base_model is not None:
        blip = load_blip(cfg.base_model, device)
        blip.model.float()
        return blip
    captions = (caption for image in train for caption in image.distinct)
    tokenizer = train_bert_tokenizer(captions, cfg.new.vocabulary)
    blip = new_blip(cfg.new, tokenizer, cfg.seed)
    blip.model.to(device)
    return blip


def fit(
    blip: Blip,
    train: Sequence[CaptionedImage],
    val: Sequence[CaptionedImage],
    cfg: CaptionTrainConfig,
    log: Callable[[dict[str, Any]], None],
    order: SampleOrder | None = None,
) -> None:
    """Train `blip` in place for `cfg.steps` steps of AdamW, warm-up and half a cosine.

    `order` is that of the rows of `train`; none shows each once an epoch.

    Raises:
        NumericalError: the loss is no longer finite.
    """
    torch.manual_seed(cfg.seed)  # for dropout, which a published BLIP may have
    optimizer = adamw(blip.model, cfg.lr, cfg.weight_decay)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(cfg.warmup_steps, cfg.steps))
    started = time.monotonic()
    for step, batch in enumerate(training_batches(blip, train, cfg, order), 1):
        blip.model.train()
        loss = caption_loss(blip, batch, cfg.label_smoothing)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(blip.model.parameters(), cfg.grad_clip)
        if not torch.isfinite(norm):
            raise NumericalError(
                f"gradient norm {norm.item()} at step {step}: lower `lr`, or look at the data."
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        rate.step()
        if step % cfg.log_every == 0 or step == cfg.steps:
            speed = step * cfg.batch / (time.monotonic() - started)
            row = {"step": step, "loss": loss.item(), "lr": rate.get_last_lr()[0]}
            log({**row, "grad_norm": norm.item(), "images_per_s": round(speed, 2)})
        if val and (step % cfg.val_every == 0 or step == cfg.steps):
            log({"step": step, **_validate(blip, val, cfg)})
    blip.model.eval()


def caption_loss(blip: Blip, batch: Batch, label_smoothing: float = 0.0) -> torch.Tensor:
    """Mean cross-entropy of the next word piece, in nats; openings and padding do not count."""
    blip.model.text_decoder.label_smoothing = label_smoothing
    output = blip.model(
        pixel_values=batch.pixels,
        input_ids=batch.ids,
        attention_mask=batch.mask,
        labels=batch.labels,
    )
    return output.loss


def _validate(blip: Blip, val: Sequence[CaptionedImage], cfg: CaptionTrainConfig) -> dict[str, Any]:
    """Validation loss on the first captions, and what the model says of the first images."""
    blip.model.eval()
    images = spread(val, cfg.val_images)
    total = 0.0
    with torch.no_grad():
        for part in chunks(images, cfg.batch):
            batch = collate(blip, [(image.read(), image.captions[0]) for image in part], cfg)
            total += caption_loss(blip, batch).item() * len(part)
    shown = [image.read() for image in spread(val, _SHOWN)]
    captioner = open_writer(blip, cfg)
    return {"val_loss": total / len(images), "val_captions": captioner.caption(shown)}


def _publish(
    blip: Blip,
    judges: Judges,
    cfg: CaptionTrainConfig,
    out: Path,
    before: Judged,
    sets: Mapping[str, Any],
) -> CaptionTrainResult:
    """Publish the folder, and measure what was published: weights as rounded to `save_dtype`."""
    with publishing_directory(out) as folder:
        blip.save(folder, _DTYPES[cfg.save_dtype])
        after = judges.judge(load_blip(folder, str(blip.device)))
        examples = [
            {"name": image.name, "references": list(image.captions), "caption": caption}
            for image, caption in spread(after.said, _EXAMPLES)
        ]
        result = CaptionTrainResult(
            cfg.steps,
            before.overall,
            after.overall,
            examples,
            dict(before.scores),
            dict(after.scores),
        )
        parameters = sum(p.numel() for p in blip.model.parameters())
        report = {**asdict(result), **sets, "parameters": parameters, "config": _portable(cfg)}
        publish_json(folder / REPORT, report)
    return result


def _portable(cfg: CaptionTrainConfig) -> dict[str, Any]:
    """`cfg` without folders: the report travels with the model, where they mean nothing."""
    told = asdict(cfg)
    for entry in (*told["train"], *told["val"]):
        del entry["path"], entry["images"], entry["without"]
    told["base_model"] = cfg.base_model and Path(cfg.base_model).name
    return told
