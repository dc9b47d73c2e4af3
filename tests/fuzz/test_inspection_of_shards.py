"""`sarhpc inspect` on shards of anybody: a page, or an error that names the folder or the shard."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from random import Random

import numpy as np
import pytest
from case_counts import each
from document_mutations import as_json, damaged
from isolated_cases import problem_of

from sarhpc.cli.inspection import inspect_path
from sarhpc.evaluation.inspection import render_inspection
from sarhpc.shards.images import encode_array, encode_gray8
from sarhpc.shards.tar import END_OF_ARCHIVE, member_header, padding

REPOSITORY = Path(__file__).resolve().parents[2]
METAS = [
    json.loads((REPOSITORY / "tests/golden/shards" / name).read_text())
    for name in ("tile.meta.json", "generated.meta.json")
]
PIXELS = np.arange(1024, dtype=np.uint16).reshape(32, 32)


def shard(random: Random) -> bytes:
    """A sound tar of samples whose metadata are damaged."""
    parts = []
    for number in range(random.choice((1, 2, 4))):
        members = {
            "meta.json": as_json(damaged(random.choice(METAS), random), random),
            "sar.png": encode_gray8((PIXELS // 4).astype(np.uint8)),
            "sar16.npy": encode_array(PIXELS * random.choice((0, 1, 60))),
            "txt": random.choice((b"a river", b"\xff", b"", b"\0")),
        }
        for name, data in members.items():
            if random.random() < 0.9:
                header = member_header(f"{number:011d}.{name}", len(data))
                parts += [header, data, padding(len(data))]
    return b"".join([*parts, END_OF_ARCHIVE])


def check_inspection(random: Random) -> None:
    data = shard(random)
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "train").mkdir()
        (Path(name) / "train" / "000000.tar").write_bytes(data)
        problem = problem_of(
            lambda: render_inspection(inspect_path(Path(name), 8)), [Path(name).name]
        )
    assert problem is None, (problem, data[:3000])


def test_shards_with_damaged_metadata_are_inspected() -> None:
    each(4, check_inspection)


@pytest.mark.long
def test_many_shards_with_damaged_metadata_are_inspected() -> None:
    each(60, check_inspection)
