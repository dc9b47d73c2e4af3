"""What is driven on the pretended GPU, by name; run by `python drives.py RESULTS [NAME ...]`.

A line of JSON for each drive: counts by phase, facts, or the error that ended it.
"""

from __future__ import annotations

import sys
from pathlib import Path

# First: it has to be loaded before torch.
import device
from device import PretendedGpu, counted, install

sys.path[:0] = [str(device.REPOSITORY), str(device.REPOSITORY / "tests")]

import json  # noqa: E402
import tempfile  # noqa: E402
import traceback  # noqa: E402
import warnings  # noqa: E402
from typing import Any  # noqa: E402


def drive_all(results: Path, names: list[str]) -> None:
    """Run the named drives, or all, and write what each found."""
    warnings.filterwarnings("ignore")
    install()
    from caption_drives import CAPTION_DRIVES
    from generation_drives import GENERATION_DRIVES
    from loading import load_outside, work_folder
    from train_drives import TRAIN_DRIVES

    load_outside()
    drives = {**TRAIN_DRIVES, **GENERATION_DRIVES, **CAPTION_DRIVES}
    with tempfile.TemporaryDirectory() as folder, results.open("w") as file:
        work_folder(Path(folder))
        for name in names or drives:
            print(json.dumps({"name": name, **_driven(drives[name])}), file=file, flush=True)


def _driven(drive: Any) -> dict[str, Any]:
    with counted(), PretendedGpu():
        try:
            return dict(drive())
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            lines = [f"{f.filename}:{f.lineno} {f.line}" for f in frames[-6:]]
            return {"error": f"{type(error).__name__}: {error}", "at": lines}


if __name__ == "__main__":
    drive_all(Path(sys.argv[1]), sys.argv[2:])
