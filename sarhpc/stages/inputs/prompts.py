"""Prompts from what the run knows: the captions of its held-out tiles, and their classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.store.rundir import RunDir
from sarhpc.stages.work.sharded import sealed_records

TRAIN_SPLITS = ["train"]
"""What is learnt from; the others are held out."""


@dataclass(frozen=True)
class KnownPrompt:
    """The caption of a real tile, without activation phrase, and the class its truth names."""

    key: str
    caption: str
    land_cover: str | None
    """water, forest, field or town; None where no truth is known or nothing dominates."""


def held_out_splits(run: RunDir, wanted: Sequence[str]) -> list[str]:
    """The wanted splits that have samples, or `train` where none of them does."""
    filled = {r.detail["split"] for r in sealed_records(run, "caption") if r.samples}
    return [split for split in wanted if split in filled] or ["train"]


def sample_shards(run: RunDir, splits: Sequence[str]) -> list[Path]:
    """Captioned shards of these splits, in shard order, without empty ones."""
    records = sealed_records(run, "caption")
    return [Path(r.path) for r in records if r.samples and r.detail["split"] in splits]


def known_prompts(run: RunDir, splits: Sequence[str]) -> Iterator[KnownPrompt]:
    """Captions of the samples of these splits, sample by sample."""
    from sarhpc.shards.reader import read_shard

    for path in sample_shards(run, splits):
        for sample in read_shard(path):
            yield KnownPrompt(sample.key, sample.meta["caption"]["SHORT"], land_cover(sample.meta))


def land_cover(meta: dict[str, Any]) -> str | None:
    """Dominant class of a tile by its truth, or None."""
    from sarhpc.archive.procedural.truth.captions import dominant_class

    truth = meta.get("truth")
    fractions = truth.get("class_fractions") if isinstance(truth, dict) else None
    if not isinstance(fractions, dict):
        return None
    return dominant_class({k: v for k, v in fractions.items() if isinstance(v, int | float)})


def asked_class(meta: Mapping[str, Any]) -> str | None:
    """Land cover that a generated image was asked to show, by the label `class` of its row."""
    from sarhpc.generation.prompts.grammar import land_cover_of

    labels = meta.get("labels")
    name = labels.get("class") if isinstance(labels, Mapping) else None
    return land_cover_of(name) if isinstance(name, str) else None


def evenly_by_class(prompts: Sequence[KnownPrompt]) -> list[KnownPrompt]:
    """The prompts in turn over the classes, so that any part of them is balanced.

    A class with fewer captions than the largest begins again with its first. Prompts without a
    class come last, each once.
    """
    distinct = {prompt.caption: prompt for prompt in reversed(prompts)}
    groups: dict[str, list[KnownPrompt]] = {}
    for prompt in sorted(distinct.values(), key=lambda p: p.key):
        groups.setdefault(prompt.land_cover or "", []).append(prompt)
    rest = groups.pop("", [])
    queues = [groups[name] for name in sorted(groups)]
    longest = max((len(queue) for queue in queues), default=0)
    balanced = [queue[i % len(queue)] for i in range(longest) for queue in queues]
    return balanced + rest
