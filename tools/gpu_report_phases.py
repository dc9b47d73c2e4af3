"""One phase of `tools/gpu_report.py`, in a process of its own."""

from __future__ import annotations

import json
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent


def run(name: str, size: str, folder: Path, told: Connection, errors: Path) -> None:
    """Run the phase `name`; each result goes to `told` at once, what is said to `errors`."""
    with errors.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.path[:0] = [str(_HERE), str(_HERE.parent)]
    from hpc.memory import keep_freed_memory, use_expandable_segments

    keep_freed_memory()
    use_expandable_segments()

    def tell(**facts: Any) -> None:
        """Send one result."""
        told.send(json.dumps(facts))

    if name == "machine":
        from gpu_report_machine import tell_machine

        tell_machine(tell)
    elif name in ("reference", "correctness"):
        from gpu_report_correctness import check_against, make_reference

        (make_reference if name == "reference" else check_against)(folder, tell)
    else:
        from gpu_report_speed import SPEED

        SPEED[name](size, folder, tell)
