from __future__ import annotations

import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hpc.errors import DataError
from sarhpc.shards.images import decode_gray8, decode_rgb8, encode_gray8
from sarhpc.shards.sample import Sample, encode_json
from sarhpc.shards.samples import ShardedSamples, find_shards
from sarhpc.shards.writer import write_shard

SIZES = (3, 0, 1, 4)


@pytest.fixture
def shards(tmp_path, tile):
    for shard, count in enumerate(SIZES):
        write_shard(tmp_path / "train" / f"{shard:06d}.tar", [tile(shard, i) for i in range(count)])
    return find_shards(tmp_path, "train")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def keys_read_here(samples: ShardedSamples) -> list[str]:
    return [samples[number].key for number in range(len(samples))]


def test_samples_are_numbered_over_shards_in_order(shards, tile):
    samples = ShardedSamples(shards)
    expected = [tile(shard, i) for shard, count in enumerate(SIZES) for i in range(count)]
    assert len(samples) == 8
    assert [samples[number] for number in range(8)] == expected
    assert [samples.key(number) for number in range(8)] == [sample.key for sample in expected]
    with pytest.raises(IndexError):
        samples[8]


def test_an_image_is_loaded_in_minus_one_to_one_with_its_caption(shards, tile):
    samples = ShardedSamples(shards)
    image, caption = samples.load(1)
    gray = decode_gray8(tile(0, 1).members["sar.png"])
    assert image.shape == (16, 16, 3)
    assert image.dtype == np.float32
    assert caption == "a field"
    np.testing.assert_array_equal(np.round((image + 1) * 127.5), np.repeat(gray[:, :, None], 3, 2))
    optic, _ = samples.load(1, "optic.png")
    colour = decode_rgb8(tile(0, 1).members["optic.png"])
    np.testing.assert_array_equal(np.round((optic + 1) * 127.5), colour)


def test_black_and_white_are_exactly_the_ends(tmp_path):
    ends = encode_gray8(np.array([[0, 255]], np.uint8))
    write_shard(tmp_path / "a.tar", [Sample("1", {"sar.png": ends, "txt": b"x"})])
    image, _ = ShardedSamples([tmp_path / "a.tar"]).load(0)
    assert image[0, :, 0].tolist() == [-1.0, 1.0]


def test_captions_of_public_sets_come_from_the_metadata(tmp_path):
    members = {
        "sar.png": encode_gray8(np.zeros((4, 4), np.uint8)),
        "meta.json": encode_json({"city": "Oslo", "caption": {"SHORT": "a port", "MID": ""}}),
    }
    write_shard(tmp_path / "a.tar", [Sample("oslo_1", members)])
    samples = ShardedSamples([tmp_path / "a.tar"])
    assert samples.load(0, caption="SHORT")[1] == "a port"
    with pytest.raises(DataError, match="no MID caption"):
        samples.load(0, caption="MID")


def test_a_sample_without_caption_says_what_to_do(tmp_path, tile):
    write_shard(tmp_path / "a.tar", [tile(0, 0, caption=None)])
    samples = ShardedSamples([tmp_path / "a.tar"])
    with pytest.raises(DataError, match="Caption the shards first"):
        samples.load(0)
    with pytest.raises(DataError, match=r"no member sar\.npy"):
        samples.load(0, "sar.npy")


def test_no_more_files_than_asked_are_kept_open(shards):
    samples = ShardedSamples(shards, handles=2)
    before = open_files()
    for number in [0, 3, 4, 0, 3, 4]:
        samples[number]
    assert open_files() - before == 2


def test_threads_with_a_single_handle_read_the_right_bytes(shards, tile):
    samples = ShardedSamples(shards, handles=1)
    expected = keys_read_here(samples)
    numbers = list(range(8)) * 50
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda number: samples[number], numbers))
    assert [sample.key for sample in read] == [expected[number] for number in numbers]
    assert read[0] == tile(0, 0)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_other_processes_read_the_same(shards, start):
    samples = ShardedSamples(shards)
    samples[0]
    with multiprocessing.get_context(start).Pool(2) as pool:
        for keys in pool.map(keys_read_here, [samples, samples]):
            assert keys == keys_read_here(samples)


def test_a_copy_carries_no_open_file(shards):
    samples = ShardedSamples(shards)
    samples[0]
    before = open_files()
    copy = pickle.loads(pickle.dumps(samples))
    assert open_files() == before
    assert copy[0] == samples[0]


def test_a_shard_that_shrank_after_indexing_is_an_error(shards):
    samples = ShardedSamples(shards)
    os.truncate(shards[0], 600)
    with pytest.raises(DataError, match="lost bytes"):
        samples[2]


def test_a_split_without_shards_is_an_error(tmp_path):
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / ".000001.tar.host.1.0.tmp").touch()
    with pytest.raises(DataError, match="no shards in"):
        find_shards(tmp_path, "val")
