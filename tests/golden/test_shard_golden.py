"""The shard format, frozen: bytes that an earlier version wrote, and what must be read from them.

`shards/000007.tar` holds a tile with every member of the schema and one with the required members
only; `shards/000008.tar` a generated sample from before contracts, `shards/000009.tar` one of a
model with a contract and one of a model without. If one of these tests fails, shards that people
already have are no longer read, or the same samples no longer give the same bytes. Then either the
change is wrong, or the schema moves: raise the number in `SAMPLE_SCHEMA`, keep these files and the
reading of them, add new files beside them under the new number, and say so in CHANGELOG.md.

The image bytes are frozen through their pixels: a deflate library is free to compress differently.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from shard_checks import validate_shard

from sarhpc.shards.images import (
    decode_array,
    decode_gray8,
    decode_rgb8,
    encode_array,
)
from sarhpc.shards.radiometry import master_amplitude
from sarhpc.shards.reader import read_shard
from sarhpc.shards.sample import SAMPLE_SCHEMA, Sample, encode_json
from sarhpc.shards.writer import write_shard

GOLDEN = Path(__file__).parent / "shards"
SHA256 = {
    "000007.tar": "de30148160893320e8c4d5896d76a04f5e2fc805233ef1b34e041292d84dd448",
    "000008.tar": "6ce483126db1b8b1b751e61a69f7ae4d90e734924573935607e2f75928cf5ebe",
    "000009.tar": "b02f4a92380ddeb190739c06f1c6c26aa8951314fd1b293dec60c760937fc0f5",
}


def ramp(size: int) -> np.ndarray:
    """Pixel (row, col) is (8 row + col) mod 256, (H, W) uint8."""
    row, col = np.indices((size, size))
    return ((8 * row + col) % 256).astype(np.uint8)


def complex_ramp(size: int) -> np.ndarray:
    """Pixel (row, col) is row - col i, (H, W) complex64."""
    row, col = np.indices((size, size))
    return (row - 1j * col).astype(np.complex64)


def golden(shard: str) -> list[Sample]:
    return list(read_shard(GOLDEN / shard))


def test_the_schema_version_is_the_one_frozen_here():
    assert SAMPLE_SCHEMA == "sarhpc.sample/1"


@pytest.mark.parametrize("shard", SHA256)
def test_the_golden_shards_are_untouched_and_valid(shard):
    data = (GOLDEN / shard).read_bytes()
    assert hashlib.sha256(data).hexdigest() == SHA256[shard]
    assert validate_shard(GOLDEN / shard) == len(golden(shard))


@pytest.mark.parametrize("shard", SHA256)
def test_the_writer_still_writes_these_bytes(shard, tmp_path):
    summary = write_shard(tmp_path / shard, golden(shard))
    assert (tmp_path / shard).read_bytes() == (GOLDEN / shard).read_bytes()
    assert summary.sha256 == SHA256[shard]


@pytest.mark.parametrize("shard", SHA256)
def test_plain_tarfile_and_webdataset_read_them(shard):
    samples = golden(shard)
    with tarfile.open(GOLDEN / shard) as tar:
        assert len(tar.getnames()) == sum(len(sample.members) for sample in samples)
    plain = list(webdataset.WebDataset(str(GOLDEN / shard), shardshuffle=False))
    assert [record["__key__"] for record in plain] == [sample.key for sample in samples]
    assert plain[0]["sar.png"] == samples[0].members["sar.png"]


def test_the_members_of_a_tile_are_read_as_they_were_meant():
    full, least = golden("000007.tar")
    assert (full.key, least.key) == ("00000700000", "00000700002")
    assert sorted(full.members) == [
        "landcover.npy",
        "meta.json",
        "optic.png",
        "sar.npy",
        "sar.png",
        "sar16.npy",
        "txt",
    ]
    assert sorted(least.members) == ["meta.json", "sar.png", "sar16.npy"]
    np.testing.assert_array_equal(decode_gray8(full.members["sar.png"]), ramp(32))
    master = decode_array(full.members["sar16.npy"])
    assert master.dtype == np.uint16
    np.testing.assert_array_equal(master, ramp(32).astype(np.uint16) * 257)
    np.testing.assert_array_equal(decode_array(full.members["sar.npy"]), complex_ramp(32))
    optic = decode_rgb8(full.members["optic.png"])
    np.testing.assert_array_equal(optic, np.stack([ramp(32), ramp(32)[::-1], ramp(32).T], axis=-1))
    label, valid = decode_array(full.members["landcover.npy"])
    assert set(np.unique(label)) == set(range(9))
    assert valid.min() == 1
    assert full.caption == "A SAR image of a river between two fields"
    assert least.caption is None


@pytest.mark.parametrize(
    ("shard", "name"),
    [
        ("000007.tar", "tile"),
        ("000008.tar", "generated_before_contracts"),
        ("000009.tar", "generated"),
    ],
)
def test_the_metadata_is_the_frozen_json(shard, name):
    frozen = json.loads((GOLDEN / f"{name}.meta.json").read_text())
    sample = golden(shard)[0]
    assert sample.meta == frozen
    assert encode_json(frozen) == sample.members["meta.json"]


def test_arrays_are_still_encoded_to_these_bytes():
    full = golden("000007.tar")[0]
    assert encode_array(ramp(32).astype(np.uint16) * 257) == full.members["sar16.npy"]
    assert encode_array(complex_ramp(32)) == full.members["sar.npy"]


def test_the_master_of_a_generated_image_is_read_as_it_was_meant():
    known, unknown = golden("000009.tar")
    levels = np.arange(1024).reshape(32, 32) / 1023
    codes = decode_array(known.members["sar16.npy"])
    np.testing.assert_allclose(codes, levels * 65535, atol=0.51)
    np.testing.assert_array_equal(decode_gray8(known.members["sar.png"]), np.round(levels * 255))
    amplitude = master_amplitude(codes, known.meta)
    np.testing.assert_allclose(20 * np.log10(amplitude), -35 + 55.5 * levels, atol=0.001)
    assert "sar16.npy" not in unknown.members
    assert (unknown.meta["pixel_m"], unknown.meta["range_direction"]) == (None, None)
