"""Whether what a run will leave on disk has room there, asked before anything is submitted."""

from __future__ import annotations

from pathlib import Path

from hpc.errors import ConfigError
from hpc.store.rundir import RunDir
from sarhpc.stages.config import ClusterConfig, RunConfig
from sarhpc.stages.inputs.paths import data_root


def require_room(run: RunDir, config: RunConfig, size: float, inodes: int) -> None:
    """Raise ConfigError unless `size` bytes in `inodes` files fit where the run keeps its data.

    Raises:
        ConfigError: they do not; the message has both numbers and which limit it is.
    """
    folder = _existing(data_root(run, config))
    free_gb, free_inodes, limit = _free(folder, config.cluster)
    wrong = []
    if size / 1e9 > free_gb:
        wrong.append(f"about {size / 1e9:.3g} GB, {free_gb:.3g} GB may be written")
    if inodes > free_inodes:
        wrong.append(f"{inodes:,} files, {free_inodes:,.0f} may be created")
    if wrong:
        raise ConfigError(
            f"no room in {folder} for what is left to make: {'; '.join(wrong)} (by {limit}). "
            "Generate fewer images, put more of them into a shard, or keep `data` elsewhere"
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
