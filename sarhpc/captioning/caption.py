"""The work of the caption stage: samples in, the same samples with texts out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from sarhpc.captioning.captioners.captioner import (
    NO_OPTICAL,
    Captioner,
    Draft,
    Drafter,
    OpticalDrafter,
)
from sarhpc.captioning.checks import check_policies
from sarhpc.captioning.clean import degeneracy
from sarhpc.captioning.config import CaptionConfig
from sarhpc.captioning.template import check_template, compose, template_record
from sarhpc.shards.sample import Sample, encode_json


@dataclass(frozen=True)
class CaptionedShard:
    """Samples with captions, and the counts by reason that fill up while they are iterated."""

    samples: Iterator[Sample]
    rejected: dict[str, int] = field(default_factory=dict)
    """Samples left out."""
    replaced: dict[str, int] = field(default_factory=dict)
    """Samples kept with the fallback caption."""


def caption_samples(
    samples: Iterable[Sample], captioner: Captioner | Drafter, cfg: CaptionConfig
) -> CaptionedShard:
    """`samples` in their order, each with `txt` and its captions in `meta.json`.

    Other members stay byte for byte; captions a sample already has are replaced. No more than
    `cfg.batch` samples are held at a time. Reasons: `no_optical`, `no_truth`, `caption_empty`,
    `caption_short`, `caption_loop`.

    Raises:
        ConfigError: a policy or the template is not valid.
    """
    check_policies(cfg)
    check_template(cfg.template)
    drafter = captioner if isinstance(captioner, Drafter) else OpticalDrafter(captioner)
    shard = CaptionedShard(iter(()))
    return replace(shard, samples=_captioned(samples, drafter, cfg, shard))


def _captioned(
    samples: Iterable[Sample], drafter: Drafter, cfg: CaptionConfig, counts: CaptionedShard
) -> Iterator[Sample]:
    stream = iter(samples)
    while batch := list(itertools.islice(stream, cfg.batch)):
        for sample, draft in zip(batch, drafter.draft(batch), strict=True):
            reason = draft.reason or degeneracy(draft.text, cfg.min_words, cfg.max_repeats)
            if reason is None:
                yield _with_caption(sample, draft, drafter, cfg)
                continue
            policy = cfg.missing_optical if reason == NO_OPTICAL else cfg.degenerate
            counted = counts.replaced if policy == "fallback" else counts.rejected
            counted[reason] = counted.get(reason, 0) + 1
            if policy == "fallback":
                fallback = Draft(cfg.fallback, reason=reason)
                yield _with_caption(sample, fallback, drafter, cfg, said=draft.text)


def _with_caption(
    sample: Sample, draft: Draft, drafter: Drafter, cfg: CaptionConfig, said: str | None = None
) -> Sample:
    meta = sample.meta
    captions = compose(draft, meta, cfg.template)
    for name in ("caption_fallback", "caption_scores"):
        meta.pop(name, None)
    meta |= {
        "caption": captions.variants,
        "caption_raw": draft.text if said is None else said,
        "caption_model": drafter.name,
        "caption_revision": drafter.revision,
        "caption_template": template_record(cfg.template),
    }
    if draft.reason is not None:
        meta["caption_fallback"] = draft.reason
    if draft.scores:
        meta["caption_scores"] = [{"text": text, "score": score} for text, score in draft.scores]
    return sample.with_members(txt=captions.text.encode(), meta__json=encode_json(meta))
