"""metrics.jsonl: one row per logged step, the authoritative record of a training."""

from __future__ import annotations

import json
import logging
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from hpc.documents import json_rows
from hpc.errors import HpcError
from hpc.publish import publish_text
from sarhpc.training.metrics.tensorboard import ScalarEvents

_log = logging.getLogger(__name__)
_LOG_EVERY_S = 30.0

OWN_PARTS = ("data", "encode", "forward")
PARTS = ("data", "encode", "forward", "backward", "optimizer")


class MetricsLog:
    """Rows of a run that may be interrupted: after a resume it holds every step once."""

    def __init__(
        self, path: Path, resumed_at: int, *, tensorboard: bool = False, wandb: bool = False
    ) -> None:
        """Open the log, without rows of steps after `resumed_at` and without a torn last line.

        With `tensorboard` the same rows go to event files in the folder of that name beside it,
        with `wandb` to an offline run in the folder of that name when the log is closed.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if path.is_file():
            kept = [row for row in read_rows(path) if row.get("step", 0) <= resumed_at]
            publish_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._path = path
        self._events = ScalarEvents(path.parent / "tensorboard", kept) if tensorboard else None
        self._wandb = path.parent / "wandb" if wandb else None
        self._logged_at = 0.0

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row."""
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self._events is not None:
            self._events.write(row)

    def close(self) -> None:
        """Write what is left of the events, and the offline run."""
        if self._events is not None:
            self._events.close()
        if self._wandb is not None:
            self._write_offline_run(self._wandb)

    def _write_offline_run(self, folder: Path) -> None:
        from wandb import Error

        from sarhpc.training.metrics.offline_run import write_offline_run

        rows = read_rows(self._path) if self._path.is_file() else []
        if not rows:
            return
        try:
            write_offline_run(folder, rows, self._path.resolve().parent.parent.name)
        except (Error, OSError, HpcError) as error:
            # A picture of the rows is no reason to lose the training that they are of.
            _log.warning("%s was not written (%s); the next attempt tries again", folder, error)

    def log_progress(self, row: Mapping[str, Any], steps: int) -> None:
        """Log a line of a row that has a loss, every half minute at most."""
        now = time.monotonic()
        if "loss" not in row or now - self._logged_at < _LOG_EVERY_S:
            return
        self._logged_at = now
        _log.info(
            "step=%d of=%d loss=%.4f samples_per_s=%.2f",
            row["step"],
            steps,
            row["loss"],
            row["samples_per_s"],
        )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a log, without the torn line a killed writer may have left at its end."""
    rows = json_rows(path)
    return [row for row in rows if isinstance(row.get("step", 0), int)]


class StepClock:
    """Seconds of each part of a step."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device.type == "cuda"
        self.exact = True
        """Wait for the GPU at part borders: true parts, at the price of a bubble."""
        self.reset()

    def reset(self) -> None:
        """Begin a step."""
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._began = time.perf_counter()

    @property
    def total(self) -> float:
        """Seconds since the step began."""
        return time.perf_counter() - self._began

    @property
    def own(self) -> float:
        """Seconds of the parts in which no rank waits for another; true where `exact`."""
        return sum(self.seconds[name] for name in OWN_PARTS)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the block's time to part `name`."""
        start = time.perf_counter()
        yield
        if self._gpu and self.exact:
            torch.cuda.synchronize()
        self.seconds[name] += time.perf_counter() - start


def peak_memory_gb(device: torch.device) -> float:
    """Largest memory this rank has used so far, GB: of its GPU, or resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def pace_of(
    clock: StepClock, seconds: float, global_batch: int, device: torch.device
) -> dict[str, float]:
    """Time and memory of a step that took `seconds`, for a row."""
    return {
        "samples_per_s": global_batch / seconds,
        "step_s": seconds,
        **{f"{part}_s": value for part, value in clock.seconds.items()},
        "memory_gb": peak_memory_gb(device),
        "time": time.time(),
    }
