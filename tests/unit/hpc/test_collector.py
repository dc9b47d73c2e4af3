"""A process that works is not held up by the collector while it starts and ends."""

from __future__ import annotations

import json
import subprocess
import sys

WORK = """
import atexit, gc, json
from hpc.collector import relax_gc

def tell():
    print(json.dumps([gc.get_freeze_count(), tidied, gc.get_stats()[0]["collections"] - before]))

tidied = []
atexit.register(tell)  # runs after all that is registered later
SPARE
before = gc.get_stats()[0]["collections"]
kept = [[number] for number in range(200_000)]
atexit.register(tidied.append, "tidied")
"""


def told(work: str) -> tuple[int, list[str], int]:
    """Objects the collector leaves alone at the end, what tidied up, collections so far."""
    done = subprocess.run([sys.executable, "-c", work], check=True, capture_output=True, text=True)
    frozen, tidied, collections = json.loads(done.stdout)
    return frozen, tidied, collections


def test_what_lasts_is_walked_seldom_and_never_at_the_end() -> None:
    frozen, tidied, plain = told(WORK.replace("SPARE", ""))
    assert (frozen, tidied) == (0, ["tidied"])
    frozen, tidied, spared = told(WORK.replace("SPARE", "relax_gc()"))
    assert frozen > 200_000
    assert tidied == ["tidied"]
    assert spared < plain / 10
