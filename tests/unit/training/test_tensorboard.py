"""TensorBoard shows what metrics.jsonl says, every step once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hpc.job.agreement import SingleProcess
from sarhpc.training.config import TrainConfig
from sarhpc.training.metrics.log import MetricsLog, read_rows
from sarhpc.training.metrics.utilisation import Utilisation, peak_of, utilisation

pytestmark = pytest.mark.slow

EMBEDDED = Path(__file__).resolve().parents[3] / "sarhpc" / "embedded" / "base"


def row(step: int, attempt: int) -> dict[str, Any]:
    return {
        "step": step,
        "loss": step + attempt / 10,
        "lr_unet": 1e-4,
        "grad_norm": 2.0,
        "grad_norm_unet": 1.0,
        "samples_per_s": 3.0,
        "step_s": 0.5,
        "time": 1000.0 + step,
    }


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    read = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {
        tag: [(event.step, round(event.value, 6)) for event in read.Scalars(tag)]
        for tag in read.Tags()["scalars"]
    }


def test_after_a_kill_every_step_stands_there_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = MetricsLog(path, 0, tensorboard=True)
    for step in range(1, 6):
        first.write(row(step, attempt=1))
    first.close()  # killed: its last checkpoint is of step 3
    second = MetricsLog(path, 3, tensorboard=True)
    for step in range(4, 7):
        second.write(row(step, attempt=2))
    second.close()
    found = scalars(tmp_path)
    wanted = [(r["step"], round(r["loss"], 6)) for r in read_rows(path)]
    assert (
        found["loss"]
        == wanted
        == [(s, s + 0.1) for s in (1, 2, 3)] + [(s, s + 0.2) for s in (4, 5, 6)]
    )
    assert {"lr/unet", "grad_norm/unet", "grad_norm", "samples_per_s", "seconds/step"} <= set(found)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_rows_that_were_never_flushed_are_there_after_the_resume(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lost = MetricsLog(path, 0)
    lost.write(row(1, attempt=1))
    MetricsLog(path, 1, tensorboard=True).close()
    assert scalars(tmp_path)["loss"] == [(1, 1.1)]


def test_without_tensorboard_there_is_no_folder(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    log.write(row(1, attempt=1))
    log.close()
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.parametrize(
    ("device", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA RTX A4000", None),
        ("Some other GPU", None),
    ],
)
def test_peaks_are_those_of_the_card(device: str, peak: float | None) -> None:
    assert peak_of(device) == peak


def test_utilisation_is_the_models_own_operations_per_second() -> None:
    cfg = TrainConfig(precision="fp32", global_batch=16, micro_batch=2)
    on_two = utilisation(cfg, EMBEDDED, 128, SingleProcess(0, 2))
    # 2.104 GFLOP an image, eight of them on each of two ranks.
    assert on_two.flops == pytest.approx(8 * 2.1038e9, rel=1e-3)
    assert on_two.row(2.0) == {"tflops": pytest.approx(8 * 2.1038e-3 / 2, rel=1e-3)}
    assert Utilisation(312e12, 312e12).row(4.0)["mfu"] == 0.25
