"""Seconds, memory and disk of planning a corpus from a table of very many prompts, step by step.

    python tools/bench_prompts.py [--prompts 1000000] [--json]

Every prompt is another one, with three labels; two of them are balanced. Each step reports CPU
seconds, so that a busy machine does not count, and the peak memory until its end.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from hpc.config import loads
from hpc.store.plan import make_plan, publish_plan, read_plan
from hpc.store.rundir import create_run
from sarhpc.stages.config import RunConfig
from sarhpc.stages.planned_corpus import requests_of, table_shards
from sarhpc.stages.table_preview import table_lines

CLASSES = ("water", "forest", "field")
SHARD = 256


def write_table(path: Path, prompts: int) -> None:
    """A CSV with so many prompts."""
    with path.open("w") as file:
        file.write("prompt,class,season,site\n")
        for number in range(prompts):
            name, season = CLASSES[number % 3], ("winter", "summer")[number % 2]
            text = f"a {name} number {number} beside a winding river, with scattered houses"
            file.write(f'"{text}",{name},{season},site {number}\n')


def peak_mb() -> float:
    """Peak memory of this process, MB; `ru_maxrss` has that of the one that started it as well."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def measure(prompts: int, folder: Path) -> dict[str, Any]:
    """What each step of planning so many prompts took, and what it left."""
    table = folder / "prompts.csv"
    write_table(table, prompts)
    words = [
        f"generate.table={{file: {table}, coverage: balanced, max_per_prompt: 2}}",
        "generate.table.by=[class,season]",
        f"generate.images={prompts}",
        f"generate.shard_samples={SHARD}",
        "train.base_model=/nowhere",
    ]
    config = loads(RunConfig, "simulate: {seed: 1}", words)
    run = create_run(folder / "run", "simulate: {seed: 1}\n", "f00d")
    steps = {}

    def done(step: str) -> None:
        steps[step] = {"cpu_s": round(time.process_time(), 1), "peak_mb": round(peak_mb())}

    done("start")
    lines = table_lines(config)
    done("read and cover the table")
    publish_plan(make_plan("generate", table_shards(run, config)), run.plan_file("generate"))
    done("publish images and plan")
    plan = read_plan(run.plan_file("generate"))
    last = requests_of(run, plan.shards[-1].inputs)
    done("read a shard")
    return {
        "steps": steps,
        "plan_mb": run.plan_file("generate").stat().st_size / 1e6,
        "disk_mb": sum(path.stat().st_size for path in run.stage("generate").iterdir()) / 1e6,
        "images": sum(task.inputs["count"] for task in plan.shards),
        "last": len(last),
        "lines": lines,
    }


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true", help="machine-readable")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = measure(words.prompts, Path(name))
    if words.json:
        print(json.dumps(found))
        return
    print(f"{'step':<28}{'CPU s, so far':>14}{'peak MB':>9}")
    for step, numbers in found["steps"].items():
        print(f"{step:<28}{numbers['cpu_s']:>14.1f}{numbers['peak_mb']:>9}")
    print(f"plan {found['plan_mb']:.2f} MB, with the images {found['disk_mb']:.1f} MB")


if __name__ == "__main__":
    main()
