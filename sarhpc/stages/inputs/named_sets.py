"""Sets by what a person names: a run, a stage of a run, a folder, a tar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpc.errors import ConfigError
from hpc.store.ledger import Record
from hpc.store.rundir import open_run
from sarhpc.evaluation.image_sets import ImageSet, list_images, set_of_shards
from sarhpc.stages.work.sharded import sealed_records

OF_RUN = {"real": "caption", "synthetic": "generate"}
"""Role of a set -> the stage of a run that makes it."""
WITH_IMAGES = ("tile", "caption", "generate", "compare")
"""Stages whose shards hold radar images."""


def named_set(path: Path, role: str) -> ImageSet:
    """The set at `path`: the shards of a run for this role or of a stage of it, else images.

    Args:
        path: a run, its folder of a stage, a folder, or a tar.
        role: `real` or `synthetic`.

    Raises:
        ConfigError: a stage that makes no radar images.
        DataError: there are no images, or a tar is cut short or damaged.
        HpcError: the stage is not sealed.
    """
    if (path / "run.json").is_file():
        run = open_run(path)
        return set_of_records(str(path / OF_RUN[role]), sealed_records(run, OF_RUN[role]))
    if path.is_dir() and (path.parent / "run.json").is_file() and (path / "plan.json").is_file():
        if path.name not in WITH_IMAGES:
            raise ConfigError(
                f"{path} is a stage that makes no radar images; name one of "
                f"{', '.join(WITH_IMAGES)} of the run"
            )
        return set_of_records(str(path), sealed_records(open_run(path.parent), path.name))
    return list_images(path)


def set_of_records(name: str, records: Sequence[Record]) -> ImageSet:
    """The set of the shards of these records."""
    filled = [record for record in records if record.samples]
    paths = [record.path for record in filled]
    return set_of_shards(name, paths, [record.samples for record in filled])
