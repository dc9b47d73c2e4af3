"""E12 as parts of an evaluation: the networks to train, of the sets of a run or of any two sets."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.errors import DataError
from hpc.store.rundir import RunDir
from sarhpc.stages.inputs.named_sets import named_set, set_of_records
from sarhpc.stages.work.sharded import sealed_records

if TYPE_CHECKING:
    from sarhpc.evaluation.config import EvaluateConfig
    from sarhpc.evaluation.image_sets import ImageSet
    from sarhpc.evaluation.use.data import UseData, UseInputs, UsePlan

USE = "use"
"""Name of the measure: of its block, and of the folder of what its parts publish."""
NOT_INSTALLED = "it needs torch: pip install 'sarhpc[caption]'"


def fits_planned(plan: UsePlan, common: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Inputs of the parts, one for each network.

    Raises:
        UnusableSetsError: every share has fewer labels than there are classes, or the land cover
            of the sets has no two classes in common.
    """
    from sarhpc.evaluation.use.config import SEGMENTATION
    from sarhpc.evaluation.use.data import read_use
    from sarhpc.evaluation.use.settings import fits_of

    if plan.inputs.config.task == SEGMENTATION:
        # Which classes there are is known by the pixels alone.
        read_use(plan)
    return [{USE: {**one.to_json(), **common}} for one in fits_of(plan.inputs.config, plan.split)]


def plan_of_run(run: RunDir) -> UsePlan:
    """The labelled images of a run: its captioned tiles, and its corpus.

    Raises:
        DataError: nothing can be learned from them, and why.
    """
    from sarhpc.evaluation.use.data import plan_use
    from sarhpc.stages.run_config import load_run_config

    config = load_run_config(run).evaluate
    sets = [
        set_of_records(f"the {role} set", sealed_records(run, stage))
        for role, stage in (("real", "caption"), ("synthetic", "generate"))
    ]
    return plan_use(_inputs(sets[0], sets[1], config, one_law=True))


def plan_of_sets(real: Path, synthetic: Path, config: EvaluateConfig) -> UsePlan:
    """The labelled images of two sets on disk.

    Raises:
        DataError: nothing can be learned from them, and why.
    """
    from sarhpc.evaluation.use.data import plan_use

    sets = named_set(real, "real"), named_set(synthetic, "synthetic")
    return plan_use(_inputs(*sets, config, one_law=False))


def common_of_sets(real: Path, synthetic: Path, config: EvaluateConfig) -> dict[str, Any]:
    """What each part of two sets names beside its network, so that a worker finds the images."""
    return {"real": str(real), "synthetic": str(synthetic), "config": asdict(config)}


def fit_one(inputs: Mapping[str, Any], target: Path, run: RunDir | None) -> int:
    """Train one network and publish its result; the number of images that it was tested on.

    Args:
        inputs: of the part.
        target: where to publish.
        run: whose sets they are; None where the part names two sets.

    Raises:
        DataError: an image cannot be read.
    """
    from sarhpc.evaluation.use.part import fit_part
    from sarhpc.evaluation.use.settings import FitSettings

    asked = inputs[USE]
    if run is None:
        names = {key: asked[key] for key in ("real", "synthetic", "config")}
        plan, data = _data_of_sets(json.dumps(names, sort_keys=True))
    else:
        plan, data = _data_of_run(str(run.root))
    return fit_part(FitSettings.from_json(asked), plan, data, target)


def use_block(paths: Sequence[Path], config: EvaluateConfig) -> tuple[dict[str, Any], list[str]]:
    """The block of the result, and its lines, from what the parts published."""
    from sarhpc.evaluation.use.part import read_fits
    from sarhpc.evaluation.use.result import combine

    fits = read_fits(paths)
    found = combine(fits[0]["facts"], fits, seed=config.seed)
    return found.to_json(), found.lines()


def left_out_block(reason: str) -> tuple[dict[str, Any], list[str]]:
    """The block and its line where the measure was asked for and cannot be made."""
    from sarhpc.evaluation.use.result import USE_SCHEMA

    return {"schema": USE_SCHEMA, "reason": reason}, [f"E12 was left out: {reason}."]


@functools.lru_cache(maxsize=1)
def _data_of_run(root: str) -> tuple[UsePlan, UseData]:
    from sarhpc.evaluation.use.data import read_use

    plan = plan_of_run(RunDir(Path(root)))
    return plan, read_use(plan)


@functools.lru_cache(maxsize=1)
def _data_of_sets(names: str) -> tuple[UsePlan, UseData]:
    from hpc.config import loads
    from sarhpc.evaluation.config import EvaluateConfig
    from sarhpc.evaluation.use.data import read_use

    asked = json.loads(names)
    config = loads(EvaluateConfig, json.dumps(asked["config"]))
    plan = plan_of_sets(Path(asked["real"]), Path(asked["synthetic"]), config)
    return plan, read_use(plan)


def _inputs(
    real: ImageSet, synthetic: ImageSet, config: EvaluateConfig, *, one_law: bool
) -> UseInputs:
    from sarhpc.archive.procedural.config import LABELS
    from sarhpc.evaluation.use.data import UseInputs

    if not len(real) or not len(synthetic):
        raise DataError("a set has no images")
    return UseInputs(
        real, synthetic, config.use, config.real_splits, _class_of, dict(enumerate(LABELS)),
        config.seed, one_law,
    )  # fmt: skip


def _class_of(meta: Mapping[str, Any]) -> str | None:
    """Land cover of a tile by its truth, or what a generated image was asked to show."""
    from sarhpc.stages.inputs.prompts import asked_class, land_cover

    return asked_class(meta) or land_cover(dict(meta))
