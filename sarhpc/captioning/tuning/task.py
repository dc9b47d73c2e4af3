"""Caption fine-tuning of BLIP as a training task: its loss, and its validation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import BlipForConditionalGeneration

from hpc.job.agreement import RankGroup
from sarhpc.captioning.captioners.blip import Blip
from sarhpc.captioning.config import CaptionJudgeConfig, CaptionTrainConfig
from sarhpc.captioning.metrics import caption_metrics
from sarhpc.captioning.tuning.batches import Batch, CaptionBatch, collate, rank_batches
from sarhpc.captioning.tuning.datasets import CaptionedImage
from sarhpc.captioning.tuning.judging import chunks, open_writer
from sarhpc.captioning.tuning.ranks import work_in_rounds
from sarhpc.captioning.tuning.schedule import adamw, warmup_cosine
from sarhpc.shards.loader import Cursor, SampleOrder
from sarhpc.shards.subset import spread

_SHOWN = 4
_PREFIX = "model."

Weights = Callable[[], Mapping[str, Tensor]]
"""Gathers full fp32 weights by name, averaged where an average is kept. Collective."""

Record = Callable[[int, Mapping[str, float]], None]
"""Publishes what was judged after a step, and its `score`, less being better; not collective."""


class Clock(Protocol):
    """Takes the time of the parts of a step."""

    def part(self, name: str) -> AbstractContextManager[None]:
        """Add the block's time to part `name`."""


class CaptionLoss(nn.Module):
    """A BLIP that answers a batch with its loss."""

    def __init__(self, model: BlipForConditionalGeneration, label_smoothing: float) -> None:
        super().__init__()
        self.model = model
        model.text_decoder.label_smoothing = label_smoothing

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of the next word piece, in nats, of a `Batch`."""
        output = self.model(
            pixel_values=pixels.to(self.model.dtype),
            input_ids=ids,
            attention_mask=mask,
            labels=labels,
        )
        if output.logits.dtype == torch.float32:
            loss: Tensor = output.loss
            return loss
        # In bf16 a sum over the vocabulary would lose the rare words.
        logits = output.logits[:, :-1].float().flatten(0, 1)
        smoothing = self.model.text_decoder.label_smoothing
        return cross_entropy(logits, labels[:, 1:].flatten(), label_smoothing=smoothing)


def caption_loss(blip: Blip, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of the next word piece, in nats; openings and padding do not count."""
    loss: Tensor = CaptionLoss(blip.model, label_smoothing)(*batch.inputs)
    return loss


class CaptionTask:
    """The fine-tuning of a BLIP, as `sarhpc.training.task.TrainTask` describes one.

    A copy of the BLIP learns, so that captions can be written meanwhile.
    """

    name = "caption_train"
    remedy = (
        "resume with caption_train.on_nonfinite=skip or other limits in the run's config.yaml, or "
        "start a new run with a lower caption_train.lr or in fp32"
    )

    def __init__(
        self,
        blip: Blip,
        train: Sequence[CaptionedImage],
        val: Sequence[CaptionedImage],
        cfg: CaptionTrainConfig,
        ranks: RankGroup,
        order: SampleOrder | None = None,
        opening: Sequence[Mapping[str, Any]] = (),
        record: Record | None = None,
    ) -> None:
        """The fine-tuning of `blip`.

        Args:
            blip: on the device of this rank; unchanged until weights are loaded into it.
            train: images to train on.
            val: images held out.
            cfg: the fine-tuning.
            ranks: this process among the others.
            order: of the rows of `train`; None shows each once an epoch.
            opening: rows that metrics.jsonl begins with.
            record: called on rank 0 with each row of `cfg.judge`.
        """
        self.module: nn.Module = CaptionLoss(copy.deepcopy(blip.model), cfg.label_smoothing)
        self._blip = blip
        self._train, self._val, self._cfg = train, val, cfg
        self._ranks = ranks
        self._order = order or SampleOrder(cfg.seed, len(train))
        self.samples = self._order.n
        self._opening, self._record = opening, record
        self._scale = warmup_cosine(cfg.warmup_steps, cfg.steps)
        self._validated = 0
        """The last step that was validated."""

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW over the copy that learns."""
        return adamw(self.module.train(), self._cfg.lr, self._cfg.weight_decay)

    def started(self, rank: int) -> None:
        """Seed dropout, which a model may have; a checkpoint brings the state it had."""
        torch.manual_seed(self._cfg.seed + rank)

    def rate_scale(self, update: int) -> float:
        """Factor on the peak rate at `update` (from 0)."""
        return self._scale(update)

    def feed(self, cursor: Cursor, step: int) -> Generator[tuple[Cursor, CaptionBatch]]:
        """Yield (cursor after the batch, this rank's images of it) from `cursor` on."""
        rank, world = self._ranks.rank, self._ranks.world
        return rank_batches(self._blip, self._train, self._cfg, cursor, rank, world, self._order)

    def losses(
        self, engine: Any, batch: CaptionBatch, clock: Clock
    ) -> Iterator[tuple[Tensor, Mapping[str, Tensor]]]:
        """Yield the loss of each forward pass."""
        for inputs, factor in batch.passes:
            with clock.part("forward"):
                loss = engine(*inputs) * factor
            yield loss, {"loss": loss}

    def metrics(
        self, step: int, batch: CaptionBatch, rates: Mapping[str, float], seconds: float
    ) -> Mapping[str, Any]:
        """The rate, which is the same for all weights."""
        return {"lr": max(rates.values())} if rates else {}

    def opening_rows(self) -> Sequence[Mapping[str, Any]]:
        """Counts of the sets, and the scores before."""
        return self._opening

    def is_validation_due(self, step: int) -> bool:
        """Whether the held-out images are scored after `step` steps."""
        return self._has_validation(step) and step != self._validated

    def validate(self, step: int, weights: Weights) -> Iterator[Mapping[str, Any] | None]:
        """Yield the loss on the first captions of held-out images, and captions of four.

        With a judge also what it measures; its row is published before this one is yielded.
        """
        self.load(weights())
        images = spread(self._val, self._cfg.val_images)
        parts = list(chunks(images, self._cfg.batch))
        losses = yield from work_in_rounds(self._ranks, parts, self._loss_of)
        row: dict[str, Any] = {"val_loss": sum(losses) / len(images), "val_captions": []}
        if self._ranks.rank == 0:
            shown = [image.read() for image in spread(self._val, _SHOWN)]
            row["val_captions"] = open_writer(self._blip, self._cfg).caption(shown)
        if self._cfg.judge is not None:
            row |= yield from self._judge(self._cfg.judge, step, row["val_loss"])
        self._validated = step
        yield row

    def _judge(
        self, judge: CaptionJudgeConfig, step: int, loss: float
    ) -> Generator[None, None, dict[str, float]]:
        """Publish what was judged after `step` and return it; captions are written in rounds."""
        found, score = {}, loss
        if judge.by != "loss":
            images = spread(self._val, judge.images)
            parts = list(chunks(images, self._cfg.batch))
            writer = open_writer(self._blip, self._cfg)
            texts = yield from work_in_rounds(
                self._ranks, parts, lambda part: writer.caption([image.read() for image in part])
            )
            said = [text for part in texts for text in part]
            wanted = [image.captions for image in images]
            found = {f"val_{judge.by}": caption_metrics(said, wanted)[judge.by]}
            score = -found[f"val_{judge.by}"]
        if self._ranks.rank == 0 and self._record is not None:
            epoch = step * self._cfg.batch // self.samples
            self._record(step, {"epoch": epoch, "val_loss": loss, **found, "score": score})
        self._ranks.barrier()
        return found

    def needs_checkpoint(self, step: int) -> bool:
        """Whether a validation belongs to `step` and is judged."""
        return self._cfg.judge is not None and self._has_validation(step)

    def _has_validation(self, step: int) -> bool:
        due = step % self._cfg.val_every == 0 or step == self._cfg.steps
        return bool(self._val) and due

    def facts(self) -> Mapping[str, Any]:
        """Nothing beside what every training has to keep."""
        return {}

    def state(self) -> Mapping[str, Any]:
        """The step that was validated last."""
        return {"examined": self._validated}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self._validated = int(state["examined"])

    def finish(self, weights: Weights) -> None:
        """Load what was learnt into the BLIP."""
        self.load(weights())

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Load `weights`, named as in the copy that learns, into the BLIP."""
        state = {name.removeprefix(_PREFIX): tensor for name, tensor in weights.items()}
        # Tied weights and buffers are not among them.
        self._blip.model.load_state_dict(state, strict=False)
        self._blip.model.eval()

    @torch.no_grad()
    def _loss_of(self, images: Sequence[CaptionedImage]) -> float:
        """Sum of the loss over `images`, without label smoothing."""
        pairs = [(image.read(), image.captions[0]) for image in images]
        batch = collate(self._blip, pairs, self._cfg)
        return caption_loss(self._blip, batch).item() * len(images)
