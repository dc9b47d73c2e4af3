"""The driver of a line: takes its stages in order on this machine, each as a job of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.errors import HpcError
from hpc.job.pipeline import Stage, unsealed_stages
from hpc.observe.logs import failure_cause
from hpc.regular_files import read_regular_text
from hpc.store.lease import live_holder
from hpc.store.local_jobs import live_local_jobs
from hpc.store.ownership import open_own_run, private_umask
from hpc.store.rundir import RunDir
from sarhpc.launch.job import StageWork, configure_logging, report
from sarhpc.launch.profile import resources
from sarhpc.stages.registry import line_of_stages
from sarhpc.stages.run_config import load_run_config

if TYPE_CHECKING:
    from hpc.cluster.submit import Submission

log = logging.getLogger(__name__)

POLL_S = 1.0


@dataclass(frozen=True)
class LineWork:
    """Picklable work of a driver: the stages from `first` to `last`."""

    root: str
    first: str
    last: str
    executor: str
    """How its stages reach a machine."""
    force: bool = False
    behind: tuple[int, ...] = ()
    """Drivers on this host that received a stop and are waited for."""

    @property
    def name(self) -> str:
        """`line:FIRST:LAST`, for messages."""
        return f"line:{self.first}:{self.last}"

    def __call__(self) -> int:
        """Exit code of the first stage that does not end well, else 0."""
        configure_logging()
        try:
            run = open_own_run(Path(self.root))
            private_umask(run)
            stages = line_of_stages(load_run_config(run))
            names = [stage.name for stage in stages]
            chosen = stages[names.index(self.first) : names.index(self.last) + 1]
            _wait_for_drivers(run, self.behind)
            return drive(run, chosen, self.executor, force=self.force)
        except HpcError as error:
            return report(self.name, error)


def drive(run: RunDir, stages: Sequence[Stage], executor: str, *, force: bool = False) -> int:
    """Take the unsealed stages in order, a job each; the first exit code that is not 0."""
    for stage in unsealed_stages(run, stages):
        _wait_for_holder(run, stage.name)
        if run.stop_file.exists():
            log.info(
                "stopped before stage=%s; continue with `sarhpc resume %s`", stage.name, run.root
            )
            return 0
        clock = time.monotonic()
        submission = submit_stage(run, stage, executor, force=force)
        log.info("stage=%s job=%s log=%s", stage.name, submission.job_id, submission.stderr[0])
        code = submission.wait()
        log.info("stage=%s exit=%d seconds=%.1f", stage.name, code, time.monotonic() - clock)
        if code == 0 and run.stop_file.exists():
            continue
        if code != 0 or not run.ledger(stage.name).sealed:
            _explain(run, submission, stage)
            return code
    return 0


def _wait_for_drivers(run: RunDir, pids: Sequence[int]) -> None:
    """Return when the drivers that received a stop have ended."""
    if pids:
        log.info("waiting for process %s to stop", ", ".join(map(str, pids)))
    while any(job.pid in pids for job in live_local_jobs(run)):
        time.sleep(POLL_S)


def _wait_for_holder(run: RunDir, stage: str) -> None:
    """Return when nobody works on the stage: the job of a driver that died goes on without it."""
    holder = None
    while (found := live_holder(run.stage(stage) / ".lease.json")) and not run.stop_file.exists():
        if found != holder:
            log.info("stage=%s waits for %s, which works on it", stage, found)
        holder = found
        time.sleep(POLL_S)


def submit_stage(run: RunDir, stage: Stage, executor: str, *, force: bool) -> Submission:
    """The job of one stage, submitted."""
    from hpc.cluster.submit import submit

    return submit(
        StageWork(str(run.root), stage.name, force),
        name=f"{run.name}-{stage.name}",
        logs=run.logs(stage.name),
        executor=executor,
        resources=resources(load_run_config(run), stage),
    )


def _explain(run: RunDir, submission: Submission, stage: Stage) -> None:
    """Log the ends of the logs, then how the job ended, and the cause in one line at the end."""
    for path in submission.stderr:
        if path.exists():
            tail = read_regular_text(path, "replace").splitlines()[-12:]
            log.error("stage=%s ended early; end of %s:\n%s", stage.name, path, "\n".join(tail))
    if submission.failure:
        log.error("stage=%s %s", stage.name, submission.failure)
    if (cause := failure_cause(run, [stage])) is not None:
        log.error("failed: %s", cause)
