"""Whether what a run will leave on disk has room there, asked before anything is submitted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hpc.errors import ConfigError
from hpc.store.rundir import RunDir
from sarhpc.stages.config import ClusterConfig, RunConfig
from sarhpc.stages.inputs.paths import data_root
from sarhpc.stages.spec import Estimate, StageSpec


@dataclass
class Need:
    """Bytes and files that stages will leave in the folder of the data, and in that of the run."""

    data: dict[str, float] = field(default_factory=lambda: {"bytes": 0.0, "files": 0})
    run: dict[str, float] = field(default_factory=lambda: {"bytes": 0.0, "files": 0})

    def add(self, spec: StageSpec, left: Estimate) -> None:
        """Add what a stage will leave: shards with the data, checkpoints in the run directory."""
        place = self.data if spec.estimate is None else self.run
        place["bytes"] += left.bytes or 0.0
        place["files"] += left.inodes or 0


def require_room(run: RunDir, config: RunConfig, need: Need) -> None:
    """Raise ConfigError unless what is needed fits where the run keeps its data and itself.

    Raises:
        ConfigError: it does not; the message has both numbers and what limits them.
    """
    data, own = _existing(data_root(run, config)), _existing(run.root)
    if data.stat().st_dev == own.stat().st_dev:
        both = {name: need.data[name] + need.run[name] for name in need.data}
        _require(data, both, config.cluster)
        return
    _require(data, need.data, config.cluster)
    _require(own, need.run, ClusterConfig())


def _require(folder: Path, need: dict[str, float], cluster: ClusterConfig) -> None:
    free_gb, free_inodes, limit = _free(folder, cluster)
    wrong = []
    if need["bytes"] / 1e9 > free_gb:
        wrong.append(f"about {need['bytes'] / 1e9:.3g} GB, {free_gb:.3g} GB may be written")
    if need["files"] > free_inodes:
        wrong.append(f"{need['files']:,.0f} files, {free_inodes:,.0f} may be created")
    if wrong:
        raise ConfigError(
            f"no room in {folder} for what is left to make: {'; '.join(wrong)} (by {limit}). "
            "Generate fewer images, put more of them into a shard, keep fewer checkpoints, or keep "
            "`data` elsewhere"
        )


def _existing(path: Path) -> Path:
    """The folder, or the nearest one above it that there is."""
    while not path.exists():
        path = path.parent
    return path


def _free(folder: Path, cluster: ClusterConfig) -> tuple[float, float, str]:
    """GB and inodes that may be written in `folder`, and what says so."""
    from hpc.cluster.doctor import free_space, lustre_quota

    quota = lustre_quota(folder)
    free_gb, inodes = free_space(folder, quota)
    limits = ["the file system", *([] if quota is None else ["the quota"])]
    if cluster.quota_gb is not None:
        free_gb = min(free_gb, cluster.quota_gb)
        limits.append("cluster.quota_gb")
    if cluster.quota_inodes is not None:
        inodes = min(inodes, cluster.quota_inodes)
        limits.append("cluster.quota_inodes")
    return free_gb, inodes, ", ".join(limits)
