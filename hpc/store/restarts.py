"""The restart budget of a stage: judged from the rows of its attempts alone (P5).

Two rules. Three failures in a row without progress are a crash loop. And whatever the ends were,
50 starts since the last progress are enough: that catches what no end row tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

CRASH_LIMIT = 3
"""Failures in a row without progress that stop a run."""
RESTART_LIMIT = 50
"""Starts since the last progress that stop a run, over all its jobs."""
SIGNALLED = 128
"""Exit codes from here on encode the signal that ended the attempt."""
KILLED = SIGNALLED + 9
"""Exit code of an attempt that wrote no end row."""
HANG = "HANG"
"""Value of `stop` in the end row of an attempt that a watchdog ended."""
BAD_NODE = "BAD_NODE"
"""Value of `stop` in the end row of an attempt on a node that was unfit for the work."""

Row = Mapping[str, Any]


def exhausted(rows: Sequence[Row], killed: int | None = None) -> str | None:
    """Why no further attempt may begin, without the place; None while one may.

    A failure counts 1, and so does a walltime used up without progress. An attempt that was killed
    (lost node, out of memory) or ended on an unfit node counts 0.5: the cause may be external, but
    not six times in a row. Preemptions and stops by a person are no failures. All of them but the
    operator's stops count towards the limit of restarts.

    Args:
        rows: of one array element, or of the stage as a whole.
        killed: attempt known to have been killed, which has no end row yet; so were those before.
    """
    starts = {row["attempt"]: row for row in rows if "from" in row}
    ends = {row["attempt"]: row for row in rows if "to" in row}
    for number, start in starts.items():
        if killed is not None and number <= killed and number not in ends:
            ends[number] = {"to": start["from"], "exit": KILLED, "reason": "killed"}
    failures = _failures(starts, ends)
    if sum(map(_weight, failures)) >= CRASH_LIMIT:
        many = f"{len(failures)} attempts in a row made no progress"
        return f"{many}, the last ended with {failures[0]['reason']!r}"
    idle = _idle_ends(starts, ends)
    if len(idle) >= RESTART_LIMIT:
        return (
            f"{len(idle)} restarts since the last progress, the last ended with "
            f"{idle[0]['reason']!r}"
        )
    return None


def _failures(starts: Mapping[int, Row], ends: Mapping[int, Row]) -> list[Row]:
    """Ends that count, newest first, back to the last progress or the operator's override."""
    counted: list[Row] = []
    for number in sorted(starts, reverse=True):
        end = ends.get(number)
        if end is not None and end["to"] != starts[number]["from"]:
            break
        if end is not None and _weight(end) > 0:
            counted.append(end)
        if starts[number].get("forced"):
            break
    return counted


def _idle_ends(starts: Mapping[int, Row], ends: Mapping[int, Row]) -> list[Row]:
    """Ends since the progress last exceeded all before it, newest first; no operator's stops.

    Two checkpoints of which the newer one is always lost are no progress.
    """
    reached, idle = float("-inf"), list[Row]()
    for number in sorted(starts):
        start, end = starts[number], ends.get(number)
        if start.get("forced"):
            reached, idle = float("-inf"), []
        reached = max(reached, start["from"])
        if end is None:
            continue
        if end["to"] > reached:
            reached, idle = end["to"], []
        elif end.get("stop") != "STOP_FILE":
            idle.append(end)
    return idle[::-1]


def _weight(end: Row) -> float:
    if end.get("stop") == BAD_NODE:
        return 0.5
    if end["exit"] == 0:
        return 1.0 if end.get("stop") == "DEADLINE" else 0.0
    if end["exit"] == KILLED:
        return 0.5
    return 1.0 if end["exit"] < SIGNALLED else 0.0
