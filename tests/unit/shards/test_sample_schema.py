from __future__ import annotations

import numpy as np
import pytest

from hpc.errors import DataError
from sarhpc.shards.images import encode_array, encode_gray8, encode_rgb8
from sarhpc.shards.sample import SAMPLE_SCHEMA, Sample, encode_json
from sarhpc.shards.schema import validate_sample

KEY = "00000300001"
GENERATED = {
    "schema": SAMPLE_SCHEMA,
    "key": KEY,
    "synthetic": True,
    "prompt": "A SAR image of a river",
    "negative_prompt": "",
    "seed": 7,
    "steps": 20,
    "guidance": 7.5,
    "scheduler": "ddim",
    "batch": 4,
    "threads": 1,
    "model_sha": "ab",
    "config_fingerprint": "cd",
    "generator": "sarhpc 0.1.0",
    "pixel_m": 0.35,
    "range_direction": "+col",
}


def generated(**changes: object) -> Sample:
    members = {
        "sar.png": encode_gray8(np.zeros((8, 8), np.uint8)),
        "txt": b"A SAR image of a river",
        "meta.json": encode_json({**GENERATED, **changes}),
    }
    return Sample(KEY, members)


def test_a_tile_and_a_generated_sample_keep_the_schema(tile):
    for sample in (tile(3, 1), tile(3, 1, caption=None), generated()):
        assert validate_sample(sample) is None


@pytest.mark.parametrize("name", ["sar.png", "sar16.npy", "meta.json"])
def test_a_tile_needs_its_members(tile, name):
    sample = tile(3, 1)
    members = {key: data for key, data in sample.members.items() if key != name}
    with pytest.raises(DataError, match=f"no member {name}"):
        validate_sample(Sample(sample.key, members))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"enl": None}, "`enl` is None"),
        ({"enl": True}, "`enl` is True"),
        ({"window": [0, 0, 16]}, "`window`"),
        ({"affine": ["a"] * 6}, "`affine`"),
        ({"range_direction": "-col"}, "not one of"),
        ({"split": "training"}, "not one of"),
        ({"schema": "sarhpc.sample/0"}, "`schema`"),
        ({"key": "00000300002"}, "says key 00000300002"),
    ],
)
def test_wrong_metadata_is_named(tile, changes, words):
    sample = tile(3, 1)
    changed = sample.with_members(meta__json=encode_json({**sample.meta, **changes}))
    with pytest.raises(DataError, match=words):
        validate_sample(changed)


def test_every_key_of_the_metadata_is_required(tile):
    sample = tile(3, 1)
    for name in sample.meta:
        meta = {key: value for key, value in sample.meta.items() if key != name}
        with pytest.raises(DataError, match=f"lacks `{name}`"):
            validate_sample(sample.with_members(meta__json=encode_json(meta)))


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("sar16__npy", encode_array(np.zeros((16, 16), np.float32)), "dtype float32"),
        ("sar__npy", encode_array(np.zeros((16, 15), np.complex64)), "sar.npy is"),
        ("optic__png", encode_rgb8(np.zeros((8, 16, 3), np.uint8)), "optic.png is"),
        ("landcover__npy", encode_array(np.zeros((1, 16, 16), np.uint8)), "landcover.npy is"),
        ("txt", b"  ", "txt is empty"),
        ("txt", b"\xff\xfe", "txt is empty or no UTF-8"),
        ("meta__json", b"[1]", "no object"),
        ("meta__json", b"{", "no JSON"),
        ("sar__png", b"x", "sar.png"),
    ],
)
def test_wrong_members_are_named(tile, name, data, words):
    with pytest.raises(DataError, match=words):
        validate_sample(tile(3, 1).with_members(**{name: data}))


def test_keys_have_eleven_digits(tile):
    sample = tile(3, 1)
    with pytest.raises(DataError, match="eleven digits"):
        validate_sample(Sample("toulouse_1", sample.members))


@pytest.mark.parametrize("name", ["crs", "affine", "footprint"])
def test_a_generated_sample_may_not_invent_a_geolocation(name):
    with pytest.raises(DataError, match=f"geolocation `{name}`"):
        validate_sample(generated(**{name: None}))
