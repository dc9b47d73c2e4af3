from __future__ import annotations

import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[3] / "tools" / "pack_env.py"


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with one package, one script and one editable install."""
    folder = tmp_path_factory.mktemp("packing") / "env"
    venv.create(folder, symlinks=True)
    [site] = (folder / "lib").glob("python*/site-packages")
    (site / "radar").mkdir()
    (site / "radar" / "__init__.py").write_text("band = 'X'\n")
    subprocess.run([folder / "bin" / "python", "-m", "compileall", "-q", site], check=True)
    (site / "__editable__.sarhpc-0.1.pth").write_text("/home/someone/checkout\n")
    script = folder / "bin" / "radar"
    script.write_text(f"#!{folder}/bin/python\nimport radar, sys\nprint(radar.band, sys.prefix)\n")
    script.chmod(0o755)
    return folder


def run(*words: object, **more: object) -> subprocess.CompletedProcess[str]:
    told = [str(word) for word in words]
    return subprocess.run(told, capture_output=True, text=True, **more)  # type: ignore[call-overload, no-any-return]


@pytest.fixture
def archive(env: Path, tmp_path: Path) -> Path:
    out = tmp_path / "shared" / "sarhpc.tar"
    done = run(sys.executable, TOOL, "pack", "--env", env, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "left out __editable__.sarhpc-0.1.pth" in done.stdout
    assert f"python: {out.with_suffix('.python')}" in done.stdout
    return out


def test_the_environment_is_one_file_and_starts_on_another_disk(
    archive: Path, tmp_path: Path
) -> None:
    start, node = archive.with_suffix(".python"), tmp_path / "node"
    code = "import radar, sys; print(radar.band, sys.prefix, radar.__cached__)"
    done = run(start, "-c", code, env={"TMPDIR": str(node), "PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr
    band, prefix, compiled = done.stdout.split()
    assert (band, Path(prefix).parent) == ("X", node)
    assert run(Path(prefix) / "bin" / "radar").stdout.split() == ["X", prefix]
    assert not list(Path(prefix).rglob("__editable__*"))
    source = Path(prefix) / Path(compiled).relative_to(prefix).parent.parent / "__init__.py"
    assert Path(compiled).stat().st_mtime >= source.stat().st_mtime, "its compiled module is valid"


def test_all_tasks_of_a_node_unpack_it_once(archive: Path, tmp_path: Path) -> None:
    words = [sys.executable, str(TOOL), "unpack", str(archive), "--to", str(tmp_path / "node")]
    tasks = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    told = {task.communicate()[0] for task in tasks}
    assert [task.returncode for task in tasks] == [0] * 6
    assert len(told) == 1
    [folder] = [path for path in (tmp_path / "node").iterdir() if path.is_dir()]
    born = folder.stat().st_ctime
    time.sleep(0.05)
    assert run(*words).stdout in told
    assert folder.stat().st_ctime == born, "it is used again as it is"


def test_a_damaged_file_is_refused_and_leaves_nothing(archive: Path, tmp_path: Path) -> None:
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    done = run(sys.executable, TOOL, "unpack", archive, "--to", tmp_path / "node")
    assert (done.returncode, "damaged" in done.stderr) == (1, True)
    assert not [path for path in (tmp_path / "node").iterdir() if path.is_dir()]


def test_a_folder_that_is_no_environment_is_refused(tmp_path: Path) -> None:
    done = run(sys.executable, TOOL, "pack", "--env", tmp_path, "--out", tmp_path / "x.tar")
    assert (done.returncode, "no virtual environment" in done.stderr) == (1, True)
    assert not (tmp_path / "x.tar").exists()
