from __future__ import annotations

import functools
import os
import time
from pathlib import Path

import pytest
import shard_makers

from hpc.cluster.allocation import Allocation, current_allocation
from hpc.errors import (
    DataError,
    GpuMemoryError,
    IncompleteError,
    StopRequestedError,
    TransientError,
)
from hpc.job.pipeline import Stage, Work, run_stage
from hpc.observe.state import stage_state
from hpc.publish import publish_json
from hpc.store.attempts import read_attempts
from hpc.store.plan import make_plan
from hpc.store.rundir import RunDir, create_run
from sarhpc.stages.work.executors import join_as_workers, workers_here
from sarhpc.stages.work.sharded import MakeShard, make_missing_shards, remove_stale_files

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return create_run(tmp_path / "run", "a: 1\n", "f00d")


def stage(make: MakeShard, shards: int = 3) -> Stage:
    plan = make_plan("tile", [{"n": n} for n in range(shards)])
    return Stage(
        "tile", (), lambda _: plan, functools.partial(make_missing_shards, make, workers=1)
    )


def test_workers_are_as_many_as_gpus_or_as_cores_where_the_work_needs_no_gpu() -> None:
    here = Allocation(job_id="7", cpus=16, gpus=("0", "1"))
    assert workers_here(here, 3) == 2
    assert workers_here(here, 3, per_core=True) == 16
    assert workers_here(Allocation(job_id="7", cpus=16), 3) == 16
    assert workers_here(Allocation(), 3, per_core=True) == 3


def test_one_bad_shard_is_noted_and_the_others_are_published(run: RunDir) -> None:
    with pytest.raises(IncompleteError, match=r"1 of 3 shards.*000001: DataError: scene b is torn"):
        run_stage(run, stage(shard_makers.fail_on_one))
    ledger = run.ledger("tile")
    assert ledger.recorded_ids() == {"000000", "000002"}
    assert ledger.failures()["000001"].error == "DataError"
    state = stage_state(run, stage(shard_makers.make))
    assert (state.state, state.done, state.planned, state.failed) == ("FAILED", 2, 3, 1)
    assert "1 of 3 shards made now" in run_stage(run, stage(shard_makers.make))
    assert ledger.failures() == {}


def test_a_disk_full_in_a_shard_ends_transient(run: RunDir) -> None:
    with pytest.raises(TransientError, match="no space left"):
        run_stage(run, stage(shard_makers.fill_the_disk, shards=2))
    assert run.ledger("tile").recorded_ids() == {"000000"}


def test_shard_that_does_not_fit_on_a_gpu_ends_the_stage_with_what_to_do(run: RunDir) -> None:
    with pytest.raises(GpuMemoryError, match=r"CUDA out of memory.*GPUs with more memory"):
        run_stage(run, stage(shard_makers.fill_the_gpu))
    # Where one does not fit none will, so the others were not tried.
    assert run.ledger("tile").recorded_ids() == set()
    assert set(run.ledger("tile").failures()) == {"000000"}
    assert read_attempts(run.stage("tile"))[-1]["exit"] == 1


def test_stop_is_heard_between_shards_and_keeps_what_is_finished(run: RunDir) -> None:
    with pytest.raises(
        StopRequestedError, match=r"stopped \(STOP_FILE\) with 1 of 3.*sarhpc resume"
    ):
        run_stage(run, stage(shard_makers.stop_after_first))
    assert run.ledger("tile").recorded_ids() == {"000000"}
    assert read_attempts(run.stage("tile"))[-1]["exit"] == 0
    assert stage_state(run, stage(shard_makers.make)).state == "PARTIAL"


def test_a_task_that_cannot_lend_its_workers_says_so_and_does_not_fail(
    run: RunDir, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"scheduler-{current_allocation().name}.json"
    absent = {part: str(run.root / "gone.pem") for part in ("ca", "cert", "key")}
    document = {"address": "tls://127.0.0.1:9", "left_s": None, "tls": absent}
    publish_json(run.root / "dask" / name, document)
    follower = Work(run, make_plan("tile", []), run.ledger("tile"), attempt=-1, rank=1)
    join_as_workers(follower, workers=1)
    assert "rank 1 provides no workers, the job continues without: FileNotFoundError" in caplog.text


def test_a_shard_given_up_for_a_stop_is_no_failure(run: RunDir) -> None:
    with pytest.raises(StopRequestedError):
        run_stage(run, stage(shard_makers.give_up_when_stopped, shards=1))
    assert run.ledger("tile").failures() == {}


def test_stop_on_the_last_shard_lets_the_stage_end(run: RunDir) -> None:
    assert "1 of 1" in run_stage(run, stage(shard_makers.stop_after_first, shards=1))


def test_stop_before_the_start_hands_out_nothing(run: RunDir) -> None:
    run.stop_file.touch()
    with pytest.raises(StopRequestedError, match="0 of 3"):
        run_stage(run, stage(shard_makers.make))
    assert not (run.root / "dask").exists()


def test_an_empty_plan_is_refused_and_can_be_planned_again(run: RunDir) -> None:
    refused = make_plan("tile", [], rejected={"scene_a": "too_small: 80 px"})
    empty = Stage("tile", (), lambda _: refused, lambda work: None)
    with pytest.raises(DataError, match=r"no shards.*scene_a: too_small"):
        run_stage(run, empty)
    assert not run.ledger("tile").sealed
    assert "1 of 1" in run_stage(run, stage(shard_makers.make, shards=1))


def test_litter_of_killed_writers_is_swept_and_that_of_live_ones_kept(tmp_path: Path) -> None:
    old, young = tmp_path / "train" / ".a.tar.h.1.0.tmp", tmp_path / "train" / ".b.tar.h.2.0.tmp"
    old.parent.mkdir()
    for path in (old, young):
        path.write_bytes(b"torn")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    remove_stale_files(tmp_path)
    assert list(old.parent.iterdir()) == [young]
