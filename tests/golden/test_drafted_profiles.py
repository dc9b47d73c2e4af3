"""Profiles drafted for fixed clusters: what a user finds after `doctor --write-profile`."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc.cluster.draft import draft_profile
from hpc.cluster.slurm import Limits, NodeKind, Partition
from sarhpc.stages.registry import profile_requests

GOLDEN = Path(__file__).parent / "drafts"
PLAIN = NodeKind(count=90, cpus=128, mem_mb=256_000, gpus=0, gpu_type="", features="")
A100 = NodeKind(count=6, cpus=64, mem_mb=512_000, gpus=4, gpu_type="a100", features="nvme")
LONE = NodeKind(count=1, cpus=24, mem_mb=96_000, gpus=1, gpu_type="", features="")
CPU = Partition("cpu", True, True, 86400, (PLAIN,), 10, "OFF")
GPU = Partition("gpu", False, True, 72000, (A100,), 10, "OFF")
ONE = Partition("one", True, True, None, (LONE,), 1, "OFF")
LIMITS = Limits(max_array_size=501, max_jobs=300, version="23.11.4", enforces_accounts=True)

CLUSTERS = {
    "gpus": (LIMITS, [CPU, GPU], ["physics", "maths"]),
    "no_gpus": (Limits(), [CPU], []),
    "one_gpu": (Limits(), [ONE], []),
}


@pytest.mark.parametrize("name", sorted(CLUSTERS))
def test_a_drafted_profile_stays_as_it_was(name: str) -> None:
    limits, partitions, accounts = CLUSTERS[name]
    text = draft_profile(name, limits, partitions, accounts, profile_requests())
    assert text == (GOLDEN / f"{name}.yaml").read_text()
