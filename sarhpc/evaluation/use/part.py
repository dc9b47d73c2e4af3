"""One network of E12 as a part of an evaluation: trained, tested, and published as JSON."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hpc.documents import read_json
from hpc.errors import HpcError
from hpc.publish import publish_json
from sarhpc.evaluation.use.data import SYNTHETIC, TEST, TRAIN, UNKNOWN, UseData, UsePlan
from sarhpc.evaluation.use.settings import FitSettings, shares_left_out

log = logging.getLogger(__name__)

FIT_SCHEMA = "sarhpc.use-fit/1"
_CODE = ("fit", "network")
_FREE_BYTES = 2 << 30
"""Memory of a GPU that has to be free: workers of all cores share it."""


def fit_part(settings: FitSettings, plan: UsePlan, data: UseData, target: Path) -> int:
    """Train and test one network and publish what it does at `target`; number of images tested.

    A result of the same images, labels, settings and code is kept as it is.
    """
    digest = _digest(settings, plan, data)
    count = len(data.images[TEST])
    if _published(target).get("input") == digest:
        log.info("kept=%s", target.name)
        return count
    from sarhpc.evaluation.use.fit import fit

    found = fit(data, settings, plan.inputs.config.steps, _device())
    result = {
        "schema": FIT_SCHEMA,
        "input": digest,
        **settings.to_json(),
        **asdict(found),
        "facts": facts_of(plan, data),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    publish_json(target, result)
    return count


def read_fits(paths: Sequence[Path]) -> list[Mapping[str, Any]]:
    """What parts published."""
    return [read_json(path) for path in paths]


def facts_of(plan: UsePlan, data: UseData) -> dict[str, Any]:
    """What the result says of the data, beside the networks."""
    known = data.targets[TEST]
    counts = np.bincount(known[known != UNKNOWN].ravel(), minlength=len(data.classes))
    return {
        "task": plan.inputs.config.task,
        "classes": list(data.classes),
        "images": {part: len(data.images[part]) for part in (TRAIN, TEST, SYNTHETIC)},
        "groups": {part: _groups(data, part) for part in (TEST, SYNTHETIC)},
        "per_class": dict(zip(data.classes, map(int, counts), strict=True)),
        "grouped": data.grouped,
        "notes": list(data.notes),
        "pixels": data.pixels,
        "left_out": {
            f"{share:g}": why
            for share, why in shares_left_out(plan.inputs.config, plan.split).items()
        },
    }


def _groups(data: UseData, part: str) -> int:
    named = data.groups[part]
    return len({*named}) if all(named) else len(named)


def _published(target: Path) -> Mapping[str, Any]:
    try:
        found = read_json(target)
    except (OSError, ValueError, HpcError):
        return {}
    return found if isinstance(found, dict) else {}


def _device() -> str:
    import torch

    if torch.cuda.is_available() and torch.cuda.mem_get_info()[0] > _FREE_BYTES:
        return "cuda"
    return "cpu"


def _digest(settings: FitSettings, plan: UsePlan, data: UseData) -> str:
    found = hashlib.sha256(data.digest().encode())
    found.update(repr((settings, plan.inputs.config.steps, facts_of(plan, data))).encode())
    found.update(_code_digest().encode())
    return found.hexdigest()


@functools.cache
def _code_digest() -> str:
    """SHA-256 of the modules that train: results of others are not taken."""
    digest = hashlib.sha256()
    for name in _CODE:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()
