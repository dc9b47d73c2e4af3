"""Runs with a gate that looks for images of another class."""

from __future__ import annotations

from pathlib import Path

from gated_runs import image_run

from hpc.store.rundir import RunDir
from sarhpc.evaluation.text_config import LAND_COVER
from sarhpc.shards.reader import read_shard
from sarhpc.shards.sample import Sample

CLASSES = tuple(LAND_COVER)
PROMPTS = {"water": "a lake", "forest": "a forest", "field": "a field", "town": "a town"}
IMAGES = ("generate.images=32", "generate.shard_samples=16")


def gated(root: Path, model: Path, tiles: Path, other_class: str, *words: str) -> RunDir:
    gate = f"{{false_rejects: 0.08, redraws: 1, shards: {tiles}, other_class: {other_class}}}"
    prompts = f"generate.prompts=[{', '.join(PROMPTS.values())}]"
    return image_run(root, model, prompts, f"generate.gate={gate}", *IMAGES, *words)


def by_clip(captioned: Path, model: str = "embedded:clip", more: str = "") -> str:
    return f"{{model: '{model}', shards: {captioned}{more}}}"


def samples_of(folder: Path) -> dict[str, Sample]:
    return {s.key: s for path in sorted(folder.glob("*.tar")) for s in read_shard(path)}
