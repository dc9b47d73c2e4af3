"""A table of very many prompts is planned within bounds of time, memory and disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).resolve().parents[3] / "tools" / "bench_prompts.py"


def measured(prompts: int) -> dict[str, Any]:
    """What a process takes to read a table of so many prompts and to plan as many images."""
    command = [sys.executable, str(BENCHMARK), "--json", "--prompts", str(prompts)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check(prompts: int, cpu_s: float, peak_mb: float) -> None:
    found = measured(prompts)
    assert found["images"] == prompts
    assert found["last"] == (prompts % 256 or 256)
    levels = found["lines"][1].removeprefix("class: ").split(", ")
    counts = [int(level.split()[1].replace(",", "")) for level in levels]
    assert (len(counts), sum(counts)) == (3, prompts)
    assert max(counts) - min(counts) <= 1
    end = list(found["steps"].values())[-1]
    assert end["cpu_s"] < cpu_s
    assert end["peak_mb"] < peak_mb
    assert found["plan_mb"] < 200 * prompts / 256 / 1e6 + 0.01
    assert found["disk_mb"] < 60 * prompts / 1e6 + 1


@pytest.mark.slow
def test_fifty_thousand_prompts_are_planned_in_seconds() -> None:
    check(50_000, cpu_s=20, peak_mb=300)


@pytest.mark.long
def test_a_million_prompts_are_planned_in_a_minute_and_a_gigabyte() -> None:
    check(1_000_000, cpu_s=60, peak_mb=1000)
