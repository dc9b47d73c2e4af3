"""Fake Slurm commands on PATH that answer from a JSON state, in the words of Slurm 22.05.

For sites no test cluster can show: without accounting, without `scontrol` on the nodes, without
signals before preemption, with a controller that is away for a while. What the real commands print
was recorded on a real cluster; the tests in tests/slurm hold both to the same questions.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import fake_slurm_commands
from fake_slurm_commands import queued

__all__ = ["COMMANDS", "CONFIG", "FakeSlurm", "accounted", "queued"]

COMMANDS = ("sbatch", "squeue", "sacct", "sacctmgr", "scontrol", "sinfo", "scancel")
CONFIG = {
    "AccountingStorageTRES": "cpu,mem,energy,node,billing,fs/disk,vmem,pages,gres/gpu",
    "AccountingStorageType": "accounting_storage/slurmdbd",
    "AccountingStoreFlags": "job_comment",
    "AuthInfo": "socket=/run/munge/munge.socket.2,cred_expire=120",
    "ClusterName": "fake",
    "KillWait": "30 sec",
    "MaxArraySize": "1001",
    "PreemptMode": "REQUEUE",
    "PreemptType": "preempt/partition_prio",
    "SLURM_VERSION": "22.05.8",
    "SlurmctldParameters": "preempt_send_user_signal",
}


class FakeSlurm:
    """A folder of fake commands and the state they answer from."""

    def __init__(self, root: Path, commands: tuple[str, ...] = COMMANDS) -> None:
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir(parents=True)
        start = f"exec '{sys.executable}' -S -E '{fake_slurm_commands.__file__}' '{root}'"
        for command in commands:
            script = self.bin / command
            script.write_text(f'#!/bin/sh\n{start} {command} "$@"\n')
            script.chmod(0o755)
        self.change(jobs=[], accounted=[], config=CONFIG, down=0, next_id=100)

    @property
    def state(self) -> dict[str, Any]:
        """All that the commands know."""
        return json.loads((self.root / "state.json").read_text())

    def change(self, **facts: Any) -> None:
        """Replace some facts: jobs, accounted, config, partitions, nodes, associations, down."""
        path = self.root / "state.json"
        state = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**state, **facts}))

    def configure(self, **settings: str) -> None:
        """Replace some settings of the cluster."""
        self.change(config={**self.state["config"], **settings})

    def calls(self, command: str | None = None) -> list[list[str]]:
        """Words of every call so far, the command first."""
        path = self.root / "calls.jsonl"
        found = (
            [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        )
        return [words for words in found if command in (None, words[0])]


def accounted(job: str, state: str = "COMPLETED", **facts: Any) -> dict[str, Any]:
    """An attempt as the fake accounting keeps it."""
    return {
        "JobID": job, "State": state, "ElapsedRaw": "60", "NCPUS": "4", "NodeList": "n1",
        "AllocTRES": "billing=4,cpu=4,gres/gpu=2,node=1", "ExitCode": "0:0", "JobName": "job",
        "Start": "2026-01-01T00:00:00", "End": "2026-01-01T00:01:00", "Comment": "", **facts,
    }  # fmt: skip
