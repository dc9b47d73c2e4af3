"""Real tiles to judge by come from all scenes, whatever the order of the shards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from sarhpc.shards.images import encode_gray8
from sarhpc.shards.reader import read_shard
from sarhpc.shards.sample import Sample
from sarhpc.shards.writer import write_shard
from sarhpc.stages.inputs.real_tiles import even_samples, even_tiles


def shard(path: Path, scenes: str) -> Path:
    """A shard with a tile of the gray level of its scene for each letter; `-` names no scene."""
    samples = []
    for number, scene in enumerate(scenes):
        meta = {} if scene == "-" else {"scene_id": scene}
        image = np.full((8, 8), ord(scene), np.uint8)
        members = {"sar.png": encode_gray8(image), "meta.json": json.dumps(meta).encode()}
        samples.append(Sample(f"{path.stem}{number:06d}", members))
    write_shard(path, samples)
    return path


def test_tiles_are_drawn_evenly_over_the_scenes_of_all_shards(tmp_path: Path) -> None:
    shards = [shard(tmp_path / "a.tar", "p" * 40), shard(tmp_path / "b.tar", "p" * 10 + "qqqqqrr")]
    tiles, scenes = even_tiles(shards, 12)
    assert tiles.shape == (12, 8, 8)
    assert [scenes.count(scene) for scene in "pqr"] == [5, 5, 2]
    assert [chr(tile[0, 0]) for tile in tiles] == scenes, "each tile stands with its own scene"
    every, scenes = even_tiles(shards, 1000)
    assert (len(every), scenes.count("p")) == (57, 50)


def test_tiles_that_name_no_scene_count_as_of_one(tmp_path: Path) -> None:
    _, scenes = even_tiles([shard(tmp_path / "a.tar", "-----pp")], 4)
    assert (scenes.count(""), scenes.count("p")) == (2, 2)


def test_tiles_of_one_flight_line_are_of_one_group_whatever_their_scenes(tmp_path: Path) -> None:
    samples = []
    for number in range(12):
        meta = {"scene_id": f"s{number}"} | ({"flight_line": "a"} if number < 10 else {})
        members = {
            "sar.png": encode_gray8(np.full((8, 8), number, np.uint8)),
            "meta.json": json.dumps(meta).encode(),
        }
        samples.append(Sample(f"{number:011d}", members))
    write_shard(tmp_path / "a.tar", samples)
    _, groups = even_tiles([tmp_path / "a.tar"], 3)
    assert groups == ["a", "s10", "s11"]


def test_samples_come_whole_and_in_the_order_of_the_shards(tmp_path: Path) -> None:
    shards = [shard(tmp_path / "a.tar", "pppq"), shard(tmp_path / "b.tar", "qr")]
    whole = [sample for path in shards for sample in read_shard(path)]
    assert even_samples(shards, 6) == whole
    assert even_samples(shards, 100) == whole
    keys = [sample.key for sample in even_samples(shards, 3)]
    assert keys == sorted(keys)
    assert even_samples([], 3) == []
