"""CPU seconds and memory of the distances between features (E9) with their null of 199 draws."""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from sarhpc.measures.feature_nulls import Pairing, judge_vectors
from sarhpc.measures.nulls import DRAWS

SIZES = ((37, 400), (384, 400), (768, 800), (1024, 1100))
"""Features, and tiles a side: what is measured, DINOv2 of three sizes."""
INCEPTION = (2048, 2100)


def main() -> None:
    """Print a table, a row for each width."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--inception", action="store_true", help="2,048 features too")
    sizes = (*SIZES, INCEPTION) if arguments.parse_args().inception else SIZES
    print("| features | tiles a side | CPU-s | peak MiB |\n|---|---|---|---|")
    for width, tiles in sizes:
        rng = np.random.default_rng(0)
        real, ours = rng.normal(size=(2 * tiles, width)), rng.normal(size=(tiles, width))
        orders = [rng.permutation(2 * tiles) for _ in range(DRAWS)]
        draws = tuple((order[:tiles], order[tiles:]) for order in orders)
        begun = time.process_time()
        judge_vectors(ours, real, Pairing(tiles, np.arange(tiles), draws))
        took = time.process_time() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"| {width:,} | {tiles:,} | {took:.1f} | {peak:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
