"""Nodes to exclude: one small file for each, with a reason and an expiry.

Kept per cluster in the user's state directory, which compute and login nodes share. One file per
node needs no lock: jobs that find the same node bad at the same time write the same content.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import signal
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from hpc.cluster.user_state import state_directory
from hpc.errors import ConfigError, HpcError
from hpc.publish import publish_json

SCHEMA = "sarhpc.bad_node/1"
EXPIRY_H = 72.0
"""Hours after which a node is used again: by then it has been repaired, or nobody will."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BadNode:
    """A node that gets no jobs, why, and until when."""

    node: str
    reason: str
    job: str | None
    """Job that found the fault; None if a person marked the node."""
    since: str
    """RFC 3339."""
    until: str
    """RFC 3339; from then on jobs may start there again."""

    def active_at(self, moment: datetime.datetime) -> bool:
        """Whether the node is still excluded at `moment`."""
        return moment < datetime.datetime.fromisoformat(self.until)


class BadNodeList:
    """The bad nodes of one cluster."""

    def __init__(self, cluster: str, state: Path | None = None) -> None:
        if not cluster or cluster.startswith(".") or "/" in cluster:
            raise ConfigError(f"cluster name {cluster!r} cannot name a folder")
        self.cluster = cluster
        self.state = state or state_directory()
        self.directory = self.state / "bad_nodes" / cluster

    def mark(
        self, node: str, reason: str, *, job: str | None = None, hours: float = EXPIRY_H
    ) -> BadNode:
        """Put `node` on the list for `hours`; a later mark replaces an earlier one.

        Raises:
            ConfigError: `node` is not a valid node name.
        """
        self._require_name(node)
        begin = _now()
        until = begin + datetime.timedelta(hours=hours)
        bad = BadNode(node, reason, job, begin.isoformat(), until.isoformat())
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        publish_json(self._file(node), {"schema": SCHEMA, **asdict(bad)})
        _log.warning("node=%s is excluded until %s: %s", node, bad.until, reason)
        return bad

    def forgive(self, node: str) -> bool:
        """Take `node` off the list; False if it was not on it.

        Raises:
            ConfigError: `node` is not a valid node name.
        """
        self._require_name(node)
        known = self._file(node).exists()
        self._file(node).unlink(missing_ok=True)
        return known

    def current(self) -> list[BadNode]:
        """The nodes excluded now, the newest first; expired entries are removed."""
        found = []
        for path in sorted(self.directory.glob("*.json")):
            bad = _read(path)
            if bad is None:
                continue
            if bad.active_at(_now()):
                found.append(bad)
            else:
                path.unlink(missing_ok=True)
        return sorted(found, key=lambda bad: bad.since, reverse=True)

    def excluded(
        self, existing: Collection[str], keep: int = 1, also: Collection[str] = ()
    ) -> list[str]:
        """Names for `--exclude`, sorted, leaving at least half the cluster and `keep` nodes.

        Slurm refuses a submission that names an unknown node, so only `existing` ones are named.
        If too many are marked the cause is elsewhere, and the oldest marks are ignored; nodes
        that are not marked but `also` to be excluded come first.
        """
        known = self._known(existing)
        names = [node for node in also if node in existing and node not in known] + known
        spare = _excludable(existing, keep)
        if len(names) > spare:
            _log.warning(
                "%d of %d nodes are marked bad, %d are excluded; check with `sarhpc nodes`",
                len(names), len(existing), spare,
            )  # fmt: skip
        return sorted(names[:spare])

    def too_many(self, existing: Collection[str], keep: int = 1) -> bool:
        """Whether more of the `existing` nodes are marked than can be excluded."""
        return len(self._known(existing)) > _excludable(existing, keep)

    def _known(self, existing: Collection[str]) -> list[str]:
        return [bad.node for bad in self.current() if bad.node in existing]

    def _file(self, node: str) -> Path:
        return self.directory / f"{node}.json"

    @staticmethod
    def _require_name(node: str) -> None:
        if not node or not node.replace("-", "").replace(".", "").replace("_", "").isalnum():
            raise ConfigError(f"{node!r} is not a node name; `sinfo -N` lists them")


def nodes_to_exclude(
    cluster: str | None = None, keep: int = 1, also: Callable[[str], Collection[str]] = lambda _: ()
) -> tuple[str, ...]:
    """Names for `--exclude` of a job on `cluster`; Slurm is queried only if any node is marked.

    Args:
        cluster: Slurm's ClusterName; None for that of this machine.
        keep: nodes that must be left.
        also: gives further nodes to exclude, by the name of the cluster.

    Raises:
        SlurmUnavailableError: Slurm does not answer.
    """
    from hpc.cluster import slurm

    if not any((state_directory() / kind).is_dir() for kind in ("bad_nodes", "shared_folders")):
        return ()
    name = cluster or slurm.cluster_name()
    more = () if name is None else also(name)
    if name is None or not (BadNodeList(name).current() or more):
        return ()
    return tuple(BadNodeList(name).excluded({node.name for node in slurm.nodes()}, keep, more))


def requeue_elsewhere(job_id: str) -> None:
    """Requeue a job, excluding the nodes that are marked bad, or failed at a shared folder.

    Raises:
        SlurmMissingError: no `scontrol` on this node.
        SlurmUnavailableError: the controller did not answer.
        SlurmRefusedError: the job may not be requeued, or is unknown.
    """
    from hpc.cluster import slurm
    from hpc.cluster.shared_folders import suspected_nodes

    try:
        excluded = nodes_to_exclude(also=suspected_nodes)
    except (HpcError, OSError) as error:
        _log.warning("requeued without excluding bad nodes: %s", error)
        excluded = ()
    with _blocked(signal.SIGTERM) if excluded else contextlib.nullcontext():
        slurm.requeue(job_id)
        if excluded:
            # Slurm changes the nodes of pending jobs only, so this cannot come first.
            slurm.update(job_id, ExcNodeList=",".join(excluded))


@contextlib.contextmanager
def _blocked(number: signal.Signals) -> Iterator[None]:
    """Block a signal, in children too: Slurm ends a requeued job with it immediately."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _excludable(existing: Collection[str], keep: int) -> int:
    """Number of nodes that can be excluded."""
    return max(min(len(existing) // 2, len(existing) - keep), 0)


def _read(path: Path) -> BadNode | None:
    try:
        document = json.loads(path.read_text())
        bad = BadNode(**{name: document[name] for name in BadNode.__dataclass_fields__})
        datetime.datetime.fromisoformat(bad.until)
    except FileNotFoundError:  # forgiven meanwhile
        return None
    except (ValueError, KeyError, TypeError) as error:
        _log.warning("ignored %s, which does not describe a bad node: %r", path, error)
        return None
    return bad


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
