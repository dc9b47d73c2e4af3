"""Who may act on a run, who may look at it, and what a look does."""

from __future__ import annotations

import functools
import importlib
import os
import pickle
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from line_runs import seal_captions, tiny_run
from other_user import NOBODY, SOMEBODY, Outcome, as_user, contents, only_root

from hpc.cluster.profile import load_profile
from hpc.errors import NotTrustedError
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir
from sarhpc.cli import main
from sarhpc.cli.parser import build_parser
from sarhpc.launch.job import work

pytestmark = pytest.mark.slow

ACTING = (
    "resume",
    "run",
    "run --until caption",
    "simulate",
    "caption",  # sealed, so there is nothing to do
    "stop",
    "cancel",
    "clean --yes",
    "attach-job",
    "init",
)
READING = (
    "status",
    "status --json",
    "logs",
    "logs --failed",
    "costs",
    "verify --deep",
    "inspect",
    "clean",
    "simulate --dry-run",
)


for _name in (
    "encodings.utf_8_sig",
    "omegaconf",
    "hpc.observe.clean",
    "hpc.observe.status",
    "sarhpc.launch.estimate",
    "sarhpc.launch.local",
    "sarhpc.launch.sbatch",
    "sarhpc.launch.slurm",
):
    # Verbs import these, and another user may not reach this interpreter's libraries.
    importlib.import_module(_name)
build_parser()


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user can enter, as a scratch file system is."""
    folder = Path(tempfile.mkdtemp(prefix="sarhpc-users-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


class _Bomb:
    """A pickle that leaves a file where it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def run(place: Path) -> RunDir:
    """A run with captioned shards, and with code and pickles that nobody should run."""
    run = tiny_run(place / "run", place / "base")
    seal_captions(run)
    mark = place / "mark"
    mark.mkdir()
    mark.chmod(0o777)
    bomb = pickle.dumps(_Bomb(mark / "unpickled"))
    code = run.root / "code" / "0123456789abcdef"
    for file in (code / "hpc.py", code / "sitecustomize.py"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"import os\nos.mkdir({str(mark / 'imported')!r})\n")
    for stage in ("", "caption"):
        logs = run.logs(stage) if stage else run.root / "logs"
        logs.mkdir()
        for name in ("7_submitted.pkl", "7_0_result.pkl"):
            (logs / name).write_bytes(bomb)
        (logs / "7_0_log.err").write_text("a line of the log\n")
    for path in (run.root, *run.root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return run


def opened(run: RunDir) -> None:
    """Let everybody write in the run, as one does who wants it to be acted on."""
    for path in (run.root, *run.root.rglob("*")):
        path.chmod(0o777)


def verb(place: Path, run: RunDir, words: str, user: int = NOBODY) -> Outcome:
    """A verb on the run, typed by another user in a folder of his."""
    name, *flags = words.split()
    more = ["caption"] if name == "attach-job" else ["cluster.workers=1"] if name == "init" else []
    action = functools.partial(main, [name, str(run.root), *more, *flags])
    home = place / f"home-{user}"
    return as_user(user, action, home, home)


@only_root
@pytest.mark.parametrize("words", ACTING)
def test_nobody_acts_on_a_run_of_somebody_else(words: str, place: Path, run: RunDir) -> None:
    opened(run)
    before = contents(run.root)
    ended = verb(place, run, words)
    assert ended.code == 2, ended.out
    assert f"{run.root} belongs to root" in ended.out
    assert f"sarhpc trust {run.root}" in ended.out
    assert contents(run.root) == before
    assert not any((place / "mark").iterdir())


@only_root
def test_a_declared_run_is_acted_on_until_its_owner_changes(place: Path, run: RunDir) -> None:
    opened(run)
    assert verb(place, run, "trust").code == 0
    assert verb(place, run, "stop").code == 0
    assert run.stop_file.exists()
    assert verb(place, run, "stop", SOMEBODY).code == 2, "it was declared by another user"
    os.chown(run.root, SOMEBODY, SOMEBODY)
    assert verb(place, run, "stop").code == 2
    os.chown(run.root, 0, 0)
    assert verb(place, run, "trust --revoke").code == 0
    assert verb(place, run, "stop").code == 2


@only_root
def test_a_job_in_a_run_of_somebody_else_does_nothing(place: Path, run: RunDir) -> None:
    opened(run)
    before = contents(run.root)
    home = place / "home"
    ended = as_user(NOBODY, lambda: work(str(run.root), "simulate"), home, place)
    assert ended.code == 2
    assert contents(run.root) == before


@only_root
@pytest.mark.parametrize("words", READING)
def test_everybody_reads_a_run_that_is_readable(words: str, place: Path, run: RunDir) -> None:
    """Nothing of it is run, nothing is written into it where that could be, or needs to be."""
    main([words.split()[0], str(run.root), *words.split()[1:], *_page(place, words)])
    before = contents(run.root)
    for more in (lambda _: None, opened):
        more(run)
        ended = verb(place, run, words)
        assert ended.code == 0, ended.out
        assert contents(run.root) == before
    assert not any((place / "mark").iterdir())


def _page(place: Path, words: str) -> list[str]:
    return ["--out", str(place / "own.html")] if words == "inspect" else []


@pytest.mark.parametrize("where", [".", "config.yaml", "code", "code/0123456789abcdef/hpc.py"])
@pytest.mark.parametrize("mode", [stat.S_IWOTH, stat.S_IWGRP])
def test_a_run_that_others_can_write_is_not_acted_on(
    mode: int, where: str, run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    if mode == stat.S_IWGRP:
        os.chown(run.root / where, -1, _shared_group())
    path = run.root / where
    path.chmod(stat.S_IMODE(path.stat().st_mode) | mode)
    assert main(["stop", str(run.root)]) == 2
    said = capsys.readouterr().err
    assert f"{path.resolve()}" in said
    assert "can be written by" in said
    assert f"chmod -R go-w {run.root}" in said
    assert not run.stop_file.exists()
    path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o022)
    assert main(["stop", str(run.root)]) == 0


def _shared_group() -> int:
    """A group that is not the user's own; without rights to one the test needs none."""
    others = [group for group in os.getgroups() if group != os.getegid()]
    if os.geteuid() == 0:
        return 1
    if not others:
        pytest.skip("this user is in no group with others")
    return others[0]


@only_root
@pytest.mark.parametrize("where", ["code/0123456789abcdef/sitecustomize.py", "caption/plan.json"])
def test_a_file_of_somebody_else_in_an_own_run_is_found(
    where: str, run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    os.chown(run.root / where, NOBODY, NOBODY)
    assert main(["stop", str(run.root)]) == 2
    assert f"{where} in {run.root} belongs to nobody" in capsys.readouterr().err


@only_root
def test_no_run_is_made_in_a_directory_of_somebody_else(place: Path) -> None:
    theirs = place / "new"
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    assert main(["init", str(theirs)]) == 2
    assert not any(theirs.iterdir())


@only_root
@pytest.mark.parametrize("where", ["config.yaml", "logs", "caption", "caption/plan.json"])
def test_a_link_to_what_somebody_else_can_write_is_found(
    where: str, place: Path, run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `cp -r` makes it of a run with links: the copy is one's own, what it says is not."""
    theirs = place / "theirs"
    (run.root / where).rename(theirs)
    (run.root / where).symlink_to(theirs)
    assert main(["stop", str(run.root)]) == 0
    os.chown(theirs, NOBODY, NOBODY)
    assert main(["stop", str(run.root)]) == 2
    assert f"links to {theirs}, which belongs to nobody" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["code", "code/0123456789abcdef", "submit"])
def test_code_behind_a_link_is_not_run(
    where: str, place: Path, run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = place / "theirs"
    theirs.mkdir()
    shutil.rmtree(run.root / where, ignore_errors=True)
    (run.root / where).symlink_to(theirs)
    assert main(["stop", str(run.root)]) == 2
    assert f"is a link to {theirs}" in capsys.readouterr().err


@only_root
def test_a_profile_of_somebody_else_is_not_read(place: Path) -> None:
    profile = place / "site.yaml"
    profile.write_text("executor: slurm\nmodules: ['x']\n")
    assert load_profile(profile).executor == "slurm"
    profile.chmod(0o666)
    with pytest.raises(NotTrustedError, match="can be written by everybody"):
        load_profile(profile)
    profile.chmod(0o644)
    os.chown(profile, NOBODY, NOBODY)
    with pytest.raises(NotTrustedError, match=f"sarhpc trust {profile}"):
        load_profile(profile)


def test_a_folder_whose_group_could_replace_the_run_is_told_until_it_is_declared(
    place: Path,
    run: RunDir,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SARHPC_STATE", str(place / "state"))
    os.chown(place, -1, _shared_group())
    place.chmod(0o775)
    assert main(["stop", str(run.root)]) == 0
    said = capsys.readouterr().err
    assert said.count("warning: ") == 1
    assert f"sarhpc trust {place}" in said
    assert main(["trust", str(place)]) == 0
    place.chmod(0o1775)
    capsys.readouterr()
    assert main(["stop", str(run.root)]) == 0
    assert capsys.readouterr().err == ""
    place.chmod(0o775)
    assert main(["stop", str(run.root)]) == 0
    assert capsys.readouterr().err == ""


def test_a_list_of_what_is_trusted_that_others_can_write_is_ignored(
    place: Path, run: RunDir, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SARHPC_STATE", str(place / "state"))
    assert main(["trust", str(run.root)]) == 0
    file = place / "state" / "trusted.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert main(["trust"]) == 0
    assert f"{run.root}  of " in capsys.readouterr().out
    file.chmod(0o666)
    run.root.chmod(0o777)
    assert main(["stop", str(run.root)]) == 2
    assert "can be written by everybody: it is ignored" in capsys.readouterr().err


def test_a_plan_of_an_own_run_is_no_doubt(run: RunDir) -> None:
    publish_plan(make_plan("tile", [{}]), run.plan_file("tile"))
    assert main(["stop", str(run.root)]) == 0


@pytest.mark.slow
@pytest.mark.starts_workers  # those of the fork server keep its umask
@pytest.mark.parametrize(
    ("mode", "folder", "file"),
    [(0o700, 0o700, 0o600), (0o750, 0o750, 0o640)],
)
def test_data_outside_the_run_are_as_private_as_the_run(
    mode: int, folder: int, file: int, place: Path
) -> None:
    data = place / "scratch" / "corpus"
    run = tiny_run(place / "run", place / "base", [f"data={data}", "simulate.scenes=1"])
    assert stat.S_IMODE(run.root.stat().st_mode) == 0o700
    run.root.chmod(mode)
    os.umask(0o000)
    assert main(["simulate", str(run.root), "--executor", "debug"]) == 0
    written = [place / "scratch", *(place / "scratch").rglob("*")]
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in written}
    assert modes == {(True, folder), (False, file)}
    assert any(path.name == "catalog.json" for path in written)
