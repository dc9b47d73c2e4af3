"""docs/guide/corpus.md, run as it is printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from line_runs import make_tiny_model, seal_export, tiny_run

from sarhpc.cli import main
from sarhpc.cli.corpus import LAYOUTS, SPLITS
from sarhpc.corpus import export, splits
from sarhpc.corpus.index import COLUMNS, read_index

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "corpus.md"
MOST_LINES = 10


def block(language: str) -> str:
    """The only block of the page in this language, which the tests run or write to a file."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return str(found)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's prompts and `runs/first`, generated with its overrides."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "prompts.jsonl").write_text(block("json"))
    [command] = re.findall(r"^sarhpc run runs/first (.*)$", PAGE.read_text(), re.MULTILINE)
    words = command.replace("$PWD", str(folder)).split()
    asked = [word for word in words if word.startswith("generate.")]
    model = make_tiny_model(folder / "model")
    run = tiny_run(folder / "runs" / "first", model, ["generate.shard_samples=32", *asked])
    seal_export(run, model)
    words = ["-m", "sarhpc.cli", "generate", "runs/first", "--executor", "debug"]
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.slow
def test_the_command_of_the_page_is_accepted(place: Path, capsys) -> None:
    [command] = re.findall(r"^sarhpc (run runs/first .*)$", PAGE.read_text(), re.MULTILINE)
    words = command.replace("$PWD", str(place)).replace("runs/first", str(place / "new")).split()
    words = [str(PAGE.parents[2] / word) if word.startswith("configs/") else word for word in words]
    assert main([*words, "--executor", "local", "--dry-run"]) == 0, capsys.readouterr().err


@pytest.mark.slow
def test_ten_lines_make_a_data_set_of_the_prompts(place: Path, monkeypatch) -> None:
    code = block("python")
    assert sum(bool(line.strip()) for line in code.splitlines()) <= MOST_LINES
    monkeypatch.chdir(place)
    seen: dict[str, object] = {}
    exec(compile(code, PAGE.name, "exec"), seen)
    rows = list(read_index(place / "runs/first/data/synthetic/index.parquet"))
    assert len(rows) == 64
    expected = [row["prompt"] for row in rows if row["split"] == "train"]
    texts = []
    for images, prompts in seen["loader"]:
        assert images.shape[1:] == (32, 32)
        assert 0 <= float(images.min()) <= float(images.max()) <= 1
        texts += prompts
    assert texts == expected
    assert {text.removeprefix("A SAR image of ") for text in texts} == {
        "a lake beside a forest", "a town with a river", "a crop field", "a road through a forest",
    }  # fmt: skip


@pytest.mark.slow
def test_the_corpus_of_a_run_is_packaged_again_and_exported(place: Path) -> None:
    def sarhpc(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sarhpc.cli", *words]
        return subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120)

    folder = place / "runs/first/data/synthetic"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {"index.parquet", "README.md", "croissant.json", "000000.tar"} <= before.keys()
    for name in ("index.parquet", "README.md"):
        (folder / name).write_bytes(b"damaged")
    done = sarhpc("package", "runs/first")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("64 images in 2 shards; card: ")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (folder / "000000.tar").write_bytes(before["000000.tar"][:-2000])
    damaged = sarhpc("package", "runs/first")
    assert (damaged.returncode, damaged.stdout) == (4, ""), damaged.stderr
    assert "000000.tar" in damaged.stderr
    (folder / "000000.tar").write_bytes(before["000000.tar"])
    done = sarhpc("export-corpus", "runs/first", "out", "--layout", "imagefolder")
    assert done.stdout == "64 images exported: out\n", done.stderr
    assert len(list((place / "out").rglob("*.png"))) == 64
    again = sarhpc("export-corpus", "runs/first", "out", "--layout", "imagefolder")
    assert again.stdout == "64 images were exported before: out\n"
    other = sarhpc("export-corpus", "runs/first", "out", "--layout", "cog")
    assert (other.returncode, other.stdout) == (2, "")
    assert "export of another layout" in other.stderr
    refused = sarhpc("export-corpus", "runs/first", "sidd", "--layout", "sidd")
    assert (refused.returncode, (place / "sidd").exists()) == (2, False)
    assert "none is invented: declare a nominal collection" in refused.stderr
    assert sarhpc("export-corpus", "nowhere", "o", "--layout", "cog").returncode == 2


def test_the_page_and_the_command_line_name_what_there_is() -> None:
    page = PAGE.read_text()
    assert sorted([*export.LAYOUTS, "sidd"]) == sorted(LAYOUTS)
    assert tuple(splits.FRACTIONS) == SPLITS
    assert [name for name in LAYOUTS if f"| `{name}` |" not in page] == []
    assert [name for name in COLUMNS.names if f"`{name}`" not in page] == []
