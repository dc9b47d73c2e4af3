"""Stage `export`: the newest whole checkpoint as a diffusers folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.errors import ConfigError, DataError, VerificationError
from hpc.job.pipeline import Stage, Work
from hpc.job.signatures import RunSignature
from hpc.store.plan import Plan, make_plan
from hpc.store.rundir import RunDir
from hpc.store.tree import digest_tree
from sarhpc.diffusion.config import VARIANTS
from sarhpc.diffusion.families.registry import family_of
from sarhpc.diffusion.tensor_headers import tensor_shapes
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.contracts import contract_of_training
from sarhpc.stages.inputs.paths import model_folder
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.spec import Estimate, StageSpec
from sarhpc.stages.work.sharded import ShardResult, manifest_sha, sealed_records, single_shard
from sarhpc.training.judged import FOLDER, best_first

if TYPE_CHECKING:
    from sarhpc.training.export import Cut

BYTES_PER_PARAMETER = 5.2
FILES = 13


def export_stage(config: RunConfig, upstream: Sequence[str]) -> Stage:
    """The stage that writes the model."""
    return Stage(
        name="export",
        needs=EXPORT.needs_in(upstream),
        plan=plan_export,
        work=lambda work: single_shard(work, lambda: export_model(work)),
    )


def plan_export(run: RunDir) -> Plan:
    """A single shard that names the checkpoint by the digest of its manifest.

    Raises:
        ConfigError: there is no such variant of the weights, or the adapter cannot be cut so.
    """
    config = load_run_config(run)
    require_exportable(config)
    [trained] = sealed_records(run, "train")
    inputs = {"checkpoint": run.stored(trained.path), "sha256": trained.sha256}
    return make_plan("export", [inputs], fingerprint=EXPORT.fingerprint(config))


def require_exportable(config: RunConfig) -> None:
    """Raise ConfigError unless the variants exist and the adapter can be cut to its rank."""
    unknown = [name for name in config.export.variants if name not in VARIANTS]
    if unknown:
        raise ConfigError(f"export.variants: {unknown[0]!r} is none of {', '.join(VARIANTS)}")
    _cut(config)


def export_model(work: Work) -> ShardResult:
    """Publish `export/model`.

    Raises:
        VerificationError: the checkpoint changed since training was recorded, or is not signed.
    """
    from sarhpc.training.denoising.start import load_base
    from sarhpc.training.export import export

    run, config = work.run, load_run_config(work.run)
    [task] = work.plan.shards
    checkpoint = run.located(task.inputs["checkpoint"])
    if digest_tree(checkpoint).sha256 != task.inputs["sha256"]:
        raise VerificationError(
            f"{checkpoint} changed since training was recorded; "
            f"`sarhpc verify {run.quoted} --deep` lists what else did"
        )
    signature = RunSignature(run.root)
    if problem := signature.find_problem(checkpoint):
        raise VerificationError(
            f"{checkpoint} is not exported: {problem}. If you trust whoever wrote it: "
            f"`sarhpc export {run.quoted} --trust-checkpoint`"
        )
    signature.adopt(checkpoint)
    target = run.stage("export") / "model"
    # The card is part of the model's digest, which does not depend on the name of the run.
    facts = {
        "base_model": config.train.base_model,
        "configuration": run.info["fingerprint"],
        "training_data": manifest_sha(run, "caption")[:16],
        "steps": int(checkpoint.name.removeprefix("step_")),
        "licence": "that of the base model and of the training data",
    }
    if config.train.judge is not None and config.train.judge.choose == "best":
        judged = len(best_first(run.stage("train") / FOLDER))
        known = "tiles trained on" if "train" in config.train.judge.splits else "held-out tiles"
        chosen = f"of {judged} checkpoints the one whose images were nearest to {known}"
        facts["chosen_as"] = chosen
    if config.export.adapter_rank is not None:
        facts["adapter_rank"] = config.export.adapter_rank
    if config.train.control is not None:
        facts["steered_by"] = f"the layer `{config.train.control.layer}` of a tile"
    base = load_base(config.train, Path(model_folder(config.train.base_model)))
    export(
        checkpoint,
        base,
        target,
        facts,
        average=config.train.ema_decay > 0,
        variants=config.export.variants,
        cut=_cut(config),
        contract=contract_of_training(run, config),
        layer=None if config.train.control is None else config.train.control.layer,
    )
    digest = digest_tree(target)
    return ShardResult(target, samples=0, bytes=digest.bytes, sha256=digest.sha256)


def _cut(config: RunConfig) -> Cut | None:
    """The adapter and the rank it is cut to, where that is asked."""
    rank = config.export.adapter_rank
    if rank is None:
        return None
    from sarhpc.diffusion.dylora import require_truncation

    return require_truncation(config.train.adapter, rank), rank


def estimate(
    config: RunConfig, _plan: Plan | None, _world: int, _memory: float | None = None
) -> Estimate:
    """The exported model, if the base model is there to be counted."""
    parameters = _parameters(config)
    each = BYTES_PER_PARAMETER * (1 + len(config.export.variants) / 2)
    return Estimate(1, None if parameters is None else parameters * each, FILES)


def _parameters(config: RunConfig) -> int | None:
    """Trained parameters of the base model, from the headers of its files; None if not there."""
    try:
        folder = Path(model_folder(config.train.base_model))
    except ConfigError:
        return None
    parts = family_of(folder).components
    files = [p for part in parts for p in (folder / part).glob("*.safetensors")]
    counts = [_elements(path) for path in files]
    return sum(counts) if counts and 0 not in counts else None


def _elements(path: Path) -> int:
    """Number of elements in a safetensors file, 0 if it is none."""
    try:
        return sum(math.prod(shape) for shape in tensor_shapes(path).values())
    except DataError:
        return 0


EXPORT: StageSpec = StageSpec(
    name="export",
    help="write the trained model as a diffusers folder",
    branches=("export",),
    needs_extra=lambda _: "train",
    build=export_stage,
    needs=("train",),
    check=require_exportable,
    estimate=estimate,
)
