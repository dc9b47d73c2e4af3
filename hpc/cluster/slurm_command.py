"""Calling one of Slurm's commands, patiently; `hpc.cluster.slurm` says which and why.

A controller that does not answer is asked again with growing pauses: clients of Slurm 22.05 try
for 19 s by themselves (MessageTimeout), so a few tries here outlast a restart of the controller.
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
"""How often a question is repeated while the controller does not answer."""

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
    """Slurm did not answer, after several tries; nothing is known about what was asked."""


class SlurmMissingError(SlurmUnavailableError):
    """The command does not exist on this machine."""


class SlurmRefusedError(HpcError):
    """Slurm understood and said no; asking again gives the same answer."""


def run_command(
    words: Sequence[str],
    *,
    retries: int = RETRIES,
    timeout_s: float = 90.0,
    input_text: str | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """What the command printed; repeated with growing pauses while Slurm does not answer.

    Args:
        words: command and arguments; they reach it as they are, no shell reads them.
        retries: repetitions after the first try; 0 for what must not be done twice (`sbatch`).
        timeout_s: seconds after which one try is given up; above Slurm's own MessageTimeout.
        input_text: its standard input.
        env: variables it has beside this process's own.

    Raises:
        SlurmMissingError: there is no such command here.
        SlurmUnavailableError: no answer to any try.
        SlurmRefusedError: any other failure, with the command's own words.
    """
    trouble = ""
    for number in range(retries + 1):
        if number:
            pause_s = min(2.0**number, 15.0)
            _log.warning("slurm does not answer, again in %.0f s: %s", pause_s, trouble)
            time.sleep(pause_s)
        code, printed, trouble = _try(words, timeout_s, input_text, env or {})
        if code == 0:
            return printed
        if code is not None and not _TRANSIENT.search(trouble):
            raise SlurmRefusedError(
                f"{' '.join(words[:3])} ended with {code}: {trouble or 'without a word'}"
            )
    raise SlurmUnavailableError(
        f"Slurm did not answer {words[0]} in {retries + 1} tries: {trouble}. The jobs go on "
        "without it; repeat the command when `scontrol ping` says UP."
    )


def _try(
    words: Sequence[str], timeout_s: float, input_text: str | None, env: Mapping[str, str]
) -> tuple[int | None, str, str]:
    """Exit code (None: no answer in time), standard output, and the trouble in one line."""
    COUNTS[words[0]] += 1
    try:
        done = subprocess.run(
            list(words),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout_s,
            env={**_environment(), **env},
            input=input_text,
            stdin=subprocess.DEVNULL if input_text is None else None,
        )
    except subprocess.TimeoutExpired:
        return None, "", f"no answer in {timeout_s:.0f} s"
    except (FileNotFoundError, PermissionError) as error:
        raise SlurmMissingError(
            f"no {words[0]} on this machine ({error.strerror}): run this where Slurm's commands "
            "are installed (a login node), or choose --executor local"
        ) from error
    return done.returncode, done.stdout, " ".join((done.stderr or done.stdout).split())[-500:]


def _environment() -> dict[str, str]:
    """This environment without the user's defaults for the commands, which change what they print.

    Those of sbatch stay: a user sets them to shape jobs.
    """
    shaped = ("SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_", "SCONTROL_", "SLURM_TIME_FORMAT")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(shaped)}
    # Without it the waiting indices of an array are cut off after 64 characters.
    return kept | {"LC_ALL": "C", "SLURM_BITSTR_LEN": "0"}
