"""What a contrastive step sees of a tile: its mirror image, and a text that does not fit it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from clip_tiles import clip_training

from sarhpc.captioning.captioners.clip import Clip, load_clip
from sarhpc.captioning.contrastive.batches import TileBatch, rank_batches
from sarhpc.captioning.contrastive.loss import text_digests
from sarhpc.captioning.contrastive.tiles import CaptionedTiles
from sarhpc.shards.images import encode_gray8
from sarhpc.shards.loader import Cursor
from sarhpc.shards.sample import Sample, encode_json, sample_key
from sarhpc.shards.samples import ShardedSamples
from sarhpc.shards.writer import write_shard
from sarhpc.stages.inputs.paths import model_folder

UPPER = "a lake in the upper part and trees in the far range"
LOWER = "a lake in the lower part and trees in the far range"
NEAR = "a lake in the upper part and trees in the near range"
PLAIN = "a lake"


@pytest.fixture(scope="module")
def clip() -> Clip:
    return load_clip(Path(model_folder("embedded:clip")))


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> CaptionedTiles:
    """Eight tiles with water in their first rows, every other one of them with a place for it."""
    codes = np.full((64, 64), 200, np.uint8)
    codes[:16] = 10
    samples = [
        Sample(
            sample_key(0, number),
            {
                "sar.png": encode_gray8(codes),
                "txt": (UPPER if number % 2 else PLAIN).encode(),
                "meta.json": encode_json({"normalisation": {"mode": "mu+3sigma", "top": 1.0}}),
            },
        )
        for number in range(8)
    ]
    path = tmp_path_factory.mktemp("tiles") / "000000.tar"
    write_shard(path, samples)
    return CaptionedTiles(ShardedSamples([path]))


def steps(
    clip: Clip, tiles: CaptionedTiles, count: int, start: Cursor = Cursor(), world: int = 1,  # noqa: B008
    **changes: bool,
) -> Iterator[TileBatch]:  # fmt: skip
    cfg = clip_training(batch=4, micro_batch=None, **changes)
    sources = [rank_batches(clip, tiles, cfg, start, rank, world) for rank in range(world)]
    for _ in range(count):
        for source in sources:
            yield next(source)[1]
    for source in sources:
        source.close()


def test_each_tile_has_its_caption_with_a_relation_exchanged_in_turn(
    clip: Clip, tiles: CaptionedTiles
) -> None:
    plain, upper, lower, near = text_digests([PLAIN, UPPER, LOWER, NEAR]).tolist()
    for number, step in enumerate(steps(clip, tiles, 4, exchanged_relations=True)):
        [(pixels, ids, _)] = step.passes
        assert (len(pixels), len(ids), step.names.shape) == (4, 8, (4, 2))
        epoch = number // 2
        wrong = lower if epoch % 2 else near
        pairs = {tuple(pair) for pair in step.names.tolist()}
        assert pairs <= {(plain, plain), (upper, wrong)}


def test_a_flipped_tile_has_the_words_of_its_mirror_image(
    clip: Clip, tiles: CaptionedTiles
) -> None:
    upper, lower = text_digests([UPPER, LOWER]).tolist()
    seen = {upper: 0, lower: 0}
    for step in steps(clip, tiles, 8, azimuth_flip=True):
        [(pixels, _, _)] = step.passes
        for picture, [name] in zip(pixels, step.names.tolist(), strict=True):
            is_upper = bool(picture[0, :8].mean() < picture[0, -8:].mean())
            if name in seen:
                seen[name] += 1
                assert is_upper == (name == upper)
    assert min(seen.values()) >= 4


def test_ranks_and_restarts_see_the_tiles_of_one_rank(clip: Clip, tiles: CaptionedTiles) -> None:
    options = {"azimuth_flip": True, "exchanged_relations": True}
    alone = [step.names.tolist() for step in steps(clip, tiles, 4, Cursor(), 1, **options)]
    two = [step.names.tolist() for step in steps(clip, tiles, 4, Cursor(), 2, **options)]
    assert [two[n] + two[n + 1] for n in range(0, 8, 2)] == alone
    resumed = steps(clip, tiles, 2, Cursor(1, 0), 1, **options)
    assert [step.names.tolist() for step in resumed] == alone[2:]
