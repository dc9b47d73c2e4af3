"""What the fake Slurm commands of `fake_slurm.py` do.

Each call is a process: it imports neither pathlib nor typing, which would take half of its time.
"""

from __future__ import annotations

import json
import os
import re
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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


def queued(job: str, state: str = "RUNNING", **facts: Any) -> dict[str, Any]:
    """A job as the fake queue keeps it."""
    waits = state == "PENDING"
    return {
        "id": job, "State": state, "Reason": "Priority" if waits else "None", "Partition": "main",
        "NodeList": "" if waits else "n1", "TimeUsed": "0:00" if waits else "1:30",
        "TimeLeft": "58:30", "RestartCnt": "0", "Name": "job", "Comment": "(null)", **facts,
    }  # fmt: skip


class _Command:
    """One call of one command."""

    def __init__(self, root: str, words: list[str]) -> None:
        self.path = f"{root}/state.json"
        self.state = json.loads(_text(self.path))
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
        with open(self.path, "w", encoding="utf-8") as file:
            json.dump(self.state, file)

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
        script = _text(self.words[-1]) if len(self.words) > 1 else sys.stdin.read()
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


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def main(words: list[str]) -> None:
    """Answer one call and write it down."""
    root, command = words[0], words[1]
    with open(f"{root}/calls.jsonl", "a", encoding="utf-8") as file:
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
