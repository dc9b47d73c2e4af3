"""Shards by the name of a file, a folder, a corpus or a stage of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc.errors import ConfigError, DataError
from hpc.store.rundir import open_run
from sarhpc.shards.dataset import Dataset, shard_dataset
from sarhpc.shards.sample import SPLITS


def open_dataset(
    source: str | Path | Sequence[str | Path], split: str | None = None, *, decode: bool = True
) -> Dataset:
    """A `webdataset.WebDataset` over shards: samples as dictionaries, in order, decoded.

    It is an iterable data set of PyTorch where that is installed, and takes `shuffle`, `map`,
    `batched` and so on.

    Args:
        source: a tar, some of them, a folder of shards, the folder of a corpus, or a stage of a
            run such as `RUN/generate`.
        split: `train`, `val` or `test`; None for all samples.
        decode: whether members become arrays, values and text; else they stay bytes.

    Raises:
        ConfigError: there is nothing, or no such split.
        DataError: there are no shards.
    """
    if split is not None and split not in SPLITS:
        raise ConfigError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    if isinstance(source, str | Path):
        return _opened(Path(source), split, decode)
    return shard_dataset([Path(path) for path in source], decode=decode)


def _opened(source: Path, split: str | None, decode: bool) -> Dataset:
    from sarhpc.corpus.index import INDEX

    if split is not None and (source / INDEX).is_file():
        return _split_of_corpus(source, split, decode)
    paths = shards_of(source)
    if split is not None:
        paths = [path for path in paths if path.parent.name == split]
        if not paths:
            raise DataError(f"{source} has no shards of the split {split}")
    return shard_dataset(paths, decode=decode)


def shards_of(source: Path) -> list[Path]:
    """The tars of a file, a folder, or a stage of a run whose records prove them.

    Raises:
        ConfigError: nothing is there, or it is a run and not a stage of one.
        DataError: there are no shards.
    """
    if not source.exists():
        raise ConfigError(f"{source} does not exist; name a shard, or a folder of some")
    if source.is_file():
        return [source]
    if (source / "run.json").is_file():
        stages = "/tile, /caption or /generate"
        raise ConfigError(f"{source} is a run: name a stage of it, {source}{stages}")
    if (source.parent / "run.json").is_file() and (source / "plan.json").is_file():
        from sarhpc.stages.work.sharded import sealed_records

        records = sealed_records(open_run(source.parent), source.name)
        return [Path(record.path) for record in records if record.samples]
    found = sorted(path for path in source.rglob("*.tar") if not path.name.startswith("."))
    if not found:
        raise DataError(f"{source} holds no shards (.tar files)")
    return found


def _split_of_corpus(corpus: Path, split: str, decode: bool) -> Dataset:
    """The samples of one split of a corpus, by its index: its shards mix splits."""
    from sarhpc.corpus.reading import rows_by_shard

    rows = [row for _, rows in rows_by_shard(corpus) for row in rows if row["split"] == split]
    paths = [corpus / name for name in dict.fromkeys(row["shard"] for row in rows)]
    if not paths:
        raise DataError(f"{corpus} has no images of the split {split}")
    keys = {row["key"] for row in rows}

    def is_of_split(sample: dict[str, Any]) -> bool:
        return sample["__key__"] in keys

    return shard_dataset(paths, decode=decode).select(is_of_split)
