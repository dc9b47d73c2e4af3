"""Contracts of models and of the tiles of a run: read, derived, and compared."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.errors import ConfigError, DataError
from hpc.shell import quoted
from hpc.store.plan import Plan, read_plan
from hpc.store.rundir import RunDir
from sarhpc.generation.config import GenerateConfig
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.paths import model_folder
from sarhpc.stages.inputs.prompts import TRAIN_SPLITS, held_out_splits, sample_shards
from sarhpc.stages.work.sharded import sealed_records

if TYPE_CHECKING:
    from sarhpc.shards.contract import PixelContract

log = logging.getLogger(__name__)


def contract_of_training(run: RunDir, config: RunConfig) -> PixelContract | None:
    """The contract of what a run trains on; None for images that show no radar.

    None too, with a warning, where the tiles can no longer be read: the model is there, and its
    contract can be written later.
    """
    from sarhpc.shards.tile_contract import contract_of_shards

    if config.train.image_member != "sar.png":
        return None
    try:
        return contract_of_shards(sample_shards(run, TRAIN_SPLITS))
    except DataError as error:
        log.warning("the model is exported without a contract: %s", error)
        return None


def contract_for(model: Path, cfg: GenerateConfig) -> PixelContract | None:
    """The contract of a model that images are planned with; None, with a warning, without one.

    Raises:
        DataError: it cannot be read.
        ConfigError: it is of another spacing than `cfg.pixel_m` demands, or does not hold the
            settings of the sweep.
    """
    from sarhpc.generation.sweeps.checks import require_contract
    from sarhpc.shards.contract import only, read_contract

    contract = read_contract(model)
    require_contract(cfg, contract, missing(model))
    if cfg.homogeneous_areas is not None and (contract is None or contract.law is None):
        raise ConfigError(
            f"{cfg.SECTION}.homogeneous_areas needs the intensity of pixels, which "
            + (missing(model) if contract is None else f"the contract of {model} does not state")
        )
    if contract is None:
        log.warning("%s", missing(model))
        return None
    spacing = only(contract.pixel_m)
    # The default says nothing: it stood in configurations before models had contracts.
    demanded = None if cfg.pixel_m == GenerateConfig.pixel_m else cfg.pixel_m
    if spacing is not None and demanded is not None and spacing != demanded:
        raise ConfigError(
            f"{cfg.SECTION}.pixel_m={demanded:g}, but by its contract the pixels of {model} are of "
            f"{spacing:g} m: leave {cfg.SECTION}.pixel_m out, or take another model"
        )
    return contract


def missing(model: str | Path) -> str:
    """What a model without a contract means for its images, and how to write one."""
    return (
        f"{model} has no contract: its images carry no spacing, no direction of range, no "
        "calibration (null in meta.json) and no 16-bit master. If you have the tiles that it was "
        "trained on, write one before images are planned: "
        f"sarhpc contract {quoted(model)} --tiles FOLDER"
    )


def models_without_contract(run: RunDir, config: RunConfig, stages: Collection[str]) -> list[str]:
    """Lines about the models without a contract that `stages` are still to be planned with.

    Raises:
        DataError: a contract cannot be read.
    """
    from sarhpc.shards.contract import read_contract

    open_stages = [stage for stage in stages if not run.plan_file(stage).exists()]
    folders = []
    if "generate" in open_stages and run.ledger("export").sealed:
        folders += [Path(record.path) for record in sealed_records(run, "export")]
    if "compare" in open_stages:
        folders += [Path(model_folder(name)) for name in config.compare.models.values()]
    return [missing(folder) for folder in folders if read_contract(folder) is None]


def contract_notes(plan: Plan | None) -> list[str]:
    """Lines of a dry run about contracts that a plan does not carry."""
    found = []
    for task in () if plan is None else plan.shards:
        if "contract" not in task.inputs:
            found.append("planned before contracts: the rest is made as the beginning was")
        elif task.inputs["contract"] is None:
            found.append(f"warning: {missing(task.inputs['model'])}")
    return list(dict.fromkeys(found))


def contract_of_corpus(run: RunDir, stage: str = "generate") -> PixelContract | None:
    """The contract that the images of a run were planned with; None without one."""
    return next(iter(_planned(run, stage).values()), None)


def pixel_facts(contract: PixelContract | None) -> dict[str, str]:
    """What a pixel of a corpus means, as rows of a report."""
    from sarhpc.shards.contract import describe

    if contract is None:
        return {"a pixel means": "not known: the model has no contract"}
    rows = describe(contract)
    return {name: rows[name] for name in ("normalisation", "calibration", "pixel", "plane")}


def other_pixels(run: RunDir, config: RunConfig) -> list[str]:
    """Sets whose pixels mean something else than those of the held-out tiles, in words."""
    from sarhpc.shards.contract import differences
    from sarhpc.shards.tile_contract import contract_of_shards

    splits = held_out_splits(run, config.evaluate.real_splits)
    real = contract_of_shards(sample_shards(run, splits))
    compared = ["compare"] if config.compare.models else []
    sets = {
        name: c for stage in ["generate", *compared] for name, c in _planned(run, stage).items()
    }
    lines = []
    for name, contract in sets.items():
        found = [] if contract is None else differences(contract, real)
        if found:
            lines.append(
                f"Pixels of the set “{name}” mean something else than those of the real tiles, so "
                f"that distances measure that too: {'; '.join(found)}."
            )
    return lines


def _planned(run: RunDir, stage: str) -> dict[str, PixelContract | None]:
    """Contract by set of images, as planned."""
    from sarhpc.generation.pixels import planned_contract

    sets = {task.inputs.get("set", "this run"): task.inputs for task in
            reversed(read_plan(run.plan_file(stage)).shards)}  # fmt: skip
    return {name: planned_contract(inputs) for name, inputs in sets.items()}
