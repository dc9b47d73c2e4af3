"""E8 on the procedural archive, made by the stages, and on images of the model that saw no SAR."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gains import BASE, make_archive
from numpy.typing import NDArray

from hpc.store.rundir import RunDir
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.plan import ImageRequest
from sarhpc.measures.look_direction import look_direction, orientation
from sarhpc.shards.images import decode_gray8
from sarhpc.shards.reader import read_shard
from sarhpc.shards.sample import Sample
from sarhpc.stages.inputs.prompts import sample_shards

pytestmark = pytest.mark.long

ARCHIVE = (
    "simulate.seed=816",
    "simulate.scenes=48",
    "simulate.scenes_per_line=2",
    "simulate.optical=false",
    "tile.require_optical=false",
    "tile.tile_px=256",
    "tile.stride_px=256",
    "tile.conditions=[]",
    "tile.split.fractions=[0.9,0.1,0.0]",
)
"""24 flight lines, 173 tiles of 256 px."""
CLEAR_OF_SHADOW = "water"


def tiles_of(run: RunDir) -> list[Sample]:
    shards = sample_shards(run, ["train", "val"])
    return [sample for path in shards for sample in read_shard(path)]


def amplitudes(codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.maximum(codes, 0.5)


def optical_images(captions: list[str]) -> list[NDArray[np.float64]]:
    """Images of the embedded base, trained on optical views alone, in groups of eight."""
    from sarhpc.generation.model import load_pipeline
    from sarhpc.generation.sampler import sample_images

    cfg = GenerateConfig(steps=15, guidance=4.0, batch=8)
    pipeline = load_pipeline(BASE, cfg)
    images = []
    for first in range(0, len(captions), 8):
        asked = [ImageRequest(i, captions[i], 1000 + i) for i in range(first, first + 8)]
        made = sample_images(pipeline, asked, cfg, 8, threads=1).mean(axis=3)
        images += [amplitudes(np.round(255 * image).astype(np.uint8)) for image in made]
    return images


def test_simulated_scenes_show_it_and_the_optical_base_does_not(tmp_path: Path) -> None:
    samples = tiles_of(make_archive(tmp_path / "run", *ARCHIVE))
    tiles = [amplitudes(decode_gray8(sample.members["sar.png"])) for sample in samples]
    lines = [sample.meta["scene_id"].rsplit("-", 1)[0] for sample in samples]
    found = look_direction(tiles, lines)
    print(f"{len(tiles)} real tiles: {found.verdict}: {found.reason}")
    assert found.verdict == "shown"
    covers = np.array([sample.meta["truth"]["dominant"] or "mixed" for sample in samples])
    for cover in sorted(set(covers)):
        held = covers == cover
        print(f"{cover}: {found.correct[held].mean():.3f} of {held.sum()}")
    raised = found.correct[covers != CLEAR_OF_SHADOW]
    print(f"all but {CLEAR_OF_SHADOW}: {raised.mean():.3f} of {raised.size}")
    # Some 150 tiles: three standard errors, 3 sqrt(0.95 * 0.05 / 150), below 0.95.
    assert raised.mean() >= 0.95 - 0.054

    for what, those, verdict in (
        ("range flip", [tile[:, ::-1] for tile in tiles], "reversed"),
        ("azimuth flip", [tile[::-1] for tile in tiles], "as real"),
    ):
        judged = orientation(found, those, lines)
        print(f"{what}: {judged.verdict}: {judged.reason}")
        assert judged.verdict == verdict
    captions = [sample.caption or "" for sample in samples][::3][:48]
    judged = orientation(found, optical_images(captions))
    print(f"optical base: {judged.verdict}: {judged.reason}")
    assert judged.verdict != "as real"
