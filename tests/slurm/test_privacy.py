"""What another user of the cluster can do to a run (nothing), and what odd texts do (nothing)."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from chain_runs import NEVER, sarhpc, wait_for, write_profile
from line_runs import TINY, make_tiny_model, seal_export, tiny_run
from mini_slurm import MiniSlurm

from hpc.cluster.certificate import issue_credentials
from hpc.cluster.dask import connect
from hpc.store.rundir import RunDir, open_run
from hpc.store.submissions import read_submissions
from sarhpc.shards.reader import read_shard

NASTY = 'it\'s a $(touch pwned) `touch pwned`; touch pwned & "q" | cat #1 ünïx * ~ $HOME !x'
"""Every character that a shell would act upon."""

TRIES = """\
import pathlib, sys
for word in sys.argv[1:]:
    what, path = word.split(":", 1)
    path = pathlib.Path(path)
    try:
        if what == "list":
            list(path.iterdir())
        elif what == "read":
            path.read_bytes()
        elif what == "write":
            path.open("ab").close()
        elif what == "plant":
            (path / "planted").write_text("x")
        else:
            path.rename(path.with_name("moved"))
        print("did", word)
    except PermissionError:
        print("denied", word)
    except FileNotFoundError:
        print("missing", word)
"""
"""Tries what its arguments say; one line on each."""

KNOCKS = """\
import socket, ssl, sys
host, port, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with socket.create_connection((host, port), 20) as plain:
    plain.settimeout(20)
    try:
        if how == "plain":
            plain.sendall(bytes(1024))
            told = plain.recv(1 << 16)
        else:
            context = ssl._create_unverified_context()
            if how != "nobody":
                context.load_cert_chain(how + "/certificate-own.pem", how + "/key-own.pem")
            with context.wrap_socket(plain) as talk:
                talk.sendall(bytes(1024))
                told = talk.recv(1 << 16)
    except OSError as error:
        print("refused", type(error).__name__, error)
    else:
        print("answered" if told else "closed", told[:80])
"""
"""Says whether the Dask scheduler at `host port` answers; a scheduler speaks first."""

HOLD = """\
import pathlib, sys, time
from hpc.cluster.dask import dask_cluster
if __name__ == "__main__":
    with dask_cluster(pathlib.Path(sys.argv[1]), 1, shared=True):
        until = time.monotonic() + 240
        while time.monotonic() < until and not pathlib.Path(sys.argv[2]).exists():
            time.sleep(0.2)
"""
"""Keeps the Dask cluster of a job until a file is there."""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody on the machine may look into, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="sarhpc-open-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def as_another(folder: Path, code: str, *words: str) -> str:
    """What Python prints as a user without any rights here."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can be another user: nobody tried to get into the run")
    other = pwd.getpwnam("nobody")
    become = ["setpriv", f"--reuid={other.pw_uid}", f"--regid={other.pw_gid}", "--clear-groups"]
    # The interpreter of this environment may lie where only its owner can look.
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable
    done = subprocess.run(
        [*become, python, "-I", "-c", code, *words],
        cwd=folder, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def tried(folder: Path, *words: str) -> dict[str, str]:
    """Each try of another user -> `did` or `denied`."""
    lines = as_another(folder, TRIES, *words).splitlines()
    return {word: end for end, _, word in (line.partition(" ") for line in lines)}


def submitted_by_a_careless_user(cluster: MiniSlurm, run: RunDir, profile: Path) -> None:
    """Submit `run` from a shell whose umask takes nothing away."""
    line = shlex.join([sys.executable, "-m", "sarhpc.cli", "run", str(run.root)])
    shell = f"umask 000; exec {line} --profile {shlex.quote(str(profile))}"
    done = cluster.run("bash", "-c", shell)
    assert "submission 000" in done.stdout


def test_another_user_can_neither_read_a_run_nor_put_a_pickle_into_it(
    open_folder: Path, tmp_path: Path, cluster: MiniSlurm, model: Path
) -> None:
    run = tiny_run(open_folder / "run", model)
    submitted_by_a_careless_user(cluster, run, write_profile(tmp_path, NEVER))
    [record] = read_submissions(run)
    script = run.root / record.jobs[0].script
    code = run.root / str(record.code)
    places = [run.root, script.parent, code, code.parent, run.logs("simulate"), run.stage("tile")]
    reads = [f"list:{place}" for place in places]
    reads += [f"read:{path}" for path in (run.config_file, script.with_suffix(".pkl"))]
    writes = [f"plant:{place}" for place in places]
    writes += [f"move:{place}" for place in (script.parent, code, script.with_suffix(".pkl"))]
    writes += [f"write:{path}" for path in (script, script.with_suffix(".pkl"))]
    writes += [f"write:{code}/hpc/errors.py", f"plant:{code}/sarhpc"]

    (open_folder / "note").write_text("for all")
    assert tried(open_folder, f"read:{open_folder}/note") == {f"read:{open_folder}/note": "did"}
    assert set(tried(open_folder, *reads, *writes).values()) == {"denied"}

    # Whoever shares a run for reading does not give away what its jobs will do.
    run.root.chmod(0o755)
    assert tried(open_folder, reads[0]) == {reads[0]: "did"}
    assert set(tried(open_folder, *writes).values()) == {"denied"}
    for path in run.root.rglob("*"):
        mode = path.lstat().st_mode
        assert stat.S_ISLNK(mode) or not mode & 0o022, f"{path} can be written by others"


def test_another_user_cannot_talk_to_the_dask_scheduler_of_a_job(
    open_folder: Path, tmp_path: Path, cluster: MiniSlurm, model: Path
) -> None:
    run = tiny_run(open_folder / "run", model)
    home, over, holder = run.root / "dask", tmp_path / "over", tmp_path / "hold.py"
    holder.write_text(HOLD)
    words = shlex.join([sys.executable, str(holder), str(home), str(over)])
    log = tmp_path / "job.log"
    job = cluster.submit("-c2", "-o", str(log), f"--wrap=exec {words}")
    try:
        wait_for(lambda: list(home.glob("scheduler-*.json")), 120, "the scheduler")
        [file] = home.glob("scheduler-*.json")
        host, port = json.loads(file.read_text())["address"].removeprefix("tls://").split(":")
        if cluster.spec.isolate == "uts":
            assert host != "127.0.0.1", "nodes reach it, and so can other users"
        stranger = open_folder / "stranger"
        stranger.mkdir()
        issue_credentials(stranger, "own")
        for path in stranger.iterdir():
            path.chmod(0o644)
        for how in ("plain", "nobody", str(stranger)):
            told = as_another(open_folder, KNOCKS, host, port, how)
            assert told.startswith(("refused", "closed")), (how, told)
        # Not even where the run itself has been opened to readers.
        run.root.chmod(0o755)
        keys = [f"read:{path}" for path in home.iterdir()]
        assert len(keys) == 4
        looked = tried(open_folder, f"list:{home}", f"plant:{home}", *keys)
        assert set(looked.values()) == {"denied"}
        with connect(file) as client:
            assert client.submit(sum, [1, 2]).result(timeout=30) == 3
    finally:
        over.touch()
    cluster.wait_state(job, "COMPLETED")


def odd_run(folder: Path, cluster: MiniSlurm, model: Path) -> RunDir:
    """A run with an odd name, path and prompt, ready to generate two images."""
    config = folder / f"{NASTY}.yaml"
    config.write_text(TINY)
    words = [
        f"generate.prompts={json.dumps([NASTY])}",
        "generate.images=2",
        f"train.base_model={model}",
    ]
    root = folder / NASTY / NASTY
    made = sarhpc(cluster, "init", root, "--config", config, *words)
    assert made.returncode == 0, made.stderr
    run = open_run(root)
    seal_export(run, model)
    return run


def odd_profile(folder: Path, **more: object) -> Path:
    """A profile whose every free field is odd."""
    plain = {"executor": "slurm", "partition": "main", "env": {"NOTE": NASTY}}
    path = folder / f"profile of {NASTY}.yaml"
    path.write_text(json.dumps({**plain, **more}))
    return path


def no_traces(*folders: Path) -> bool:
    return (
        not any(list(folder.rglob("*pwned")) for folder in folders) and not Path("pwned").exists()
    )


def test_printed_scripts_hold_every_odd_text_as_text(
    tmp_path: Path, cluster: MiniSlurm, model: Path
) -> None:
    run = odd_run(tmp_path, cluster, model)
    asked = ("account", "qos", "constraint")
    profile = odd_profile(
        tmp_path,
        modules=[NASTY],
        gpu_type=NASTY,
        options={"mail-user": NASTY},
        container={"image": f"/{NASTY}.sif", "mounts": [f"/{NASTY}"], "python": NASTY},
        stages={"generate": {"gpus_per_node": 1, **dict.fromkeys(asked, NASTY)}},
    )
    printed = sarhpc(cluster, "generate", run.root, "--profile", profile, "--print-sbatch")
    assert printed.returncode == 0, printed.stderr
    head = [line for line in printed.stdout.splitlines() if line.startswith("#SBATCH ")]
    options = [shlex.split(line.removeprefix("#SBATCH ")) for line in head]
    for name in (*asked, "mail-user"):
        assert [f"--{name}={NASTY}"] in options
    assert [f"--gpus-per-node={NASTY}:1"] in options
    assert [f"--job-name={NASTY}-generate"] in options

    # The shell of a job acts on none of it either: its commands get the texts whole.
    heard = tmp_path / "heard"
    heard.mkdir()
    run.logs("generate").mkdir(parents=True)
    say = f'printf "%s\\0" "$@" "$NOTE" "$PYTHONPATH" > {heard}/'
    env = {**cluster.env, "PATH": f"{tmp_path}/bin:{cluster.env['PATH']}", "SLURM_JOB_ID": "7"}
    for command in ("srun", "module"):
        stub = tmp_path / "bin" / command
        stub.parent.mkdir(exist_ok=True)
        stub.write_text(f"#!/bin/bash\n{say}{command}\n")
        stub.chmod(0o755)
    env.pop("PYTHONPATH", None)
    subprocess.run(["bash"], input=printed.stdout, env=env, cwd=heard, text=True, check=True)
    words = (heard / "srun").read_text().split("\0")
    assert {f"/{NASTY}", f"/{NASTY}.sif", NASTY, str(run.logs("generate"))} <= set(words)
    assert words[-3] == NASTY, "the variable of the profile"
    assert words[-2].startswith(f"{run.root}/code/")
    assert (heard / "module").read_text().split("\0")[:2] == ["load", NASTY]
    assert no_traces(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_odd_texts_arrive_in_a_job_as_they_were_given(
    tmp_path: Path, cluster: MiniSlurm, model: Path
) -> None:
    run = odd_run(tmp_path, cluster, model)
    note = tmp_path / "note"
    prolog = tmp_path / "prolog.sh"
    prolog.write_text(f'#!/bin/bash\nprintf %s "$NOTE" > {note}\n')
    prolog.chmod(0o755)
    profile = odd_profile(
        tmp_path,
        env={"NOTE": NASTY, "SLURM_TASK_PROLOG": str(prolog), "OMP_NUM_THREADS": "1"},
        options={"chdir": str(run.root), "mail-user": NASTY, "mail-type": "END"},
        stages={"generate": {"mem_gb": 1, "cpus_per_task": 2}},
    )
    done = sarhpc(cluster, "generate", run.root, "--profile", profile)
    assert done.returncode == 0, done.stderr
    [job] = read_submissions(run)[0].jobs
    layout = "%j\x1f%Z\x1f%k"
    told = cluster.run("squeue", "-h", "-t", "all", "-j", job.job_id, "-o", layout).stdout
    name, place, comment = told.rstrip("\n").split("\x1f")
    assert (name, place) == (f"{NASTY}-generate", str(run.root))
    assert comment.startswith(f"sarhpc:{NASTY}:generate:")
    shown = cluster.run("scontrol", "show", "job", job.job_id).stdout
    assert f"MailUser={NASTY} MailType=END\n" in shown
    wait_for(lambda: run.ledger("generate").sealed, 300, "the job of the odd run")
    [record] = run.ledger("generate").records().values()
    assert {sample.caption for sample in read_shard(Path(record.path))} == {
        f"A SAR image of {NASTY}"
    }
    assert note.read_text() == NASTY
    assert no_traces(tmp_path)
