"""Embeddings of the prompts of a shard: each is encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sarhpc.diffusion.conditioning import tokens_cut
from sarhpc.generation.model import Pipeline, first_text_encoder

MOST_KEPT = 256
"""Prompts that are kept: at most 160 MB with SDXL in float32, 60 MB with SD 1.5."""


@dataclass(frozen=True)
class TextEmbedding:
    """A prompt as the model takes it."""

    hidden: Tensor
    """States of its tokens (L, D)."""
    pooled: Tensor | None
    """State of the whole (D,), of models that take one."""
    cut: int
    """Tokens that were truncated."""


class TextEmbeddings:
    """The prompts that were encoded last, on the device of the pipeline.

    They are encoded in batches of the plan's size, whatever is asked for, as its images are: the
    bits of an embedding depend on that size only.
    """

    def __init__(self, pipeline: Pipeline, batch: int) -> None:
        """Encode by `pipeline`, `batch` prompts at a time."""
        self._pipeline, self._batch = pipeline, batch
        self._kept: dict[str, TextEmbedding] = {}

    def of(self, prompts: Sequence[str]) -> list[TextEmbedding]:
        """The embedding of each prompt; called where threads and arithmetic are pinned."""
        asked = dict.fromkeys(prompts)
        new = [prompt for prompt in asked if prompt not in self._kept]
        for first in range(0, len(new), self._batch):
            self._kept |= self._encoded(new[first : first + self._batch])
        found = [self._kept[prompt] for prompt in prompts]
        for prompt in asked:
            self._kept[prompt] = self._kept.pop(prompt)
        for oldest in list(self._kept)[: -max(MOST_KEPT, len(asked))]:
            del self._kept[oldest]
        return found

    @torch.no_grad()
    def _encoded(self, prompts: Sequence[str]) -> dict[str, TextEmbedding]:
        padded = [*prompts] + [prompts[-1]] * (self._batch - len(prompts))
        hidden, _, *rest = self._pipeline.encode_prompt(
            prompt=padded,
            device=self._pipeline.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        pooled = rest[0] if rest else [None] * len(padded)
        cut = tokens_cut(first_text_encoder(self._pipeline)[0], prompts)
        rows = zip(prompts, hidden, pooled, cut, strict=False)
        # Copies: a row is a view that would keep its whole batch.
        return {
            prompt: TextEmbedding(row.clone(), None if whole is None else whole.clone(), tokens)
            for prompt, row, whole, tokens in rows
        }


def embedding_arguments(
    prompts: Sequence[TextEmbedding], negatives: Sequence[TextEmbedding]
) -> dict[str, Any]:
    """Arguments of a pipeline for a batch; without guidance there are no negatives."""
    found: dict[str, Any] = {}
    for prefix, rows in (("", prompts), ("negative_", negatives)):
        if not rows:
            continue
        found[f"{prefix}prompt_embeds"] = torch.stack([row.hidden for row in rows])
        pooled = [row.pooled for row in rows if row.pooled is not None]
        if pooled:
            found[f"{prefix}pooled_prompt_embeds"] = torch.stack(pooled)
    return found
