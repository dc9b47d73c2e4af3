"""The notebooks of examples/ run from top to bottom in an empty folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from traitlets.config import Config

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = ["geotiffs_to_tiles", "model_to_corpus"]


def read(name: str) -> Any:
    return nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)


def test_every_notebook_is_run_here() -> None:
    assert sorted(path.stem for path in EXAMPLES.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_committed_without_outputs(name: str) -> None:
    cells = [cell for cell in read(name).cells if cell.cell_type == "code"]
    assert [cell.id for cell in cells if cell.outputs or cell.execution_count] == []


def executed(name: str, folder: Path) -> tuple[str, int]:
    """What the notebook prints, and how many pictures it shows."""
    notebook = read(name)
    # Over TCP others on this machine could listen.
    config = Config({"KernelManager": {"transport": "ipc", "ip": str(folder / "kernel")}})
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, resources=resources, config=config).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    texts = [str(out.get("text", "")) for out in outputs]
    return "".join(texts), sum("image/png" in out.get("data", {}) for out in outputs)


@pytest.mark.slow
def test_a_folder_of_geotiffs_becomes_tiles(tmp_path: Path) -> None:
    said, pictures = executed("geotiffs_to_tiles", tmp_path)
    assert pictures == 2
    assert "scenes: pass_0 pass_1" in said
    assert "32 tiles" in said
    looks = float(said.rpartition("looks ")[2].split()[0])
    assert 0.8 < looks < 1.25


@pytest.mark.slow
def test_a_model_makes_a_corpus_that_is_loaded(tmp_path: Path) -> None:
    said, pictures = executed("model_to_corpus", tmp_path)
    assert pictures == 1
    assert "A SAR image of a lake (128, 128) synthetic: True" in said
    assert "4 images in a batch" in said
    assert (tmp_path / "compared" / "report.html").is_file()
