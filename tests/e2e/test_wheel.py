"""The wheel outside a checkout: its data are there; plain `sarhpc` reads, cuts and measures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from geotiff_folder import write_geotiffs

from sarhpc.extras import EXTRA_OF

REPOSITORY = Path(__file__).resolve().parents[2]
HELD = ("hpc", "sarhpc", "pyproject.toml", "README.md", "LICENSE")
WITHOUT_EXTRAS = f"""
import importlib.abc, sys
class NotInstalled(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(EXTRA_OF)!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, NotInstalled())
import importlib.util
known = importlib.util.find_spec
def find_spec(name, package=None):
    return None if name in {sorted(EXTRA_OF)!r} else known(name, package)
importlib.util.find_spec = find_spec
"""
USE = """
import json, sys
from pathlib import Path

import sarhpc
from hpc.cluster.profile import load_profile
from sarhpc.stages.inputs.paths import embedded_root

sarhpc.catalog_directory(Path("sar"), Path("catalogue"))
tiles = sarhpc.cut_tiles("catalogue", "run", {"tile.tile_px": 64, "tile.pixel_m": 0.5})
settings = {"tiles": 8, "bootstrap": 10}
parts = ["radiometry", "speckle", "spectrum", "texture"]
compared = sarhpc.evaluate(tiles.folder, tiles.folder, "out", settings, suites=parts)
print(json.dumps({
    "from": sarhpc.__file__,
    "tiles": tiles.samples,
    "read": sum(1 for _ in sarhpc.open_dataset(tiles.folder)),
    "measures": sorted(compared.to_json()["sets"]["synthetic"]["measures"]),
    "profile": load_profile("a100").name,
    "models": sorted(path.name for path in embedded_root().iterdir() if path.is_dir()),
    "loaded": sorted({name.partition(".")[0] for name in sys.modules}),
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in HELD:
        path = REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source)
    command = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", out, "."]
    subprocess.run([sys.executable, *command], cwd=source, check=True)
    [built] = out.glob("sarhpc-*.whl")
    return built


def called(
    python: Path | str, words: list[str], folder: Path, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, *words], cwd=folder, env=environment(env), capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def environment(more: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, **more}


def require_used(python: Path | str, folder: Path, place: Path, **env: str) -> None:
    """The Python that has the package at `place` reads, cuts and measures in `folder`."""
    write_geotiffs(folder / "sar")
    done = called(python, ["-c", USE], folder, **env)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert Path(said["from"]).is_relative_to(place)
    assert said["tiles"] == said["read"] > 0
    assert {name[:2] for name in said["measures"]} == {"E1", "E2", "E3", "E4", "E5", "E6"}
    assert said["profile"] == "a100"
    assert said["models"] == ["base", "blip", "clip", "sar"]
    assert not set(said["loaded"]) & set(EXTRA_OF)


def require_refused(python: Path | str, folder: Path, **env: str) -> None:
    """A stage that needs an extra names it in one line, and `init` works."""
    cli = ["-m", "sarhpc.cli"]
    done = called(python, [*cli, "init", "paper", "--template", "paper_sd15"], folder, **env)
    assert done.returncode == 0, done.stderr
    done = called(python, [*cli, "demo"], folder, **env)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.endswith("pip install 'sarhpc[train]'")
    assert not (folder / "sarhpc-demo").exists()


@pytest.mark.slow
def test_the_wheel_holds_what_a_run_needs(wheel: Path, tmp_path: Path) -> None:
    """With the packages of this environment, but none of those that only extras bring."""
    place = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(place)
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(WITHOUT_EXTRAS)
    env = {"PYTHONPATH": f"{blocked}:{place}"}
    require_used(sys.executable, tmp_path, place, **env)
    require_refused(sys.executable, tmp_path, **env)


@pytest.mark.long
def test_the_wheel_is_installed_into_an_empty_environment_and_used(
    wheel: Path, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    pip = ["-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    constraints = ["--constraint", str(REPOSITORY / "constraints.txt")]
    done = called(python, [*pip, *constraints, str(wheel)], tmp_path)
    if "No matching distribution" in done.stderr or "connection" in done.stderr.lower():
        pytest.skip(f"no package index is reached: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    assert called(python, ["-m", "pip", "check"], tmp_path).returncode == 0
    require_used(python, tmp_path, tmp_path / "env")
    require_refused(python, tmp_path)
    command = tmp_path / "env" / "bin" / "sarhpc"
    assert called(command, ["--version"], tmp_path).stdout.strip() == "0.1.0"


SMALL = [
    "simulate.scenes=4",
    "simulate.size_px=384",
    "tile.split.fractions=[0.5,0.5,0.0]",
    "tile.split.cell_m=100",
    "tile.split.buffer_m=0",
    "train.max_steps=2",
    "train.validation_every_steps=2",
    "train.validation_steps=2",
    "train.checkpoint_every_steps=2",
    "train.warmup_steps=1",
    "generate.images=24",
    "generate.steps=2",
    "generate.gate=null",
    "compare.images=24",
    "evaluate.tiles=40",
    "evaluate.bootstrap=5",
    "evaluate.orientation_steps=0",
]


@pytest.mark.long
def test_the_demo_of_the_wheel_ends_with_a_report_and_a_corpus(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(place)
    words = ["-m", "sarhpc.cli", "demo", "small", *SMALL]
    done = called(sys.executable, words, tmp_path, PYTHONPATH=str(place))
    assert done.returncode == 0, done.stderr[-3000:]
    ended = {words[0]: words[1] for words in map(str.split, done.stdout.splitlines()[-5:])}
    report, corpus = ended["report"], ended["corpus"]
    assert Path(report).name == "report.html"
    assert Path(report).is_file()
    assert (Path(corpus) / "index.parquet").is_file()
