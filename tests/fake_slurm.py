"""Fake Slurm commands on PATH that answer from a JSON state, in the words of Slurm 22.05.

For sites no test cluster can show: without accounting, without `scontrol` on the nodes, without
signals before preemption, with a controller that is away for a while. What the real commands print
was recorded on a real cluster; the tests in tests/slurm hold both to the same questions.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

COMMANDS = ("sbatch", "squeue", "sacct", "sacctmgr", "scontrol", "sinfo", "scancel")
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"}
DOWN = {
    "sbatch": "sbatch: error: Batch job submission failed: Unable to contact slurm controller"
    " (connect failure)",
    "squeue": "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
    "sinfo": "slurm_load_partitions: Unable to contact slurm controller (connect failure)",
    "scontrol": "Unexpected message received for job 1",
    "scancel": "scancel: error: Kill job error on job id 1: Socket timed out on send/recv",
    "sacct": "sacct: error: slurm_persist_conn_open_without_init: failed to open persistent"
    " connection to host:localhost:6819: Connection refused",
    "sacctmgr": "sacctmgr: error: Unable to contact slurmdbd",
}
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
        for command in commands:
            script = self.bin / command
            script.write_text(
                f"#!/bin/sh\nexec '{sys.executable}' -S -E '{__file__}' '{root}' {command} \"$@\"\n"
            )
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


def queued(job: str, state: str = "RUNNING", **facts: Any) -> dict[str, Any]:
    """A job as the fake queue keeps it."""
    waits = state == "PENDING"
    return {
        "id": job, "State": state, "Reason": "Priority" if waits else "None", "Partition": "main",
        "NodeList": "" if waits else "n1", "TimeUsed": "0:00" if waits else "1:30",
        "TimeLeft": "58:30", "RestartCnt": "0", "Name": "job", "Comment": "(null)", **facts,
    }  # fmt: skip


def accounted(job: str, state: str = "COMPLETED", **facts: Any) -> dict[str, Any]:
    """An attempt as the fake accounting keeps it."""
    return {
        "JobID": job, "State": state, "ElapsedRaw": "60", "NCPUS": "4", "NodeList": "n1",
        "AllocTRES": "billing=4,cpu=4,gres/gpu=2,node=1", "ExitCode": "0:0", "JobName": "job",
        "Start": "2026-01-01T00:00:00", "End": "2026-01-01T00:01:00", "Comment": "", **facts,
    }  # fmt: skip


class _Command:
    """One call of one command."""

    def __init__(self, root: Path, words: list[str]) -> None:
        self.path = root / "state.json"
        self.state = json.loads(self.path.read_text())
        self.words = words

    def option(self, *names: str) -> str | None:
        """Value of `--name=value` or `-n value`."""
        for place, word in enumerate(self.words):
            for name in names:
                if word == name:
                    return self.words[place + 1]
                if word.startswith(f"{name}="):
                    return word.partition("=")[2]
        return None

    def save(self) -> None:
        self.path.write_text(json.dumps(self.state))

    def find(self, job: str) -> list[dict[str, Any]]:
        return [j for j in self.state["jobs"] if job in (j["id"], j["id"].partition("_")[0])]

    def squeue(self) -> None:
        fields = [word.split(":", 1) for word in str(self.option("--Format")).split(",")]
        jobs = [
            job
            for job in self.state["jobs"]
            if job["State"] not in ENDED or self.option("--states") == "all"
        ]
        asked = self.option("--jobs")
        if asked is not None:
            known = [job for name in asked.split(",") for job in self.find(name)]
            if not known:
                sys.exit("slurm_load_jobs error: Invalid job id specified")
            jobs = [job for job in jobs if job in known]
        for job in jobs:
            job["JobArrayID"] = job["id"]
            print("".join(job[name] + end for name, end in fields))

    def sacct(self) -> None:
        if self.state["config"]["AccountingStorageType"].endswith("none"):
            sys.exit("Slurm accounting storage is disabled")
        asked = str(self.option("--jobs")).split(",")
        seen = set()
        found = [a for a in self.state["accounted"] if a["JobID"].partition("_")[0] in asked]
        for attempt in found if "--duplicates" in self.words else reversed(found):
            if "--duplicates" in self.words or attempt["JobID"] not in seen:
                seen.add(attempt["JobID"])
                names = str(self.option("--format")).split(",")
                print(str(self.option("--delimiter")).join(attempt[name] for name in names))

    def sacctmgr(self) -> None:
        print("\n".join(self.state.get("associations" if "assoc" in self.words else "qos", [])))

    def scontrol(self) -> None:
        words = [word for word in self.words if not word.startswith("-")]
        if words[:2] == ["show", "config"]:
            for name, told in self.state["config"].items():
                print(f"{name:<23} = {told}")
        elif words[:2] == ["show", "partition"]:
            print("\n".join(self.state.get("partition_details", [])))
        elif words[:2] == ["show", "job"]:
            for job in self.find(words[2]):
                print(f"JobId={job['id']} RunTime=00:{job['TimeUsed']:0>5} TimeLimit=01:00:00")
        else:
            job = words[1].removeprefix("JobId=")
            found = self.find(job)
            if not found:
                sys.exit(f"Invalid job id specified for job {job}")
            if words[0] == "requeue" and found[0]["State"] == "PENDING":
                sys.exit(f"Job is pending execution for job {job}")
            changed = {"State": "PENDING"} if words[0] == "requeue" else {}
            found[0].update(changed, **dict(word.split("=", 1) for word in words[2:]))
            self.save()

    def sinfo(self) -> None:
        fields = str(self.option("-o"))
        for row in self.state.get("nodes" if "--Node" in self.words else "partitions", []):
            print(re.sub(r"%([A-Za-z])", lambda field, row=row: row[field[1]], fields))

    def scancel(self) -> None:
        ids = [word for word in self.words if not word.startswith("-")]
        if self.option("--signal") is None:
            for job in (job for name in ids for job in self.find(name)):
                job["State"] = "CANCELLED"
        self.save()

    def sbatch(self) -> None:
        if "--test-only" in self.words:
            sys.stderr.write("sbatch: Job 1 to start at 2026-01-01T00:00:00 on nodes n1\n")
            return
        script = Path(self.words[-1]).read_text() if len(self.words) > 1 else sys.stdin.read()
        asked = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", script, re.MULTILINE))
        job = str(self.state["next_id"])
        comment = asked.get("comment", "(null)").strip("'")
        facts = queued(job, "PENDING", Name=asked.get("job-name", "sbatch"), Comment=comment)
        self.state.update(next_id=int(job) + 1, jobs=[*self.state["jobs"], facts])
        self.save()
        if self.state.get("lose_answer"):
            self.state["lose_answer"] -= 1
            self.save()
            sys.exit("sbatch: error: Batch job submission failed: Socket timed out on send/recv"
                     " operation")  # fmt: skip
        print(job)


def main(words: list[str]) -> None:
    """Answer one call and write it down."""
    root, command = Path(words[0]), words[1]
    with (root / "calls.jsonl").open("a") as file:
        file.write(json.dumps(words[1:]) + "\n")
    call = _Command(root, words[2:])
    shaping = [n for n in os.environ if n.startswith(("SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_"))]
    if shaping:
        sys.exit(f"{command}: the caller let {shaping} through, which change what is printed")
    if call.state["down"]:
        call.state["down"] -= 1
        call.save()
        sys.exit(DOWN[command])
    getattr(call, command)()


if __name__ == "__main__":
    main(sys.argv[1:])
