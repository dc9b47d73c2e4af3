"""The same bytes from one process or two, in any order, and after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


def make(model: Path, out: Path, shards: str) -> int:
    """Make the shards named by the digits of `shards`, in that order."""
    from sarhpc.generation.config import GenerateConfig
    from sarhpc.generation.image_shard import Provenance, generate_shard
    from sarhpc.generation.model import load_pipeline
    from sarhpc.generation.plan import plan_generation
    from sarhpc.shards.writer import write_shard

    cfg = GenerateConfig(
        prompts=["a river", "a town"], images=10, steps=2, batch=2, threads=1, shard_samples=4
    )
    plan = plan_generation(cfg)
    pipeline = load_pipeline(model, cfg, "cpu")
    for shard in map(int, shards):
        made = generate_shard(shard, plan[shard], cfg, pipeline, Provenance("m", "c"))
        write_shard(out / f"{shard:06d}.tar", made.samples)
    return 0


def start_anew(model: Path, out: Path, shards: str, threads: int) -> subprocess.Popen[bytes]:
    """`make` in an interpreter that was asked for so many threads."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen(
        [sys.executable, __file__, str(model), str(out), shards], env=environment
    )


def made_by_one(model: Path, out: Path, shards: str, **environment: str) -> int:
    """The exit code of `make` in a process of its own."""
    from forked import start

    return start(make, model, out, shards, log=out.parent / "log", env=environment).wait(200)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


@pytest.fixture(scope="module")
def undisturbed(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    assert made_by_one(model_folder, out, "012") == 0
    made = contents(out)
    assert sorted(made) == ["000000.tar", "000001.tar", "000002.tar"]
    return made


@pytest.mark.slow
def test_two_processes_in_another_order_make_the_bytes_of_one(model_folder, undisturbed, tmp_path):
    # Shard 1 is made by both, as when two tasks overlap; the environment asks for other threads.
    first = start_anew(model_folder, tmp_path, "21", threads=2)
    second = start_anew(model_folder, tmp_path, "10", threads=1)
    assert (first.wait(), second.wait()) == (0, 0)
    assert contents(tmp_path) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("point", ["shard.mid_write:3", "publish.before_rename:1"])
def test_a_kill_leaves_nothing_visible_and_the_rerun_makes_the_same_bytes(
    model_folder, undisturbed, tmp_path, point
):
    killed = made_by_one(model_folder, tmp_path, "0", SARHPC_FAULT=f"{point}:kill")
    assert killed == -signal.SIGKILL
    assert contents(tmp_path) == {}
    assert made_by_one(model_folder, tmp_path, "012") == 0
    assert contents(tmp_path) == undisturbed


if __name__ == "__main__":
    raise SystemExit(make(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
