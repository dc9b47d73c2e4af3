"""The shipped profile `sdxl_hybrid` from the archive to the report, on a small SDXL bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from line_runs import CAPTIONS
from tiny_bundle import make_bundle

from hpc.store.rundir import RunDir, open_run
from sarhpc.shards.reader import read_shard

# Three minutes; tests/ranks/test_xl_hybrid.py trains the same in less.
pytestmark = pytest.mark.long

PROFILE = Path(__file__).resolve().parents[2] / "configs" / "sdxl_hybrid.yaml"
SMALL = """
simulate={seed: 3, scenes: 4, scenes_per_line: 2, size_px: 160}
tile={tile_px: 32, shard_samples: 4, min_signal: 0.0, max_saturated: 1.0}
tile.split={fractions: [0.5, 0.5, 0.0], cell_m: 200.0, buffer_m: 0.0}
caption.captioner=truth
train.max_steps=4
train.log_every_steps=1
train.global_batch=4
train.warmup_steps=1
train.validation_every_steps=4
train.validation_seeds=[0]
train.validation_steps=2
generate.images=4
generate.gate=null
generate.steps=2
evaluate={tiles: 40, bootstrap: 5, gallery: 3, orientation_steps: 0}
cluster={workers: 1, ranks: 2}
"""
"""Sizes; what is trained, and how, is the profile's: bf16, the layout that fits, its rates."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run of the profile, brought to its end as its first lines say."""
    folder = tmp_path_factory.mktemp("hybrid")
    base = make_bundle(folder, xl=True, captions=[*CAPTIONS, "radar"])
    words = [*SMALL.split("\n")[1:-1], f"train.base_model={base}"]
    line = [sys.executable, "-m", "sarhpc.cli", "run", str(folder / "run"), "--config"]
    done = subprocess.run(
        [*line, str(PROFILE), "--executor", "local", "--wait", *words],
        capture_output=True,
        text=True,
        timeout=560,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return open_run(folder / "run")


def test_what_the_profile_trains_stands_in_the_model_that_a_stock_pipeline_loads(
    finished: RunDir,
) -> None:
    import torch
    from diffusers import StableDiffusionXLPipeline

    base = StableDiffusionXLPipeline.from_pretrained(finished.root.parent / "base")
    tuned = StableDiffusionXLPipeline.from_pretrained(finished.root / "export" / "model")
    for part in ("unet", "text_encoder", "text_encoder_2"):
        before, after = getattr(base, part).state_dict(), getattr(tuned, part).state_dict()
        assert any(not torch.equal(before[name], after[name]) for name in before), part
    for name, tensor in base.vae.state_dict().items():
        assert torch.equal(tensor, tuned.vae.state_dict()[name]), name
    for tokenizer in (tuned.tokenizer, tuned.tokenizer_2):
        assert tokenizer.tokenize("<SAR> image")[0] == "<sar>"  # CLIP reads small letters


def test_the_four_groups_learnt_at_the_rates_of_the_profile(finished: RunDir) -> None:
    rows = [json.loads(line) for line in (finished.root / "train" / "metrics.jsonl").open()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    rates = {name: rows[-1][f"lr_{name}"] for name in ("unet", "text_encoder", "token")}
    assert rates == {"unet": 5e-5, "text_encoder": 1e-4, "token": 5e-4}


def test_the_corpus_asks_for_what_the_profile_says_and_is_judged(finished: RunDir) -> None:
    shards = sorted((finished.root / "data" / "synthetic").glob("*.tar"))
    images = [sample for shard in shards for sample in read_shard(shard)]
    assert len(images) == 4
    assert all(image.meta["prompt"].startswith("<SAR> image of ") for image in images)
    assert (
        "this run" in json.loads((finished.root / "report.json").read_text())["evaluation"]["sets"]
    )
