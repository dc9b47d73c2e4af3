"""Which of the tiles that repeat each other stay, at any size, in any order, over splits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarhpc.tiling.duplicates import find_duplicates, fingerprints

SIDE = 0.002


def meta(key, *, digest=None, bits=0, split="train", at=(1.3, 43.0), pol="HH"):
    """A tile whose hash has the lowest `bits` set; `bits` None has no hash, `at` None no place."""
    footprint = None
    if at is not None:
        west, south = at
        ring = ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))
        footprint = [[west + SIDE * x, south + SIDE * y] for x, y in ring]
    return {
        "key": key, "split": split, "band": "X", "polarization": pol, "footprint": footprint,
        "content_digest": digest or f"{key:0>32}",
        "ground_hash": None if bits is None else f"{(1 << bits) - 1:016x}",
    }  # fmt: skip


def left_out(*metas):
    return {d.key: (d.of, d.why) for d in find_duplicates(fingerprints(metas))}


def test_an_exact_copy_goes_wherever_it_lies_and_whatever_it_is_called():
    assert left_out(
        meta("2", digest="aa", at=(1.3, 43)), meta("1", digest="aa", at=(-70, 10), pol="VV"),
        meta("3", digest="aa", at=None, bits=None), meta("4", at=None, bits=None),
    ) == {"2": ("1", "copy"), "3": ("1", "copy")}  # fmt: skip


@pytest.mark.parametrize(
    ("other", "goes"),
    [
        ({"bits": 10}, True),
        ({"bits": 11}, False),
        ({"bits": None}, False),
        ({"at": (1.3 + 0.4 * SIDE, 43.0)}, True),
        ({"at": (1.3 + 2 * SIDE, 43.0)}, False),
        ({"at": None}, False),
        ({"pol": "VV"}, False),
        ({"pol": "VV", "split": "val"}, True),
    ],
)
def test_the_same_ground_is_near_in_hash_and_on_the_earth(other, goes):
    assert bool(left_out(meta("1"), meta("2", **other))) is goes


def test_places_are_compared_over_the_antimeridian_and_hashes_without_places():
    one, other = meta("1", at=(179.9995, 0.0)), meta("2", at=(-180.0005, 0.0))
    assert left_out(one, other) == {"2": ("1", "ground")}
    assert left_out(meta("1", at=None), meta("2", at=None, bits=9)) == {"2": ("1", "ground")}


def test_held_out_tiles_stay_and_those_of_training_go():
    tiles = [meta("1"), meta("2", split="val", bits=3), meta("3", split="test", bits=5)]
    assert left_out(*tiles) == {"1": ("3", "ground"), "2": ("3", "ground")}
    # 1 is near 2 and 2 near 3, but 1 and 3 are not near each other: both stay.
    assert left_out(meta("1"), meta("2", bits=8), meta("3", bits=16)) == {"2": ("1", "ground")}


@st.composite
def flights(draw):
    count = draw(st.integers(2, 30))
    return [
        meta(
            f"{number:011d}",
            digest=f"{draw(st.integers(0, 12)):032x}",
            bits=draw(st.sampled_from([None, 0, 6, 12, 20, 40])),
            split=draw(st.sampled_from(["train", "val", "test"])),
            at=draw(st.sampled_from([None, (1.3, 43.0), (1.3 + 0.3 * SIDE, 43.0), (9.0, 50.0)])),
            pol=draw(st.sampled_from(["HH", "VV"])),
        )
        for number in range(count)
    ]


@settings(max_examples=60, deadline=None)
@given(flights(), st.randoms(use_true_random=False))
def test_what_stays_repeats_nothing_and_no_order_changes_it(metas, random):
    found = find_duplicates(fingerprints(metas))
    shuffled = list(metas)
    random.shuffle(shuffled)
    assert find_duplicates(fingerprints(shuffled)) == found
    gone = {d.key for d in found}
    assert not gone & {d.of for d in found}
    stays = [m for m in metas if m["key"] not in gone]
    assert find_duplicates(fingerprints(stays)) == []
    assert len({m["content_digest"] for m in stays}) == len(stays)


def test_copies_among_many_tiles_without_a_place_are_all_found():
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**64, 20_000, dtype=np.uint64)
    hashes[1::100] = hashes[::100] ^ np.uint64(0b1011)
    metas = (
        {**meta(f"{n:011d}", at=None), "ground_hash": f"{int(h):016x}",
         "content_digest": f"{n:032x}"}
        for n, h in enumerate(hashes)
    )  # fmt: skip
    found = find_duplicates(fingerprints(metas))
    assert {d.key for d in found} >= {f"{n:011d}" for n in range(1, 20_000, 100)}
    assert len(found) <= 200 + 15


def test_no_tiles_at_all_have_no_duplicates():
    assert find_duplicates(fingerprints([])) == []
    assert find_duplicates(fingerprints([meta("1")])) == []
