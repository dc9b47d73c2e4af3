"""The grid shows what the pipeline makes, and the way between two seeds stays noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sarhpc.cli import main
from sarhpc.diffusion.contact_sheet import contact_sheet
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.grid import arc, columns, prompt_similarity, sample_grid, starting_noise

CFG = GenerateConfig(steps=2)


def test_columns_are_the_seeds_and_evenly_spaced_between() -> None:
    across = columns([3, 5, 8], between=1)
    assert [column.title for column in across] == [
        "seed 3",
        "3 to 5: 0.50",
        "seed 5",
        "5 to 8: 0.50",
        "seed 8",
    ]
    assert [column.part for column in columns([0, 1], between=3)] == [0.0, 0.25, 0.5, 0.75, 0.0]


def test_spherical_interpolation_keeps_the_norm_and_the_end_points() -> None:
    generator = torch.Generator().manual_seed(0)
    start, end = (torch.randn(1, 4, 16, 16, generator=generator) for _ in range(2))
    assert torch.allclose(arc(start, end, 0.0), start, atol=1e-5)
    assert torch.allclose(arc(start, end, 1.0), end, atol=1e-5)
    middle = arc(start, end, 0.5)
    assert float(middle.std()) == pytest.approx(1.0, abs=0.05)
    assert float(torch.lerp(start, end, 0.5).std()) < 0.8, "the straight line does not"
    assert torch.equal(arc(start, start, 0.5), start)


def test_a_cell_is_the_image_of_its_seed(pipeline: Any) -> None:
    [column] = columns([7])
    [[image]] = sample_grid(pipeline, CFG, ["a river"], [column])
    stock = pipeline(
        "a river",
        negative_prompt="",
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(7),
        output_type="np",
    ).images[0]
    assert np.array_equal(image, np.round(stock.mean(axis=2) * 255).astype(np.uint8))
    assert starting_noise(pipeline, column, CFG).shape == (1, 4, 8, 8)


def test_equal_prompts_are_closest(pipeline: Any) -> None:
    found = prompt_similarity(pipeline, ["a river", "a town with many houses", "a river"])
    assert np.allclose(np.diag(found), 1)
    assert found[0, 2] == pytest.approx(1)
    assert found[0, 1] < found[0, 2]
    assert np.array_equal(found, found.T)


def test_the_contact_sheet_places_its_images() -> None:
    images = np.arange(4, dtype=np.uint8).reshape(2, 2, 1, 1).repeat(64, 2).repeat(64, 3) * 50
    picture = np.array(contact_sheet(images, ["one", "two"], ["seed 0", "seed 1"]))
    coloured = np.stack([images, images, 255 - images], axis=-1)
    colours = np.array(contact_sheet(coloured, ["one", "two"], ["seed 0", "seed 1"]))
    for row in range(2):
        for column in range(2):
            top, left = 2 * 18 + row * (64 + 4), 160 + column * (64 + 4)
            cell = picture[top : top + 64, left : left + 64]
            assert np.array_equal(cell, images[row, column])
            cell = colours[top : top + 64, left : left + 64]
            assert np.array_equal(cell, coloured[row, column])


def test_the_verb_writes_a_figure_and_its_settings(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "grid.png"
    words = ["--prompt", "a river", "--prompt", "a stream", "--seed", "1", "--seed", "2"]
    code = main(
        ["grid", str(model_folder), *words, "--between", "1", "--steps", "2", "--out", str(out)]
    )
    assert code == 0
    assert Image.open(out).size == (160 + 3 * (16 + 4), 2 * 18 + 2 * (36 + 4))
    told = json.loads(out.with_suffix(".json").read_text())
    assert told["synthetic"] is True
    assert told["columns"] == ["seed 1", "1 to 2: 0.50", "seed 2"]
    assert told["closeness"][0][0] == 1.0
    assert "'a river' and 'a stream'" in capsys.readouterr().out
    assert main(["grid", str(model_folder), *words, "--out", str(tmp_path / "grid.jpg")]) == 2
