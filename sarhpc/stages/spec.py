"""What the program knows of a stage: one description, in the file of the stage itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpc.config import decisive
from hpc.errors import ConfigError

if TYPE_CHECKING:
    from hpc.cluster.draft import Request
    from hpc.job.pipeline import Stage
    from hpc.store.plan import Plan
    from hpc.store.rundir import RunDir
    from sarhpc.stages.config import RunConfig


@dataclass(frozen=True)
class Estimate:
    """What a stage will leave on disk; None for what is not known yet."""

    shards: int | None
    bytes: float | None
    inodes: int | None
    lines: tuple[str, ...] = ()
    """What else its dry run prints."""


def _always(_: RunConfig) -> bool:
    return True


def _nothing(_: RunConfig) -> None:
    return None


def _one(_: RunConfig) -> int:
    return 1


def _no_inputs(_: RunDir, __: RunConfig) -> None:
    return None


def _no_notes(_: RunConfig, __: Plan | None) -> Sequence[str]:
    return ()


def _jobs(_: RunConfig) -> str:
    return "slurm"


def _any_device(_: RunConfig) -> str:
    return "auto"


def _no_models(_: RunConfig) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class StageSpec:
    """One stage as the command line, a submission and a job need to know it.

    Everything but `name`, `help`, `branches` and `build` has a default that means "nothing
    special". Callables import what they need when they are called: all stages are listed by
    `sarhpc --help`.
    """

    name: str
    help: str
    """Its line in `sarhpc --help`."""
    branches: tuple[str, ...]
    """Branches of the configuration that decide what it makes, and so its fingerprint."""
    build: Callable[[RunConfig, Sequence[str]], Stage]
    """The stage of a run, from its configuration and the names of the stages before it, in order;
    see `needs_in`."""
    needs: tuple[str, ...] = ()
    """Stages it reads from, of those that the run has."""
    enabled: Callable[[RunConfig], bool] = _always
    """Whether a configuration asks for it."""
    check: Callable[[RunConfig], None] = _nothing
    """Raises ConfigError unless it accepts its settings; asked before anything is submitted."""
    check_inputs: Callable[[RunDir, RunConfig], None] = _no_inputs
    """Raises ConfigError unless what it reads from outside the run is there and of use; asked
    before anything is submitted, and only of what is there by then."""
    check_ranks: Callable[[RunConfig, int], None] | None = None
    """Of a collective stage: raises ConfigError unless it can run on so many ranks."""
    models: Callable[[RunConfig], Sequence[str]] = _no_models
    """Models that it starts from: `embedded:NAME`, `fetched:NAME` or folders."""
    needs_extra: Callable[[RunConfig], str] = _jobs
    """Extra of the package that its work needs, see `sarhpc.extras`."""
    sharded: bool = False
    """Whether the elements of a job array may divide its shards."""
    shards: Callable[[RunConfig], int | None] = _nothing
    """Shards that it will have, if the configuration alone determines them."""
    shard_bytes: Callable[[RunConfig], float | None] = _nothing
    """About how many bytes a shard has."""
    shard_files: Callable[[RunConfig], int] = _one
    """Most files of a shard, without its record."""
    estimate: Callable[[RunConfig, Plan | None, int, float | None], Estimate] | None = None
    """What it leaves on disk where that does not grow with its shards: from its plan, if there is
    one, the number of its processes, and the bytes of each one's GPU where they are known."""
    notes: Callable[[RunConfig, Plan | None], Sequence[str]] = _no_notes
    """What else its dry run prints, from the configuration and the plan, if there is one."""
    node_local: Callable[[RunConfig], str | None] = _nothing
    """Folder on a disk of the node that it copies its inputs to, with variables unexpanded."""
    request: Request | None = None
    """What a drafted profile asks for; None takes the profile's default."""

    computes_on: Callable[[RunConfig], str] = _any_device
    """`cpu` where a configuration asks for it, else `auto`."""

    def uses_gpus(self, config: RunConfig) -> bool:
        """Whether it computes on the GPUs that its job has."""
        return self.request not in (None, "cpu_node") and self.computes_on(config) != "cpu"

    def needs_in(self, upstream: Sequence[str]) -> tuple[str, ...]:
        """The stages that it reads from, of those in `upstream`."""
        return tuple(name for name in self.needs if name in upstream)

    def fingerprint(self, config: RunConfig) -> str:
        """Sixteen hex digits over the branches of the configuration that it depends on."""
        plain = decisive(config)
        text = json.dumps({b: plain[b] for b in self.branches if b in plain}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def in_branch(branch: str) -> Iterator[None]:
    """Put the branch of the configuration before errors that begin with a setting of it."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{branch}.{error}") from error


def pass_all(*checks: Callable[[], None]) -> None:
    """Raise ConfigError unless all checks pass, with what each of them says."""
    reasons: list[str] = []
    for check in checks:
        try:
            check()
        except ConfigError as error:
            reasons += str(error).splitlines()
    if reasons:
        raise ConfigError("\n".join(dict.fromkeys(reasons)))
