"""Shards on a Dask cluster: placed one by one, so that a dying worker loses only its own."""

from __future__ import annotations

import collections
import contextlib
import itertools
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from hpc.errors import HpcError, TransientError

if TYPE_CHECKING:
    from distributed import Client, Future

_log = logging.getLogger(__name__)


class Task(Protocol):
    """Anything picklable with an id: a shard of a plan."""

    @property
    def id(self) -> str:
        """Id of the shard."""


S = TypeVar("S", bound=Task)
R = TypeVar("R")


def run_shards(
    client: Client,
    work: Callable[[S], R],
    tasks: Iterable[S],
    *,
    window: int,
    retries: int,
    should_abort: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[S, R | BaseException]]:
    """Yield every task with its result or its exception, as they finish.

    At most `window` tasks are submitted at a time, and never more than there are threads: a worker
    that dies loses only the tasks it was running. Those are retried, each up to `retries` times,
    then yielded with a TransientError. An exception raised by the work itself is yielded at once.
    Leaving the loop early, for example by an interrupt, cancels the remaining tasks.

    A result stays on its worker until it is fetched, within milliseconds; if the worker dies in
    between, the task is run once more, so `work` must be idempotent, as publishing is.

    Args:
        client: of the cluster.
        work: picklable; called with one task on a worker.
        tasks: read as they are needed.
        window: maximum number of tasks submitted at a time.
        retries: how often a task may be retried after its worker died.
        should_abort: polled at least every few seconds; true leaves at once, and the tasks in
            progress are lost.
    """
    from distributed import KilledWorker

    waiting = iter(tasks)
    requeued: collections.deque[S] = collections.deque()
    deaths: collections.Counter[str] = collections.Counter()
    active: dict[Future, tuple[S, str]] = {}
    try:
        while not should_abort():
            free = _free_threads(client, active)[: window - len(active)]
            # chain, unlike `yield from`, leaves `waiting` open when the workers run out first.
            pending = itertools.chain(_drain(requeued), waiting)
            for worker, task in zip(free, pending, strict=False):
                active[_submit_to(client, work, task, worker)] = (task, worker)
            if not active and free:
                return
            if not active:
                with contextlib.suppress(TimeoutError):
                    client.wait_for_workers(1, timeout=1.0)
            for future in _finished(active):
                task, _ = active.pop(future)
                outcome = _outcome(future)
                if isinstance(outcome, KilledWorker):
                    deaths[task.id] += 1
                    _log.warning("worker died shard=%s deaths=%d", task.id, deaths[task.id])
                    if deaths[task.id] <= retries:
                        requeued.append(task)
                        continue
                    outcome = _killed(task, deaths[task.id])
                yield task, outcome
    finally:
        if active:
            client.cancel(list(active))


def _free_threads(client: Client, active: Mapping[Future, tuple[S, str]]) -> list[str]:
    """Addresses of workers, each as often as it has idle threads."""
    taken = collections.Counter(worker for _, worker in active.values())
    return [
        worker
        for worker, threads in client.nthreads().items()
        for _ in range(threads - taken[worker])
    ]


def _drain(requeued: collections.deque[S]) -> Iterator[S]:
    while requeued:
        yield requeued.popleft()


def _submit_to(client: Client, work: Callable[[S], R], task: S, worker: str) -> Future:
    """Send the task to a chosen worker: one that holds no result still to be fetched.

    The scheduler itself may pick a worker that has just finished; if that died with the new task,
    the finished one would be lost and run again. If the chosen worker has ended meanwhile, any
    other is used.
    """
    key = f"shard-{task.id}-{secrets.token_hex(4)}"
    return client.submit(
        work, task, key=key, pure=False, workers=[worker], allow_other_workers=True
    )


def _finished(active: Mapping[Future, tuple[S, str]]) -> list[Future]:
    """Futures that have ended; waits for one, but not long, as a new worker may have started."""
    from distributed import wait

    if not active:
        return []
    with contextlib.suppress(TimeoutError):
        wait(list(active), timeout=1.0, return_when="FIRST_COMPLETED")
    return [future for future in active if future.done()]


def _outcome(future: Future) -> Any:
    """The task's result, or the exception it raised."""
    try:
        return future.result()
    except Exception as error:
        return error
    finally:
        # A result still held would be computed again if its worker died with another task.
        future.release()


def _killed(task: Task, deaths: int) -> HpcError:
    return TransientError(
        f"shard {task.id}: its worker process died {deaths} times (killed, or out of memory); "
        "give the job more memory or fewer workers, then resume"
    )
