"""Running one of Slurm's commands with retries, for `hpc.cluster.slurm`.

A command whose controller does not answer is retried with growing pauses: clients of Slurm 22.05
try for 19 s by themselves (MessageTimeout), so a few retries outlast a restart of the controller.
"""

from __future__ import annotations

import collections
import logging
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence

from hpc.errors import HpcError, TransientError

RETRIES = 4
"""Number of retries while the controller does not answer."""

COUNTS: collections.Counter[str] = collections.Counter()
"""Commands called by this process, by name."""

_TRANSIENT = re.compile(
    "Unable to contact slurm|Unable to establish|Socket timed out|Connection refused|"
    "Zero Bytes were transmitted|temporarily unable|Resource temporarily unavailable|"
    "standby mode|Communication connection failure|Unexpected message received|"
    "failed to fetch config|establish a configuration source|Connection timed out|"
    "error connecting to|slurm_persist_conn|[Rr]ate limit",
)
_log = logging.getLogger(__name__)


class SlurmUnavailableError(TransientError):
    """Slurm did not answer after several attempts; the outcome of the request is unknown."""


class SlurmMissingError(SlurmUnavailableError):
    """The command does not exist on this machine."""


class SlurmRefusedError(HpcError):
    """Slurm rejected the request; a retry gives the same answer."""


def run_command(
    command: Sequence[str],
    *,
    retries: int = RETRIES,
    timeout_s: float = 90.0,
    input_text: str | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """The output of the command; retried with growing pauses while Slurm does not answer.

    Args:
        command: command and arguments, passed without a shell.
        retries: repetitions after the first attempt; 0 if it must not run twice (`sbatch`).
        timeout_s: time limit of one attempt, s; above Slurm's own MessageTimeout.
        input_text: its standard input.
        env: variables in addition to this process's own.

    Raises:
        SlurmMissingError: there is no such command on this machine.
        SlurmUnavailableError: no attempt got an answer.
        SlurmRefusedError: any other failure, with the command's error text.
    """
    failure = ""
    for number in range(retries + 1):
        if number:
            pause_s = min(2.0**number, 15.0)
            _log.warning("slurm does not answer, retry in %.0f s: %s", pause_s, failure)
            time.sleep(pause_s)
        code, printed, failure = _try(command, timeout_s, input_text, env or {})
        if code == 0:
            return printed
        if code is not None and not _TRANSIENT.search(failure):
            raise SlurmRefusedError(
                f"{' '.join(command[:3])} ended with {code}: {failure or 'no message'}"
            )
    raise SlurmUnavailableError(
        f"Slurm did not answer {command[0]} in {retries + 1} attempts: {failure}. Running jobs are "
        "not affected; repeat the command when `scontrol ping` reports UP."
    )


def _try(
    command: Sequence[str], timeout_s: float, input_text: str | None, env: Mapping[str, str]
) -> tuple[int | None, str, str]:
    """Exit code (None: no answer in time), standard output, and the error text in one line."""
    COUNTS[command[0]] += 1
    try:
        done = subprocess.run(
            list(command),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout_s,
            env={**_environment(command[0]), **env},
            input=input_text,
            stdin=subprocess.DEVNULL if input_text is None else None,
        )
    except subprocess.TimeoutExpired:
        return None, "", f"no answer in {timeout_s:.0f} s"
    except (FileNotFoundError, PermissionError) as error:
        raise SlurmMissingError(
            f"no {command[0]} on this machine ({error.strerror}): run this where Slurm's commands "
            "are installed (a login node), or choose --executor local"
        ) from error
    return done.returncode, done.stdout, " ".join((done.stderr or done.stdout).split())[-500:]


def _environment(command: str) -> dict[str, str]:
    """This environment without the user's defaults for the commands, which change their output.

    Those of sbatch are kept: users set them on purpose for their jobs. A job that submits another
    one must not hand it its own variables, which srun would obey there.
    """
    dropped: tuple[str, ...] = (
        "SQUEUE_",
        "SACCT_",
        "SINFO_",
        "SCANCEL_",
        "SCONTROL_",
        "SLURM_TIME_FORMAT",
    )
    if command == "sbatch" and "SLURM_JOB_ID" in os.environ:
        dropped = (*dropped, "SLURM_", "SRUN_")
    kept = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith(dropped) or name in ("SLURM_CONF", "SLURM_CLUSTERS")
    }
    # Otherwise the pending indices of an array are truncated after 64 characters.
    return kept | {"LC_ALL": "C", "SLURM_BITSTR_LEN": "0"}
