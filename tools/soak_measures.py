"""What the faults of a soak test cost: work that was lost, and the time until it went on.

An attempt that was alive when a fault struck, and was not when the next one did, was ended by it,
unless it was done. Recovery lasts from the fault to the next record or checkpoint of that stage by
an attempt that started after it, or to its sealing. What is lost are the steps behind the
checkpoint that the next attempt started from, or, for shards, the time since the attempt's last
record (or its start), if it made none after the fault.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psutil

from hpc.errors import HpcError
from hpc.job.pipeline import Stage
from hpc.store.attempts import read_attempts
from hpc.store.ledger import Record
from hpc.store.rundir import RunDir

TRAINING = "train"


@dataclass(frozen=True)
class LiveAttempt:
    """An attempt whose process was alive when a fault was injected."""

    stage: str
    element: int | None
    number: int
    host: str
    idle_s: float
    """Since its last record, or its start."""
    step: int = 0
    """Last step that a training had logged."""


@dataclass(frozen=True)
class Injection:
    """One fault that was injected, and what it cost."""

    fault: str
    what: str
    at: float
    """When, s since the epoch."""
    live: tuple[LiveAttempt, ...]
    """Attempts alive just before."""
    ended: int = 0
    """Attempts that it ended."""
    recovery_s: float | None = None
    """Until all of them went on; None if it ended none."""
    lost_steps: int = 0
    lost_s: float = 0.0
    """Time of shards that were under way and had to be made anew, s."""


class Progress:
    """Durable progress of a run, watched by a thread until the block ends."""

    def __init__(self, run: RunDir, stages: Sequence[Stage]) -> None:
        self._run = run
        self._names = [stage.name for stage in stages]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._seen: dict[str, int] = {}
        self.moved = time.time()
        """When it last grew, s since the epoch."""
        self.checkpoints: list[float] = []
        """When each checkpoint of the training appeared, s since the epoch."""

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def sealed(self) -> bool:
        """Whether every stage is sealed."""
        return all(self._run.ledger(name).sealed for name in self._names)

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            with contextlib.suppress(OSError, HpcError):
                self._look()

    def _look(self) -> None:
        now = {name: len(self._run.ledger(name).recorded_ids()) for name in self._names}
        now |= {f"{name} sealed": int(self._run.ledger(name).sealed) for name in self._names}
        steps = (self._run.stage(TRAINING) / "checkpoints").glob("step_*[0-9]")
        now["step"] = max((int(path.name[5:]) for path in steps), default=0)
        grown = {key for key, count in now.items() if count > self._seen.get(key, 0)}
        self._seen = now
        if grown:
            self.moved = time.time()
        if "step" in grown:
            self.checkpoints.append(self.moved)


def live_attempts(run: RunDir, stages: Sequence[Stage]) -> tuple[LiveAttempt, ...]:
    """The attempts of unsealed stages whose processes are alive, on this machine."""
    found = []
    for stage in stages:
        if run.ledger(stage.name).sealed:
            continue
        rows = read_attempts(run.stage(stage.name))
        ended = {(row.get("element"), row["attempt"]) for row in rows if "to" in row}
        records = list(run.ledger(stage.name).records().values())
        for row in rows:
            key = (row.get("element"), row["attempt"])
            if "from" in row and key not in ended and psutil.pid_exists(row["pid"]):
                made = [_epoch(each.finished) for each in records if _is_by(each, row)]
                idle_s = time.time() - max([_epoch(row["started"]), *made])
                step = _last_step(run) if stage.name == TRAINING else 0
                found.append(LiveAttempt(stage.name, *key, row["host"], idle_s, step))
    return tuple(found)


def with_costs(
    run: RunDir, injections: Sequence[Injection], checkpoints: Sequence[float]
) -> list[Injection]:
    """The injections of a complete run, in order, with what each cost."""
    costed = []
    for number, each in enumerate(injections):
        later = injections[number + 1].live if number + 1 < len(injections) else ()
        alive = {(one.stage, one.element, one.number) for one in later}
        ended = [
            one
            for one in each.live
            if (one.stage, one.element, one.number) not in alive and not _was_done(run, one)
        ]
        recoveries = [_recovery_s(run, each.at, one, checkpoints) for one in ended]
        costed.append(
            replace(
                each,
                ended=len(ended),
                recovery_s=max(recoveries, default=None),
                lost_steps=sum(_lost_steps(run, one) for one in ended),
                lost_s=sum(_lost_s(run, each.at, one) for one in ended),
            )
        )
    return costed


def _was_done(run: RunDir, one: LiveAttempt) -> bool:
    for row in read_attempts(run.stage(one.stage)):
        if (row.get("element"), row["attempt"]) == (one.element, one.number) and "to" in row:
            return row["exit"] == 0 and "stop" not in row
    return False


def _recovery_s(run: RunDir, at: float, one: LiveAttempt, checkpoints: Sequence[float]) -> float:
    ledger = run.ledger(one.stage)
    starts = [row for row in read_attempts(run.stage(one.stage)) if "from" in row]
    later = [row for row in starts if _epoch(row["started"]) >= int(at)]
    times = [
        _epoch(record.finished)
        for record in ledger.records().values()
        for row in later
        if _is_by(record, row)
    ]
    if one.stage == TRAINING and later:
        times += [when for when in checkpoints if when > _epoch(later[0]["started"])]
    times.append(ledger.manifest.stat().st_mtime)
    return max(min(times) - at, 0.0)


def _lost_steps(run: RunDir, one: LiveAttempt) -> int:
    if one.stage != TRAINING:
        return 0
    rows = read_attempts(run.stage(one.stage))
    later = [row["from"] for row in rows if "from" in row and row["attempt"] > one.number]
    return max(one.step - later[0], 0) if later else 0


def _lost_s(run: RunDir, at: float, one: LiveAttempt) -> float:
    made = [
        record
        for record in run.ledger(one.stage).records().values()
        if (record.attempt, record.host) == (one.number, one.host)
        and _epoch(record.finished) >= int(at)
    ]
    return 0.0 if made or one.stage == TRAINING else one.idle_s


def _is_by(record: Record, row: Mapping[str, Any]) -> bool:
    """Whether the attempt that started with `row` made the record."""
    return (
        record.attempt == row["attempt"]
        and record.host == row["host"]
        and record.finished >= row["started"]
    )


def _last_step(run: RunDir) -> int:
    metrics = run.stage(TRAINING) / "metrics.jsonl"
    if not metrics.exists():
        return 0
    lines = [line for line in metrics.read_text().splitlines() if line.endswith("}")]
    return max((json.loads(line).get("step", 0) for line in lines), default=0)


def _epoch(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def table(injections: Sequence[Injection]) -> str:
    """What the faults cost, by kind, as a Markdown table."""
    lines = [
        "| fault | times | ended work | recovery, s: median | 90 % | worst "
        "| lost steps: median | worst | lost shard time, s: median | worst |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    names = sorted({each.fault for each in injections})
    for name in [*names, "all"]:
        mine = [each for each in injections if name in (each.fault, "all")]
        hits = [each for each in mine if each.ended]
        recoveries = sorted(each.recovery_s for each in hits if each.recovery_s is not None)
        steps = [each.lost_steps for each in hits if _of_training(each)]
        shards = [each.lost_s for each in hits if not _of_training(each)]
        cells = [
            _middle(recoveries),
            f"{recoveries[math.ceil(0.9 * len(recoveries)) - 1]:.0f}" if recoveries else "-",
            _worst(recoveries),
            *(_middle(steps), _worst(steps), _middle(shards), _worst(shards)),
        ]
        lines.append(f"| {name} | {len(mine)} | {len(hits)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _of_training(each: Injection) -> bool:
    return any(one.stage == TRAINING for one in each.live)


def _middle(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.0f}" if values else "-"


def _worst(values: Sequence[float]) -> str:
    return f"{max(values):.0f}" if values else "-"
