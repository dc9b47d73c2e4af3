"""Time and memory of the search for copies (E11): `python tools/bench_memory.py --queries 2048`.

Random maps, mapped from disk: every one is projected and compared as those of tiles are. Of a
corpus only some images are searched; the time of all of them is a multiple, and is called estimate.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from sarhpc.measures.ground_maps import MAP_BYTES, SIDE, most_shift_cells
from sarhpc.measures.map_search import MapIndex

GIB = 2**30


def main() -> None:
    """Print seconds, and the peak of the resident memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--training", type=int, default=100_000, metavar="N")
    parser.add_argument("--images", type=int, default=1_000_000, metavar="N", help="of the corpus")
    parser.add_argument("--queries", type=int, default=2048, metavar="N", help="searched of them")
    parser.add_argument("--px", type=int, default=512, help="side of the images")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--approximate", action="store_true", help="by the inverted file of Faiss")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        training = _written(Path(folder) / "training.npy", arguments.training, 0)
        corpus = _written(Path(folder) / "corpus.npy", arguments.images, 1)
        start = time.perf_counter()
        index = MapIndex(training, most_shift_cells((arguments.px, arguments.px)))
        if arguments.approximate:
            index.shorten()
        built = time.perf_counter() - start
        start, cpu = time.perf_counter(), time.process_time()
        index.nearest(corpus[: arguments.queries], workers=arguments.threads)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    whole = cpu / arguments.queries * arguments.images
    print(
        f"px={arguments.px} training={arguments.training} built_s={built:.1f} "
        f"queries={arguments.queries} threads={arguments.threads} s={seconds:.1f} cpu_s={cpu:.1f} "
        f"cpu_ms_an_image={1e3 * cpu / arguments.queries:.2f} peak_rss_gib={peak:.2f} "
        f"estimate_of_{arguments.images}_core_h={whole / 3600:.1f}"
    )


def _written(path: Path, count: int, seed: int) -> np.ndarray:
    """Random maps on disk, written in parts, mapped."""
    rng = np.random.default_rng(seed)
    rows = min(2**25 // MAP_BYTES, count)
    some = rng.standard_normal((rows, SIDE, SIDE), np.float32).astype(np.float16)
    header = {"descr": "<f2", "fortran_order": False, "shape": (count, SIDE, SIDE)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, count, rows):
            # Another order of cells: equal maps would all be copies of each other.
            part = np.roll(some[: min(rows, count - start)], start // rows, axis=2)
            file.write(part.tobytes())
    return np.load(path, mmap_mode="r")


if __name__ == "__main__":
    main()
