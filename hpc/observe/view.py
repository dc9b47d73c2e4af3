"""Formatting a status: lines of 80 columns, the same on a terminal, in a log and in colour."""

from __future__ import annotations

import json
import re
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpc.observe.queue import Queue
from hpc.observe.state import StageState
from hpc.observe.status import RunStatus, StageStatus
from hpc.observe.terminal import displayable
from hpc.observe.under_way import UnderWay

if TYPE_CHECKING:
    from rich.text import Text

WIDTH = 80
BAR = 8
ACTIVE = ("RUNNING", "STALLED", "PENDING", "REQUEUED", "BLOCKED", "FAILED")
"""States of a stage that a log line describes by more than their name."""
STYLES = {
    "COMPLETE": "green",
    "RUNNING": "bold cyan",
    "PENDING": "yellow",
    "REQUEUED": "yellow",
    "PARTIAL": "yellow",
    "STALLED": "bold red",
    "FAILED": "bold red",
    "BLOCKED": "bold red",
    "LOST": "bold red",
}
QUIET = ("COMPLETE", "WAITING")
"""States of a stage of which only the name is shown where there is little room."""
HEAD = f"  {'stage':<14}{'state':<10}{'done':<20}{'samples':>8}{'rejected':>9}{'rate':>8}{'ETA':>9}"


_QUOTED = r"'[^']*'(?:\"'\"'[^']*')*"
_WHOLE = re.compile(rf"\bsarhpc [a-z-]+ (?:{_QUOTED}|\S+)|(?<!\S){_QUOTED}")
"""A verb with its path, and a word in the quotes of a shell, as `shlex.quote` writes it."""
_BLANK = "\0"
"""Stands for a blank at which no line may end."""


@dataclass(frozen=True)
class Line:
    """One line of text, and the style of one word in it."""

    text: str
    word: str = ""
    style: str = ""


def status_lines(status: RunStatus, width: int = WIDTH, *, brief: bool = False) -> list[Line]:
    """The status as lines of at most `width` columns.

    Args:
        status: of the run.
        width: columns.
        brief: whether stages that are finished or have not begun share a line each.
    """
    info = status.run.info
    title = f"{status.run.root}  configuration {info['fingerprint']}"
    title += f"  profile {status.profile}" if status.profile else ""
    lines = [Line(text) for text in _wrapped(title, width, "", "  ")]
    lines.append(Line(HEAD, HEAD, "dim"))
    shown = [s for s in status.stages if not (brief and s.state in QUIET and not s.problem)]
    lines += _quiet_lines(status, "COMPLETE", width) if brief else []
    for stage in shown:
        lines.append(Line(_row(stage), stage.state, STYLES.get(stage.state, "dim")))
        facts = "; ".join(stage_facts(stage))
        lines += [Line(text, text, "dim") for text in _wrapped(facts, width)]
        if stage.problem:
            lines += [Line(text, text, "red") for text in _wrapped(f"! {stage.problem}", width)]
    lines += _quiet_lines(status, "WAITING", width) if brief else []
    for note in status.notes:
        lines += [Line(text, text, "red") for text in _wrapped(note, width, "  ")]
    if status.idle:
        lines += [Line(text, text, "red") for text in _wrapped(f"! {status.idle}", width, "", "  ")]
    if status.at_rest and not status.stopped:
        style = "dim" if all(s.state != "COMPLETE" for s in status.stages) else "green"
        lines += [Line(text, text, style) for text in _wrapped(status.at_rest, width, "", "  ")]
    if status.stopped:
        note = f"stopped by an operator; continue with: sarhpc resume {status.run.quoted}"
        lines += [Line(text, text, "yellow") for text in _wrapped(note, width, "", "  ")]
    return lines


def _quiet_lines(status: RunStatus, state: str, width: int) -> list[Line]:
    """The stages of a state without further details, in one line."""
    names = [s.disk.name for s in status.stages if s.state == state and not s.problem]
    text = f"{state}: {', '.join(names)}" if names else ""
    return [Line(line, line, "dim") for line in _wrapped(text, width, "  ", "    ")]


def _wrapped(text: str, width: int, first: str = " " * 6, rest: str = " " * 8) -> list[str]:
    # A path or a command must stay in one piece, to be copied.
    whole = _WHOLE.sub(lambda word: word[0].replace(" ", _BLANK), text)
    lines = textwrap.wrap(
        whole, width, initial_indent=first, subsequent_indent=rest,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return [line.replace(_BLANK, " ") for line in lines]


def _row(stage: StageStatus) -> str:
    disk = stage.disk
    made = str(disk.samples or "")
    out = str(disk.rejected or "")
    rate = "" if disk.per_s is None else rate_text(disk.per_s)
    eta = "" if disk.left_s is None else duration_text(disk.left_s)
    row = f"  {disk.name:<14}{stage.state:<10}{_done(disk, stage.state):<20}{made:>8}{out:>9}"
    return f"{row}{rate:>8}{eta:>9}".rstrip()


def _done(disk: StageState, state: str) -> str:
    """`412/1000 shards`, with a bar before it while work is in progress."""
    done, goal, unit = count_of(disk)
    count = f"{done}/{goal if goal is not None else '?'}"
    if state == "COMPLETE" or not goal or not (done or disk.under_way):
        return f"{count} {unit}"
    made = done if disk.under_way is None else done + disk.under_way.share
    filled = min(int(BAR * made / goal), BAR)
    return f"{'#' * filled}{'-' * (BAR - filled)} {count}"


def count_of(disk: StageState) -> tuple[int, int | None, str]:
    """How much is done, of how much if that is known, and of what: shards, or steps of one."""
    if disk.progress is not None:
        return disk.progress.done, disk.progress.goal, disk.progress.unit
    return disk.done, disk.planned or None, "shards"


def stage_facts(stage: StageStatus) -> Iterator[str]:
    """Facts that do not fit in the row."""
    disk, queue = stage.disk, stage.queue
    if stage.state == "COMPLETE":
        return
    yield from _queue_facts(queue)
    if not queue.jobs and disk.holder:
        yield f"by {disk.holder}"
    if disk.failed:
        yield f"failed {disk.failed}"
    if disk.reasons:
        most = sorted(disk.reasons.items(), key=lambda item: (-item[1], item[0]))
        yield f"out: {', '.join(f'{reason} {count}' for reason, count in most[:4])}"
    if disk.attempts > 1:
        yield f"attempt {disk.attempts}"
    if disk.under_way is not None:
        yield _under_way(disk.under_way)
    if disk.progress is not None and disk.progress.note:
        yield disk.progress.note
    if disk.checkpoint is not None and disk.checkpoint_s is not None:
        yield f"checkpoint {disk.checkpoint} {duration_text(disk.checkpoint_s)} old"
    if disk.heartbeat_age_s is not None and disk.heartbeat_age_s > 60:
        yield f"last heartbeat {duration_text(disk.heartbeat_age_s)} ago"


def _under_way(inside: UnderWay) -> str:
    """`2 shards under way: 31/64 samples, 3.1/s, 5,580 per GPU-hour`."""
    goal = "" if inside.goal is None else f"/{inside.goal}"
    shards = "1 shard" if inside.shards == 1 else f"{inside.shards} shards"
    text = f"{shards} under way: {inside.done}{goal} samples"
    text += f", {rate_text(inside.per_s)}" if inside.per_s else ""
    if inside.per_gpu_hour is not None:
        return f"{text}, {inside.per_gpu_hour:,.0f} per GPU-hour"
    if inside.per_core_hour is not None:
        return f"{text}, {inside.per_core_hour:,.0f} per CPU-core-hour"
    return text


def _queue_facts(queue: Queue) -> Iterator[str]:
    if not queue.jobs:
        return
    many = queue.working + queue.waiting > 1
    counts = f": {queue.working} running, {queue.waiting} waiting" if many else ""
    yield f"job {','.join(queue.jobs)}{f' on {queue.nodes}' if queue.nodes else ''}{counts}"
    if queue.reasons:
        yield f"waits: {', '.join(queue.reasons[:2])}"
    if queue.restarts:
        yield f"restarts {queue.restarts}"
    if queue.time_left_s is not None:
        yield f"time limit in {duration_text(queue.time_left_s)}"


def duration_text(seconds: float) -> str:
    """A duration in at most two units: `42 s`, `12 min`, `3 h 05`, `2 d 04 h`."""
    minutes, hours = int(seconds) // 60, int(seconds) // 3600
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60:02}" if hours < 48 else f"{hours // 24} d {hours % 24:02} h"


def rate_text(per_s: float) -> str:
    """A rate in the most readable unit: `3.1/s`, `12/min`, `4.2/h`."""
    for factor, unit in ((1, "s"), (60, "min")):
        if per_s * factor >= 1:
            return f"{per_s * factor:.3g}/{unit}"
    return f"{per_s * 3600:.3g}/h"


def key_values(status: RunStatus) -> str:
    """The status in one `key=value` line, for a log: all stages, then those that are worked on.

    A rate or a remaining time that is not known has no key.
    """
    words = [f"{stage.disk.name}={stage.state}:{stage.disk.done}" for stage in status.stages]
    for stage in status.stages:
        if stage.state in ACTIVE:
            words += [f"{stage.disk.name}/{word}" for word in _key_values(stage)]
    if status.idle:
        words.append(f"problem={_quoted(status.idle)}")
    return f"{time.strftime('%H:%M:%S')} {' '.join(words)}"


def _key_values(stage: StageStatus) -> Iterator[str]:
    disk = stage.disk
    yield f"shards={disk.done}/{disk.planned or '?'}"
    if disk.samples is not None:
        yield f"samples={disk.samples}"
    if disk.under_way is not None:
        yield f"under_way={_of(disk.under_way.done, disk.under_way.goal)}"
        if disk.under_way.per_s:
            yield f"samples_per_s={disk.under_way.per_s:.4g}"
    unit = "shards"
    if disk.progress is not None:
        unit = disk.progress.unit
        yield f"{unit}={_of(disk.progress.done, disk.progress.goal)}"
    if disk.per_s is not None:
        yield f"{unit}_per_s={disk.per_s:.4g}"
    if disk.left_s is not None:
        yield f"eta_s={disk.left_s:.0f}"
    if disk.progress is not None and disk.progress.note:
        yield f"note={_quoted(disk.progress.note)}"
    if stage.queue.reasons:
        yield f"waits={_quoted(stage.queue.reasons[0])}"
    if stage.problem:
        yield f"problem={_quoted(stage.problem)}"


def _of(done: int, goal: int | None) -> str:
    """`31/64`, or `31` while the goal is unknown."""
    return f"{done}" if goal is None else f"{done}/{goal}"


def _quoted(text: str) -> str:
    """`text` as one word of a `key=value` line."""
    return json.dumps(text) if re.search(r'[\s"=]', text) else text


def show(status: RunStatus) -> None:
    """Print the status once, in colour if standard output is a terminal."""
    import sys

    lines = status_lines(status)
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console(highlight=False, soft_wrap=True)
        for line in lines:
            console.print(rich_text(line))
    else:
        print("\n".join(line.text for line in lines))


def rich_text(line: Line) -> Text:
    """The line as rich shows it, its word in colour."""
    from rich.text import Text

    text = Text(displayable(line.text))
    if line.word:
        at = text.plain.index(displayable(line.word))
        text.stylize(line.style, at, at + len(line.word))
    return text
