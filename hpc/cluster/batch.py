"""One Slurm job: its script, its pickled work, and its submission exactly once.

The script is the complete request: it stays in the run directory, and `sbatch` of that file by hand
does what the verb did. It runs submitit's worker with our pickled work, as a local job does. The
script links that pickle to the name that submitit expects, because the job's id is known only
inside the job; so there is nothing to do after sbatch has returned, an array of thousands shares
one pickle, and a login node that dies at the wrong moment loses nothing.
"""

from __future__ import annotations

import logging
import re
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpc.cluster import slurm
from hpc.cluster.profile import Profile, Resources
from hpc.cluster.submit import FAILURE_GRACE_S, RankedWork, require_picklable
from hpc.errors import ConfigError, HpcError, IncompleteError
from hpc.publish import publish_text, publishing
from hpc.store.run_paths import require_plain_path

RETRY_PAUSES_S = (2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 60.0, 60.0, 60.0)
"""Seconds between attempts to submit while Slurm does not answer."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchJob:
    """One job, or one array, before it is submitted."""

    name: str
    """Job name, `<run>-<stage>`."""
    comment: str
    """Ends in `:<token>`, unique to this job: identifies it if sbatch's answer is lost."""
    work: Callable[[], int]
    """Picklable by reference; every task calls it, its return value is the exit code."""
    script: Path
    """Path of the script; the pickled work is beside it."""
    logs: Path
    """Directory for logs."""
    resources: Resources
    profile: Profile
    code: Path | None = None
    """The code snapshot: first directory of the import path."""
    elements: int | None = None
    """Elements if this is an array."""
    exclude: tuple[str, ...] = ()
    """Nodes to exclude."""
    repair: tuple[str, ...] = ()
    """Arguments of the interpreter for a command that submits upstream stages again, run if the
    work found one unsealed; empty for none."""

    @property
    def pickle(self) -> Path:
        """The pickled work."""
        return self.script.with_suffix(".pkl")

    @property
    def log_pattern(self) -> str:
        """Name of the log of task `%t` in attempt `%r`, as in `SubmittedJob.logs`."""
        job = "%j" if self.elements is None else "%A_%a"
        return f"{job}_%t.a%r.log"


def script_text(job: BatchJob) -> str:
    """The sbatch script: the requested resources, the job's environment, its command.

    Raises:
        ConfigError: a path or name cannot be written in such a script.
    """
    for path in (job.script, job.logs, job.code or job.logs):
        require_plain_path(path)
    _require_writable(job.name, job.comment)
    options = [_option(name, value) for name, value in sorted(_options(job).items())]
    lines = ["#!/bin/bash", *options, "", *_setup(job), "", _command(job), *_requeue_lines(job), ""]
    return "\n".join(lines)


def write_script(job: BatchJob) -> None:
    """Publish the script and the pickled work of `job`, and create the directory of its logs.

    Raises:
        ConfigError: the work cannot be pickled.
    """
    from submitit.core.utils import DelayedSubmission

    require_picklable(job.work)
    # Slurm fails a job without a message if the directory of its log is missing.
    job.logs.mkdir(parents=True, exist_ok=True)
    # submitit's own handler, which would count time-outs, is replaced by ours once the work runs.
    delayed = DelayedSubmission(RankedWork(job.work, "slurm", FAILURE_GRACE_S))
    delayed.set_timeout(job.resources.time_min, 1000)
    import cloudpickle

    with publishing(job.pickle) as file:
        cloudpickle.dump(delayed, file)
    publish_text(job.script, script_text(job))


def submit_script(job: BatchJob, dependency: str | None = None) -> str:
    """Submit the written script of `job` and return its id.

    A lost answer does not mean a lost job: before each retry the queue is searched for the job's
    comment, so that the job is submitted once.

    Args:
        job: as written by `write_script`.
        dependency: such as `afterany:122`.

    Raises:
        SlurmUnavailableError: Slurm did not answer for some minutes; the same command continues.
        HpcError: Slurm refused the request; the message has its answer.
    """
    command = ["sbatch", "--parsable"]
    command += [f"--dependency={dependency}"] if dependency else []
    for pause in (*RETRY_PAUSES_S, None):
        try:
            answer = slurm.run_command([*command, str(job.script)], retries=0)
            return _job_id(answer)
        except slurm.SlurmMissingError:
            raise
        except slurm.SlurmUnavailableError as error:
            if pause is None:
                raise
            _log.warning("sbatch of %s got no answer, retry in %.0f s: %s", job.name, pause, error)
            time.sleep(pause)
        if (submitted := _find_job_later(job)) is not None:
            return submitted
    raise AssertionError("unreachable")


def _find_job_later(job: BatchJob) -> str | None:
    """Id of `job` if Slurm has it; never None while Slurm does not answer.

    Raises:
        SlurmUnavailableError: Slurm did not answer for some minutes.
    """
    for pause in (*RETRY_PAUSES_S, None):
        try:
            return find_job(job, ended=True)
        except slurm.SlurmMissingError:
            raise
        except slurm.SlurmUnavailableError as error:
            if pause is None:
                raise
            _log.warning("cannot tell whether %s was submitted, retry: %s", job.name, error)
            time.sleep(pause)
    raise AssertionError("unreachable")


def find_job(job: BatchJob, *, ended: bool = False) -> str | None:
    """Id of `job` if Slurm has it, found by its comment; with `ended` also if it has ended."""
    token = job.comment.rpartition(":")[2]
    found = [q.job_id for q in slurm.find_by_comment(token) if ended or not q.ended]
    return found[-1] if found else None


def _require_writable(*texts: str) -> None:
    for text in texts:
        if not text.isprintable() or "%" in text or "\\" in text:
            raise ConfigError(
                f"{text!r} cannot be used in a Slurm script (control characters, % and \\ have "
                "a special meaning there); use another run name or directory"
            )


def _option(name: str, value: object) -> str:
    return f"#SBATCH --{name}" if value is True else f"#SBATCH --{name}={shlex.quote(str(value))}"


def _options(job: BatchJob) -> dict[str, object]:
    resources, profile = job.resources, job.profile
    parameters = profile.slurm_parameters(resources)
    log = "%j" if job.elements is None else "%A_%a"
    requested = {
        "job-name": job.name,
        "comment": job.comment,
        "output": str(job.logs / f"{log}_batch.log"),
        "open-mode": "append",
        "nodes": resources.nodes,
        "ntasks-per-node": resources.tasks_per_node,
        "cpus-per-task": resources.cpus_per_task,
        "time": resources.time_min,
        # The signal must not be sent before the work has begun.
        "signal": f"USR2@{min(parameters['signal_delay_s'], resources.time_min * 30)}",
        "partition": parameters.get("partition"),
        "account": parameters.get("account"),
        "qos": parameters.get("qos"),
        "constraint": parameters.get("constraint"),
        "mem": _memory(resources.mem_gb) if profile.ask_memory else None,
        "array": _array(job.elements, profile.max_running),
        "exclude": ",".join(job.exclude) or None,
        **parameters["additional_parameters"],
    }
    return {name: value for name, value in requested.items() if value is not None}


def _memory(gb: float) -> str:
    return f"{int(gb)}G" if gb == int(gb) else f"{int(gb * 1024)}M"


def _array(elements: int | None, max_running: int | None) -> str | None:
    if elements is None:
        return None
    return f"0-{elements - 1}" + (f"%{max_running}" if max_running else "")


def _setup(job: BatchJob) -> list[str]:
    """Lines that prepare the shell: environment, import path, and the link to the work."""
    lines = [*job.profile.setup_lines(), "export SUBMITIT_EXECUTOR=slurm"]
    if job.code is not None:
        # The working directory must not precede the snapshot on the import path.
        lines.append("export PYTHONSAFEPATH=1")
        lines.append(
            f'export PYTHONPATH={shlex.quote(str(job.code))}"${{PYTHONPATH:+:$PYTHONPATH}}"'
        )
    lines.append(f"logs={shlex.quote(str(job.logs))}")
    if job.elements is None:
        lines += ["unset SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID", "job=$SLURM_JOB_ID"]
    else:
        lines.append("job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID")
    return [
        *lines,
        f'ln -sfn {shlex.quote(str(job.pickle))} "$logs/${{job}}_submitted.pkl"',
        """trap 'rm -f "$logs/${job}_submitted.pkl" "$logs/${job}"_*_result.pkl' EXIT""",
        "trap : TERM USR1 USR2  # keep waiting for the tasks when signalled",
    ]


def _command(job: BatchJob) -> str:
    container = job.profile.container
    # srun does not inherit the cores per task, and keeps the other tasks running if one fails.
    srun = [f"--cpus-per-task={job.resources.cpus_per_task}", "--kill-on-bad-exit=1"]
    # Rank 0 seals long after the other ranks exit; a site's WaitTime would end it meanwhile.
    srun += ["--wait=0", *(container.srun_options() if container else [])]
    program = job.profile.interpreter_command(job.resources, sys.executable)
    return " ".join(
        [
            'srun --unbuffered --output="$logs/${job}_%t.a${SLURM_RESTART_COUNT:-0}.log"',
            shlex.join(srun),
            "\\\n ",
            shlex.join([*program, "-u", "-m", "submitit.core._submit"]),
            '"$logs"',
        ]
    )


def _requeue_lines(job: BatchJob) -> list[str]:
    """Lines that requeue the job if its tasks were killed before one of them could.

    If the work found an upstream stage unsealed, they submit that stage again.
    """
    program = job.profile.interpreter_command(job.resources, sys.executable)
    lines = []
    if job.profile.requeue == "scontrol":
        requeue = shlex.join([*program, "-m", "hpc.resilience.requeue", str(job.logs.parent)])
        lines.append(f"[ $code = 0 ] || {requeue} $code")
    if job.profile.requeue != "none" and job.repair:
        repair = shlex.join([*program, *job.repair])
        lines.append(f"[ $code != {IncompleteError.exit_code} ] || {repair}")
    return ["code=$?", *lines, "exit $code"] if lines else []


def _job_id(answer: str) -> str:
    """The id in the answer of `sbatch --parsable`: `123` or `123;cluster`."""
    match = re.search(r"^(\d+)(;|$)", answer.strip(), re.MULTILINE)
    if match is None:
        raise HpcError(f"sbatch gave no job id: {answer!r}; find the job with `squeue --me`")
    return match.group(1)
