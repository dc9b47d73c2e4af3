"""A table of very many prompts is planned within bounds of time, memory and disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from line_runs import TINY

CLASSES = ("water", "forest", "field", "town")
PLAN = """
import json, sys, time
from pathlib import Path
from hpc.config import loads
from hpc.store.plan import make_plan, publish_plan, read_plan
from hpc.store.rundir import create_run
from sarhpc.stages.config import RunConfig
from sarhpc.stages.planned_corpus import requests_of, table_shards
from sarhpc.stages.table_preview import table_lines

folder = Path(sys.argv[1])
config = loads(RunConfig, Path(folder / "tiny.yaml").read_text(), sys.argv[2:])
run = create_run(folder / "run", "a: 1\\n", "f00d")
lines = table_lines(config)
publish_plan(make_plan("generate", table_shards(run, config)), run.plan_file("generate"))
plan = read_plan(run.plan_file("generate"))
last = requests_of(run, plan.shards[-1].inputs)
print(json.dumps({
    "cpu_s": time.process_time(),
    # Of this program: ru_maxrss has that of the process that started it as well.
    "peak_mb": int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024,
    "disk_mb": sum(path.stat().st_size for path in run.stage("generate").iterdir()) / 1e6,
    "plan_mb": run.plan_file("generate").stat().st_size / 1e6,
    "lines": lines,
    "images": sum(task.inputs["count"] for task in plan.shards),
    "last": [one.prompt for one in last],
}))
"""


def measured(folder: Path, rows: int) -> dict[str, object]:
    """What a process takes to read a table of `rows` prompts and to plan as many images."""
    (folder / "tiny.yaml").write_text(TINY)
    with (folder / "p.csv").open("w") as file:
        file.write("prompt,class,season,site\n")
        for number in range(rows):
            name = CLASSES[number % 3]
            text = f"a {name} number {number} beside a winding river, with scattered houses"
            file.write(f'"{text}",{name},{("winter", "summer")[number % 2]},site {number}\n')
    words = [
        f"generate.table={{file: {folder / 'p.csv'}, coverage: balanced, max_per_prompt: 2}}",
        "generate.table.by=[class,season]",
        f"generate.images={rows}",
        "generate.shard_samples=256",
        "train.base_model=/nowhere",
    ]
    command = [sys.executable, "-c", PLAN, str(folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def check(found: dict[str, object], rows: int, cpu_s: float, peak_mb: float) -> None:
    assert found["images"] == rows
    assert len(found["last"]) == (rows % 256 or 256)  # type: ignore[arg-type]
    levels = sorted(found["lines"][1].split(": ")[1].split(", "))  # type: ignore[index]
    counts = [int(level.split()[1].replace(",", "")) for level in levels]
    assert sum(counts) == rows
    assert max(counts) - min(counts) <= 1
    assert float(found["cpu_s"]) < cpu_s  # type: ignore[arg-type]
    assert float(found["peak_mb"]) < peak_mb  # type: ignore[arg-type]
    assert float(found["plan_mb"]) < 200 * rows / 256 / 1e6 + 0.01  # type: ignore[arg-type]
    assert float(found["disk_mb"]) < 60 * rows / 1e6 + 1  # type: ignore[arg-type]


@pytest.mark.slow
def test_fifty_thousand_prompts_are_planned_in_seconds(tmp_path: Path) -> None:
    check(measured(tmp_path, 50_000), 50_000, cpu_s=20, peak_mb=300)


@pytest.mark.long
def test_a_million_prompts_are_planned_in_a_minute_and_a_gigabyte(tmp_path: Path) -> None:
    check(measured(tmp_path, 1_000_000), 1_000_000, cpu_s=60, peak_mb=1000)
