"""What only a GPU can show, for those who have one: `make test-gpu`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_bundle import CAPTIONS, make_bundle

TOOLS = Path(__file__).resolve().parents[2] / "tools"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_trainings_images_captions_and_latents_are_those_of_the_cpu(tmp_path: Path) -> None:
    file = tmp_path / "report.jsonl"
    phases = ["machine", "reference", "correctness"]
    words = ["--size=tiny", f"--out={file}", "--only", *phases]
    command = [sys.executable, str(TOOLS / "gpu_report.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert done.returncode == 0, [row for row in rows if row.get("holds") is False]
    assert {row["phase"] for row in rows if row.get("ended") == "done"} == set(phases)


@pytest.mark.parametrize("xl", [False, True], ids=["sd", "sdxl"])
def test_passes_of_a_step_never_wait_for_the_gpu(tmp_path: Path, xl: bool) -> None:
    from sarhpc.training.config import TrainConfig
    from sarhpc.training.denoising.task import DenoisingTask
    from sarhpc.training.ranks import join
    from sarhpc.training.stepper import Stepper

    sys.path.insert(0, str(TOOLS))
    from bench_step import RandomTiles

    cfg = TrainConfig(global_batch=4, micro_batch=2, precision="bf16", zero_stage=1)
    ranks = join(1, deterministic=False, seed=0)
    tiles = RandomTiles(4, 32)
    task = DenoisingTask(cfg, make_bundle(tmp_path, xl=xl), tiles, ranks, tmp_path)
    stepper = Stepper(task.loop, task, ranks)
    from sarhpc.shards.loader import Cursor

    feed = task.feed(Cursor(), 0)
    _, batch = next(feed)
    feed.close()
    stepper.forward_backward(task, batch)
    stepper.clock.exact = False
    waited = _waits(lambda: list(_passes(stepper, task, batch)))
    stepper.engine.destroy()
    assert waited == []


def _passes(stepper: Any, task: Any, batch: Any) -> Any:
    """The losses of a step's passes; DeepSpeed's backward pass is not ours."""
    for loss, _ in task.losses(stepper.engine, batch, stepper.clock):
        yield loss


def test_sampled_batch_waits_once_for_its_images(tmp_path: Path) -> None:
    from sarhpc.generation.config import GenerateConfig
    from sarhpc.generation.embeddings import TextEmbeddings
    from sarhpc.generation.model import load_pipeline
    from sarhpc.generation.plan import ImageRequest
    from sarhpc.generation.sampler import sample_images

    cfg = GenerateConfig(steps=4, batch=2, dtype="bfloat16")
    pipeline = load_pipeline(make_bundle(tmp_path), cfg)
    embeddings = TextEmbeddings(pipeline, cfg.batch)
    requests = [ImageRequest(n, CAPTIONS[n], n) for n in range(2)]

    def sample() -> None:
        """A batch whose prompts are encoded."""
        sample_images(pipeline, requests, cfg, cfg.batch, 1, embeddings=embeddings)

    sample()
    assert len(_waits(sample)) <= 1


def _waits(work: Any) -> list[str]:
    """Where torch says that the host waited for the GPU."""
    import warnings

    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [str(one.message) for one in caught if "synchroniz" in str(one.message)]
