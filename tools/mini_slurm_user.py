"""A user of a mini Slurm cluster: submits jobs, queries queue and accounting, waits."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mini_slurm_processes import wait_until

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OUTER_JOB = ("SLURM_", "SBATCH_", "SALLOC_", "SRUN_", "SUBMITIT_")
QUEUE_FIELDS = {
    "id": "%i",
    "name": "%j",
    "state": "%T",
    "reason": "%r",
    "partition": "%P",
    "nodes": "%N",
    "comment": "%k",
}
RECORD_FIELDS = (
    "JobID",
    "JobName",
    "State",
    "ExitCode",
    "Start",
    "End",
    "ElapsedRaw",
    "NodeList",
    "AllocTRES",
    "Comment",
)
USABLE = ("idle", "mixed", "allocated")


class ClusterError(RuntimeError):
    """The mini cluster cannot start, or a command in it failed; the message has the reason."""


class ClusterUser:
    """Commands against the cluster whose slurm.conf is `conf`."""

    def __init__(self, conf: Path, nodes: Sequence[str]) -> None:
        self.conf = conf
        self.nodes = list(nodes)

    @property
    def env(self) -> dict[str, str]:
        """The environment of a user of this cluster, with this Python first on the path."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(OUTER_JOB)}
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
        return kept | {"SLURM_CONF": str(self.conf), "PATH": path}

    def run(
        self, *command: str, check: bool = True, timeout_s: float = 120, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """The output of a command in the cluster's environment.

        Raises:
            ClusterError: It failed and `check` is set.
        """
        done = subprocess.run(
            command,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            input=stdin,
            check=False,
        )
        if check and done.returncode:
            raise ClusterError(
                f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done

    def submit(self, *options: str) -> str:
        """The id of the job that `sbatch` made of these options."""
        return self.run("sbatch", "--parsable", *options).stdout.strip().split(";")[0]

    def shorten(self, job_id: str, seconds: int = 1) -> None:
        """The job's limit ends in `seconds`; Slurm checks every 30 s, then sets TIMEOUT."""
        self.run("scontrol", "update", f"JobId={job_id}", f"EndTime=now+{seconds}")

    def job(self, job_id: str) -> dict[str, str]:
        """Fields of `scontrol show job`: JobState, Restarts, Reason, NodeList, Dependency, ..."""
        text = self.run("scontrol", "show", "job", "-o", job_id).stdout
        return dict(re.findall(r"(\S+?)=(\S*)", text))

    def squeue(self, *options: str) -> list[dict[str, str]]:
        """The queue, one row per job and array element: id, name, state, reason, nodes, ..."""
        layout = "\x1f".join(QUEUE_FIELDS.values())
        text = self.run("squeue", "-h", "-r", "-o", layout, *options).stdout
        return [dict(zip(QUEUE_FIELDS, line.split("\x1f"), strict=True)) for line in _lines(text)]

    def states(self, job_id: str) -> list[str]:
        """The state of a job, or of each element of an array; finished ones too."""
        text = self.run("squeue", "-h", "-r", "-t", "all", "-j", job_id, "-o", "%T").stdout
        return _lines(text)

    def wait_state(
        self, job_id: str, states: str | Sequence[str] = "COMPLETED", timeout_s: float = 180
    ) -> str:
        """The state that the job (or all elements of an array) reached, one of `states`.

        Raises:
            TimeoutError: It did not in time; the message has Slurm's state of the job.
        """
        wanted = {states} if isinstance(states, str) else set(states)
        found: list[str] = []

        def reached() -> bool:
            found[:] = self._states_if_any(job_id)
            return bool(found) and set(found) <= wanted

        try:
            wait_until(reached, timeout_s)
        except TimeoutError:
            said = self.run("scontrol", "show", "job", job_id, check=False)
            text = f"job {job_id} is {found}, not {sorted(wanted)}, after {timeout_s} s"
            raise TimeoutError(f"{text}\n{said.stdout}{said.stderr}") from None
        return found[-1]

    def _states_if_any(self, job_id: str) -> list[str]:
        try:
            return self.states(job_id)
        except ClusterError:  # the controller may be down on purpose
            return []

    def records(self, job_id: str) -> list[dict[str, str]]:
        """The accounting rows of a job, one per run of it (`sacct --duplicates`), oldest first.

        They follow the queue by one to five seconds: see `wait_records`.
        """
        fields = ",".join(RECORD_FIELDS)
        command = ("sacct", "-X", "-P", "-n", "--duplicates", "-j", job_id, "-o", fields)
        # The comment comes last and may hold the separator.
        rows = [
            line.split("|", len(RECORD_FIELDS) - 1) for line in _lines(self.run(*command).stdout)
        ]
        return [dict(zip(RECORD_FIELDS, row, strict=True)) for row in rows]

    def wait_records(
        self, job_id: str, states: Sequence[str], timeout_s: float = 120
    ) -> list[dict[str, str]]:
        """The accounting rows of a job once their states are `states`, in that order.

        Raises:
            TimeoutError: They are not in time; the text holds the rows.
        """
        rows: list[dict[str, str]] = []

        def as_wanted() -> bool:
            rows[:] = self.records(job_id)
            return [row["State"].split()[0] for row in rows] == list(states)

        try:
            wait_until(as_wanted, timeout_s)
        except TimeoutError:
            text = f"job {job_id}: not {list(states)} after {timeout_s} s, but {rows}"
            raise TimeoutError(text) from None
        return rows

    def node_states(self) -> dict[str, str]:
        """`{"n1": "idle", ...}`; empty when the controller does not answer."""
        text = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T", check=False).stdout
        return dict(line.split() for line in _lines(text))

    def wait_idle(self, nodes: Sequence[str] | None = None, timeout_s: float = 180) -> None:
        """The nodes (all of them) can take jobs.

        Raises:
            ClusterError: They cannot; the text holds their states and the controller's last lines.
        """
        names = self.nodes if nodes is None else nodes

        def usable() -> bool:
            states = self.node_states()
            return all(states.get(name) in USABLE for name in names)

        try:
            wait_until(usable, timeout_s)
        except TimeoutError:
            text = f"nodes not usable after {timeout_s} s: {self.node_states()}"
            raise ClusterError(f"{text}\n{self.controller_log()}") from None

    def controller_log(self, characters: int = 2000) -> str:
        """The end of the controller's log."""
        log = self.conf.parent / "log" / "slurmctld.log"
        return log.read_text(errors="replace")[-characters:] if log.exists() else ""


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]
