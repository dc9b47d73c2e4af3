"""The training method of docs/guide/extending.md, run as it is written there."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caption_training import process_as_before

from hpc.job.checkpoint import CheckpointStore
from hpc.job.stop import StopRequest
from sarhpc.shards.loader import SampleOrder
from sarhpc.training.checkpoints.checkpointing import read_weights
from sarhpc.training.context import TrainContext
from sarhpc.training.ranks import join, leave

pytestmark = pytest.mark.slow

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "guide"
POISONED_STEP = 3


def example(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module whose source the section shows."""
    [text] = [t for t in (path.read_text() for path in GUIDE.iterdir()) if "SmoothingTask(" in t]
    section = text[text.index("## A training method") :].split("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (folder / "smoothing_example.py").write_text("\n".join(blocks))
    monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module("smoothing_example")


@dataclass(frozen=True)
class Tiles:
    """Tiles of noise; one is NaN."""

    poisoned: int

    def __len__(self) -> int:
        return 80

    def key(self, number: int) -> str:
        return f"tile/{number}"

    def load(self, number: int, member: str) -> tuple[Any, str]:
        assert member == "sar.png"
        image = np.random.default_rng(number).uniform(-1, 1, (16, 16, 3)).astype(np.float32)
        return (image * np.nan if number == self.poisoned else image), ""


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_method_of_one_file_skips_averages_saves_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = example(tmp_path, monkeypatch)
    tiles = Tiles(int(SampleOrder(0, 80).epoch(0)[4 * (POISONED_STEP - 1)]))
    with process_as_before():
        ranks = join(1, deterministic=True, seed=0, on_cpu=True)
        try:
            for folder, parts in (("whole", [20]), ("resumed", [5, 20])):
                for attempt, steps in enumerate(parts):
                    store = CheckpointStore(tmp_path / folder / "checkpoints", ranks, attempt)
                    with StopRequest(ranks) as stop:
                        ctx = TrainContext(tmp_path / folder, store, stop)
                        result = method.train_smoothing(tiles, ranks, ctx, steps)
                    assert (result.step, result.finished) == (steps, True)
        finally:
            leave()
    found = rows(tmp_path / "whole")
    assert [row["step"] for row in found] == list(range(1, 21))
    assert found[POISONED_STEP - 1]["trouble"] == "the loss is nan"
    assert found[-1]["skipped"] == 1
    assert found[-1]["loss"] < found[0]["loss"]
    assert {"lr_filter", "grad_norm_filter", "ema_decay"} <= found[-1].keys()
    last = [tmp_path / folder / "checkpoints" / "step_00000020" for folder in ("whole", "resumed")]
    for average in (False, True):
        one, other = (read_weights(path, average=average) for path in last)
        assert {name: w.tolist() for name, w in one.items()} == {
            name: w.tolist() for name, w in other.items()
        }
    assert [row.get("loss") for row in rows(tmp_path / "resumed")] == [
        row.get("loss") for row in found
    ]
