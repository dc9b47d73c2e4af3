"""Contrastive fine-tuning of CLIP as a training task: its loss, and its validation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hpc.job.agreement import RankGroup
from sarhpc.captioning.captioners.clip import Clip, ClipScorer
from sarhpc.captioning.contrastive.batches import TileBatch, rank_batches
from sarhpc.captioning.contrastive.config import ClipTrainConfig
from sarhpc.captioning.contrastive.loss import (
    HIGHEST_SCALE,
    Directions,
    contrastive_loss,
    exchanged,
    in_place,
)
from sarhpc.captioning.contrastive.tiles import CaptionedTiles
from sarhpc.captioning.tuning.ranks import work_in_rounds
from sarhpc.captioning.tuning.schedule import adamw, warmup_cosine
from sarhpc.measures.text_alignment import clip_score, retrieved
from sarhpc.shards.loader import Cursor
from sarhpc.shards.subset import spread
from sarhpc.shards.transfer import to_device

_PREFIX, _SCALE = "model.", "log_scale"
_ROWS = 64
"""Tiles that a rank embeds between two agreements."""
AMONG = 10
"""Captions among which the own is searched where no judge says how many."""

Weights = Callable[[], Mapping[str, Tensor]]
"""Gathers full fp32 weights by name, averaged where an average is kept. Collective."""

Record = Callable[[int, Mapping[str, float]], None]
"""Publishes what was judged after a step, and its `score`, less being better; not collective."""


class Clock(Protocol):
    """Takes the time of the parts of a step."""

    def part(self, name: str) -> AbstractContextManager[None]:
        """Add the block's time to part `name`."""


class ClipTask:
    """The fine-tuning of a CLIP, as `sarhpc.training.task.TrainTask` describes one.

    A copy of the CLIP learns, so that held-out tiles can be embedded meanwhile.
    """

    name = "clip_train"
    remedy = (
        "resume with clip_train.on_nonfinite=skip or other limits in the run's config.yaml, or "
        "start a new run with a lower clip_train.lr or in fp32"
    )

    def __init__(
        self,
        clip: Clip,
        train: CaptionedTiles,
        val: CaptionedTiles,
        cfg: ClipTrainConfig,
        ranks: RankGroup,
        record: Record | None = None,
    ) -> None:
        """The fine-tuning of `clip`.

        Args:
            clip: on the device of this rank; unchanged until weights are loaded into it.
            train: tiles to learn from.
            val: tiles held out.
            cfg: the fine-tuning.
            ranks: this process among the others.
            record: called on rank 0 with each row of `cfg.judge`.
        """
        self.module: nn.Module = Directions(copy.deepcopy(clip.model))
        self.samples = len(train)
        self._clip, self._train, self._val = clip, train, val
        self._cfg, self._ranks, self._record = cfg, ranks, record
        self._scale = warmup_cosine(cfg.warmup_steps, cfg.steps)
        self._validated = 0
        """The last step that was validated."""
        self._validates = self.has_held_out

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW over the copy that learns."""
        return adamw(self.module.train(), self._cfg.lr, self._cfg.weight_decay)

    def started(self, rank: int) -> None:
        """Nothing: no part of a step is drawn."""
        return

    def rate_scale(self, update: int) -> float:
        """Factor on the peak rate at `update` (from 0)."""
        return self._scale(update)

    def feed(self, cursor: Cursor, step: int) -> Generator[tuple[Cursor, TileBatch]]:
        """Yield (cursor after the batch, this rank's tiles of it) from `cursor` on."""
        rank, world = self._ranks.rank, self._ranks.world
        return rank_batches(self._clip, self._train, self._cfg, cursor, rank, world)

    def losses(
        self, engine: Any, batch: TileBatch, clock: Clock
    ) -> Iterator[tuple[Tensor, Mapping[str, Tensor]]]:
        """Yield the loss of the global batch for each forward pass; see `contrastive.loss`."""
        world, passes = self._ranks.world, batch.passes
        known = None
        with clock.part("encode"):
            [names] = to_device([batch.names], self._ranks.device)
            names = exchanged(names, world)
            if len(passes) > 1:
                with torch.no_grad():
                    each = [engine(*inputs)[:2] for inputs in passes]
                known = [exchanged(torch.cat(rows), world) for rows in zip(*each, strict=True)]
        first = self._ranks.rank * len(batch.all_keys)
        for inputs in passes:
            with clock.part("forward"):
                *own, scale = engine(*inputs)
                whole = known or [exchanged(rows, world) for rows in own]
                parts = world * len(passes)
                rows = [in_place(o, first, w, parts) for o, w in zip(own, whole, strict=True)]
                loss, nearest = contrastive_loss(rows[0], rows[1], scale, names)
            first += len(inputs[0])
            yield loss, {"loss": loss, "batch_r1": nearest, "log_scale": scale.detach().mean()}

    def metrics(
        self, step: int, batch: TileBatch, rates: Mapping[str, float], seconds: float
    ) -> Mapping[str, Any]:
        """The rate, which is the same for all weights."""
        return {"lr": max(rates.values())} if rates else {}

    def opening_rows(self) -> Sequence[Mapping[str, Any]]:
        """Counts of the tiles, and what a step contrasts."""
        counts = {"train_tiles": len(self._train), "val_tiles": len(self._val)}
        return [{"event": "start", **counts, "global_batch": self._cfg.batch}]

    def is_validation_due(self, step: int) -> bool:
        """Whether the held-out tiles are embedded after `step` steps."""
        return self._has_validation(step) and step != self._validated

    def validate(self, step: int, weights: Weights) -> Iterator[Mapping[str, Any] | None]:
        """Yield how well captions of held-out tiles are found.

        With a judge its row is published before this one is yielded.
        """
        self.load(weights())
        found = yield from self.judged()
        judge = self._cfg.judge
        if judge is not None and self._ranks.rank == 0 and self._record is not None:
            epoch = step * self._cfg.batch // self.samples
            self._record(step, {"epoch": epoch, **found, "score": -found["val_r1"]})
        self._ranks.barrier()
        self._validated = step
        yield found

    def judged(self) -> Generator[None, None, dict[str, float]]:
        """How well the CLIP as it is finds captions of held-out tiles; yields where ranks may stop.

        `val_r1` is the share whose own caption is nearest of ten, of fewer where there are not as
        many different ones, `val_chance` what chance gives, `val_score` the CLIP score.
        """
        rows = spread(range(len(self._val)), self._cfg.val_tiles)
        parts = [rows[at : at + _ROWS] for at in range(0, len(rows), _ROWS)]
        scorer = ClipScorer(
            self._clip, name="", revision="", batch=_ROWS, threads=self._cfg.threads
        )

        def embed(part: Sequence[int]) -> list[list[list[float]]]:
            """Vectors of the pictures of these tiles, and of their texts."""
            tiles = [self._val[row] for row in part]
            images = scorer.see([tile.picture for tile in tiles])
            texts = scorer.read([tile.text for tile in tiles])
            return [images.tolist(), texts.tolist()]

        found = yield from work_in_rounds(self._ranks, parts, embed)
        images, texts = (
            np.array([row for part in found for row in part[side]], np.float32) for side in (0, 1)
        )
        captions = [self._val.caption(row) for row in rows]
        among = AMONG if self._cfg.judge is None else self._cfg.judge.among
        among = min(among, len(set(captions)))
        hits = retrieved(images, texts, captions, among, self._cfg.seed)
        return {
            "val_r1": float(hits.mean()),
            "val_chance": 1.0 / among,
            "val_score": float(clip_score(images, texts).mean()),
        }

    def replace_clip(self, clip: Clip) -> None:
        """Embed held-out tiles with `clip` from now on, as with weights that were published."""
        self._clip = clip

    @property
    def has_held_out(self) -> bool:
        """Whether there are held-out tiles with captions to search among."""
        rows = spread(range(len(self._val)), self._cfg.val_tiles)
        return len({self._val.caption(row) for row in rows}) > 1

    def needs_checkpoint(self, step: int) -> bool:
        """Whether a validation belongs to `step` and is judged."""
        return self._cfg.judge is not None and self._has_validation(step)

    def _has_validation(self, step: int) -> bool:
        due = step % self._cfg.val_every == 0 or step == self._cfg.steps
        return self._validates and step > 0 and due

    def facts(self) -> Mapping[str, Any]:
        """The caption that is learnt."""
        return {"text": self._cfg.text}

    def state(self) -> Mapping[str, Any]:
        """The step that was validated last."""
        return {"validated": self._validated}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self._validated = int(state["validated"])

    def finish(self, weights: Weights) -> None:
        """Load what was learnt into the CLIP."""
        self.load(weights())

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Load `weights`, named as in the copy that learns, into the CLIP."""
        state = {name.removeprefix(_PREFIX): tensor for name, tensor in weights.items()}
        scale = state.pop(_SCALE).reshape(()).clamp(max=HIGHEST_SCALE)
        # Buffers are not among them.
        self._clip.model.load_state_dict({**state, "logit_scale": scale}, strict=False)
        self._clip.model.eval()
