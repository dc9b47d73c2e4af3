"""Profiles: strict to read, quoted on the way out."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hpc.cluster.profile import Container, Profile, Resources, load_profile
from hpc.errors import ConfigError

PROFILES = Path(__file__).resolve().parents[3] / "slurm" / "profiles"


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_profile_loads_under_its_file_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SARHPC_PROJECT", "abc")
    assert load_profile(path.stem, [PROFILES]).name == path.stem


def test_stages_have_their_own_resources() -> None:
    profile = load_profile("a100", [PROFILES])
    assert profile.resources_of("train").gpus_per_node == 4
    assert profile.resources_of("train").tasks == 8
    assert profile.resources_of("some-other-stage") == profile.resources
    assert isinstance(profile.resources_of("train"), Resources)


def test_gpu_jobs_go_to_the_gpu_partition() -> None:
    profile = load_profile("a100", [PROFILES])
    assert profile.slurm_parameters(profile.resources_of("train"))["partition"] == "gpu"
    assert profile.slurm_parameters(profile.resources_of("tile"))["partition"] == "cpu"


@pytest.mark.parametrize(
    ("syntax", "kind", "expected"),
    [
        ("gres", "a100", {"gres": "gpu:a100:4"}),
        ("gres", None, {"gres": "gpu:4"}),
        ("gpus-per-node", "a100", {"gpus-per-node": "a100:4"}),
        ("gpus-per-node", None, {"gpus-per-node": "4"}),
    ],
)
def test_gpus_are_asked_for_in_the_sites_syntax(
    syntax: str, kind: str | None, expected: dict[str, str]
) -> None:
    profile = Profile(gpu_syntax=syntax, gpu_type=kind, requeue="none")
    options = profile.slurm_parameters(Resources(gpus_per_node=4))
    assert options["additional_parameters"] == {"no-requeue": True, **expected}


def test_shell_words_are_taken_literally() -> None:
    nasty = "a b; $(touch pwned) 'x' \"y\""
    lines = Profile(env={"WORDS": nasty}).setup_lines()
    script = "\n".join([*lines, 'printf %s "$WORDS"'])
    reported = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert reported.stdout == nasty
    assert Profile(modules=["cuda/12; rm x"]).setup_lines() == ["module load 'cuda/12; rm x'"]


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("partiton: gpu", "partition"),
        ("executor: pbs", "executor='pbs'"),
        ("requeue: maybe", "requeue"),
        ("grace_s: soon", "grace_s"),
        ("stages: {train: {gpus: 4}}", "gpus"),
        ("resources: {nodes: 0}", "nodes=0"),
        ("env: {'A;B': x}", "not a variable name"),
        ("partition: [", "site.yaml"),
        ("- partition", "not a list"),
        ('account: "a\\n#SBATCH --qos=x"', "control character"),
        ('stages: {train: {qos: "a\\nb"}}', "stages.train.qos"),
        ("options: {'mem x': 1}", "not a long option"),
        ("container: {runtime: docker, image: x.sif}", "apptainer, pyxis"),
        ("container: {mounts: [/scratch]}", "needs an image"),
    ],
)
def test_a_wrong_profile_is_a_clear_error(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_profile(write(tmp_path, text))


def test_an_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"known: a100, .*local"):
        load_profile("nowhere", [PROFILES])


def test_variables_of_the_login_node_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    profile = load_profile(write(tmp_path, "env: {HF_HOME: '${oc.env:SCRATCH}/hf'}"))
    assert profile.env == {"HF_HOME": "/scratch/me/hf"}


def test_a_stage_may_have_its_own_partition_account_and_service() -> None:
    profile = Profile(partition="cpu", gpu_partition="gpu", account="a@cpu", gpu_account="a@gpu")
    gpu, own = Resources(gpus_per_node=1), Resources(gpus_per_node=1, partition="big", qos="long")
    assert profile.slurm_parameters(gpu)["account"] == "a@gpu"
    assert profile.slurm_parameters(Resources())["account"] == "a@cpu"
    assert profile.slurm_parameters(own)["partition"] == "big"
    assert profile.slurm_parameters(own)["qos"] == "long"


def test_a_container_stands_before_the_interpreter() -> None:
    box = Container(image="/images/sarhpc.sif", mounts=["/scratch", "/data:/d"])
    gpu = Resources(gpus_per_node=1)
    assert Profile(container=box).interpreter_command(gpu, "/venv/bin/python") == [
        *("apptainer", "exec", "--nv", "--bind", "/scratch", "--bind", "/data:/d"),
        *("/images/sarhpc.sif", "python3"),
    ]
    pyxis = Container("pyxis", "/images/sarhpc.sqsh", ["/scratch"])
    assert pyxis.srun_options() == [
        "--container-image=/images/sarhpc.sqsh",
        "--container-mounts=/scratch:/scratch",
    ]
    assert Profile(container=pyxis).interpreter_command(gpu, "/venv/bin/python") == ["python3"]
    assert Profile(python="/opt/py").interpreter_command(gpu, "/venv/bin/python") == ["/opt/py"]
    assert Profile().interpreter_command(gpu, "/venv/bin/python") == ["/venv/bin/python"]


@pytest.mark.parametrize("name", ["jean_zay", "leonardo"])
def test_a_shipped_profile_names_every_variable_to_export(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SARHPC_PROJECT", raising=False)
    with pytest.raises(ConfigError, match="not set: export SARHPC_PROJECT=VALUE for account"):
        load_profile(name)
    monkeypatch.setenv("SARHPC_PROJECT", "abc")
    assert str(load_profile(name).account).startswith("abc")


def test_all_variables_that_are_not_set_are_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORK", "A_SCRATCH", "STORE"):
        monkeypatch.delenv(name, raising=False)
    env = "A: '${oc.env:WORK}', B: '${oc.env:A_SCRATCH}/${oc.env:WORK}', C: '${oc.env:STORE,/s}'"
    file = write(tmp_path, f"env: {{{env}}}")
    reported = "export WORK=VALUE for env.A, env.B; export A_SCRATCH=VALUE for env.B$"
    with pytest.raises(ConfigError, match=reported):
        load_profile(file)
