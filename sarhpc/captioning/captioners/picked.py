"""Drafts selected by CLIP: from given phrases, or from captions another model wrote."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sarhpc.captioning.captioners.captioner import Draft, Proposer, draft_seen
from sarhpc.captioning.captioners.clip import ClipScorer, Directions
from sarhpc.captioning.clean import degeneracy
from sarhpc.captioning.config import CaptionConfig, ClipConfig
from sarhpc.shards.sample import Sample

_DIGITS = 5
_SHOWN = 5
"""Phrases whose share a sample records."""

Rgb = NDArray[np.uint8]


class PhrasePicker:
    """Zero-shot captions: the phrases that fit the optical tile best, in the configured pattern."""

    def __init__(self, scorer: ClipScorer, cfg: ClipConfig) -> None:
        self.name, self.revision = scorer.name, scorer.revision
        self._scorer, self._cfg = scorer, cfg
        self._directions = phrase_directions(scorer, cfg)

    def draft(self, samples: Sequence[Sample]) -> list[Draft]:
        """A caption per sample with the shares of its best phrases; `no_optical` without an image.

        Where no phrase reaches `min_share` the text is empty.

        Raises:
            DataError: an optical image cannot be decoded.
        """
        return draft_seen(samples, self._drafts)

    def _drafts(self, images: list[Rgb], keys: list[str]) -> list[Draft]:
        similar = (self._scorer.see(images) @ self._directions.T).astype(np.float64)
        return [self._draft(row) for row in similar * self._scorer.scale]

    def _draft(self, logits: NDArray[np.float64]) -> Draft:
        raised = np.exp(logits - logits.max())
        shares = raised / raised.sum()
        best = sorted(range(len(shares)), key=lambda n: (-shares[n], n))
        scores = tuple((self._cfg.phrases[n], round(float(shares[n]), _DIGITS)) for n in best)
        kept = [text for text, share in scores[: self._cfg.keep] if share >= self._cfg.min_share]
        text = self._cfg.pattern.replace("{phrases}", joined(kept)) if kept else ""
        return Draft(text, scores=scores[:_SHOWN])


def phrase_directions(scorer: ClipScorer, cfg: ClipConfig) -> Directions:
    """Unit vectors (P, D) of the phrases: the mean direction of each over all prompts."""
    texts = [prompt.replace("{phrase}", phrase) for phrase in cfg.phrases for prompt in cfg.prompts]
    directions = scorer.read(texts).reshape(len(cfg.phrases), len(cfg.prompts), -1).mean(axis=1)
    return np.asarray(directions / np.linalg.norm(directions, axis=1, keepdims=True), np.float32)


def joined(phrases: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *most, last = phrases
    return f"{', '.join(most)} and {last}" if most else last


class Reranker:
    """Selects, of several captions for each tile, the one most similar to the image by CLIP."""

    def __init__(self, proposer: Proposer, scorer: ClipScorer, cfg: CaptionConfig) -> None:
        assert cfg.clip is not None
        self.name = f"{proposer.name}+{scorer.name}"
        self.revision = f"{proposer.revision}+{scorer.revision}"
        self._proposer, self._scorer, self._cfg = proposer, scorer, cfg
        self._count = cfg.clip.candidates

    def draft(self, samples: Sequence[Sample]) -> list[Draft]:
        """The best caption per sample with the similarity of each; `no_optical` without an image.

        A degenerate caption is only taken where all are.

        Raises:
            DataError: an optical image cannot be decoded.
        """
        return draft_seen(samples, self._drafts)

    def _drafts(self, images: list[Rgb], keys: list[str]) -> list[Draft]:
        proposed = self._proposer.propose(images, keys, self._count)
        texts = list(dict.fromkeys(text for some in proposed for text in some))
        directions = dict(zip(texts, self._scorer.read(texts), strict=True))
        return [
            self._best([(text, round(float(seen @ directions[text]), _DIGITS)) for text in some])
            for seen, some in zip(self._scorer.see(images), proposed, strict=True)
        ]

    def _best(self, scored: list[tuple[str, float]]) -> Draft:
        ranked = sorted(scored, key=lambda pair: -pair[1])
        fit = [text for text, _ in ranked if not self._degenerate(text)]
        return Draft((fit or [ranked[0][0]])[0], scores=tuple(ranked))

    def _degenerate(self, text: str) -> bool:
        return degeneracy(text, self._cfg.min_words, self._cfg.max_repeats) is not None
