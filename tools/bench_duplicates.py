"""Seconds and memory of finding duplicates among synthetic tiles, with and without a location.

    python tools/bench_duplicates.py [--unplaced 100000] [--placed 1000000]

One tile in a hundred is an exact copy of another, and one in a hundred shows its ground again.
Seconds are CPU seconds, so that a busy machine does not count.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from sarhpc.tiling.duplicates import FINGERPRINT, find_duplicates

EARTH_M = 6_371_000.0
TILE_M = 180.0


def made_up(count: int, placed: bool) -> np.ndarray:
    """Fingerprints of `count` tiles: random hashes, side by side on the Earth if placed."""
    random = np.random.default_rng(0)
    number = np.arange(count)
    tiles = np.zeros(count, FINGERPRINT)
    tiles["key"] = np.char.zfill(number.astype("S11"), 11)
    tiles["split"] = random.choice([0, 1, 2], count, p=[0.1, 0.1, 0.8])
    tiles["digest"] = np.char.zfill(number.astype("S32"), 32)
    tiles["ground"] = random.integers(0, 2**64, count, dtype=np.uint64)
    tiles["has_ground"], tiles["channel"], tiles["half_side"] = True, b"X HH", np.nan
    if placed:
        across, side = int(count**0.5) + 1, TILE_M / EARTH_M
        lat = 0.75 + (number // across) * side
        lon = (number % across) * side / np.cos(0.75)
        tiles["centre"] = np.stack(
            [np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1
        )
        tiles["half_side"] = side / 2
    first, again = np.arange(count // 100), count // 2 + np.arange(count // 100)
    tiles["digest"][count - 1 - first] = tiles["digest"][first]
    tiles["ground"][again] = tiles["ground"][first] ^ np.uint64(0b111)
    tiles["centre"][again] = tiles["centre"][first]
    return tiles


def main() -> None:
    """Print one row for each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--unplaced", type=int, default=100_000)
    parser.add_argument("--placed", type=int, default=1_000_000)
    arguments = parser.parse_args()
    print("tiles        place  copies  ground  CPU s  peak MB")
    for count, placed in ((arguments.unplaced, False), (arguments.placed, True)):
        tiles = made_up(count, placed)
        start = time.process_time()
        found = find_duplicates(tiles)
        seconds = time.process_time() - start
        copies = sum(duplicate.why == "copy" for duplicate in found)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        place = "yes" if placed else "no"
        print(
            f"{count:<12} {place:>5} {copies:>7} {len(found) - copies:>7} {seconds:>6.1f} {peak:>8}"
        )


if __name__ == "__main__":
    main()
