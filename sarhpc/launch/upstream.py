"""The seal that is missing upstream: every shard was made, and the job died before it sealed.

Its script asks for such a job again, unless the batch script itself was killed. Then the next job
of the chain, which would find its upstream open, seals it first.
"""

from __future__ import annotations

import logging
import time

from hpc.errors import HpcError, RunInUseError
from hpc.job.pipeline import Stage, run_stage
from hpc.store.plan import read_plan
from hpc.store.rundir import RunDir
from sarhpc.stages.config import RunConfig
from sarhpc.stages.registry import stage_named

WAIT_S = 600.0
"""Seconds that the other ranks and elements wait for the one that seals."""
POLL_S = 2.0

log = logging.getLogger(__name__)


def seal_upstream(run: RunDir, config: RunConfig, stage: Stage, rank: int) -> None:
    """Seal the stages that `stage` needs where only the seal is missing; the other ranks wait."""
    for need in stage.needs:
        until = time.monotonic() + WAIT_S
        while _lacks_only_its_seal(run, need) and time.monotonic() < until:
            if rank == 0 and _sealed_or_failed(run, stage_named(config, need)):
                break
            time.sleep(POLL_S)


def _sealed_or_failed(run: RunDir, stage: Stage) -> bool:
    """Try to seal `stage`; False if another process does."""
    log.warning("stage=%s has all its shards and no seal; its job died, sealing it now", stage.name)
    try:
        log.info("%s", run_stage(run, stage))
    except RunInUseError:
        return False
    except HpcError as error:
        log.error("stage=%s was not sealed: %s", stage.name, error)
    return True


def _lacks_only_its_seal(run: RunDir, need: str) -> bool:
    ledger, plan = run.ledger(need), run.plan_file(need)
    return not ledger.sealed and plan.is_file() and not ledger.missing(read_plan(plan))
