"""Works to submit; a module of its own, because works travel by reference."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from hpc.errors import NumericalError
from hpc.job.agreement import TorchRankGroup
from hpc.job.stop import StopRequest

VARIABLES = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "CUDA_VISIBLE_DEVICES",
)


@dataclass(frozen=True)
class TellEnvironment:
    """Write down what the task was told."""

    directory: Path

    def __call__(self) -> int:
        told = {name: os.environ.get(name) for name in VARIABLES}
        (self.directory / f"told-{os.environ['RANK']}.json").write_text(json.dumps(told))
        return 0


@dataclass(frozen=True)
class AddUpRanks:
    """All-reduce over gloo from nothing but the exported variables."""

    directory: Path

    def __call__(self) -> int:
        import torch.distributed as distributed

        distributed.init_process_group("gloo")
        ranks = TorchRankGroup()
        result = {"maximum": ranks.maximum(10 + ranks.rank), "all": ranks.gather(ranks.rank)}
        (self.directory / f"sum-{ranks.rank}.json").write_text(json.dumps(result))
        distributed.destroy_process_group()
        return 0


@dataclass(frozen=True)
class EndWith:
    """End rank `rank` with an exit code, the others with 0."""

    code: int
    rank: int = 0

    def __call__(self) -> int:
        return self.code if int(os.environ["RANK"]) == self.rank else 0


@dataclass(frozen=True)
class RaiseNumericalError:
    """Fail as a diverged training does."""

    def __call__(self) -> int:
        print("about to diverge", file=sys.stderr)
        raise NumericalError("loss is NaN at step 12")


@dataclass(frozen=True)
class KillYourself:
    """Die without a word."""

    def __call__(self) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0


@dataclass(frozen=True)
class Sleep:
    """Write the process id, then sleep; deaf to SIGTERM."""

    directory: Path
    deaf: bool = False

    def __call__(self) -> int:
        if self.deaf:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pid = self.directory / f"pid-{os.environ['RANK']}"
        pid.with_suffix(".tmp").write_text(str(os.getpid()))
        pid.with_suffix(".tmp").rename(pid)
        time.sleep(120)
        return 0


@dataclass(frozen=True)
class WaitForStop:
    """Work that listens to stop requests, as training does."""

    directory: Path

    def __call__(self) -> int:
        from hpc.job.agreement import SingleProcess

        with StopRequest(SingleProcess()) as stop:
            (self.directory / "pid-0").write_text(str(os.getpid()))
            while (reason := stop.agree()) is None:
                time.sleep(0.01)
        (self.directory / "reason").write_text(reason.name)
        return 0


@dataclass(frozen=True)
class FailWhileOthersWait:
    """Rank 1 fails at once; the others would wait for it for ever."""

    directory: Path

    def __call__(self) -> int:
        return 3 if os.environ["RANK"] == "1" else Sleep(self.directory)()


@dataclass(frozen=True)
class MeetAfterRank1IsKilled:
    """Wait for all ranks in a rendezvous, which rank 1 never reaches."""

    directory: Path

    def __call__(self) -> int:
        pid = self.directory / f"pid-{os.environ['RANK']}"
        pid.write_text(str(os.getpid()))
        if os.environ["RANK"] == "1":
            time.sleep(120)
        return AddUpRanks(self.directory)()
