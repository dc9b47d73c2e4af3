"""What the first ten minutes on a GPU are for: does it compute right, and how fast.

    python tools/gpu_report.py --out report.jsonl            # published shapes, random weights
    python tools/gpu_report.py --size tiny --out report.jsonl    # small ones; also on a CPU
    python tools/gpu_report.py --only machine correctness --out report.jsonl

Each phase is a process with a deadline of its own, and each result is a line of JSON at once: what
a phase had measured when it ended, failed or ran out of time stays. The exit code is 0 if every
phase ended well and every check held, else 1.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_report_phases import run

PRELOADED = (
    "torch.distributed",
    "peft",
    "accelerate",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl",
    "transformers.models.blip.modeling_blip",
)
"""Not DeepSpeed, which chooses between GPU and CPU when it is imported."""


@dataclass(frozen=True)
class Phase:
    """A part of the report, and how long it may take with published shapes."""

    name: str
    deadline_s: float


PHASES = (
    Phase("machine", 40),
    Phase("reference", 45),
    Phase("correctness", 110),
    Phase("train-sd15", 120),
    Phase("train-sdxl", 80),
    Phase("generate-sd15", 70),
    Phase("generate-sdxl", 60),
    Phase("captions", 35),
)
"""560 s together, below the ten minutes of the report."""
TINY_S = 240.0
"""Deadline of each phase with small shapes."""


def run_phase(phase: Phase, size: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the results of one phase as they come, then how it ended."""
    deadline_s = TINY_S if size == "tiny" else phase.deadline_s
    errors = folder / f"{phase.name}.stderr"
    errors.touch()
    results, sender = multiprocessing.Pipe(duplex=False)
    process = _server().Process(target=run, args=(phase.name, size, folder, sender, errors))
    began = time.monotonic()
    process.start()
    sender.close()
    try:
        while results.poll(max(began + deadline_s - time.monotonic(), 0.0)):
            yield {"phase": phase.name, **json.loads(results.recv())}
        ended = "deadline"
    except EOFError:
        process.join()
        ended = "failed" if process.exitcode else "done"
    finally:
        process.kill()
        process.join()
    row = {"phase": phase.name, "ended": ended, "seconds": round(time.monotonic() - began, 1)}
    yield row if ended == "done" else {**row, "stderr": errors.read_text()[-2000:]}


def _server() -> Any:
    """Processes forked from one that has the imports behind it, which take longer than a phase."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def is_bad(row: dict[str, Any]) -> bool:
    """Whether a result says that something is wrong."""
    return row.get("holds") is False or row.get("ended") in ("failed", "deadline")


def main() -> int:
    """Run the phases and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="file of JSON lines, replaced")
    parser.add_argument("--size", choices=("tiny", "published"), default="published")
    names = [phase.name for phase in PHASES]
    parser.add_argument("--only", nargs="*", choices=names, default=names)
    arguments = parser.parse_args()
    # Whoever asks for GPUs before a phase is forked must not open one.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    bad = 0
    with tempfile.TemporaryDirectory() as folder, arguments.out.open("w") as file:
        for phase in PHASES:
            if phase.name not in arguments.only:
                continue
            for row in run_phase(phase, arguments.size, Path(folder)):
                line = json.dumps({"at": time.strftime("%FT%TZ", time.gmtime()), **row})
                print(line, file=file, flush=True)
                print(line[:300], flush=True)
                bad += is_bad(row)
    print(f"{arguments.out}: {'everything held' if not bad else f'{bad} results are wrong'}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
