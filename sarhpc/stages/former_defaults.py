"""Defaults of earlier versions, with which older runs are frozen."""

from __future__ import annotations

import copy
from typing import Any

from sarhpc.captioning.config import BLIP_MODEL
from sarhpc.stages.config import RunConfig

BLIP = "Salesforce/blip-image-captioning-base"
FORMER: tuple[tuple[str, str, Any, Any], ...] = (
    ("caption", "model", BLIP, BLIP_MODEL),
    ("caption_train", "base_model", BLIP, BLIP_MODEL),
    ("train", "base_model", "runwayml/stable-diffusion-v1-5", "fetched:sd15"),
    ("train", "loader_threads", 2, None),
)
"""Branch and name of a setting, its former and its present default."""


def with_defaults_of(existing: RunConfig, config: RunConfig) -> RunConfig:
    """`config` with the former default wherever `existing` has it and `config` the present one.

    The file that an older run was made from asks for the same run as before.
    """
    kept = copy.deepcopy(config)
    for branch, name, former, present in FORMER:
        then: Any = getattr(existing, branch)
        now: Any = getattr(kept, branch)
        if None not in (then, now) and (getattr(then, name), getattr(now, name)) == (
            former,
            present,
        ):
            setattr(now, name, former)
    return kept
