"""What BLIP learns from captioned images: the loss of a batch, and how it is looked at."""

from __future__ import annotations

import copy
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import BlipForConditionalGeneration

from sarhpc.captioning.captioners.blip import Blip
from sarhpc.captioning.config import CaptionTrainConfig
from sarhpc.captioning.tuning.batches import Batch, Portion, collate, portions
from sarhpc.captioning.tuning.datasets import CaptionedImage
from sarhpc.captioning.tuning.judging import chunks, open_writer, spread
from sarhpc.captioning.tuning.ranks import Company
from sarhpc.captioning.tuning.schedule import adamw, warmup_cosine
from sarhpc.shards.loader import Cursor, SampleOrder

_SHOWN = 4
_PREFIX = "model."


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


class CaptionLesson:
    """The fine-tuning of a BLIP; a copy of it learns, so that it can be looked at meanwhile."""

    name = "caption_train"

    def __init__(
        self,
        blip: Blip,
        train: Sequence[CaptionedImage],
        val: Sequence[CaptionedImage],
        cfg: CaptionTrainConfig,
        company: Company,
        order: SampleOrder | None = None,
        opening: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """A lesson of `blip`.

        Args:
            blip: on the device of this rank; stays as it is until weights are shown.
            train: images learnt from.
            val: images held out.
            cfg: the fine-tuning.
            company: the ranks.
            order: of the rows of `train`; none shows each once an epoch.
            opening: rows that metrics.jsonl begins with.
        """
        self.module = CaptionLoss(copy.deepcopy(blip.model), cfg.label_smoothing)
        self._blip = blip
        self._train, self._val, self._cfg = train, val, cfg
        self._company = company
        self._order = order or SampleOrder(cfg.seed, len(train))
        self._opening = opening
        self._share = warmup_cosine(cfg.warmup_steps, cfg.steps)

    @property
    def samples(self) -> int:
        """Images of an epoch."""
        return self._order.n

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW over the copy that learns."""
        return adamw(self.module, self._cfg.lr, self._cfg.weight_decay)

    def rate(self, step: int) -> float:
        """Share of the peak rate at `step` (from 0)."""
        return self._share(step)

    def feed(self, cursor: Cursor) -> Generator[tuple[Cursor, Portion]]:
        """Yield (cursor after the batch, what this rank is shown of it) from `cursor` on."""
        rank, world = self._company.rank, self._company.world
        return portions(self._blip, self._train, self._cfg, cursor, rank, world, self._order)

    def opening_rows(self) -> Sequence[Mapping[str, Any]]:
        """Counts of the sets, and the scores before."""
        return self._opening

    def is_examined(self, step: int) -> bool:
        """Whether the held-out images are looked at after `step` steps."""
        cfg = self._cfg
        return bool(self._val) and (step % cfg.val_every == 0 or step == cfg.steps)

    def examine(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """Loss on the first captions of held-out images, and what BLIP says of four. Collective."""
        self.show(weights)
        images = spread(self._val, self._cfg.val_images)
        parts = list(chunks(images, self._cfg.batch))
        losses = self._company.share(parts, self._loss_of, patiently=True)
        said: list[str] = []
        if self._company.rank == 0:
            shown = [image.read() for image in spread(self._val, _SHOWN)]
            said = open_writer(self._blip, self._cfg).caption(shown)
        return {"val_loss": sum(losses) / len(images), "val_captions": said}

    def show(self, weights: Mapping[str, Tensor]) -> None:
        """Give the BLIP that is looked at what its copy has learnt, by the copy's names."""
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
