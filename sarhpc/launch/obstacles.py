"""Why a lost stage is not submitted again without a person: it would end the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpc.errors import TransientError
from hpc.job.pipeline import Stage
from hpc.observe.state import GPU_MEMORY, PERMANENT, by_element
from hpc.store.attempts import SIGNALLED, crash_loop, read_attempts, recording_obstacle
from hpc.store.plan import read_plan
from hpc.store.rundir import RunDir
from hpc.store.submissions import read_submissions
from hpc.store.supervision import RESUBMISSION_LIMIT, resubmissions_without_progress

_PERMANENT_NAMES = (
    "ConfigError",
    "DataError",
    GPU_MEMORY,
    "NumericalError",
    "VerificationError",
)
"""Failures of a shard that another start does not change."""


def obstacle(run: RunDir, stage: Stage, *, only_lost: bool = False) -> str | None:
    """Why `stage` must not be submitted again by a supervisor; None if it may be.

    Args:
        run: the run.
        stage: an unsealed stage without a job.
        only_lost: every failure that the job itself decided on counts, not just permanent ones.
    """
    if any(not run.ledger(need).sealed for need in stage.needs):
        return None  # it could not run, so its past starts prove nothing
    directory = run.stage(stage.name)
    if (unwritable := recording_obstacle(directory)) is not None:
        return unwritable
    count = resubmissions_without_progress(run, stage.name, progress_of(run, stage))
    if count >= RESUBMISSION_LIMIT:
        return (
            f"submitted again {count} times without progress; find the cause, then "
            f"`sarhpc resume {run.quoted}`"
        )
    for element, rows in by_element(read_attempts(directory)).items():
        if _is_done(rows):
            continue
        if (loop := crash_loop(directory, element)) is not None:
            return loop
        if (failure := _permanent_failure(run, stage, rows, only_lost)) is not None:
            return f"{failure}; fix the cause, then `sarhpc resume {run.quoted}`"
    if (failure := _failed_shards(run, stage)) is not None:
        return f"{failure}; fix the cause, then `sarhpc resume {run.quoted}`"
    return None


def _failed_shards(run: RunDir, stage: Stage) -> str | None:
    """How all that is missing failed in the newest job, if every shard of it would fail again."""
    if not run.plan_file(stage.name).exists():
        return None
    ledger = run.ledger(stage.name)
    missing, known = ledger.missing(read_plan(run.plan_file(stage.name))), ledger.failures()
    failures = [known[task.id] for task in missing if task.id in known]
    since = _last_submission(run, stage.name)
    if not failures or len(failures) < len(missing):
        return None
    if any(each.error not in _PERMANENT_NAMES or each.when < since for each in failures):
        return None
    first = failures[0]
    many = f"all {len(failures)} shards that are missing failed, the first"
    return f"{many} {first.shard}: {first.error}: {first.message}"


def _is_done(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the newest attempt ended well, and not because it had to stop."""
    newest = max(row["attempt"] for row in rows)
    ends = [row for row in rows if row["attempt"] == newest and "to" in row]
    return bool(ends) and ends[-1]["exit"] == 0 and "stop" not in ends[-1]


def progress_of(run: RunDir, stage: Stage) -> int:
    """Shards with a record, or what else the stage counts as progress."""
    if stage.progress is not None:
        return stage.progress(run)
    return len(run.ledger(stage.name).recorded_ids())


def _permanent_failure(
    run: RunDir, stage: Stage, rows: Sequence[Mapping[str, Any]], only_lost: bool
) -> str | None:
    """How the newest attempt failed, if another one would fail as well."""
    newest = max(row["attempt"] for row in rows)
    ends = [row for row in rows if row["attempt"] == newest and "to" in row]
    starts = [row for row in rows if row["attempt"] == newest and "from" in row]
    if not ends or ends[-1]["exit"] == 0 or ends[-1]["exit"] >= SIGNALLED:
        return None
    # Elements of an earlier array have other shards than those of the next one.
    if starts and starts[-1]["started"] < _last_submission(run, stage.name):
        return None
    code, reason = ends[-1]["exit"], str(ends[-1]["reason"])
    permanent = code in PERMANENT or reason.startswith(("DataError", GPU_MEMORY))
    if permanent or (only_lost and code != TransientError.exit_code):
        return f"attempt {newest} exit={code}: {reason}"
    return None


def _last_submission(run: RunDir, stage: str) -> str:
    """Time of the newest submission of the stage, RFC 3339; empty if there was none."""
    times = [record.submitted for record in read_submissions(run) if record.of(stage)]
    return max(times, default="")
