"""A small BLIP that has learnt four coloured tiles, and those tiles."""

from __future__ import annotations

from pathlib import Path

import pytest
from caption_tiles import ground_training_of, write_grounds

from sarhpc.captioning.config import CaptionTrainConfig


@pytest.fixture(scope="session")
def ground_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of shards with coloured tiles: 12 to learn from, 12 others held out."""
    root = tmp_path_factory.mktemp("grounds")
    write_grounds(root, "train", 0, 100)
    write_grounds(root, "val", 1, 900)
    return root


@pytest.fixture(scope="session")
def ground_training(ground_shards: Path) -> CaptionTrainConfig:
    """A fine-tuning of a new small BLIP that learns the four grounds in seconds."""
    return ground_training_of(
        ground_shards,
        base_model=None,
        steps=60,
        lr=4e-3,
        warmup_steps=5,
        save_dtype="float16",
        val_every=30,
        log_every=10,
    )


@pytest.fixture(scope="session")
def ground_blip(
    ground_training: CaptionTrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folder of the small BLIP after that fine-tuning; metrics.jsonl beside it."""
    from caption_training import fine_tune

    root = tmp_path_factory.mktemp("blip")
    fine_tune(ground_training, root / "blip", root)
    return root / "blip"
