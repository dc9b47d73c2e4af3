"""Preflight verdicts on real folders and with a fake GPU driver on PATH; the list of bad nodes."""

from __future__ import annotations

import datetime
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from fake_slurm import FakeSlurm, queued

from hpc.cluster import health
from hpc.cluster.bad_nodes import BadNodeList, nodes_to_exclude, requeue_elsewhere
from hpc.cluster.health import BAD, DOUBTFUL, GOOD, BadNodeError, Needs, Verdict
from hpc.errors import ConfigError, TransientError

Driver = Callable[..., None]
LINE = "{index}, NVIDIA A100-SXM4-80GB, 81920, {used}, {ecc}, {temperature}"


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Writes a fake `nvidia-smi` that shows so many GPUs with these facts."""

    def write(count: int, remapped: str = "No", code: int = 0, **facts: object) -> None:
        facts = {"used": 3, "ecc": 0, "temperature": 40, **facts}
        lines = [LINE.format(index=i, **facts) for i in range(count)]
        rows = [f"{i}, {remapped}, No" for i in range(count)]
        folder = tmp_path / "driver"
        folder.mkdir(exist_ok=True)
        script = folder / "nvidia-smi"
        script.write_text(
            f"#!{sys.executable} -SE\nimport sys\n"
            f"rows = {rows!r} if 'remapped' in sys.argv[1] else {lines!r}\n"
            f"print('\\n'.join(rows))\nsys.exit({code})\n"
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    return write


def test_a_healthy_node_is_good_in_every_check(tmp_path: Path) -> None:
    verdicts = health.require_fit_node(Needs(run=tmp_path, scratch=tmp_path, cpus=1))
    assert {v.check: v.verdict for v in verdicts} == {
        "files": GOOD, "memory": GOOD, "scratch": GOOD, "cores": GOOD,
    }  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def own_disk() -> Iterator[Path]:
    """A folder on another file system than the run's."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_a_node_whose_scratch_is_too_small_is_left_and_listed_for_hours(
    tmp_path: Path, own_disk: Path
) -> None:
    listed = BadNodeList("lab", tmp_path / "state")
    needs = Needs(run=tmp_path, scratch=own_disk, scratch_bytes=10**18)
    with pytest.raises(BadNodeError, match=r"scratch: .* are needed.*--forgive") as caught:
        health.require_fit_node(needs, listed)
    assert caught.value.exit_code == 75
    (bad,) = listed.current()
    assert bad.node == health.node_name()
    assert not bad.active_at(datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=3))


def test_scratch_short_of_inodes_or_missing_is_bad(tmp_path: Path) -> None:
    assert health.check_scratch(tmp_path, 0, 10**12).verdict == BAD
    missing = health.check_scratch(tmp_path / "nowhere", 0, 0)
    assert (missing.verdict, "missing" in missing.message) == (BAD, True)


def test_fewer_cores_than_asked_are_doubtful() -> None:
    found = health.check_cores(10_000)
    assert found.verdict == DOUBTFUL
    assert "--cpus-per-task" in found.message


def test_a_clock_that_is_off_is_doubtful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = time.time() + 60
    monkeypatch.setattr("hpc.cluster.health.time.time", lambda: ahead)
    found = health.check_shared_files(tmp_path)
    assert found.verdict == DOUBTFUL
    assert "clock is 60 s off" in found.message


def test_a_run_folder_that_takes_no_file_is_bad(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert health.preflight(Needs(run=tmp_path / "file" / "run"))[0].verdict == BAD


def test_a_check_that_hangs_is_bad_and_lets_go() -> None:
    begin = time.monotonic()

    def hang() -> Verdict:
        time.sleep(30)
        return Verdict("files", GOOD, "at last")

    found = health._timed("files", hang, timeout_s=0.2)
    assert (found.check, found.verdict) == ("files", BAD)
    assert time.monotonic() - begin < 5


def test_a_full_quota_is_no_fault_of_the_node() -> None:
    def full() -> Verdict:
        raise TransientError("no space left")

    assert health._timed("files", full).verdict == DOUBTFUL


def test_healthy_gpus_are_named(driver: Driver) -> None:
    driver(4)
    found = health.check_gpus(4)
    assert (found.verdict, found.message) == (GOOD, "4 x NVIDIA A100-SXM4-80GB")


@pytest.mark.parametrize(
    ("facts", "verdict", "says"),
    [
        ({"count": 3}, BAD, "3 GPUs are visible, 4 were requested"),
        ({"count": 4, "ecc": 7}, BAD, "uncorrected memory errors"),
        ({"count": 4, "remapped": "Yes"}, BAD, "could not remap bad memory rows"),
        ({"count": 4, "code": 9}, BAD, "driver does not respond"),
        ({"count": 4, "temperature": 95}, DOUBTFUL, "is at 95 C"),
        ({"count": 4, "used": 40000}, DOUBTFUL, "40000 MiB in use"),
        ({"count": 4, "ecc": "[N/A]"}, GOOD, "A100"),
    ],
)
def test_ailing_gpus_are_told(
    facts: dict[str, object], verdict: str, says: str, driver: Driver
) -> None:
    driver(**facts)
    found = health.check_gpus(4)
    assert found.verdict == verdict
    assert says in found.message


def test_gpus_that_nobody_can_look_at_are_doubtful(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    verdicts = {v.check: v for v in health.preflight(Needs(run=tmp_path, gpus=1))}
    assert verdicts["gpus"].verdict == DOUBTFUL
    assert "compute" not in verdicts


@pytest.mark.slow
@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch is built for CUDA")
def test_torch_that_is_not_built_for_gpus_is_no_fault_of_the_node() -> None:
    found = health.check_compute(1)
    assert found.verdict == DOUBTFUL
    assert "is built for no CUDA" in found.message


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU to have too few")
def test_gpus_that_torch_cannot_reach_are_bad() -> None:
    found = health.check_compute(99)
    assert found.verdict == BAD
    assert "99 were requested" in found.message


def test_a_gpu_that_hangs_is_bad(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sleeper = tmp_path / "python"
    sleeper.write_text("#!/bin/sh\nexec sleep 30\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr("hpc.cluster.health.sys.executable", str(sleeper))
    found = health.check_compute(1, timeout_s=0.2)
    assert (found.verdict, "no matrix product" in found.message) == (BAD, True)


def test_marks_expire_and_can_be_forgiven(tmp_path: Path) -> None:
    listed = BadNodeList("lab", tmp_path)
    listed.mark("n1", "first", hours=1)
    listed.mark("n1", "second: row; $(x)", job="12", hours=1)
    listed.mark("n2", "over", hours=-1)
    assert [(b.node, b.reason, b.job) for b in listed.current()] == [
        ("n1", "second: row; $(x)", "12")
    ]
    assert [p.name for p in listed.directory.iterdir()] == ["n1.json"]
    assert listed.forgive("n1")
    assert not listed.forgive("n1")
    assert listed.current() == []


def test_a_note_that_is_none_is_passed_over(tmp_path: Path) -> None:
    listed = BadNodeList("lab", tmp_path)
    listed.mark("n1", "bad")
    (listed.directory / "n2.json").write_text("{")
    (listed.directory / "n3.json").write_text(json.dumps({"node": "n3"}))
    assert [bad.node for bad in listed.current()] == ["n1"]


@pytest.mark.parametrize("name", ["", "../n1", "n1,n2", "n1 --foo", "n[1-2]"])
def test_only_names_of_nodes_are_marked(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a node name"):
        BadNodeList("lab", tmp_path).mark(name, "bad")


def test_a_submission_leaves_out_bad_nodes_that_exist_and_never_most_of_them(
    tmp_path: Path,
) -> None:
    listed = BadNodeList("lab", tmp_path)
    for name in ("n3", "gone", "n1", "n2"):
        listed.mark(name, "bad")
    existing = {"n1", "n2", "n3", "n4"}
    assert listed.excluded(existing) == ["n1", "n2"]
    assert listed.excluded(existing, keep=3) == ["n2"]
    assert listed.excluded(existing, keep=4) == []
    assert listed.excluded({f"n{i}" for i in range(1, 9)}) == ["n1", "n2", "n3"]


def test_slurm_is_asked_for_its_nodes_only_if_one_is_bad(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SARHPC_STATE", str(tmp_path / "state"))
    fake_slurm.change(nodes=[{"N": f"n{i}", "T": "idle", "E": "none"} for i in range(4)])
    assert nodes_to_exclude("lab") == ()
    assert fake_slurm.calls() == []
    BadNodeList("lab").mark("n2", "bad")
    assert nodes_to_exclude("lab") == ("n2",)
    assert nodes_to_exclude("other") == ()


def test_a_job_is_requeued_away_from_bad_nodes(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SARHPC_STATE", str(tmp_path / "state"))
    fake_slurm.change(
        jobs=[queued("11"), queued("12")],
        nodes=[{"N": f"n{i}", "T": "idle", "E": "none"} for i in range(4)],
    )
    requeue_elsewhere("11")
    assert [words[:2] for words in fake_slurm.calls()] == [["scontrol", "requeue"]]
    BadNodeList("fake").mark("n2", "bad")
    BadNodeList("fake").mark("n1", "bad")
    requeue_elsewhere("12")
    assert fake_slurm.calls()[-2:] == [
        ["scontrol", "requeue", "12"],
        ["scontrol", "update", "JobId=12", "ExcNodeList=n1,n2"],
    ]


def test_a_job_is_requeued_even_if_the_bad_nodes_cannot_be_asked_for(
    fake_site: Callable[..., FakeSlurm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SARHPC_STATE", str(tmp_path / "state"))
    site = fake_site(without=("sinfo",))
    site.change(jobs=[queued("11")])
    BadNodeList("fake").mark("n2", "bad")
    requeue_elsewhere("11")
    assert site.state["jobs"][0]["State"] == "PENDING"


def test_where_most_nodes_are_bad_no_job_goes_round_in_circles(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "11")
    monkeypatch.setenv("SLURMD_NODENAME", "n3")
    fake_slurm.change(nodes=[{"N": f"n{i}", "T": "idle", "E": "none"} for i in range(4)])
    listed = BadNodeList("fake", tmp_path)
    needs = Needs(run=tmp_path, scratch=tmp_path / "nowhere")
    listed.mark("n1", "bad")
    with pytest.raises(BadNodeError, match="node n3 is not fit"):
        health.require_fit_node(needs, listed)
    listed.mark("n2", "bad")
    with pytest.raises(health.TooManyBadNodesError, match="a requeue does not help") as caught:
        health.require_fit_node(needs, listed)
    assert caught.value.exit_code == 5
