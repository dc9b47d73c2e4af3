"""Faults of a shared folder: whether the node or the folder is to blame, by two witnesses.

A run folder that has become read-only fails on every healthy node. So a node that cannot write
there is blamed only if it fails again after another node could. Until then only the job at hand
goes to another node. Two nodes that fail with none succeeding show that the folder is at fault.
"""

from __future__ import annotations

import enum
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpc.clock import file_system_time
from hpc.cluster.user_state import state_directory
from hpc.publish import publish_json

SCHEMA = "sarhpc.shared_folder/1"
RECENT_S = 3600.0
"""Time for which a failure counts, s: an outage that is over says nothing of the next one."""
MAX_FAILURES = 3
"""Failures of one node, with no other node heard of, after which the folder counts as at fault."""


class Blame(enum.Enum):
    """What a failure at a shared folder shows."""

    NODE = "node"
    """Another node could write there after this one failed for the first time."""
    FOLDER = "folder"
    """Several nodes failed and none succeeded."""
    UNKNOWN = "unknown"
    """No other node was heard of."""


class SharedFolder:
    """What the nodes of a cluster have recently found of one folder they share."""

    def __init__(self, cluster: str, folder: Path, state: Path | None = None) -> None:
        name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
        self.folder = folder
        self.directory = _root(cluster, state) / name

    def record_success(self, node: str) -> None:
        """Note that `node` could write; if no node failed, which is the rule, that costs a stat."""
        if not self.directory.is_dir():
            return
        self._file("failed", node).unlink(missing_ok=True)
        if self.failed_nodes():
            publish_json(self._file("passed", node), {"schema": SCHEMA, "node": node})
        else:
            shutil.rmtree(self.directory, ignore_errors=True)

    def record_failure(self, node: str, message: str) -> Blame:
        """Note that `node` failed, and return what is to blame."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        now = file_system_time(self.directory)
        failures = {found["node"]: found for found in _recent(self.directory, now)}
        mine = failures.get(node, {"first": now, "count": 0})
        mine = {
            "schema": SCHEMA,
            "folder": str(self.folder),
            "node": node,
            "message": message,
            "first": mine["first"],
            "count": mine["count"] + 1,
        }
        publish_json(self._file("failed", node), mine)
        failures[node] = mine
        if any(name != node for name in self._succeeded_since(mine["first"])):
            return Blame.NODE
        first = min(found["first"] for found in failures.values())
        alone = len(failures) == 1 and mine["count"] < MAX_FAILURES
        return Blame.UNKNOWN if alone or self._succeeded_since(first) else Blame.FOLDER

    def failed_nodes(self) -> list[str]:
        """Nodes that failed recently and did not succeed since."""
        now = file_system_time(self.directory)
        return sorted(found["node"] for found in _recent(self.directory, now))

    def succeeded_nodes(self) -> list[str]:
        """Nodes that could write after another one failed."""
        return sorted(self._succeeded_since(file_system_time(self.directory) - RECENT_S))

    def _succeeded_since(self, moment: float) -> set[str]:
        passed = self.directory.glob("passed-*.json")
        return {
            path.stem.removeprefix("passed-") for path in passed if path.stat().st_mtime > moment
        }

    def _file(self, what: str, node: str) -> Path:
        return self.directory / f"{what}-{node}.json"


def suspected_nodes(cluster: str, state: Path | None = None) -> list[str]:
    """Nodes that recently failed at any shared folder; a job that failed there tries others."""
    found = set[str]()
    for directory in _root(cluster, state).glob("*"):
        found |= {row["node"] for row in _recent(directory, file_system_time(directory))}
    return sorted(found)


def _root(cluster: str, state: Path | None) -> Path:
    return (state or state_directory()) / "shared_folders" / cluster


def _recent(directory: Path, now: float) -> Iterator[dict[str, Any]]:
    """The recent failures; older ones are removed."""
    for path in sorted(directory.glob("failed-*.json")):
        try:
            row = json.loads(path.read_text())
            recent = now - row["first"] < RECENT_S
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            continue
        if recent:
            yield row
        else:
            path.unlink(missing_ok=True)
