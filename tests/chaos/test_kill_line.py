"""SIGKILL at random moments: what is published stays whole, and in the end nothing differs."""

from __future__ import annotations

import random
import tarfile
import time
from pathlib import Path

import pytest
from line_runs import (
    KNOWN_PIXELS,
    kill_group,
    make_tiny_model,
    seal_export,
    shard_digests,
    start_stage,
    tiny_run,
)

from hpc.job.pipeline import run_stage
from hpc.publish import digest_file, publish_json
from hpc.store.plan import read_plan
from hpc.store.rundir import RunDir
from sarhpc.shards.contract import CONTRACT_FILE
from sarhpc.shards.reader import read_shard
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.tile import DUPLICATES_FILE

STAGES = ["tile", "caption", "generate"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a contract, whose images have a 16-bit master."""
    folder = make_tiny_model(tmp_path_factory.mktemp("model"))
    publish_json(folder / CONTRACT_FILE, KNOWN_PIXELS)
    return folder


def prepare(root: Path, model: Path, stage: str) -> RunDir:
    """A run that is ready for `stage`."""
    if stage in ("tile", "caption"):
        # Duplicates are found while tiling is sealed, and left out by captioning.
        run = tiny_run(root, model, ["tile.dedupe=true"])
        for before in ("simulate", "tile") if stage == "caption" else ("simulate",):
            run_stage(run, stage_named(load_run_config(run), before))
        return run
    table = "{coverage: balanced, grammar: {classes: [water, forest, field]}}"
    run = tiny_run(root, model, [f"generate.table={table}"])
    seal_export(run, model)
    return run


def assert_whole(run: RunDir, stage: str) -> int:
    """Every record so far names a tar that is whole and is what the record says."""
    records = run.ledger(stage).records()
    for record in records.values():
        digest = digest_file(Path(record.path))
        assert (digest.bytes, digest.sha256) == (record.bytes, record.sha256)
        with tarfile.open(record.path) as tar:
            assert len({name.split(".")[0] for name in tar.getnames()}) == record.samples
    return len(records)


def duplicates(run: RunDir) -> bytes | None:
    """What tiling published of tiles that repeat others; None where it was not run."""
    file = run.stage("tile") / DUPLICATES_FILE
    return file.read_bytes() if file.exists() else None


def assert_complete(run: RunDir, stage: str) -> None:
    """Every planned shard once, no key twice."""
    records = run.ledger(stage).records()
    assert list(records) == [shard.id for shard in read_plan(run.plan_file(stage)).shards]
    keys = [sample.key for r in records.values() for sample in read_shard(Path(r.path))]
    assert len(keys) == len(set(keys)) == sum(record.samples for record in records.values())


def kill_until_done(run: RunDir, stage: str, rounds: int, rng: random.Random) -> int:
    """Start the stage and kill it at a random moment, until it was sealed or `rounds` are over."""
    for kills in range(rounds):
        before = len(run.ledger(stage).recorded_ids())
        process = start_stage(run, stage)
        # Half of the kills come while shards are being written, the others at any moment.
        aims_at_work = rng.random() < 0.5
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline and aims_at_work:
            if len(run.ledger(stage).recorded_ids()) > before:
                break
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.3 if aims_at_work else 2.0))
        ended = process.poll() is not None
        kill_group(process)
        assert_whole(run, stage)
        if ended and run.ledger(stage).sealed:
            return kills
    return rounds


@pytest.mark.slow
@pytest.mark.parametrize(
    "rounds",
    [
        pytest.param(6, marks=pytest.mark.timeout(1800)),
        pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(7200)]),
    ],
)
@pytest.mark.parametrize("stage", STAGES)
def test_killed_stage_ends_with_the_bytes_of_an_undisturbed_one(
    tmp_path: Path, model: Path, stage: str, rounds: int
) -> None:
    calm = prepare(tmp_path / "calm", model, stage)
    run_stage(calm, stage_named(load_run_config(calm), stage))
    rng = random.Random(rounds)
    kills, generation = 0, 0
    while kills < rounds:
        run = prepare(tmp_path / f"run{generation}", model, stage)
        kills += kill_until_done(run, stage, rounds - kills, rng)
        run_stage(run, stage_named(load_run_config(run), stage), force=True)
        assert_complete(run, stage)
        assert shard_digests(run, stage) == shard_digests(calm, stage)
        assert duplicates(run) == duplicates(calm)
        generation += 1
    assert kills >= rounds
