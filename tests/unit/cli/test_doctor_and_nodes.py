"""The verbs `doctor` and `nodes`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm

from hpc.cluster.profile import load_profile
from sarhpc.cli import main


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.setenv("SARHPC_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("SLURM_CLUSTER_NAME", raising=False)
    made = FakeSlurm(tmp_path / "site")
    row = {"a": "up", "l": "infinite", "D": "4", "c": "8", "m": "9000", "f": "(null)", "p": "1"}
    made.change(
        partitions=[{**row, "P": "main*", "G": "gpu:2"}],
        partition_details=["PartitionName=main PreemptMode=OFF PriorityTier=1"],
    )
    monkeypatch.setenv("PATH", str(made.bin))
    return made


def test_nodes_are_marked_listed_and_forgiven(
    site: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["nodes"]) == 0
    assert "no node is marked bad" in capsys.readouterr().out
    assert main(["nodes", "--mark", "n3", "--reason", "smells; $(x)", "--hours", "2"]) == 0
    capsys.readouterr()
    assert main(["nodes", "--json"]) == 0
    (bad,) = json.loads(capsys.readouterr().out)
    assert (bad["node"], bad["reason"], bad["job"]) == ("n3", "smells; $(x)", None)
    assert main(["nodes", "--cluster", "other"]) == 0
    assert "no node is marked bad" in capsys.readouterr().out
    assert main(["nodes", "--forgive", "n3", "--forgive", "n4"]) == 0
    output = capsys.readouterr().out
    assert "n3: forgiven" in output
    assert "n4: was not on the list" in output


def test_without_slurm_the_cluster_has_to_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SARHPC_STATE", str(tmp_path))
    monkeypatch.delenv("SLURM_CLUSTER_NAME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["nodes"]) == 2
    assert "--cluster NAME" in capsys.readouterr().err


def test_the_doctor_drafts_a_profile_and_then_finds_that_slurm_takes_it(
    site: FakeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "fake.yaml"
    assert main(["doctor", "--write-profile", str(file)]) == 0
    assert f"sarhpc doctor --profile {file}" in capsys.readouterr().out
    assert load_profile(file).cluster == "fake"
    assert main(["doctor", str(tmp_path / "run"), "--quick", "--profile", str(file)]) == 0
    output = capsys.readouterr().out
    assert "Slurm accepts such a job" in output
    assert "22.05.8, cluster fake" in output
    assert f"folder run         {tmp_path}" in output
    assert " checks, 0 failed" in output


def test_the_doctor_ends_with_1_if_something_will_fail(
    site: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    (site.bin / "squeue").write_text("#!/bin/sh\nexit 1\n")
    (site.bin / "scontrol").write_text("#!/bin/sh\necho 'Access denied' >&2\nexit 1\n")
    assert main(["doctor", "--quick", "--json"]) == 1
    found = {finding["check"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert found["slurm"]["state"] == "fail"
    assert "Access denied" in found["slurm"]["says"]
    assert found["packages"]["state"] == "ok"
