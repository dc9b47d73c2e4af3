"""`import sarhpc`: what it offers, and what it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sarhpc
from hpc.errors import ConfigError, DataError
from sarhpc.api.settings import overrides
from sarhpc.generation.config import GenerateConfig

REPOSITORY = Path(__file__).resolve().parents[3]
MEASURE = """
import sys, time
before, start = set(sys.modules), time.process_time()
import sarhpc
took = time.process_time() - start
print(took, *sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""


def test_importing_it_is_fast_and_loads_nothing() -> None:
    """In CPU seconds: the clock of a machine that does other work says little."""
    command = [sys.executable, "-c", MEASURE]
    done = [subprocess.check_output(command, cwd=REPOSITORY, text=True).split() for _ in range(3)]
    assert min(float(took) for took, *_ in done) < 0.05
    modules = set(done[0][1:])
    assert not modules & {"numpy", "torch", "omegaconf", "rasterio", "webdataset", "argparse"}


def test_every_name_is_there_and_described() -> None:
    page = (REPOSITORY / "docs" / "api.md").read_text()
    for name in sarhpc.__all__:
        found = getattr(sarhpc, name)
        assert found.__doc__
        assert name in dir(sarhpc)
        if name[0].islower() or name == "Run":
            assert f"`{name}" in page, name


def test_the_stub_for_type_checkers_has_the_same_names() -> None:
    stub = ast.parse((REPOSITORY / "sarhpc" / "__init__.pyi").read_text())
    names = [alias.name for n in stub.body if isinstance(n, ast.ImportFrom) for alias in n.names]
    assert sorted(names) == sorted(sarhpc.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="cut_tile"):
        sarhpc.cut_tile  # noqa: B018


def test_settings_become_words_of_the_command_line(tmp_path: Path) -> None:
    run = sarhpc.Run.create(
        tmp_path / "run",
        "demo",
        settings={
            "archive.band": None,
            "tile.split.fractions": [0.5, 0.5, 0.0],
            "caption.template.token": "A view, from above: ",
            "train.lr_unet": 1e-5,
            "train.cache_latents": False,
            "data": tmp_path / "scratch",
        },
    )  # fmt: skip
    config = run.config
    assert config.archive.band is None
    assert config.tile.split.fractions == [0.5, 0.5, 0.0]
    assert config.caption.template.token == "A view, from above: "
    assert config.train.lr_unet == 1e-5
    assert config.train.cache_latents is False
    assert config.data == str(tmp_path / "scratch")
    assert overrides(["a=b"]) == ["a=b"]


def test_a_run_is_opened_created_and_looked_at(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a run directory"):
        sarhpc.Run(tmp_path / "none")
    run = sarhpc.Run.create(tmp_path / "run", "demo", settings={"simulate.scenes": 3})
    assert sarhpc.Run(tmp_path / "run").config.simulate.scenes == 3
    assert {stage.state for stage in run.status().stages} <= {"READY", "WAITING"}
    assert run.results() == sarhpc.Results(None, None, None, None, None, None)
    with pytest.raises(ConfigError, match="paper_sd15"):
        sarhpc.Run.create(tmp_path / "other", "paper_sd16")
    with pytest.raises(ConfigError, match=r"no stage 'tiles'.*tile"):
        run.submit(until="tiles")


def test_a_dataset_of_nothing_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        sarhpc.open_dataset(tmp_path / "none")
    with pytest.raises(DataError, match="no shards"):
        sarhpc.open_dataset(tmp_path)
    with pytest.raises(ConfigError, match="train, val, test"):
        sarhpc.open_dataset(tmp_path, "training")
    run = sarhpc.Run.create(tmp_path / "run", "demo")
    with pytest.raises(ConfigError, match="/tile, /caption or /generate"):
        sarhpc.open_dataset(run.root)


def test_a_wrong_setting_of_a_model_names_the_others() -> None:
    with pytest.raises(ConfigError, match=r"no settings step;.*steps"):
        sarhpc.load_model("embedded:sar", step=3)
    with pytest.raises(ConfigError, match="no embedded model"):
        sarhpc.load_model("embedded:none")


def test_a_setting_of_the_wrong_type_is_named() -> None:
    """It was a TypeError of a comparison."""
    with pytest.raises(ConfigError, match=r"the settings at 'steps': Value 'many'"):
        sarhpc.load_model("embedded:sar", steps="many")


def test_a_number_out_of_range_is_refused_as_by_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"generate\.gate\.redraws=-1: give at least 0"):
        sarhpc.load_model("embedded:sar", gate={"redraws": -1})
    with pytest.raises(ConfigError, match=r"generate\.guidance=-2\.0: give at least 0"):
        sarhpc.load_model("embedded:sar", guidance=-2.0)
    with pytest.raises(ConfigError, match=r"caption\.beams=0: give at least 1"):
        sarhpc.caption([np.zeros((8, 8), np.uint8)], beams=0)
    with pytest.raises(ConfigError, match=r"evaluate\.gates\.w1_db=-1\.0: give at least 0"):
        sarhpc.evaluate(tmp_path, tmp_path, settings={"gates.w1_db": -1})


def test_a_refused_archive_leaves_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"archive\.uri=.*does not exist"):
        sarhpc.cut_tiles(tmp_path / "none", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_may_be_given_as_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder none"):
        sarhpc.catalog_directory("none", str(tmp_path / "catalogue"))


@pytest.mark.parametrize("name", ["gate", "table"])
def test_settings_that_only_a_run_follows_are_refused_and_not_left_out(name: str) -> None:
    value = {"grammar": {"classes": ["water"]}} if name == "table" else {}
    with pytest.raises(ConfigError, match=rf"generate\.{name} works with the stages of a run"):
        sarhpc.load_model("embedded:sar", **{name: value})


@pytest.mark.parametrize(
    ("given", "reported"),
    [
        ({"prompts": None}, "prompts=None: give a text"),
        ({"prompts": [3]}, r"prompts=\[3\]: give a text"),
        ({"prompts": "a lake", "images": 1.5}, r"images=1\.5: give a whole number"),
        ({"prompts": "a lake", "images": "2"}, "images='2': give a whole number"),
        ({"prompts": "a lake", "images": float("nan")}, "images=nan: give a whole number"),
        ({"prompts": "a lake", "seed": "x"}, "seed='x': give a whole number"),
    ],
)
def test_what_is_no_text_and_no_whole_number_is_refused(
    given: dict[str, Any], reported: str
) -> None:
    """Some were errors of Python, and a seed of text was taken."""
    model = sarhpc.Model(Path("model"), GenerateConfig(), None)
    with pytest.raises(ConfigError, match=reported):
        sarhpc.generate(model, **given)
