"""What the doctor finds on this machine and on fake sites, and the profile it drafts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm

from hpc.cluster import doctor, site, slurm
from hpc.cluster.doctor import FAIL, OK, WARN, Finding
from hpc.cluster.draft import draft_profile, write_profile
from hpc.cluster.profile import Profile, Resources, load_profile
from hpc.cluster.slurm import Limits, NodeKind, Partition
from hpc.errors import ConfigError, HpcError
from sarhpc.stages.registry import profile_requests

A100 = NodeKind(count=6, cpus=64, mem_mb=512_000, gpus=4, gpu_type="a100", features="nvme")
PLAIN = NodeKind(count=90, cpus=128, mem_mb=256_000, gpus=0, gpu_type="", features="")
CPU = Partition("cpu", True, True, 86400, (PLAIN,), 10, "OFF")
GPU = Partition("gpu", False, True, 72000, (A100,), 10, "OFF")
SPARE = Partition("spare", False, True, 86400, (A100, A100), 1, "REQUEUE", 30)


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def test_a_missing_package_fails_and_says_how_to_get_it() -> None:
    found = by_check(list(doctor.check_python(["numpy", "no-such-package"])))
    assert found["python"].state == OK
    assert found["packages"].state == FAIL
    assert "no-such-package" in found["packages"].message
    assert "pip install" in found["packages"].advice


def test_imports_are_timed_in_a_fresh_process() -> None:
    assert doctor.check_imports(["json"]).state == OK
    broken = doctor.check_imports(["no_such_module"])
    assert broken.state == FAIL
    assert "no_such_module" in broken.message


def test_folders_are_looked_at_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {"HOME": str(tmp_path), "SCRATCH": "/", "WORK": str(tmp_path / "missing")}
    assert doctor.folders_to_check(environment) == {"HOME": tmp_path, "SCRATCH": Path("/")}


def test_a_folder_short_of_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MIN_FREE_GB", 0.0)
    monkeypatch.setattr(doctor, "MIN_FREE_INODES", 0)
    assert doctor.check_folder("here", tmp_path).state == OK
    monkeypatch.setattr(doctor, "MIN_FREE_GB", 1e9)
    assert doctor.check_folder("here", tmp_path).state == WARN


def test_a_lustre_quota_counts_before_the_room_on_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lfs = tmp_path / "lfs"
    lfs.write_text("#!/bin/sh\necho '/mnt/l 1024 0 1049600 - 990000* 900000 1000000 6d'\n")
    lfs.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "MIN_FREE_GB", 1.0)
    found = doctor.check_folder("here", tmp_path)
    assert found.state == WARN
    assert "by quota 1 GB and 0" in found.message


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/lustre 1000 0 0 - 10 0 0 -", (float("inf"), float("inf"))),
        ("/lustre/a/long/name\n   1000 0 1001000 - 10 20 30 -", (1.024, 10)),
        ("no quota here", None),
        ("", None),
    ],
)
def test_lustre_quotas_are_read(text: str, left: tuple[float, float] | None) -> None:
    assert doctor.parse_lustre_quota(text) == left


def test_publishing_is_timed_and_leaves_nothing(tmp_path: Path) -> None:
    assert doctor.check_publishing(tmp_path, times=3).state in (OK, WARN)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_looked_at_is_a_finding_too() -> None:
    def look() -> Finding:
        raise PermissionError(13, "Permission denied", "/data")

    found = doctor.run_check("folder data", look)
    assert (found.check, found.state) == ("folder data", FAIL)
    assert "/data" in found.message


@pytest.mark.slow
def test_two_processes_add_up_over_gloo() -> None:
    found = doctor.check_all_reduce("gloo", 2)
    assert found.state == OK, found.message
    assert "2 ranks on this machine" in found.message


@pytest.mark.slow
def test_a_backend_that_does_not_work_is_told() -> None:
    found = doctor.check_all_reduce("nonsense", 1)
    assert found.state == FAIL
    assert "nonsense" in found.message


def test_the_offline_proof_fails_where_the_network_is_needed() -> None:
    assert doctor.check_offline("import sys; assert sys.argv[1] == 'word'", ["word"]).state == OK
    asking = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"
    found = doctor.check_offline(asking)
    assert found.state == FAIL
    assert "sarhpc fetch" in found.advice


def test_sockets_are_refused_where_the_network_cannot_be_taken_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "_without_network", lambda: [])
    found = doctor.check_offline("import socket; socket.getaddrinfo('localhost', 80)")
    assert found.state == FAIL
    assert "network access refused" in found.message
    assert doctor.check_offline("import json").message.startswith(
        "models load with sockets refused"
    )


def test_a_machine_without_slurm_is_told_to_work_locally(
    fake_site: Callable[..., FakeSlurm],
) -> None:
    fake_site(without=("sbatch",))
    (found,) = site.check_slurm()
    assert found.state == WARN
    assert "--executor local" in found.advice


def test_a_controller_that_is_away_fails_with_a_word(fake_slurm: FakeSlurm) -> None:
    fake_slurm.change(down=100)
    (found,) = site.check_slurm()
    assert found.state == FAIL
    assert "did not answer" in found.message


def test_a_site_that_lacks_much_is_told_what_follows(fake_slurm: FakeSlurm) -> None:
    row = {"a": "up", "l": "infinite", "D": "4", "c": "8", "m": "9000", "f": "(null)", "p": "1"}
    fake_slurm.configure(
        SlurmctldParameters="(null)",
        AccountingStorageTRES="cpu,mem",
        MaxArraySize="501",
    )
    fake_slurm.change(
        partitions=[{**row, "P": "low*", "G": "(null)"}],
        partition_details=["PartitionName=low PreemptMode=CANCEL GraceTime=5 PriorityTier=1"],
        associations=["physics|25|"],
    )
    found = by_check(list(site.check_slurm()))
    assert found["slurm"].message.startswith("22.05.8, cluster fake")
    assert found["limits"].message == "arrays of 501 elements, 25 jobs at a time"
    assert "taken from the profile" in found["accounting"].advice
    assert "SIGTERM only" in found["preemption"].message
    assert "checkpoint often" in found["partition low"].advice
    fake_slurm.configure(AccountingStorageType="accounting_storage/none", PreemptMode="OFF")
    fake_slurm.change(partition_details=["PartitionName=low PreemptMode=OFF PriorityTier=1"])
    found = by_check(list(site.check_slurm()))
    assert "estimated from the attempts" in found["accounting"].advice
    assert found["preemption"].message == "no partition is preempted"


def test_slurm_is_asked_whether_it_takes_the_jobs_of_a_profile(fake_slurm: FakeSlurm) -> None:
    profile = Profile(
        name="lab",
        executor="slurm",
        partition="cpu",
        gpu_partition="gpu",
        account="physics; rm -rf /",
        gpu_syntax="gres",
        gpu_type="a100",
        ask_memory=False,
        options={"hint": "nomultithread"},
        stages={"train": Resources(nodes=2, tasks_per_node=4, gpus_per_node=4)},
    )
    found = list(site.check_profile(profile))
    assert [finding.check for finding in found] == ["profile other stages", "profile train"]
    assert {finding.state for finding in found} == {OK}
    train = fake_slurm.calls("sbatch")[1]
    assert train[1] == "--test-only"
    assert {"--partition=gpu", "--gres=gpu:a100:4", "--hint=nomultithread", "--nodes=2"} < {*train}
    assert "--account=physics; rm -rf /" in train
    assert not any(word.startswith("--mem") for word in train)
    assert fake_slurm.state["jobs"] == []


def test_a_request_that_slurm_refuses_is_told_in_its_words(
    fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fake_slurm.bin / "sbatch").write_text(
        "#!/bin/sh\necho 'allocation failure: Invalid account specified' >&2; exit 1\n"
    )
    found = list(site.check_profile(Profile(name="lab", file="lab.yaml", executor="slurm")))
    assert found[0].state == FAIL
    assert "Invalid account" in found[0].message
    assert found[0].advice == "correct lab.yaml"


def test_a_draft_is_a_profile_that_uses_what_the_cluster_has(tmp_path: Path) -> None:
    limits = Limits(max_array_size=501, max_jobs=300, version="23.11.4", enforces_accounts=True)
    text = draft_profile(
        "site one", limits, [CPU, SPARE, GPU], ["physics", "maths"], profile_requests()
    )
    (tmp_path / "site.yaml").write_text(text)
    profile = load_profile(tmp_path / "site.yaml")
    assert (profile.executor, profile.cluster) == ("slurm", "site one")
    assert (profile.partition, profile.gpu_partition, profile.account) == ("cpu", "gpu", "physics")
    assert (profile.gpu_type, profile.max_array, profile.max_jobs) == ("a100", 501, 300)
    train = profile.resources_of("train")
    assert (train.nodes, train.tasks_per_node, train.gpus_per_node) == (2, 4, 4)
    assert (train.cpus_per_task, train.mem_gb, train.time_min) == (16, 450, 1200)
    assert profile.resources_of("tile").gpus_per_node == 0
    assert profile.resources_of("generate").elements == 24
    assert {
        stage: profile.resources_of(stage).gpus_per_node
        for stage in profile.stages
        if stage != "tile"
    } == {
        "caption": 4,
        "encode": 4,
        "caption-train": 1,
        "clip-train": 1,
        "train": 4,
        "generate": 1,
        "prior": 1,
        "compare": 1,
        "evaluate": 1,
    }
    assert profile.resources_of("export").cpus_per_task == 8
    assert "# spare: 6 nodes of 64 cores" in text
    assert "preempted (REQUEUE, 30 s grace)" in text


def test_a_draft_for_a_site_without_gpus_asks_for_none(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(draft_profile("c", Limits(), [CPU], [], profile_requests()))
    profile = load_profile(tmp_path / "site.yaml")
    assert profile.gpu_partition is None
    assert profile.account is None
    assert all(stage.gpus_per_node == 0 for stage in profile.stages.values())


def test_names_from_the_cluster_stay_text_in_a_draft(tmp_path: Path) -> None:
    evil = "x\nexecutor: local\n# $(touch owned)"
    part = Partition(evil, True, True, None, (PLAIN,), 1, "OFF")
    (tmp_path / "site.yaml").write_text(draft_profile("evil", Limits(), [part], [], {}))
    with pytest.raises(ConfigError, match="control character"):
        load_profile(tmp_path / "site.yaml")


def test_no_partition_that_is_up_is_no_profile() -> None:
    with pytest.raises(ConfigError, match="no partition"):
        draft_profile("c", Limits(), [Partition("p", True, False, None, (PLAIN,))], [], {})


def test_a_profile_that_is_there_is_not_overwritten(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("executor: slurm\n")
    with pytest.raises(ConfigError, match="is there already"):
        write_profile(tmp_path / "mine.yaml", {})
    assert fake_slurm.calls("sinfo") == []


def test_a_probe_reads_its_place_from_the_launcher_or_from_slurm() -> None:
    code = (
        "from hpc.cluster.reduce_probe import rank_and_rendezvous as place\n"
        "print(place({'SLURM_PROCID': '3', 'SLURM_NTASKS': '4', 'SLURM_JOB_ID': '123456',"
        " 'SLURM_LAUNCH_NODE_IPADDR': '10.0.0.1'}))\n"
        "print(place({'RANK': '1', 'WORLD_SIZE': '2', 'SLURM_PROCID': '0', 'SLURM_NTASKS': '1'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == "(3, 4, 'tcp://10.0.0.1:23456')"
    assert second.startswith("(1, 2, 'tcp://127.0.0.1:2")


def test_an_all_reduce_between_nodes_is_one_step_that_is_waited_for(
    fake_slurm: FakeSlurm,
) -> None:
    srun = fake_slurm.bin / "srun"
    srun.write_text(
        '#!/bin/sh\nprintf "%s\\n" "$@" >&2\nprintf "%s\\n" "$@" > "$0.words"\n'
        'echo \'{"backend": "gloo", "ranks": 2, "meet_s": 1, "seconds": 1, "gb_s": 0.5}\'\n'
    )
    srun.chmod(0o755)
    profile = Profile(name="lab", executor="slurm", partition="cpu", account="physics")
    found = site.check_between_nodes(profile, Resources(), 2)
    assert (found.state, found.message) == (OK, "2 ranks on 2 nodes connected in 1.0 s, 0.50 GB/s")
    words = (fake_slurm.bin / "srun.words").read_text().split("\n")
    assert {"--partition=cpu", "--account=physics", "--nodes=2", "gloo"} < {*words}
    srun.write_text("#!/bin/sh\necho 'no route to host' >&2\nexit 1\n")
    found = site.check_between_nodes(profile, Resources(), 2)
    assert found.state == FAIL
    assert "no route to host" in found.message
    with pytest.raises(HpcError):
        slurm.run_step(["true"], env={})
