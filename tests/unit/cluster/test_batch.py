"""One Slurm job: its script in a real shell, and one submission whatever sbatch says."""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from ranked_works import EndWith

import hpc.cluster.batch
from hpc.cluster import slurm
from hpc.cluster.batch import BatchJob, script_text, submit_script, write_script
from hpc.cluster.chain import Link, prepare
from hpc.cluster.profile import Profile, Resources
from hpc.errors import ConfigError
from hpc.store.rundir import RunDir, create_run


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return create_run(tmp_path / "a run", "x: 1\n", "f" * 16)


def job_in(run: RunDir, **changes: object) -> BatchJob:
    job = BatchJob(
        name="a run-tile",
        comment="sarhpc:a run:tile:abcd-0",
        work=EndWith(0),
        script=run.root / "submit" / "000-tile.sbatch",
        logs=run.root / "tile" / "logs",
        resources=Resources(),
        profile=Profile(executor="slurm", env={"NOTE": "it's $HOME; $(touch pwned)"}),
    )
    return dataclasses.replace(job, **changes)  # type: ignore[arg-type]


def executable(folder: Path, name: str, lines: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{lines}\n")
    (folder / name).chmod(0o755)


def carried_out(job: BatchJob, folder: Path, srun: str, **variables: str) -> tuple[int, str]:
    """Exit code and output of the script, with a `srun` of those lines."""
    executable(folder, "srun", srun)
    path = {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    done = subprocess.run(
        ["bash", str(job.script)],
        env={**os.environ, **path, **variables},
        capture_output=True, text=True, cwd=folder, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_the_script_puts_the_work_where_the_worker_looks_and_clears_it(
    tmp_path: Path, run: RunDir
) -> None:
    job = job_in(run, code=run.root / "code" / "x")
    write_script(job)
    srun = 'echo "$NOTE|$PYTHONPATH|$PYTHONSAFEPATH"; echo "$2"; '
    srun += f"ls {str(job.logs)!r}; exit 5"
    code, environment = carried_out(job, tmp_path / "bin", srun, PYTHONPATH="/site")
    assert code == 5
    first, log, *listed = environment.splitlines()
    assert first == f"it's $HOME; $(touch pwned)|{run.root}/code/x:/site|1"
    assert log == f"--output={job.logs}/7_%t.a0.log"
    assert listed == ["7_submitted.pkl"]
    assert os.listdir(job.logs) == []
    assert not (tmp_path / "bin" / "pwned").exists()


def test_each_element_of_an_array_finds_the_same_work_and_its_own_log(
    tmp_path: Path, run: RunDir
) -> None:
    job = job_in(run, elements=3)
    write_script(job)
    srun = 'echo "$2"; readlink ' + f"{str(job.logs)!r}/*"
    environment = carried_out(
        job, tmp_path / "bin", srun,
        SLURM_ARRAY_JOB_ID="9", SLURM_ARRAY_TASK_ID="2", SLURM_RESTART_COUNT="1",
    )[1]  # fmt: skip
    assert environment.splitlines() == [f"--output={job.logs}/9_2_%t.a1.log", str(job.pickle)]
    assert "#SBATCH --array=0-2\n" in script_text(job)


def test_the_work_in_the_pickle_carries_names_only(run: RunDir) -> None:
    job = job_in(run)
    write_script(job)
    carried = pickle.loads(job.pickle.read_bytes())
    assert carried.function.work == EndWith(0)
    assert job.pickle.stat().st_size < 1000


@pytest.mark.parametrize("name", ["a%j", "a\\b", "a\nb", "a:b"])
def test_names_that_slurm_or_python_would_read_otherwise_are_refused(
    run: RunDir, name: str
) -> None:
    with pytest.raises(ConfigError, match="another run name"):
        script_text(job_in(run, logs=run.root / name))


LOST = """\
echo "$@" >> "$STATE/calls"
if [ ! -e "$STATE/taken" ]; then
  touch "$STATE/taken"
  echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv" >&2; exit 1
fi
echo 43
"""
QUEUE = r"""
[ -n "$KNOWS" ] && [ -e "$STATE/taken" ] || exit 0
printf '42\x1fPENDING\x1fNone\x1fmain\x1f\x1f0:00\x1f1:00\x1f0\x1fa run-tile\x1f'
printf 'sarhpc:a run:tile:abcd-0\x1e'
"""


@pytest.mark.parametrize(("knows", "job_id", "calls"), [("1", "42", 1), ("", "43", 2)])
def test_a_lost_answer_makes_no_second_job(
    tmp_path: Path,
    run: RunDir,
    monkeypatch: pytest.MonkeyPatch,
    knows: str,
    job_id: str,
    calls: int,
) -> None:
    executable(tmp_path / "bin", "sbatch", LOST)
    executable(tmp_path / "bin", "squeue", QUEUE)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("STATE", str(tmp_path))
    monkeypatch.setenv("KNOWS", knows)
    monkeypatch.setattr(hpc.cluster.batch, "RETRY_PAUSES_S", (0.1, 0.1))
    job = job_in(run)
    write_script(job)
    assert submit_script(job, "afterany:12") == job_id
    lines = (tmp_path / "calls").read_text().splitlines()
    assert lines == [f"--parsable --dependency=afterany:12 {job.script}"] * calls


def test_a_refusal_is_told_at_once(
    tmp_path: Path, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = "echo 'sbatch: error: invalid partition specified: nope' >&2; exit 1"
    executable(tmp_path / "bin", "sbatch", refusal)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    job = job_in(run)
    write_script(job)
    with pytest.raises(slurm.SlurmRefusedError, match="invalid partition"):
        submit_script(job)


def links(elements: int, shards: int) -> list[Link]:
    array = Resources(elements=elements)
    return [Link("tile", (), Resources()), Link("generate", ("tile",), array, expected=shards)]


@pytest.mark.parametrize(
    ("profile", "elements", "shards", "arrays"),
    [
        (Profile(), 5000, 10000, [1000] * 5),
        (Profile(max_array=400), 5000, 1000, [400, 400, 200]),
        (Profile(max_jobs=101), 5000, 10000, [100]),
        (Profile(max_jobs=20, requeue="chain"), 8, 100, [8, 8]),
        (Profile(max_jobs=10, requeue="chain"), 8, 100, [4, 4]),
        (Profile(), 8, 1, [None]),
        (Profile(), 1, 100, [None]),
    ],
)
def test_arrays_fit_the_shards_and_the_limits(
    run: RunDir, profile: Profile, elements: int, shards: int, arrays: list[int | None]
) -> None:
    chain = prepare(run, links(elements, shards), profile, lambda stage, number: EndWith(0))
    generate = [part for part in chain.parts if part.link.stage == "generate"]
    assert [part.batch.elements for part in generate] == arrays
    comments = [part.batch.comment for part in chain.parts]
    assert len(set(comments)) == len(comments)
    again = prepare(run, links(elements, shards), profile, lambda stage, number: EndWith(0))
    assert again == chain


@pytest.mark.parametrize(
    ("code", "requeue", "repaired"),
    [(5, "scontrol", True), (5, "chain", True), (5, "none", False), (1, "chain", False),
     (0, "scontrol", False)],
)  # fmt: skip
def test_a_job_that_finds_its_upstream_unsealed_runs_the_repair(
    tmp_path: Path, run: RunDir, code: int, requeue: str, repaired: bool
) -> None:
    profile = Profile(executor="slurm", requeue=requeue)
    job = job_in(run, profile=profile, repair=("-c", "print('repaired')"))
    write_script(job)
    ended, printed = carried_out(job, tmp_path / "bin", f"exit {code}", PYTHONPATH=os.getcwd())
    assert ended == code
    assert ("repaired" in printed) == repaired


def test_a_submission_outlasts_a_controller_that_answers_nothing_for_minutes(
    run: RunDir, fake_slurm: FakeSlurm
) -> None:
    job = job_in(run)
    write_script(job)
    # The first request was heard, then neither sbatch nor squeue gets an answer.
    fake_slurm.change(lose_answer=1)
    submitted = []
    real = hpc.cluster.slurm.run_command

    def fail_after_the_first(command: list[str], **options: object) -> str:
        if command[0] == "sbatch" and not submitted:
            submitted.append(command)
            try:
                return real(command, **options)  # type: ignore[arg-type]
            finally:
                fake_slurm.change(down=20)
        return real(command, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hpc.cluster.slurm, "run_command", fail_after_the_first)
        assert submit_script(job) == "100"
    assert len(fake_slurm.calls("sbatch")) == 1
    assert len(fake_slurm.calls("squeue")) == 21


def test_a_job_that_submits_another_hands_on_none_of_its_own_variables(
    tmp_path: Path, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable(tmp_path / "bin", "sbatch", f"env > {tmp_path}/env; echo 7")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for name, text in {"SLURM_JOB_ID": "6", "SLURM_MEM_PER_NODE": "9", "SLURM_CONF": "c"}.items():
        monkeypatch.setenv(name, text)
    job = job_in(run)
    write_script(job)
    assert submit_script(job) == "7"
    passed = (tmp_path / "env").read_text().splitlines()
    kept = [line for line in passed if line.startswith("SLURM_")]
    assert sorted(kept) == ["SLURM_BITSTR_LEN=0", "SLURM_CONF=c"]
