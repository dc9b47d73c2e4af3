"""Duplicate tiles to leave out: exact copies, and repeated acquisitions of the same ground.

Of each group of duplicates one tile is kept, and no two kept tiles are duplicates: no tile of
`train` is a copy of a held-out one. Held-out tiles take precedence (test, val, train), then lower
keys; the order in which tiles are read does not matter.

Tiles show the same ground if they cover half of each other on the Earth and their ground hashes are
near. Tiles without a position are compared by their hashes alone, all with all. Another band or
polarisation of the same ground is another image and is kept, unless it lies in another split.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sarhpc.tiling.fingerprints import NEAR_BITS

COPY, GROUND = "copy", "ground"

_HELD_OUT_FIRST = {"test": 0, "val": 1, "train": 2}

FINGERPRINT = np.dtype(
    [
        ("split", "u1"),
        ("key", "S16"),
        ("digest", "S32"),
        ("ground", "u8"),
        ("has_ground", "?"),
        ("channel", "S16"),
        ("centre", "f8", (3,)),
        ("half_side", "f8"),
    ]
)
"""Fingerprint of one tile, 125 bytes: `centre` on the unit sphere, `half_side` in the same unit and
NaN where the tile has no position."""


@dataclass(frozen=True)
class Duplicate:
    """A tile to leave out."""

    key: str
    of: str
    """Key of the tile that is kept."""
    why: str
    """`copy` (the same pixels) or `ground` (the same ground under other speckle)."""
    bits: int = 0
    """Bits in which the ground hashes differ."""


def fingerprints(metas: Iterable[Mapping[str, Any]]) -> NDArray[np.void]:
    """Fingerprints (N,) of tiles, from `meta.json` values with `content_digest`, `ground_hash`."""
    return np.array([_fingerprint(meta) for meta in metas], FINGERPRINT)


def _fingerprint(meta: Mapping[str, Any]) -> tuple[Any, ...]:
    centre, half_side = _place(meta.get("footprint"))
    ground = meta["ground_hash"]
    return (
        _HELD_OUT_FIRST.get(meta["split"], len(_HELD_OUT_FIRST)),
        meta["key"],
        meta["content_digest"],
        0 if ground is None else int(ground, 16),
        ground is not None,
        f"{meta.get('band')} {meta.get('polarization')}",
        centre,
        half_side,
    )


def _place(footprint: Any) -> tuple[tuple[float, float, float], float]:
    """Centre on the unit sphere, and half the side of a square tile of this outline."""
    if not footprint:
        return (0.0, 0.0, 0.0), float("nan")
    lon, lat = np.radians(np.array(footprint, np.float64)[:-1]).T
    points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    middle = points.mean(axis=0)
    x, y, z = middle / np.linalg.norm(middle)
    half_diagonal = np.linalg.norm(points - (x, y, z), axis=1).max()
    return (float(x), float(y), float(z)), float(half_diagonal / np.sqrt(2))


def find_duplicates(tiles: NDArray[np.void], near_bits: int = NEAR_BITS) -> list[Duplicate]:
    """The tiles to leave out, by key; `tiles` are `fingerprints` in any order.

    Args:
        tiles: fingerprints (N,), keys unique.
        near_bits: differing bits up to which two hashes count as the same ground.
    """
    tiles = np.sort(tiles, order=["split", "key"])
    first = _first_of_copies(tiles["digest"])
    stays = np.flatnonzero(first == np.arange(len(tiles)))
    with_ground = stays[tiles["has_ground"][stays]]
    repeats = {
        int(with_ground[later]): int(with_ground[earlier])
        for later, earlier in _repeats(tiles[with_ground], near_bits).items()
    }
    found = [_duplicate(tiles, later, earlier, GROUND) for later, earlier in repeats.items()]
    for copy in np.flatnonzero(first != np.arange(len(tiles))).tolist():
        of = int(first[copy])
        # Where the first copy is left out too, all of them repeat the ground of the tile kept.
        why = GROUND if of in repeats else COPY
        found.append(_duplicate(tiles, copy, repeats.get(of, of), why))
    return sorted(found, key=lambda duplicate: duplicate.key)


def _first_of_copies(digests: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """For each tile (N,) the index of the first with the same digest."""
    _, first, group = np.unique(digests, return_index=True, return_inverse=True)
    return np.asarray(first[group], np.int64)


def _duplicate(tiles: NDArray[np.void], index: int, of: int, why: str) -> Duplicate:
    one, other = tiles[index], tiles[of]
    bits = int(one["ground"] ^ other["ground"]).bit_count()
    return Duplicate(one["key"].decode(), other["key"].decode(), why, bits if why == GROUND else 0)


def _repeats(tiles: NDArray[np.void], near_bits: int) -> dict[int, int]:
    """Index of each tile to leave out -> index of the earliest kept tile that it repeats."""
    placed = np.flatnonzero(np.isfinite(tiles["half_side"]))
    unplaced = np.flatnonzero(~np.isfinite(tiles["half_side"]))
    pairs = np.concatenate(
        [
            placed[_near_on_ground(tiles[placed], near_bits)],
            unplaced[_near_in_hash(tiles["ground"][unplaced], near_bits)],
        ]
    )
    one, other = tiles[pairs[:, 0]], tiles[pairs[:, 1]]
    matters = (one["channel"] == other["channel"]) | (one["split"] != other["split"])
    pairs = pairs[matters]
    left_out: dict[int, int] = {}
    for later, earlier in pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))][:, ::-1].tolist():
        if earlier not in left_out and later not in left_out:
            left_out[later] = earlier
    return left_out


def _near_on_ground(tiles: NDArray[np.void], near_bits: int) -> NDArray[np.int64]:
    """Pairs (M, 2), lower index first, that cover half of each other and are near in hash."""
    if len(tiles) < 2:
        return np.zeros((0, 2), np.int64)
    tree = cKDTree(tiles["centre"])
    pairs = tree.query_pairs(float(tiles["half_side"].max()), output_type="ndarray")
    pairs = np.sort(pairs.astype(np.int64).reshape(-1, 2), axis=1)
    one, other = tiles[pairs[:, 0]], tiles[pairs[:, 1]]
    distance = np.linalg.norm(one["centre"] - other["centre"], axis=1)
    near = distance <= np.minimum(one["half_side"], other["half_side"])
    near &= np.bitwise_count(one["ground"] ^ other["ground"]) <= near_bits
    return np.asarray(pairs[near], np.int64)


def _near_in_hash(hashes: NDArray[np.uint64], near_bits: int) -> NDArray[np.int64]:
    """Pairs (M, 2), lower index first, whose hashes differ in at most `near_bits`."""
    found = [np.zeros((0, 2), np.int64), *_near_hashes_by_row(hashes, near_bits)]
    return np.concatenate(found)


def _near_hashes_by_row(hashes: NDArray[np.uint64], near_bits: int) -> Iterator[NDArray[np.int64]]:
    # Row by row: operands stay in the cache, and memory is that of one row.
    hashes = np.ascontiguousarray(hashes)
    for index in range(len(hashes) - 1):
        bits = np.bitwise_count(hashes[index + 1 :] ^ hashes[index])
        others = np.flatnonzero(bits <= near_bits)
        if others.size:
            yield np.stack([np.full_like(others, index), others + index + 1], axis=1)
