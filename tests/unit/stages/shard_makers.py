"""Work on single shards for the tests of sharded stages; Dask workers import it by name."""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path

from hpc.errors import DataError, IncompleteError, TransientError
from hpc.job.elements import follow_element, run_element
from hpc.job.pipeline import Stage
from hpc.publish import publish_bytes
from hpc.store.plan import Plan, ShardTask, make_plan
from hpc.store.rundir import RunDir
from sarhpc.stages.work.sharded import ShardResult, make_missing_shards


def make(run: RunDir, task: ShardTask) -> ShardResult:
    """Publish a few bytes."""
    path = run.root / "data" / f"{task.id}.bin"
    digest = publish_bytes(path, task.id.encode())
    return ShardResult(path, 2, digest.bytes, digest.sha256)


def fail_on_one(run: RunDir, task: ShardTask) -> ShardResult:
    """As `make`, but shard 000001 is not to be read."""
    if task.id == "000001":
        raise DataError("scene b is torn at byte 17")
    return make(run, task)


def fill_the_gpu(run: RunDir, task: ShardTask) -> ShardResult:
    """As torch does where a GPU's memory is full."""
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def fill_the_disk(run: RunDir, task: ShardTask) -> ShardResult:
    """As `make`, but shard 000001 finds a full disk."""
    if task.id == "000001":
        raise TransientError("no space left")
    return make(run, task)


def stop_after_first(run: RunDir, task: ShardTask) -> ShardResult:
    """As `make`, with an operator who asks to stop while the first shard is made."""
    run.stop_file.touch()
    return make(run, task)


def give_up_when_stopped(run: RunDir, task: ShardTask) -> ShardResult:
    """An operator asks to stop, and the shard is given up as generation does."""
    run.stop_file.touch()
    raise IncompleteError("stopped inside the shard")


def name_worker(run: RunDir, task: ShardTask) -> ShardResult:
    """Publish the GPUs that the worker sees and its own process, taking a while."""
    time.sleep(0.3)
    path = run.root / "data" / f"{task.id}.bin"
    seen = f"{os.environ.get('CUDA_VISIBLE_DEVICES')} {os.getpid()}"
    digest = publish_bytes(path, seen.encode())
    return ShardResult(path, 2, digest.bytes, digest.sha256)


def named_workers(shards: int) -> Stage:
    """A stage whose shards name their workers."""
    plan = make_plan("generate", [{"n": n} for n in range(shards)])
    work = functools.partial(make_missing_shards, name_worker, workers=1)
    return Stage("generate", (), lambda _: plan, work)


def odd(plan: Plan) -> list[str]:
    """Every second shard of a plan."""
    return [shard.id for shard in plan.shards][1::2]


def element_task(root: str, rank: int, shards: int) -> int:
    """Task `rank` of element 1, which has the odd shards; prints how it ended."""
    run, stage = RunDir(Path(root)), named_workers(shards)
    done = follow_element(run, stage, 1, odd, rank) if rank else run_element(run, stage, 1, odd)
    print(done, flush=True)
    return 0
