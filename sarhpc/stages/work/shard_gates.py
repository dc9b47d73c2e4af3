"""The gate of a shard of a corpus: as planned, with the quarantine beside the corpus."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.shell import quoted
from hpc.store.ledger import Record
from hpc.store.plan import ShardTask
from hpc.store.rundir import RunDir
from sarhpc.generation.config import GateConfig, GenerateConfig
from sarhpc.stages.inputs.class_gate import class_gate
from sarhpc.stages.inputs.gate_limits import GATE_SHA, planned_gate
from sarhpc.stages.inputs.training_maps import copy_gate

if TYPE_CHECKING:
    from sarhpc.generation.gate import PlannedGate, ShardGate
    from sarhpc.generation.other_classes import ClassGate
    from sarhpc.generation.quarantine import QuarantineShard

QUARANTINE = "quarantine"
"""Folder of the quarantined images, beside that of the corpus lest it be read with it."""

DIGEST = "quarantine_sha256"
"""Entry of `detail` of a record: digest of the quarantined images."""


def quarantined_with(record: Record) -> dict[Path, str]:
    """The shard of the images that were quarantined beside a shard, if any were, and its digest."""
    digest = record.detail.get(DIGEST)
    return {} if digest is None else {_quarantine(Path(record.path)): digest}


def _quarantine(shard: Path) -> Path:
    return shard.parent.parent / QUARANTINE / shard.name


@dataclass
class AppliedGate:
    """What the loop over the images of a shard calls, and in the end what its record says."""

    hooks: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    detail: Mapping[str, str] = field(default_factory=dict)
    """Complete when the shard is."""


@contextlib.contextmanager
def shard_gate(
    run: RunDir, task: ShardTask, cfg: GenerateConfig, path: Path
) -> Iterator[AppliedGate]:
    """The gate of a planned shard, in a block that makes it; of no effect where none is planned.

    The quarantined images are published when the block ends, before the record of the shard.

    Args:
        run: in which it is planned.
        task: the shard.
        cfg: how images are made.
        path: of the shard.

    Raises:
        NothingAcceptedError: no image of the corpus is accepted; the quarantine is published.
        VerificationError: the limits are missing, or others than were planned.
    """
    if GATE_SHA not in task.inputs or cfg.gate is None:
        yield AppliedGate()
        return
    from sarhpc.generation.gate import ShardGate
    from sarhpc.generation.gate_errors import NothingAcceptedError
    from sarhpc.generation.quarantine import QuarantineShard

    planned = planned_gate(run, task.inputs[GATE_SHA])
    with QuarantineShard(_quarantine(path), task.number) as quarantine:
        copies = None if planned.copies is None else copy_gate(run, planned.copies)
        classes = _classes(run, cfg.gate, planned)
        others = functools.partial(_others, run, task)
        gate = ShardGate(planned, cfg.gate.redraws, quarantine.add, others, copies, classes)
        applied = AppliedGate({"judge": gate.judge, "admit": gate.admit, "refused": gate.refused})
        try:
            yield applied
            gate.require_accepted()
        except NothingAcceptedError as error:
            quarantine.publish()
            raise NothingAcceptedError(
                f"{error}. {after_nothing_accepted(run, quarantine.path)}"
            ) from error
        applied.detail = _detail(gate, quarantine)


def _classes(run: RunDir, cfg: GateConfig, planned: PlannedGate) -> ClassGate | None:
    if planned.classes is None:
        return None
    return class_gate(run, cfg, planned.classes, planned.law)


def after_nothing_accepted(run: RunDir, quarantine: Path) -> str:
    """What to do about a gate that accepts nothing: look, then a new run, as this one is frozen."""
    return (
        f"Look at them: `sarhpc inspect {quoted(quarantine)}`. Then train longer, give the gate "
        "tiles like the images (generate.gate.shards), lower generate.gate.false_rejects, or "
        "accept every image with generate.gate=null; this run is frozen, a new one takes its "
        f"settings: `sarhpc run NEW --config {quoted(run.config_file)} generate.gate=null`"
    )


def _detail(gate: ShardGate, quarantine: QuarantineShard) -> dict[str, str]:
    made = quarantine.publish()
    digest = {} if made is None else {DIGEST: made.sha256}
    return {**gate.detail(), **digest}


def _others(run: RunDir, task: ShardTask) -> tuple[int, int]:
    """Draws of the other shards of the stage, and how many of them were accepted."""
    records = run.ledger("generate").records().values()
    others = [record for record in records if record.shard != task.id]
    draws = sum(int(record.detail.get("draws", 0)) for record in others)
    return draws, sum(record.samples for record in others)
