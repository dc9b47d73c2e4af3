"""The order of grids by nearness, also where two versions judged them."""

from __future__ import annotations

from pathlib import Path

from sarhpc.training.denoising.grids import GridImage, enter_in_index
from sarhpc.training.judged import best_first


def judged(folder: Path, step: int, **row: float) -> None:
    enter_in_index(folder, [GridImage(step, 0, "a field", 1, f"{step}.png")], row)


def test_a_training_judged_before_and_after_an_update_keeps_its_best_grid(tmp_path: Path) -> None:
    # Scores over the floors of half sets were 0 or more; over a null they are negative too.
    judged(tmp_path, 10, E3_jsd=0.02, E4_acf=0.04, E5_lsd=0.8, score=0.4)
    judged(tmp_path, 20, E3_jsd=0.04, E4_acf=0.08, E5_lsd=1.6, score=-0.1)
    judged(tmp_path, 30, E3_jsd=0.01, E4_acf=0.02, E5_lsd=0.7, score=-0.9)
    assert best_first(tmp_path) == [30, 10, 20]


def test_grids_of_which_only_the_score_is_known_are_ordered_by_it(tmp_path: Path) -> None:
    judged(tmp_path, 0, score=0.0)
    judged(tmp_path, 10, E5_lsd=1.0, score=0.7)
    judged(tmp_path, 20, E5_lsd=1.0, score=0.3)
    assert best_first(tmp_path) == [20, 10]
