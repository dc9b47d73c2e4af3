"""The entry of scrontab that supervises a run, where no process may stay on a login node."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from hpc.cluster.snapshot import checkout
from hpc.errors import ConfigError
from hpc.store.rundir import RunDir

if TYPE_CHECKING:
    from hpc.cluster.profile import Profile

EVERY_MIN = 10


def scrontab_entry(run: RunDir, profile: Profile | None, name: str | None) -> str:
    """Lines to paste into `scrontab -e`: a small job that does one pass every ten minutes.

    Raises:
        ConfigError: the run has no cluster, or its path has a character special to crontabs.
    """
    if profile is None:
        raise ConfigError("--print-scrontab needs a Slurm profile: --profile NAME")
    if "%" in str(run.root):
        raise ConfigError(f"{run.root}: % has a special meaning in a crontab; rename the run")
    from hpc.cluster.profile import Resources

    small = Resources(time_min=EVERY_MIN)
    parameters = profile.slurm_parameters(small)
    options = {
        "job-name": f"{run.name}-supervise",
        **{key: parameters.get(key) for key in ("partition", "account", "qos")},
        "time": small.time_min,
        "mem": "2G" if profile.ask_memory else None,
        "open-mode": "append",
        "output": str(run.root / "supervise.log"),
    }
    lines = [f"#SCRON --{key}={shlex.quote(str(text))}" for key, text in options.items() if text]
    command = ["sarhpc.cli", "supervise", str(run.root), "--once"]
    command += ["--profile", name] if name is not None else []
    call = f"cd {shlex.quote(str(checkout()))} && {shlex.join([sys.executable, '-m', *command])}"
    return "\n".join([*lines, f"*/{EVERY_MIN} * * * * {call}", ""])
