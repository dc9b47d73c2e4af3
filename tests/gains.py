"""What the tests of gains over seeds share: an archive with tiles held out, and the interval."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc.config import fingerprint, loads, to_yaml
from hpc.job.pipeline import run_stage
from hpc.store.rundir import RunDir, create_run
from sarhpc.shards.reader import read_member
from sarhpc.shards.samples import ShardedSamples
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.paths import model_folder
from sarhpc.stages.inputs.prompts import sample_shards
from sarhpc.stages.registry import stage_named

BASE = Path(model_folder("embedded:base"))
SEEDS = (0, 1, 2)
STUDENT = 4.303
"""97.5 % point of Student's distribution with two degrees of freedom: three seeds."""
TOKEN = "A SAR image of"

ARCHIVE = """
simulate: {seed: 77, scenes: 12, scenes_per_line: 2, size_px: 512}
tile:
  tile_px: 128
  stride_px: 64
  shard_samples: 32
  require_optical: true
  conditions: [edges]
  split: {fractions: [0.7, 0.3, 0.0]}
caption: {captioner: truth, template: {token: "A SAR image of"}}
cluster: {workers: 1, ranks: 1}
"""


@dataclass(frozen=True)
class Tiles:
    """Tiles of some shards, their captions beginning as they are told."""

    shards: tuple[Path, ...]
    begins: str = TOKEN

    def __len__(self) -> int:
        return len(ShardedSamples(self.shards))

    def key(self, number: int) -> str:
        return ShardedSamples(self.shards).key(number)

    def load(self, number: int, image_member: str) -> tuple[Any, str]:
        image, caption = ShardedSamples(self.shards).load(number, image_member)
        return image, caption.replace(TOKEN, self.begins)

    def grays(self, member: str = "sar.png") -> NDArray[np.uint8]:
        """A gray member of all tiles (N, H, W)."""
        images = [self.load(number, member)[0][..., 0] for number in range(len(self))]
        return np.rint((np.stack(images) + 1) * 127.5).astype(np.uint8)

    def scenes(self) -> list[str]:
        """Scene of each tile."""
        metas = (meta for path in self.shards for _, meta in read_member(path, "meta.json"))
        return [json.loads(meta)["scene_id"] for meta in metas]


def make_archive(root: Path, *words: str) -> RunDir:
    """Captioned tiles of twelve scenes, a third of them held out; `words` change the archive."""
    config = loads(RunConfig, ARCHIVE, [f"train.base_model={BASE}", *words])
    made = create_run(root, to_yaml(config), fingerprint(config))
    for name in ("simulate", "tile", "caption"):
        run_stage(made, stage_named(config, name))
    return made


def tiles(run: RunDir, split: str, begins: str = TOKEN) -> Tiles:
    return Tiles(tuple(sample_shards(run, [split])), begins)


def sure_gain(what: str, before: Sequence[float], after: Sequence[float]) -> float:
    """By how much `after` is below `before` over the seeds: the lower end of the 95 % interval."""
    gains = np.subtract(before, after)
    half = STUDENT * gains.std(ddof=1) / len(gains) ** 0.5
    print(
        f"| {what} | {np.mean(before):.4f} | {np.mean(after):.4f} | "
        f"{gains.mean():.4f} ({gains.mean() - half:.4f} to {gains.mean() + half:.4f}) |",
        flush=True,
    )
    return float(gains.mean() - half)
