"""Images that a method of training paints are nearer to radar tiles than those of its base.

On the embedded base and the procedural archive, over three seeds, from the trainings that
test_gains_over_seeds.py measures by their error. Named before: the metric is the `score` of
`sarhpc.evaluation.image_score`, the mean of ln(distance) over E3 (Jensen-Shannon),
E4 (speckle autocorrelation) and E5 (log-spectral distance) of 48 images to all held-out tiles;
the three distances are printed beside it. The images have captions of held-out tiles and noise
that is the same for all models. `pytest -s -m long` on this file prints the table of
docs/benchmarks.md.
"""

from __future__ import annotations

import pytest
from gain_methods import METHODS, WHOLE, paint, together, trained
from gains import BASE, SEEDS, sure_gain, tiles
from training_ranks import tiny_config

from hpc.store.rundir import RunDir
from sarhpc.evaluation.image_score import SCORE, SCORED, RealReference, real_reference, score_images
from sarhpc.training.denoising.start import load_base

pytestmark = [pytest.mark.long, pytest.mark.slow]


@pytest.fixture(scope="module")
def real(gains_run: RunDir) -> RealReference:
    held_out = tiles(gains_run, "val")
    return real_reference(held_out.grays(), held_out.scenes())


@pytest.fixture(scope="module")
def base_paints(gains_run: RunDir, real: RealReference) -> dict[str, float]:
    return score_images(paint(gains_run, load_base(tiny_config(), BASE)), real)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("method", together(*WHOLE))
def test_images_of_a_trained_model_are_nearer_to_radar_tiles(
    gains_run: RunDir, real: RealReference, base_paints: dict[str, float], method: str
) -> None:
    painted = [
        score_images(paint(gains_run, trained(gains_run, method, seed, METHODS[method])), real)
        for seed in SEEDS
    ]
    gains = {
        name: sure_gain(
            f"{method}: {name} of images, base and trained",
            [base_paints[name]] * len(SEEDS),
            [told[name] for told in painted],
        )
        for name in (SCORE, *SCORED)
    }
    assert gains[SCORE] > 0
