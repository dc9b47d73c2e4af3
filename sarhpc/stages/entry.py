"""The entry point of a job: bring one stage, or the whole line, as far as it goes."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from dataclasses import dataclass

from hpc.errors import HpcError, exit_code_of
from hpc.run.pipeline import run_stage
from hpc.run.rundir import open_run

log = logging.getLogger("sarhpc")


@dataclass(frozen=True)
class StageWork:
    """Picklable work of one job. Carries names only: progress is on disk, never in the pickle."""

    root: str
    stage: str
    force: bool = False
    executor: str | None = None
    """For a line: how its stages reach a machine; None as configured."""
    submission: int | None = None
    """Submission this job belongs to, see hpc.run.submissions; None on this machine."""

    def __call__(self) -> int:
        """Exit code of the stage (see hpc.errors)."""
        return work(self.root, self.stage, force=self.force, executor=self.executor)


def configure_logging(rank: int = 0) -> None:
    """Log one event a line to standard error, `key=value`, INFO for rank 0, WARNING for others."""
    # distributed sets its own levels while it is imported, from this variable.
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO if rank == 0 else logging.WARNING,
        format=f"%(asctime)s %(levelname)s r{rank} %(message)s",
        datefmt="%H:%M:%S",
        force=True,
    )
    for noisy in ("distributed", "rasterio", "matplotlib", "DeepSpeed", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def work(root: str, stage: str, *, force: bool = False, executor: str | None = None) -> int:
    """Run `stage` of the run at `root` in this process and return its exit code."""
    from pathlib import Path

    from sarhpc.stages.launch import LINE, drive_line
    from sarhpc.stages.registry import load_run_config, stage_named

    rank = int(os.environ.get("RANK", "0"))
    configure_logging(rank)
    try:
        run = open_run(Path(root))
        if stage.startswith(LINE):
            return drive_line(
                run, stage, executor or load_run_config(run).cluster.executor, force=force
            )
        line = run_stage(run, stage_named(load_run_config(run), stage), rank, force)
        log.info("%s", line)
        return 0
    except HpcError as error:
        level = logging.INFO if error.exit_code == 0 else logging.ERROR
        log.log(level, "stage=%s %s: %s", stage, type(error).__name__, error)
        return error.exit_code
    except Exception as error:
        log.error("stage=%s broke\n%s", stage, traceback.format_exc())
        return exit_code_of(error)
