"""What DeepSpeed keeps between two steps is what the estimate says it keeps."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest
import torch
from training_ranks import Job, enter_rank, finish, start, start_engine, tiny_config

from sarhpc.training.config import OffloadConfig, TrainConfig
from sarhpc.training.estimate.footprint import Counts, checkpoint_bytes, footprint

pytestmark = pytest.mark.slow

EMBEDDED = Path(__file__).resolve().parents[2] / "sarhpc" / "embedded" / "base"
"""Nine million parameters: what is not the models' is small beside them."""


def live_bytes() -> int:
    """Bytes of all tensors of this process, each storage once."""
    gc.collect()
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in gc.get_objects()
        if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu"
    }
    return sum(storages.values())


def measure(job: Job, rank: int, world: int, port: int) -> None:
    """One step of the engine on this rank; leaves how many bytes its states grew to."""
    from sarhpc.diffusion.bundle import load_bundle
    from sarhpc.training.denoising.model import Denoiser
    from sarhpc.training.ema import Ema
    from sarhpc.training.ranks import join, leave

    enter_rank(job, rank, world, port)
    ranks = join(1, deterministic=False, seed=0)
    before = live_bytes()
    bundle = load_bundle(job.base)
    model = Denoiser(bundle.family, bundle.models)
    del bundle  # its autoencoder is not counted here
    engine, partition = start_engine(job.cfg, model, ranks, accumulation=1)
    average = Ema(partition)
    noise, ids = torch.randn(1, 4, 16, 16), torch.zeros(1, 40, dtype=torch.int64)
    engine.backward(engine(noise, torch.zeros(1, dtype=torch.int64), ids).square().mean())
    engine.step()
    assert average.tensors
    learned = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())
    measured = {"bytes": live_bytes() - before, "parameters": learned}
    (job.root / f"held_{rank}.json").write_text(json.dumps(measured))
    leave()


@pytest.mark.parametrize(
    ("stage", "precision"),
    [
        (0, "fp32"),
        (1, "bf16"),
        (2, "fp32"),
        (3, "bf16"),
        pytest.param(1, "fp32", marks=pytest.mark.long),
        pytest.param(2, "bf16", marks=pytest.mark.long),
    ],
)
def test_states_after_a_step_are_as_estimated(tmp_path: Path, stage: int, precision: str) -> None:
    cfg = tiny_config(zero_stage=stage, precision=precision, micro_batch=1, ema_decay=0.9)
    job = Job(EMBEDDED, tmp_path, cfg)
    assert finish(start(job, 2, measure)) == [0, 0]
    measured = json.loads((tmp_path / "held_0.json").read_text())
    expected = states(cfg, measured["parameters"])
    assert measured["bytes"] == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize(
    ("stage", "precision", "offload"),
    [
        (1, "bf16", OffloadConfig()),
        pytest.param(2, "bf16", OffloadConfig(), marks=pytest.mark.long),
        (3, "bf16", OffloadConfig(parameters="cpu")),
    ],
)
def test_what_is_offloaded_is_as_estimated(
    tmp_path: Path, stage: int, precision: str, offload: OffloadConfig
) -> None:
    cfg = tiny_config(
        zero_stage=stage, precision=precision, micro_batch=1, ema_decay=0.9, offload=offload
    )
    job = Job(EMBEDDED, tmp_path, cfg)
    assert finish(start(job, 2, measure)) == [0, 0]
    measured = json.loads((tmp_path / "held_0.json").read_text())
    learned = measured["parameters"]
    held = footprint(cfg, Counts(learned, learned, 0, 0, 0), world=2)
    # On CPUs both memories are one.
    lasting = held.host + held.weights + (2 * learned if stage == 3 else 0)  # and one bucket
    assert measured["bytes"] == pytest.approx(lasting, rel=0.08)


def states(cfg: TrainConfig, parameters: int) -> float:
    """What lasts from step to step; gradients do where they have a place of their own."""
    held = footprint(cfg, Counts(parameters, parameters, 0, 0, 0), world=2)
    lasting = held.weights + held.optimizer + held.average
    if cfg.zero_stage == 1 and cfg.precision == "bf16":
        lasting += 4 * parameters
    if cfg.zero_stage == 3:
        lasting += held.gradients + 2 * parameters  # and one bucket
    return lasting


def test_a_checkpoint_has_the_estimated_size(tmp_path: Path, tiny_bundle: Path) -> None:
    from training_ranks import step_folder, train_ranks

    from sarhpc.training.checkpoints.checkpointing import read_weights

    job = Job(tiny_bundle, tmp_path, tiny_config(max_steps=1, zero_stage=2))
    assert train_ranks(job) == [0, 0]
    folder = step_folder(job, 1)
    learned = sum(w.numel() for w in read_weights(folder, average=False).values())
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    # What is not numbers counts in so small a model: names, layouts, random states.
    assert 0 < size - checkpoint_bytes(job.cfg, learned) < 400_000


def test_rows_tell_the_models_arithmetic_and_tensorboard_what_the_rows_tell(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from training_ranks import train_ranks

    from sarhpc.training.estimate.operations import estimate_flops
    from sarhpc.training.metrics.log import read_rows

    cfg = tiny_config(max_steps=2)
    assert train_ranks(Job(tiny_bundle, tmp_path, cfg)) == [0, 0]
    rows = read_rows(tmp_path / "metrics.jsonl")
    flops = estimate_flops(cfg, tiny_bundle, 32).image_flops * cfg.global_batch / 2
    assert [r["tflops"] * r["step_s"] for r in rows] == pytest.approx([flops / 1e12] * 2)
    read = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in read.Scalars("tflops")] == [1, 2]
    assert {"loss", "lr/unet", "seconds/step"} <= set(read.Tags()["scalars"])
