"""The scripts in slurm/ on a real Slurm, with the sizes of the test cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from chain_runs import wait_for, write_profile
from line_runs import make_tiny_model, seal_export, shard_digests, tiny_run
from mini_slurm import MiniSlurm

from hpc.job.pipeline import run_stage
from hpc.store.submissions import read_submissions
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config

SLURM = Path(__file__).resolve().parents[2] / "slurm"
SMALL = ("--partition=main", "--mem=1G", "--cpus-per-task=2", "--gpus-per-node=1", "--time=20")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def test_tile_sbatch_brings_a_stage_forward_and_enters_it(
    tmp_path: Path, cluster: MiniSlurm, model: Path
) -> None:
    run = tiny_run(tmp_path / "it's a run", model)
    words = ("--chdir", str(tmp_path), *SMALL, str(SLURM / "tile.sbatch"))
    job = cluster.run("sbatch", "--parsable", *words, str(run.root), "simulate").stdout.strip()
    wait_for(lambda: run.ledger("simulate").sealed, 300, "the stage is sealed")
    [record] = read_submissions(run)
    assert [submitted.job_id for submitted in record.jobs] == [job]
    log = record.jobs[0].logs.replace("%j", job).replace("%t", "0").replace("%r", "0")
    # The stage is sealed before the line that says so is written.
    wait_for(lambda: "simulate: sealed" in (run.root / log).read_text(), 60, "the log says so")
    assert (run.root / str(record.code) / "hpc" / "errors.py").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_generate_sbatch_shares_the_shards_and_seals_once(
    tmp_path: Path, cluster: MiniSlurm, model: Path
) -> None:
    words = ["generate.prompts=[a lake,a field]", "generate.images=12"]
    here, there = (tiny_run(tmp_path / name, model, words) for name in ("here", "there"))
    for run in (here, there):
        seal_export(run, model)
    run_stage(here, stage_named(load_run_config(here), "generate"))
    script = (*SMALL, "--array=0-2", f"--chdir={tmp_path}", str(SLURM / "generate.sbatch"))
    job = cluster.run("sbatch", "--parsable", *script, str(there.root)).stdout.strip()
    wait_for(lambda: there.ledger("generate").sealed, 600, "the stage is sealed")
    assert shard_digests(there, "generate") == shard_digests(here, "generate")
    [record] = read_submissions(there)
    assert (record.jobs[0].job_id, record.jobs[0].elements) == (job, 3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_pipeline_sbatch_submits_the_line(tmp_path: Path, cluster: MiniSlurm, model: Path) -> None:
    run = tiny_run(tmp_path / "line", model)
    profile = write_profile(tmp_path, "options: {begin: now+1hour}\n")
    script = (*SMALL, f"--chdir={tmp_path}", str(SLURM / "pipeline.sbatch"))
    cluster.run("sbatch", "--wait", *script, str(run.root), str(profile))
    [record] = read_submissions(run)
    assert [job.stage for job in record.jobs][0::6] == ["simulate", "evaluate"]
