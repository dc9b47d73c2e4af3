"""Our training step against the stock diffusers recipe: same model, tiles and precision.

    python tools/bench_train.py                                  # the embedded shape, on this CPU
    python tools/bench_train.py --shape sd15 --precision bf16 --global-batch 64 --micro-batch 32
    python tools/bench_train.py --bundle DIR --threads 8

The sides take turns in processes of their own; printed is the median step over all turns, what each
lever of ours gives alone and all useful ones together, and the share of this machine's own matrix
peak, measured in the same run. A step's arithmetic is counted from the modules, forward and
backward; neither the autoencoder's nor what checkpointing repeats is in it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from bench_step import SHAPES, make_bundle

from hpc.publish import publish_json

HERE = Path(__file__).parent
STOCK = "stock"
OURS = "ours"
LEVERS = {
    "as shipped": ("--latents-stored", "micro_batch=${global_batch}", "zero_stage=${least_zero}"),
    "latents stored": ("--latents-stored",),
    "latents cached": ("cache_latents=true",),
    "fused AdamW": ("fused_optimizer=true",),
    "channels last": ("channels_last=true",),
    "compiled": ("compile=true",),
    "one micro-batch": ("micro_batch=${global_batch}",),
    "ZeRO 0": ("zero_stage=0",),
    "ZeRO 1": ("zero_stage=1",),
    "ZeRO 3": ("zero_stage=3",),
    "scores stored": ("--scores-stored",),
    "freed memory returned": ("--memory-returned",),
}
"""Side -> changes against `ours`: overrides of the configuration, or options of bench_step. `as
shipped` is what the shipped configurations come to: stored latents, and the layout that `train.fit`
chooses for one process that has the memory."""
TOGETHER = {
    "cpu": ("as shipped", "fused AdamW"),
    "cuda": ("as shipped", "channels last", "compiled"),
}
"""What a single process would choose."""
FP32_ONLY = ("ZeRO 0",)
"""DeepSpeed keeps no masters in fp32 at stage 0, so training refuses it in bf16."""
GPU_ONLY = ("compiled",)
"""What torch compiles for CPUs gives wrong gradients, and training refuses it there."""


class SideFailedError(Exception):
    """The process of one side ended without a result."""


@dataclass
class Side:
    """What was measured of one side."""

    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    """CPU time of each step, which other work on the machine changes less than the clock."""
    memory_gb: float = 0.0
    outside: float | None = None
    """Share of the step in neither forward nor backward pass: data, autoencoder, optimiser."""
    flops: float | None = None
    """Operations of the model in a step."""
    failed: str | None = None
    """Why it was given up."""

    @property
    def cpu(self) -> float:
        """Median CPU time of a step, s."""
        return statistics.median(self.cpu_s) if self.cpu_s else math.nan

    @property
    def step(self) -> float:
        """Median step, s."""
        return statistics.median(self.seconds)


def our_steps(arguments: argparse.Namespace, changes: tuple[str, ...]) -> dict[str, Any]:
    """Steps of our engine in a separate process, with the `changes` of a side."""
    sizes = ("steps", "warmup", "samples", "global_batch", "precision", "threads")
    options = [f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in sizes]
    options += [change for change in changes if change.startswith("--")]
    overrides = ["ema_decay=0", f"micro_batch={arguments.micro_batch}"] + [
        change.replace("${global_batch}", str(arguments.global_batch)).replace(
            "${least_zero}", "0" if arguments.precision == "fp32" else "1"
        )
        for change in changes
        if not change.startswith("--")
    ]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "result.json"
        command = [sys.executable, str(HERE / "bench_step.py"), "--bundle", str(arguments.bundle)]
        _run([*command, "--json", str(file), *options, "--set", *overrides])
        found: dict[str, Any] = json.loads(file.read_text())
    return found


def stock_alone(arguments: argparse.Namespace) -> dict[str, Any]:
    """Steps of the stock recipe in a separate process."""
    options = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in vars(arguments).items()
        if name not in ("levers", "json", "stock_to", "shape")
    ]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "result.json"
        _run([sys.executable, __file__, *options, "--stock-to", str(file)])
        found: dict[str, Any] = json.loads(file.read_text())
    return found


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SideFailedError(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}"
        )


def measure(
    arguments: argparse.Namespace, keep: Callable[[dict[str, Side]], None] = lambda _: None
) -> dict[str, Side]:
    """Each side over all turns; `keep` gets what is known after each side of each turn.

    A side that fails is given up, and the others go on.
    """
    sides: dict[str, tuple[str, ...] | None] = {STOCK: None, OURS: ()}
    sides |= {f"{OURS}, {lever}": LEVERS[lever] for lever in arguments.levers}
    together = [lever for lever in TOGETHER[_device()] if lever in arguments.levers]
    if len(together) > 1:
        sides[f"{OURS}, {' + '.join(together)}"] = sum((LEVERS[name] for name in together), ())
    found = {side: Side() for side in sides}
    for turn in range(arguments.turns):
        # Every other turn in reverse, so that a machine that warms up favours no side.
        for side in sides if turn % 2 == 0 else reversed(sides):
            changes = sides[side]
            if found[side].failed is not None:
                continue
            try:
                if changes is None:
                    result = stock_alone(arguments)
                else:
                    result = our_steps(arguments, changes)
                _add(found[side], result)
            except SideFailedError as error:
                found[side].failed = str(error)
                print(f"{side}: {error}", file=sys.stderr)
            keep(found)
    found[STOCK].flops = found[OURS].flops
    return found


def _add(side: Side, result: dict[str, Any]) -> None:
    side.seconds += result["steps_s"] if "steps_s" in result else result["seconds"]
    side.cpu_s += result.get("cpu_s", [])
    side.memory_gb = max(side.memory_gb, result["memory_gb"])
    if "flops" in result:
        parts = result["seconds"]
        side.flops = result["flops"]
        side.outside = 1 - (parts["forward"] + parts["backward"]) / parts["step"]


def matrix_peak(precision: str, threads: int) -> float:
    """Operations per second of a large square matrix product on this device, the best of ten."""
    torch.set_num_threads(threads)
    device, kind = _device(), torch.bfloat16 if precision == "bf16" else torch.float32
    n = 8192 if device == "cuda" else 2048
    one, other = (torch.randn(n, n, device=device).to(kind) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        one @ other
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * n**3 / best


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def show(arguments: argparse.Namespace, found: dict[str, Side], peak: float) -> None:
    """Print the table and, on request, write it."""
    stock = found[STOCK].step if found[STOCK].seconds else math.nan
    rows: dict[str, dict[str, Any]] = {}
    print(f"matrix peak {peak / 1e12:.3f} TFLOP/s, {arguments.precision}")
    print(
        f"{'':<44} {'ms':>8} {'images/s':>9} {'ratio':>6} {'by CPU':>7} {'MFU':>6} "
        f"{'outside':>8} {'GB':>7}"
    )
    for name, side in found.items():
        if not side.seconds:
            print(f"{name:<44} failed")
            rows[name] = {"failed": side.failed}
            continue
        rate = arguments.global_batch / side.step
        use = None if side.flops is None else side.flops / side.step / peak
        print(
            f"{name:<44} {side.step * 1e3:8.1f} {rate:9.2f} {stock / side.step:6.2f} "
            f"{found[STOCK].cpu / side.cpu:7.2f} "
            f"{_percent(use):>6} {_percent(side.outside):>8} {side.memory_gb:7.2f}"
        )
        rows[name] = {"step_s": side.step, "ratio": stock / side.step, "images_per_s": rate}
        rows[name] |= {"cpu_s": side.cpu, "ratio_by_cpu": found[STOCK].cpu / side.cpu}
        rows[name] |= {"mfu": use, "outside": side.outside, "memory_gb": side.memory_gb}
    if arguments.json is not None:
        publish_json(arguments.json, {"matrix_peak": peak, "sides": rows})


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}%"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="diffusers folder; default: random weights")
    parser.add_argument("--shape", default="embedded", choices=SHAPES, help="of random weights")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="measured in each turn")
    parser.add_argument(
        "--warmup", type=int, default=5, help="steps that are not; encode all tiles"
    )
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--global-batch", type=int, default=16)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "1")))
    usable = [name for name in LEVERS if _device() == "cuda" or name not in GPU_ONLY]
    parser.add_argument("--levers", nargs="*", default=usable, choices=usable)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--stock-to", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.precision == "bf16":
        arguments.levers = [lever for lever in arguments.levers if lever not in FP32_ONLY]
    return arguments


def main() -> int:
    """Measure and print."""
    arguments = parse()
    if arguments.stock_to is not None:
        from stock_recipe import stock_steps

        publish_json(arguments.stock_to, stock_steps(arguments))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        arguments.bundle = arguments.bundle or make_bundle(Path(scratch), arguments.shape)
        peak = matrix_peak(arguments.precision, arguments.threads)

        def keep(found: dict[str, Side]) -> None:
            """Write what is known so far, as the next side may take long or fail."""
            if arguments.json is not None:
                sides = {name: dataclasses.asdict(side) for name, side in found.items()}
                publish_json(arguments.json, {"matrix_peak": peak, "so_far": sides})

        show(arguments, measure(arguments, keep), peak)
    return 0


if __name__ == "__main__":
    sys.exit(main())
