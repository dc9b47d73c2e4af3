"""Slurm's commands: the only module that calls them.

Every query is one command for all jobs. Commands that a site may lack (`sacct` switched off, no
`scontrol` on the nodes) have a fallback, or an error that names one.
"""

from __future__ import annotations

import logging
import os
import pwd
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpc.cluster.slurm_command import (
    COUNTS,
    RETRIES,
    SlurmMissingError,
    SlurmRefusedError,
    SlurmUnavailableError,
    run_command,
)
from hpc.cluster.slurm_text import (
    ACCOUNT_FIELDS,
    FIELD_END,
    PARTITION_FIELDS,
    QUEUE_FIELDS,
    ROW_END,
    AccountedJob,
    NodeKind,
    NodeState,
    Partition,
    QueuedJob,
    expand_hosts,
    pairs,
    parse_accounting,
    parse_config,
    parse_nodes,
    parse_partitions,
    parse_queue,
    plain_id,
    seconds,
    slurm_time,
)

__all__ = [
    "COUNTS",
    "AccountedJob",
    "Limits",
    "NodeKind",
    "NodeState",
    "Partition",
    "QueuedJob",
    "SlurmMissingError",
    "SlurmRefusedError",
    "SlurmUnavailableError",
    "accounting",
    "accounts",
    "cancel",
    "cluster_name",
    "expand_hosts",
    "find_by_comment",
    "is_available",
    "limits",
    "nodes",
    "partitions",
    "queue",
    "requeue",
    "run_command",
    "run_step",
    "signal",
    "test_request",
    "time_left_s",
    "update",
]

_UNKNOWN_JOB = re.compile("Invalid job id")
_LONGEST_WORD = 100_000
"""Maximum characters of one argument; the system refuses more than 131,071."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """Limits of a cluster and its treatment of jobs, as far as they are known."""

    max_array_size: int = 1001
    """One more than the highest index of an array."""
    max_jobs: int | None = None
    """Jobs and array elements that this user may have in the queue; None if unknown."""
    preempt_mode: str = "OFF"
    preempt_type: str = ""
    sends_user_signal: bool = False
    """Whether a preempted job receives its `--signal` at the start of the grace time."""
    kill_wait_s: int = 30
    """Seconds from SIGTERM to SIGKILL."""
    cred_expire_s: int = 120
    """Minimum seconds that a requeued job waits."""
    accounting: bool = False
    """Whether `sacct` works."""
    accounts_gpus: bool = False
    """Whether the accounting counts GPUs."""
    stores_comments: bool = False
    """Whether the accounting keeps a job's comment."""
    enforces_accounts: bool = False
    """Whether a job without a valid account is refused."""
    version: str = ""


def is_available() -> bool:
    """Whether this machine has Slurm's commands."""
    return all(shutil.which(command) for command in ("sbatch", "squeue"))


def queue(
    ids: Sequence[str] | None = None,
    *,
    elements: bool = False,
    ended: bool = False,
    retries: int = RETRIES,
) -> list[QueuedJob]:
    """The jobs of those ids, or all of this user's, by one `squeue`; unknown ids are absent.

    Args:
        ids: job ids, or `array_index` for one element; an array's id includes all its elements.
        elements: one row for each waiting element of an array, instead of one for all. Slurm 22.05
            omits the last one if the array has a step (`1-9:2`).
        ended: also jobs that have ended and are still known (MinJobAge).
        retries: see `run_command`.
    """
    if ids is not None and not ids:
        return []
    command = ["squeue", "--noheader", "--Format", ",".join(_queue_format())]
    command += ["--array"] * elements + ["--states=all"] * ended
    joined = ",".join(ids or ())
    by_id = bool(ids) and len(joined) < _LONGEST_WORD
    command += ["--jobs", joined] if by_id else ["--user", str(os.getuid())]
    try:
        jobs = parse_queue(run_command(command, retries=retries))
    except SlurmRefusedError as error:
        # squeue fails so if it knows none of them; if it knows some, it lists those.
        if by_id and _UNKNOWN_JOB.search(str(error)):
            return []
        raise
    if by_id or ids is None:
        return jobs
    wanted = set(ids)
    return [job for job in jobs if job.id in wanted or job.job_id in wanted]


def _queue_format() -> list[str]:
    ends = [FIELD_END] * (len(QUEUE_FIELDS) - 1) + [ROW_END]
    # Without a width before its suffix a field is not truncated.
    return [f"{name}:{end}" for name, end in zip(QUEUE_FIELDS, ends, strict=True)]


def find_by_comment(token: str) -> list[QueuedJob]:
    """This user's jobs, ended ones too, with `token` as a colon-separated part of the comment."""
    return [job for job in queue(ended=True) if token in (job.comment, *job.comment.split(":"))]


def accounting(ids: Sequence[str], since: str) -> list[AccountedJob]:
    """Every attempt of those jobs, by one `sacct`; empty, with a log line, without accounting.

    Args:
        ids: job ids; an array's id includes all its elements.
        since: earliest start of an attempt (RFC 3339, or local time without zone).
    """
    if not ids:
        return []
    command = ["sacct", "--allocations", "--duplicates", "--noheader", "--parsable2"]
    command += [f"--delimiter={FIELD_END}", f"--starttime={slurm_time(since)}"]
    command += [f"--format={','.join(ACCOUNT_FIELDS)}", f"--jobs={','.join(ids)}"]
    try:
        return parse_accounting(run_command(command, retries=1))
    except (SlurmUnavailableError, SlurmRefusedError) as error:
        _log.warning("no accounting, so no past attempts and no GPU-hours from Slurm: %s", error)
        return []


def requeue(job_id: str, *, retries: int = 8) -> None:
    """Requeue a running job; a pending job is left as it is.

    Never call it for a job that may have ended: Slurm would start the finished job again.

    Raises:
        SlurmMissingError: no `scontrol` on this node; the profile then needs `requeue: chain`.
        SlurmUnavailableError: the controller did not answer.
        SlurmRefusedError: the job may not be requeued, or is unknown.
    """
    try:
        run_command(["scontrol", "requeue", job_id], retries=retries)
    except SlurmMissingError as error:
        raise SlurmMissingError(
            f"job {job_id} cannot requeue itself: no scontrol on this node. "
            "Set `requeue: chain` in the profile; `sarhpc resume RUN` continues the run."
        ) from error
    except SlurmRefusedError as error:
        if "pending execution" not in str(error):
            raise


def cancel(ids: Sequence[str], *, signal: str | None = None) -> None:
    """Cancel those jobs, or send them `signal`; ended ones are ignored."""
    if ids:
        command = ["scancel"] + ([f"--signal={signal}"] if signal else [])
        run_command([*command, *map(plain_id, ids)])


def signal(ids: Sequence[str], name: str) -> None:
    """Send a signal (`USR2`) to the processes of those jobs' steps, not to their batch shells."""
    cancel(ids, signal=name)


def update(job_id: str, **fields: str | int) -> None:
    """Change a job, for example `update("12", TimeLimit=30)`.

    Raises:
        SlurmRefusedError: the job is unknown, has ended, or this change is not allowed.
    """
    command = [f"{name}={value}" for name, value in fields.items()]
    run_command(["scontrol", "update", f"JobId={job_id}", *command])


def time_left_s(job_id: str) -> int | None:
    """Seconds to the job's time limit; None if it has none or it is unknown."""
    try:
        found = queue([job_id], retries=1)
    except SlurmUnavailableError as error:
        _log.warning("time left of job %s unknown to squeue: %s", job_id, error)
        return _time_left_from_scontrol(job_id)
    running = [job.left_s for job in found if job.nodes]
    return running[0] if running else None


def _time_left_from_scontrol(job_id: str) -> int | None:
    try:
        fields = pairs(run_command(["scontrol", "--oneliner", "show", "job", job_id], retries=0))
    except (SlurmUnavailableError, SlurmRefusedError) as error:
        _log.warning("time left of job %s unknown: %s", job_id, error)
        return None
    limit, used = seconds(fields.get("TimeLimit", "")), seconds(fields.get("RunTime", ""))
    return None if limit is None or used is None else max(limit - used, 0)


def limits(account: str | None = None) -> Limits:
    """Limits of the cluster; defaults where a site does not let users query them.

    Args:
        account: use this account's submit limit only.

    Raises:
        SlurmUnavailableError: the controller did not answer.
    """
    try:
        settings = parse_config(run_command(["scontrol", "show", "config"]))
    except SlurmMissingError as error:
        _log.warning("limits unknown, using defaults: %s", error)
        return Limits()
    storage = settings.get("AccountingStorageType", "")
    accounted = not storage.endswith("none")
    expire = re.search(r"cred_expire=(\d+)", settings.get("AuthInfo", ""))
    return Limits(
        max_array_size=_number(settings, "MaxArraySize", 1001),
        max_jobs=_max_submit(account) if accounted else None,
        preempt_mode=settings.get("PreemptMode", "OFF"),
        preempt_type=settings.get("PreemptType", ""),
        sends_user_signal="preempt_send_user_signal" in settings.get("SlurmctldParameters", ""),
        kill_wait_s=_number(settings, "KillWait", 30),
        cred_expire_s=int(expire[1]) if expire else 120,
        accounting=accounted,
        accounts_gpus="gres/gpu" in settings.get("AccountingStorageTRES", ""),
        stores_comments="job_comment" in settings.get("AccountingStoreFlags", ""),
        enforces_accounts="associations" in settings.get("AccountingStorageEnforce", ""),
        version=settings.get("SLURM_VERSION", ""),
    )


def _number(settings: dict[str, str], name: str, default: int) -> int:
    found = re.match(r"\d+", settings.get(name, ""))
    return int(found[0]) if found else default


def _max_submit(account: str | None) -> int | None:
    """The lowest submit limit that may apply to this user; None if there is none."""
    user = pwd.getpwuid(os.getuid()).pw_name
    ask = ["sacctmgr", "--noheader", "--parsable2", "show"]
    try:
        rows = run_command(
            [*ask, "assoc", f"user={user}", "format=Account,MaxSubmit,QOS"], retries=0
        )
        granted = [row.split("|") for row in rows.splitlines() if row.count("|") == 2]
        mine = [row for row in granted if account in (None, row[0])]
        services = {service for row in mine for service in row[2].split(",")}
        rows = run_command([*ask, "qos", "format=Name,MaxSubmitJobsPerUser"], retries=0)
        capped = [row.split("|") for row in rows.splitlines() if row.count("|") == 1]
    except (SlurmUnavailableError, SlurmRefusedError) as error:
        _log.info("submit limit unknown: %s", error)
        return None
    found = [row[1] for row in mine] + [most for name, most in capped if name in services]
    return min((int(most) for most in found if most.isdigit()), default=None)


def accounts() -> list[str]:
    """The accounts that this user may charge; empty if unknown."""
    user = pwd.getpwuid(os.getuid()).pw_name
    command = ["sacctmgr", "--noheader", "--parsable2", "show", "assoc", f"user={user}"]
    try:
        names = run_command([*command, "format=Account"], retries=0)
    except (SlurmUnavailableError, SlurmRefusedError) as error:
        _log.info("accounts unknown: %s", error)
        return []
    return list(dict.fromkeys(names.split()))


def test_request(options: Sequence[str]) -> None:
    """Raise SlurmRefusedError unless Slurm accepts these options of sbatch; submits nothing."""
    run_command(["sbatch", "--test-only", *options, "--wrap=true"], retries=1)


def run_step(command: Sequence[str], *, env: Mapping[str, str], timeout_s: float = 900.0) -> str:
    """The output of a short job; waits until it has run.

    Args:
        command: options of srun, the program and its arguments.
        env: variables of the job in addition to this process's own.
        timeout_s: time to wait in the queue and to run, s.

    Raises:
        SlurmRefusedError: it was not accepted, or its exit code was not 0.
        SlurmUnavailableError: it did not end in time, or Slurm did not answer.
    """
    return run_command(["srun", *command], retries=0, timeout_s=timeout_s, env=env)


def partitions() -> list[Partition]:
    """The partitions visible to this user, each with its kinds of node."""
    text = run_command(["sinfo", "--noheader", "-o", FIELD_END.join(PARTITION_FIELDS) + ROW_END])
    try:
        details = run_command(["scontrol", "--oneliner", "show", "partition"], retries=0)
    except (SlurmUnavailableError, SlurmRefusedError) as error:
        _log.info("preemption of the partitions unknown: %s", error)
        details = ""
    return parse_partitions(text, details)


def nodes(names: Sequence[str] | None = None) -> list[NodeState]:
    """The nodes with those names, or all, with their states and reasons."""
    command = ["sinfo", "--noheader", "--Node", "-o", f"%N{FIELD_END}%T{FIELD_END}%E{ROW_END}"]
    return parse_nodes(run_command([*command, *(["--nodes", ",".join(names)] if names else [])]))


def cluster_name() -> str | None:
    """Name of the cluster; None if unknown here.

    Raises:
        SlurmUnavailableError: the controller did not answer.
    """
    name = os.environ.get("SLURM_CLUSTER_NAME")
    if name:
        return name
    try:
        return parse_config(run_command(["scontrol", "show", "config"])).get("ClusterName")
    except (SlurmMissingError, SlurmRefusedError):
        return None
