"""Parsers for the output of Slurm's commands; nothing here calls a command.

Rows are requested with ASCII unit separators between fields and record separators at their ends:
a job's name and comment may contain bars, blanks and even line breaks (measured with Slurm 22.05).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass

from hpc.errors import HpcError

FIELD_END = "\x1f"
ROW_END = "\x1e"

ENDED_STATES = frozenset(
    (
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    )
)
"""States of ended attempts. A preempted or node-failed job may be queued again."""

QUEUE_FIELDS = (
    "JobArrayID", "State", "Reason", "Partition", "NodeList", "TimeUsed", "TimeLeft",
    "RestartCnt", "Name", "Comment",
)  # fmt: skip
ACCOUNT_FIELDS = (
    "JobID", "State", "ElapsedRaw", "AllocTRES", "NCPUS", "NodeList", "ExitCode", "Start", "End",
    "JobName", "Comment",
)  # fmt: skip
_MOST_LISTED = 100_000
"""Nodes or array elements that one list may stand for."""

PARTITION_FIELDS = ("%P", "%a", "%l", "%D", "%c", "%m", "%G", "%f", "%p")


@dataclass(frozen=True)
class QueuedJob:
    """A job, or one element of an array, in the queue."""

    id: str
    """`123`, `123_4`, or `123_[5-9%2]` for the pending elements of an array."""
    name: str
    state: str
    """`PENDING`, `RUNNING`, `COMPLETING`, `SUSPENDED`, ... in full."""
    reason: str
    """Why it waits (`Priority`, `DependencyNeverSatisfied`, ...); `None` while it runs."""
    partition: str
    nodes: str
    """Host list such as `n[1-2]`; empty while it waits."""
    elapsed_s: int | None
    left_s: int | None
    """Seconds to the time limit; None without a limit."""
    restarts: int | None
    """Number of restarts by Slurm."""
    comment: str

    @property
    def job_id(self) -> str:
        """The number that `sbatch` printed: that of the array, for its elements."""
        return self.id.partition("_")[0]

    @property
    def ended(self) -> bool:
        """Whether it has ended; such jobs are listed only on request."""
        return self.state in ENDED_STATES


@dataclass(frozen=True)
class AccountedJob:
    """One attempt of a job in the accounting; a requeued job has several."""

    id: str
    name: str
    state: str
    """One word, such as `COMPLETED`, `CANCELLED`, `REQUEUED`, `PREEMPTED`, `NODE_FAIL`."""
    elapsed_s: int
    gpus: int
    """GPUs allocated; 0 also where the site does not account for them."""
    cpus: int
    nodes: str
    exit_code: str
    """`code:signal`; `0:53` means that the directory of the log was missing."""
    started: str
    """Local time as Slurm prints it; empty if the attempt never started."""
    ended: str
    """Local time as Slurm prints it; empty while it runs."""
    comment: str
    """Empty unless the site stores comments (`AccountingStoreFlags=job_comment`)."""

    @property
    def job_id(self) -> str:
        """The number that `sbatch` printed: that of the array, for its elements."""
        return self.id.partition("_")[0]


@dataclass(frozen=True)
class NodeKind:
    """Nodes of one partition with equal hardware."""

    count: int
    cpus: int
    mem_mb: int
    gpus: int
    gpu_type: str
    features: str


@dataclass(frozen=True)
class Partition:
    """A partition and the kinds of node it has."""

    name: str
    default: bool
    up: bool
    max_time_s: int | None
    """Longest time limit; None for unlimited."""
    kinds: tuple[NodeKind, ...]
    priority_tier: int | None = None
    preempt_mode: str | None = None
    """What happens to its jobs when another partition needs the nodes; None if unknown."""
    grace_s: int = 0
    """Seconds that a preempted job has to save."""

    @property
    def gpus_per_node(self) -> int:
        """Maximum GPUs of a node."""
        return max((kind.gpus for kind in self.kinds), default=0)


@dataclass(frozen=True)
class NodeState:
    """A node and its state."""

    name: str
    state: str
    """`idle`, `mixed`, `allocated`, `down*`, `drained`, ...; `*`: it does not respond."""
    reason: str
    """Reason given by an administrator or the controller; empty if there is none."""

    @property
    def usable(self) -> bool:
        """Whether jobs can start on it, now or when it is free."""
        return self.state.rstrip("~#%$@^-+") in {"idle", "mixed", "allocated", "completing"}


def rows(text: str, fields: int, row_end: str = ROW_END) -> Iterator[list[str]]:
    """Yield the fields of every row; surplus separators are part of its last field."""
    for row in text.split(f"{row_end}\n") if row_end != "\n" else text.splitlines():
        if row.strip():
            found = row.rstrip(row_end).split(FIELD_END, fields - 1)
            if len(found) == fields:
                yield found


def parse_queue(text: str) -> list[QueuedJob]:
    """The jobs in the output of `squeue` with QUEUE_FIELDS."""
    return [
        QueuedJob(
            id=job,
            name=name,
            state=state,
            reason=reason,
            partition=partition,
            nodes=_known(nodes),
            elapsed_s=seconds(used),
            left_s=seconds(left),
            restarts=_whole(restarts),
            comment=_known(comment),
        )
        for job, state, reason, partition, nodes, used, left, restarts, name, comment in rows(
            text, len(QUEUE_FIELDS)
        )
    ]


def parse_accounting(text: str) -> list[AccountedJob]:
    """The attempts in the output of `sacct` with ACCOUNT_FIELDS."""
    # sacct has no option for the end of a row; a line break in a name splits a row in two lines.
    joined = re.sub(r"\n(?!\d+(?:_[\d\[][^\x1f]*)?\x1f)", " ", text.rstrip("\n"))
    return [
        AccountedJob(
            id=job,
            name=name,
            state=(state.split() or ["UNKNOWN"])[0],
            elapsed_s=_whole(elapsed) or 0,
            gpus=gpu_count(tres),
            cpus=_whole(cpus) or 0,
            nodes=_known(nodes),
            exit_code=code,
            started=_known(start),
            ended=_known(end),
            comment=_known(comment),
        )
        for job, state, elapsed, tres, cpus, nodes, code, start, end, name, comment in rows(
            joined + "\n", len(ACCOUNT_FIELDS), row_end="\n"
        )
    ]


def parse_partitions(text: str, details: str = "") -> list[Partition]:
    """The partitions in the output of `sinfo` with PARTITION_FIELDS, in its order.

    Args:
        text: one row for each kind of node of each partition.
        details: output of `scontrol --oneliner show partition`, if it is available.
    """
    found: dict[str, list[list[str]]] = {}
    for row in rows(text, len(PARTITION_FIELDS)):
        found.setdefault(row[0], []).append(row)
    lines = map(pairs, details.splitlines())
    settings = {line["PartitionName"]: line for line in lines if "PartitionName" in line}
    return [
        _partition(name, kinds, settings.get(name.rstrip("*"), {})) for name, kinds in found.items()
    ]


def _partition(name: str, kinds: list[list[str]], settings: dict[str, str]) -> Partition:
    _, up, limit, *_, tier = kinds[0]
    return Partition(
        name=name.rstrip("*"),
        default=name.endswith("*"),
        up=up == "up",
        max_time_s=seconds(limit),
        kinds=tuple(
            NodeKind(
                count=_leading_int(count),
                cpus=_leading_int(cpus),
                mem_mb=_leading_int(mem),
                gpus=gpu_count(gres),
                gpu_type=gpu_type(gres),
                features=_known(features),
            )
            for _, _, _, count, cpus, mem, gres, features, _ in kinds
        ),
        priority_tier=_whole(settings.get("PriorityTier", tier)),
        preempt_mode=settings.get("PreemptMode"),
        grace_s=_leading_int(settings.get("GraceTime", "0")),
    )


def parse_nodes(text: str) -> list[NodeState]:
    """The nodes in the output of `sinfo -N` as name, state, reason; each once."""
    found = {
        name: NodeState(name, state, "" if reason == "none" else reason)
        for name, state, reason in rows(text, 3)
    }
    return list(found.values())


def parse_config(text: str) -> dict[str, str]:
    """The settings of `scontrol show config` by name."""
    lines = (line.partition("=") for line in text.splitlines())
    return {name.strip(): value.strip() for name, equals, value in lines if equals}


def pairs(line: str) -> dict[str, str]:
    """The `Key=value` words of one line of `scontrol --oneliner`."""
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


def seconds(text: str) -> int | None:
    """Seconds of `[days-][hours:]minutes:seconds`; None for `UNLIMITED`, `infinite`, `INVALID`."""
    found = re.fullmatch(r"(?:(\d{1,9})-)?(?:(\d{1,9}):)?(\d{1,9}):(\d{1,9})", text.strip())
    if found is None:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def gpu_count(tres: str) -> int:
    """GPUs in `cpu=4,gres/gpu=2` or `gpu:a100:4(S:0-1),nvme:1`; a total takes precedence."""
    total = re.search(r"gres/gpu=(\d{1,9})", tres)
    if total:
        return int(total[1])
    typed = re.findall(r"gres/gpu:[^=,]+=(\d{1,9})", tres)
    plain = re.findall(r"(?:^|,)gpu(?::[A-Za-z_][^:,(]*)?:(\d{1,9})", tres)
    return sum(int(number) for number in typed or plain)


def gpu_type(gres: str) -> str:
    """The GPU type in `gpu:a100:4`; empty if there is none."""
    found = re.search(r"(?:^|,)gpu:([A-Za-z_][^:,(]*):\d+", gres)
    return found[1] if found else ""


def expand_hosts(text: str) -> list[str]:
    """The names in a host list such as `n[1-3,07],login`, in order.

    One bracket per name, as Slurm prints it for numbered nodes; leading zeros are kept.

    Raises:
        HpcError: a bracket holds no numbers, or the list stands for too many names.
    """
    names: list[str] = []
    for prefix, numbers, suffix in re.findall(r"([^,\[\]]+)(?:\[([^\]]*)\])?([^,\[\]]*)", text):
        if not numbers:
            names.append(prefix + suffix)
            continue
        for part in numbers.split(","):
            first, _, _ = part.partition("-")
            span = _span(part, 1, text)
            if len(names) + len(span) > _MOST_LISTED:
                raise HpcError(f"the host list {text[:80]!r} stands for too many nodes")
            names += [f"{prefix}{number:0{len(first)}d}{suffix}" for number in span]
    return names


def plain_id(job: str) -> str:
    """The id in the form `scancel` accepts: `17_[3-9:2%1]` of `squeue` becomes `17_[3,5,7,9]`.

    Raises:
        HpcError: the bracket holds no numbers, or too many.
    """
    array, bracket, rest = job.partition("_[")
    if not bracket or not set(rest) & set(":%"):
        return job
    indices: list[int] = []
    for part in rest.rstrip("]").partition("%")[0].split(","):
        span, _, step = part.partition(":")
        indices += _span(span, _whole(step or "1") or 1, job)
    return f"{array}_[{','.join(map(str, indices))}]"


def slurm_time(moment: str) -> str:
    """Local time in the form of Slurm's `--starttime`, from RFC 3339 or from that form.

    Slurm has no time zones; a time with one is converted to this machine's.

    Raises:
        HpcError: it is none.
    """
    try:
        time = datetime.datetime.fromisoformat(moment)
        local = time.astimezone() if time.tzinfo else time
    except (ValueError, OverflowError) as error:
        raise HpcError(f"{moment!r} is no RFC 3339 time; restore the submissions") from error
    return local.strftime("%Y-%m-%dT%H:%M:%S")


def _span(part: str, step: int, text: str) -> range:
    """The numbers of `3-7`, or of `3`, in the list `text`."""
    first, _, last = part.partition("-")
    start, end = _whole(first), _whole(last or first)
    if start is None or end is None:
        raise HpcError(f"{text[:80]!r} is neither a host list nor a job id of Slurm: {part[:40]!r}")
    if end - start >= _MOST_LISTED:
        raise HpcError(f"the host list or job id {text[:80]!r} stands for too many")
    return range(start, end + 1, step)


def _whole(text: str) -> int | None:
    """The number in a text of digits; None for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _known(text: str) -> str:
    return "" if text in ("(null)", "None assigned", "Unknown", "None", "N/A", "n/a") else text


def _leading_int(text: str) -> int:
    found = re.match(r"\d{1,18}", text)
    return int(found[0]) if found else 0
