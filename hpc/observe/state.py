"""The state of one stage, derived from its directory; it is never stored."""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc.documents import parse_json
from hpc.errors import ConfigError, GpuMemoryError, NumericalError, VerificationError
from hpc.job.pipeline import Stage, StageProgress
from hpc.observe.under_way import UnderWay, shards_under_way
from hpc.regular_files import open_regular, read_regular_text
from hpc.store.attempts import (
    count_starts,
    exhausted,
    last_failure,
    read_attempts,
    recording_obstacle,
)
from hpc.store.identity import parse_identity, process_identity
from hpc.store.lease import live_holder
from hpc.store.ledger import Ledger
from hpc.store.plan import planned_shards
from hpc.store.rundir import RunDir

PERMANENT = (ConfigError.exit_code, NumericalError.exit_code, VerificationError.exit_code)
"""Exit codes of failures that another start does not change."""
GPU_MEMORY = GpuMemoryError.__name__
"""How the recorded reason of one more begins, whose exit code says less."""

MAX_RECORDS_READ = 1000
"""Maximum single records that `stage_state` reads; each costs a round trip on a shared disk."""

MAX_START_S = 60.0
"""Time from the start of an attempt within which its process counts before it holds a lease, s."""


@dataclass(frozen=True)
class StageState:
    """State of one stage, derived from its files.

    States: WAITING (upstream), READY, RUNNING, PARTIAL, FAILED, LOST (an attempt began, ended, and
    wrote no end row), COMPLETE.
    """

    name: str
    state: str
    done: int
    planned: int
    samples: int | None
    """None while there are too many single records to read them all."""
    rejected: int | None
    """As `samples`."""
    failed: int
    holder: str | None = None
    failure: str | None = None
    """How the last attempt failed, the message of a crash loop, or why none can be recorded."""
    permanent: bool = False
    """Whether it failed by an error that another start meets again, unless something is changed."""
    attempts: int = 0
    """Starts of this stage so far."""
    per_s: float | None = None
    """Shards per second, of the workers or since the live attempt began, or that of `progress`."""
    left_s: float | None = None
    """Remaining time at that rate, s."""
    heartbeat_age_s: float | None = None
    """Age of the newest heartbeat of the live work, s."""
    heartbeat_interval_s: float | None = None
    """Median time between two signs of progress, s; None while unknown."""
    checkpoint: str | None = None
    """Name of the newest checkpoint."""
    checkpoint_s: float | None = None
    """Its age, s."""
    progress: StageProgress | None = None
    """Progress of the work inside the only shard, such as the steps of a training."""
    under_way: UnderWay | None = None
    """Progress inside the shards that are being made now."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Rejected samples by reason; empty as `samples` is None, and once the stage is complete."""
    holder_job: str | None = None
    """Slurm job of the holder; None outside Slurm."""
    state_unheld: str = ""
    """State if the holder turns out to be dead: its job is no longer in the queue."""

    def without_holder(self) -> StageState:
        """This state once the queue has shown that the holder is dead."""
        return dataclasses.replace(
            self,
            state=self.state_unheld,
            holder=None,
            holder_job=None,
            per_s=None,
            left_s=None,
            heartbeat_age_s=None,
            heartbeat_interval_s=None,
            under_way=None,
        )

    def to_json(self) -> dict[str, Any]:
        """The state as `status --json` shows it."""
        values = {
            **vars(self),
            "progress": self.progress and self.progress.to_json(),
            "under_way": self.under_way and self.under_way.to_json(),
        }
        del values["state_unheld"]
        return {_JSON_KEYS.get(name, name): value for name, value in values.items()}


_JSON_KEYS = {
    "failure": "trouble",
    "heartbeat_age_s": "alive_s",
    "heartbeat_interval_s": "pulse_s",
    "progress": "course",
}
"""Fields -> keys of `status --json`, where they differ."""


def stage_state(run: RunDir, stage: Stage, clock: float | None = None) -> StageState:
    """State of one stage from its plan, ledger, lease and attempts, at `clock` (default: now)."""
    clock = time.time() if clock is None else clock
    ledger, directory = run.ledger(stage.name), run.stage(stage.name)
    attempts = read_attempts(directory)
    starts = count_starts(attempts)
    if ledger.sealed:
        return _complete(stage, ledger, starts)
    recorded = ledger.recorded_ids()
    done, planned = len(recorded), _planned(run.plan_file(stage.name))
    failed = len(ledger.failures())
    leases = _leases(directory)
    held = next((path for path in leases if _holder(path)), None)
    holder = _starting(attempts, clock) if held is None else _holder(held)
    stopped = _stopped_elements(directory, attempts)
    idle = _idle_state(run, stage, bool(done), bool(failed or stopped), attempts)
    progress = stage.live_progress(run) if stage.live_progress is not None else None
    inside = shards_under_way(directory, clock, recorded) if holder else None
    made = done + (inside.share if inside else 0.0)
    pace = _rate(attempts, made, planned, progress or inside, clock) if holder else (None, None)
    beats = _heartbeats(directory, attempts)
    records = ledger.records().values() if done <= MAX_RECORDS_READ else None
    reasons: Counter[str] = Counter()
    for record in records or ():
        reasons.update(record.rejected)
    found = newest_checkpoint(directory)
    return StageState(
        stage.name,
        "RUNNING" if holder else idle,
        done,
        planned,
        None if records is None else sum(record.samples for record in records),
        None if records is None else reasons.total(),
        failed,
        holder,
        recording_obstacle(directory) or _failure(stopped),
        not holder and _fails_again(attempts),
        starts,
        *pace,
        heartbeat_age_s=_age(beats or leases, clock) if holder else None,
        heartbeat_interval_s=_heartbeat_interval(beats) if holder else None,
        checkpoint=found.name if found else None,
        checkpoint_s=_age([found] if found else [], clock),
        progress=progress,
        reasons=dict(reasons),
        under_way=inside,
        holder_job=_job_of(held) if holder and held else None,
        state_unheld=idle,
    )


def _complete(stage: Stage, ledger: Ledger, starts: int) -> StageState:
    # A sealed stage has a record for each shard of its plan, so the plan need not be read.
    shards, samples, rejected = ledger.totals()
    return StageState(
        stage.name, "COMPLETE", shards, shards, samples, rejected, failed=0, attempts=starts
    )


def _idle_state(
    run: RunDir, stage: Stage, begun: bool, failed: bool, attempts: list[dict[str, Any]]
) -> str:
    """State of a stage without a live process."""
    if failed:
        return "FAILED"
    if any(map(is_open, by_element(attempts).values())):
        return "LOST"
    if begun or attempts:
        return "PARTIAL"
    return "WAITING" if any(not run.ledger(need).sealed for need in stage.needs) else "READY"


def _stopped_elements(directory: Path, attempts: list[dict[str, Any]]) -> list[str]:
    """Why elements do not go on by themselves, of each: an exhausted budget, or how it failed."""
    found = []
    for element, rows in by_element(attempts).items():
        which = "" if element is None else f"element {element} "
        if (loop := exhausted(directory, element, rows)) is not None:
            found.append(loop)
        elif (failure := last_failure(rows)) is not None:
            found.append(which + failure)
    return found


def _fails_again(attempts: list[dict[str, Any]]) -> bool:
    """Whether the newest attempt of an element failed by an error that another start meets too."""
    for rows in by_element(attempts).values():
        newest = max(row["attempt"] for row in rows)
        ends = [row for row in rows if row["attempt"] == newest and "to" in row]
        if ends and (
            ends[-1]["exit"] in PERMANENT or str(ends[-1].get("reason")).startswith(GPU_MEMORY)
        ):
            return True
    return False


def is_open(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the newest attempt has no end row."""
    newest = max((row["attempt"] for row in rows), default=-1)
    return newest >= 0 and not any(row["attempt"] == newest and "to" in row for row in rows)


def by_element(
    rows: Sequence[dict[str, Any]],
) -> dict[int | None, list[dict[str, Any]]]:
    """Rows of the attempts file by array element; None for the stage as a whole."""
    parts: dict[int | None, list[dict[str, Any]]] = {}
    for row in rows:
        parts.setdefault(row.get("element"), []).append(row)
    return parts


def _failure(stopped: Sequence[str]) -> str | None:
    """How the last attempt failed; of an array, that of its first failed element."""
    many = f"{len(stopped)} array elements failed, the first: " if len(stopped) > 1 else ""
    return many + stopped[0] if stopped else None


def _rate(
    attempts: Sequence[Mapping[str, Any]],
    done: float,
    planned: int,
    progress: StageProgress | UnderWay | None,
    clock: float,
) -> tuple[float | None, float | None]:
    """Units per second in the live attempt, and remaining seconds at that rate."""
    rate: float | None
    todo: float | None
    if isinstance(progress, StageProgress):
        rate, todo = (
            progress.per_s,
            None if progress.goal is None else progress.goal - progress.done,
        )
    elif progress is not None and progress.shards_per_s is not None:
        # Of all workers together: elements of an array start at times of their own.
        rate, todo = progress.shards_per_s, planned - done
    else:
        begun = sorted((r for r in attempts if "from" in r), key=lambda row: str(row["started"]))
        if not begun or done <= begun[-1]["from"]:
            return None, None
        since = clock - seconds_of(begun[-1].get("started"))
        rate, todo = (done - begun[-1]["from"]) / max(since, 1.0), planned - done
    if rate is None or not math.isfinite(rate) or rate <= 0:
        return None, None
    return rate, None if todo is None else max(todo, 0) / rate


def seconds_of(stamp: str | None) -> float:
    """Seconds since the epoch of an RFC 3339 time in UTC.

    Raises:
        VerificationError: it is none.
    """
    try:
        return datetime.datetime.fromisoformat(str(stamp).replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError) as error:
        raise VerificationError(
            f"{stamp!r} of a record or an attempt of this run is no RFC 3339 time; restore the "
            "records or attempts.jsonl of its stage"
        ) from error


def _leases(directory: Path) -> list[Path]:
    """Lease files of a stage: its coordinator's, then those of its array elements."""
    return sorted(directory.glob(".lease*.json"), key=lambda path: (len(path.name), path.name))


def _planned(path: Path) -> int:
    """Planned shards; 0 for a plan that cannot be read, of which the attempts tell."""
    try:
        return planned_shards(path)
    except OSError:
        return 0


def _holder(path: Path) -> str | None:
    """The live holder of a lease; none of one that cannot be read, of which the attempts tell."""
    try:
        return live_holder(path)
    except OSError:
        return None


def _starting(attempts: list[dict[str, Any]], clock: float) -> str | None:
    """A live process of this machine that began an attempt just now and has no lease yet."""
    for rows in by_element(attempts).values():
        if not is_open(rows):
            continue
        start = max((row for row in rows if "from" in row), key=lambda row: int(row["attempt"]))
        began, pid = seconds_of(start.get("started")), start.get("pid")
        if clock - began > MAX_START_S or start.get("host") != socket.gethostname():
            continue
        found = process_identity(pid) if isinstance(pid, int) else None
        # A process that was born later has only the number of the one that began.
        if found is not None and (found.born or 0.0) < began + 1.0:
            return f"process {pid} on {found.host}"
    return None


def _job_of(held: Path) -> str | None:
    """Slurm job of the process that holds a lease."""
    try:
        holder = parse_identity(read_regular_text(held, "surrogateescape"))
    except OSError:
        return None
    return None if holder is None else holder.job


def _heartbeats(directory: Path, attempts: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Heartbeat files of the live attempt; their modification times are those of its progress.

    Before its first progress there are none; the lease, which a thread touches, is used instead.
    """
    since = _begun(attempts)
    return [path for path in (directory / "heartbeat").glob("[er]*.json") if _time(path) >= since]


def _begun(attempts: Sequence[Mapping[str, Any]]) -> float:
    """Start of the newest attempt, s since the epoch; 0 before any."""
    return max((seconds_of(row.get("started")) for row in attempts if "from" in row), default=0.0)


def _heartbeat_interval(beats: Sequence[Path]) -> float | None:
    """Median time between two signs of progress from the newest heartbeat, s."""
    row = last_row(max(beats, key=_time)) if beats else None
    return row.get("seconds") if row else None


def _time(path: Path) -> float:
    """Time of the last change, s since the epoch; 0 if the file does not exist."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _age(paths: Iterable[Path], clock: float) -> float | None:
    """Age of the newest of `paths`, s; None without any."""
    newest = max(map(_time, paths), default=0.0)
    return max(clock - newest, 0.0) if newest else None


def newest_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint directory of a stage; None without any."""
    found = (directory / "checkpoints").glob("step_*[0-9]")
    return max(found, key=lambda path: int(path.name.removeprefix("step_")), default=None)


def last_row(path: Path, most_bytes: int = 1 << 16) -> dict[str, Any] | None:
    """The last complete JSON line of a growing file; reads only its end."""
    if not path.is_file():
        return None
    with open_regular(path) as file:
        file.seek(max(os.fstat(file.fileno()).st_size - most_bytes, 0))
        lines = file.read(most_bytes).decode(errors="replace").splitlines()
    for line in reversed(lines):
        try:
            row = parse_json(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            return row
    return None
