"""What a supervisor did for a run: one row an action, in `RUN/supervise.jsonl`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpc.documents import parse_json
from hpc.regular_files import read_regular_text
from hpc.store.rundir import RunDir, now

RESUBMISSION_LIMIT = 6
"""Resubmissions of a stage without progress after which a supervisor leaves it to a person."""


@dataclass(frozen=True)
class Resubmission:
    """One stage that a supervisor submitted again."""

    time: str
    """RFC 3339 UTC."""
    stage: str
    progress: int
    """Its progress at that time: shards with a record, or the step of its newest checkpoint."""
    why: str
    jobs: tuple[str, ...]
    submission: int | None = None
    """Number of the submission; None on this machine."""


def supervision_file(run: RunDir) -> Path:
    """The append-only list of resubmissions."""
    return run.root / "supervise.jsonl"


def read_resubmissions(run: RunDir) -> list[Resubmission]:
    """Every resubmission by a supervisor, oldest first; a line truncated by a crash is skipped."""
    path = supervision_file(run)
    if not path.is_file():
        return []
    rows = []
    for line in read_regular_text(path, "replace").splitlines():
        try:
            row: dict[str, Any] = parse_json(line)
            rows.append(Resubmission(**{**row, "jobs": tuple(row["jobs"])}))
        except (ValueError, KeyError, TypeError):
            continue
    return rows


def record_resubmission(
    run: RunDir,
    stage: str,
    progress: int,
    why: str,
    jobs: tuple[str, ...],
    submission: int | None = None,
) -> None:
    """Append one resubmission; only the supervisor that holds the run's lease calls it."""
    row = asdict(Resubmission(now(), stage, progress, why, jobs, submission))
    # A new line first: a line that a crash truncated must not swallow this one.
    with supervision_file(run).open("ab", buffering=0) as file:
        file.write(b"\n" * bool(file.tell()) + json.dumps(row, sort_keys=True).encode())


def resubmissions_without_progress(run: RunDir, stage: str, progress: int) -> int:
    """How often in a row a supervisor submitted `stage` again while it stood at `progress`.

    A submission by a person starts the count anew.
    """
    rows = [row for row in read_resubmissions(run) if row.stage == stage]
    known = [row.submission for row in rows if row.submission is not None]
    count = 0
    for row in reversed(rows):
        if row.progress != progress:
            break
        count += 1
    return 0 if known and _newest_submission(run, stage) > max(known) else count


def _newest_submission(run: RunDir, stage: str) -> int:
    from hpc.store.submissions import read_submissions

    return max((record.number for record in read_submissions(run) if record.of(stage)), default=-1)
