"""The same bytes from one process or two, in any order, and after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

MAKE = """
import sys
from pathlib import Path
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.model import load_pipeline
from sarhpc.generation.plan import plan_generation
from sarhpc.generation.sampler import Provenance, generate_shard
from sarhpc.shards.writer import write_shard

model, out, *shards = sys.argv[1:]
cfg = GenerateConfig(
    prompts=["a river", "a town"], images=10, steps=2, batch=2, threads=1, shard_samples=4
)
plan = plan_generation(cfg)
pipeline = load_pipeline(Path(model), cfg, "cpu")
for shard in map(int, shards):
    made = generate_shard(shard, plan[shard], cfg, pipeline, Provenance("m", "c"))
    write_shard(Path(out) / f"{shard:06d}.tar", made.samples)
"""


def start(model: Path, out: Path, shards: str, **environment: str) -> subprocess.Popen[bytes]:
    """A process that makes the shards named by the digits of `shards`, in that order."""
    return subprocess.Popen(
        [sys.executable, "-c", MAKE, str(model), str(out), *shards],
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


@pytest.fixture(scope="module")
def undisturbed(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    assert start(model_folder, out, "012").wait() == 0
    made = contents(out)
    assert sorted(made) == ["000000.tar", "000001.tar", "000002.tar"]
    return made


@pytest.mark.slow
def test_two_processes_in_another_order_make_the_bytes_of_one(model_folder, undisturbed, tmp_path):
    # Shard 1 is made by both, as when two tasks overlap; the environment asks for other threads.
    first = start(model_folder, tmp_path, "21", OMP_NUM_THREADS="2")
    second = start(model_folder, tmp_path, "10", OMP_NUM_THREADS="1")
    assert (first.wait(), second.wait()) == (0, 0)
    assert contents(tmp_path) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("point", ["shard.mid_write:3", "publish.before_rename:1"])
def test_a_kill_leaves_nothing_visible_and_the_rerun_makes_the_same_bytes(
    model_folder, undisturbed, tmp_path, point
):
    killed = start(model_folder, tmp_path, "0", SARHPC_FAULT=f"{point}:kill")
    assert killed.wait() == -signal.SIGKILL
    assert contents(tmp_path) == {}
    assert start(model_folder, tmp_path, "012").wait() == 0
    assert contents(tmp_path) == undisturbed
