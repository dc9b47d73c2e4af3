"""Planned against achieved: how many images of each level a corpus has."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.generation.prompts.images import opened

COVERAGE_SCHEMA = "sarhpc.coverage/1"
MOST_LEVELS = 60
"""A field of more levels, such as an identifier, is not counted level by level."""
_BATCH = 65_536


@dataclass(frozen=True)
class Coverage:
    """Counts of a corpus by field and level, as planned and as achieved."""

    planned: int
    achieved: int
    prompts: int
    """Distinct prompts that are planned."""
    most_of_a_prompt: int
    """Images of the prompt that most are planned of."""
    fields: Mapping[str, Mapping[str, tuple[int, int]]]
    """Field -> level -> planned and achieved images."""

    def to_json(self) -> dict[str, Any]:
        """The counts as they are published."""
        fields = {
            name: {
                level: {"planned": planned, "achieved": achieved}
                for level, (planned, achieved) in levels.items()
            }
            for name, levels in self.fields.items()
        }
        return {"schema": COVERAGE_SCHEMA, **vars(self), "fields": fields}


def coverage_of(path: Path, achieved: NDArray[np.bool_]) -> Coverage:
    """Planned against achieved for the planned images at `path`.

    Args:
        path: the planned images.
        achieved: for each of them whether the corpus has it.

    Raises:
        VerificationError: the file is missing or damaged, or has other images.
    """
    planned: Counter[str] = Counter()
    made: Counter[str] = Counter()
    prompts: Counter[str] = Counter()
    first = 0
    with opened(path) as file:
        for batch in file.iter_batches(_BATCH, columns=["prompt", "labels"]):
            labels = batch.column("labels").to_pylist()
            prompts.update(batch.column("prompt").to_pylist())
            planned.update(labels)
            present = achieved[first : first + len(labels)].tolist()
            made.update(text for text, there in zip(labels, present, strict=True) if there)
            first += len(labels)
    return Coverage(
        planned=planned.total(),
        achieved=made.total(),
        prompts=len(prompts),
        most_of_a_prompt=max(prompts.values(), default=0),
        fields=_by_level(planned, made),
    )


def _by_level(planned: Counter[str], made: Counter[str]) -> dict[str, dict[str, tuple[int, int]]]:
    fields: dict[str, dict[str, tuple[int, int]]] = {}
    for text, count in planned.items():
        for name, level in json.loads(text).items():
            levels = fields.setdefault(name, {})
            before = levels.get(str(level), (0, 0))
            levels[str(level)] = (before[0] + count, before[1] + made[text])
    return {
        name: dict(sorted(levels.items()))
        for name, levels in sorted(fields.items())
        if len(levels) <= MOST_LEVELS
    }
