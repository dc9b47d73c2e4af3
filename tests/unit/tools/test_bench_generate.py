"""The sides of the generation benchmark make the same images, and figures compare one round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bench_generate import LARGEST_DIFFERENCE, SIDES, Question, Round, ratio, requests_of, timed
from bench_generate import SIDE_OF as SIDE
from line_runs import make_tiny_model

from sarhpc.generation.config import GenerateConfig


@pytest.mark.slow
def test_stock_and_ours_make_the_same_images_and_the_job_publishes_them(tmp_path: Path) -> None:
    cfg = GenerateConfig(prompts=["a lake", "a town"], images=4, steps=2, batch=2, shard_samples=2)
    asked = Question(str(make_tiny_model(tmp_path / "model")), cfg)
    stock, sampler, job = (SIDE[name](asked) for name in SIDES)
    assert len(requests_of(cfg)) == 4
    made = sampler()
    assert made.shape == (4, 32, 32, 3)
    assert np.abs(stock() - made).max() <= LARGEST_DIFFERENCE
    assert timed(job).cpu_s > 0


def test_a_figure_is_the_median_of_the_ratios_within_a_round() -> None:
    # The machine was half as fast in the second round, and three times as busy in the third.
    found = {"stock": [Round(2.0, 2.0), Round(4.0, 4.0), Round(6.0, 2.0)],
             "sampler": [Round(1.0, 1.0), Round(2.0, 2.0), Round(3.0, 1.0)]}  # fmt: skip
    assert ratio(found, "sampler", "stock") == 2.0
    assert ratio(found, "stock", "sampler", "cpu_s") == 0.5
