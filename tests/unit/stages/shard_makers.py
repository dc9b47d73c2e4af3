"""Work on single shards for the tests of sharded stages; Dask workers import it by name."""

from __future__ import annotations

from hpc.errors import DataError, IncompleteError, TransientError
from hpc.publish import publish_bytes
from hpc.store.plan import ShardTask
from hpc.store.rundir import RunDir
from sarhpc.stages.work.sharded import ShardResult


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
