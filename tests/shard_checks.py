"""What a whole shard has to keep."""

from __future__ import annotations

from pathlib import Path

from hpc.errors import DataError
from sarhpc.shards.reader import read_shard
from sarhpc.shards.schema import validate_sample


def validate_shard(path: Path) -> int:
    """Number of samples of a shard, all of which keep the schema."""
    count = 0
    for sample in read_shard(path):
        try:
            validate_sample(sample)
        except DataError as error:
            raise AssertionError(f"{path}: {error}") from error
        count += 1
    return count
