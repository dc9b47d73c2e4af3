"""Settings of a training that belong to the objective reach it, each under its own name."""

from __future__ import annotations

from sarhpc.diffusion.config import ObjectiveConfig
from sarhpc.training.config import TrainConfig
from sarhpc.training.denoising.task import objective_config


def test_the_objective_is_as_the_training_sets_it() -> None:
    cfg = TrainConfig(caption_dropout=0.3, min_snr_gamma=5.0, noise_offset=0.1)
    expected = ObjectiveConfig(caption_dropout=0.3, min_snr_gamma=5.0, noise_offset=0.1)
    assert objective_config(cfg) == expected
    assert objective_config(TrainConfig()).min_snr_gamma is None
