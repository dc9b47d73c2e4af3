"""Quarantined images of a shard: a shard of their own, to look at."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType

from sarhpc.generation.finishing import FinishedImage
from sarhpc.shards.sample import Sample, encode_json, sample_key
from sarhpc.shards.writer import ShardSummary, ShardWriter, open_shard


class QuarantineShard:
    """A shard of samples as of the corpus, with reasons and values in `gate` of `meta.json`.

    Their keys count the quarantined images; `gate.key` is that of the image in whose place they
    would have been. Without such images there is no shard. It is published when the block ends, or
    by `publish`; not, if the block ends in an exception.

    Args:
        path: of the tar.
        shard: number of the shard of the corpus.
    """

    def __init__(self, path: Path, shard: int) -> None:
        self.path = path
        self._shard = shard
        self._count = 0
        self._opened = contextlib.ExitStack()
        self._writer: ShardWriter | None = None

    def add(self, image: FinishedImage) -> None:
        """Write an image that was refused."""
        assert image.sample is not None
        if self._writer is None:
            self._writer = self._opened.enter_context(open_shard(self.path))
        sample, key = image.sample, sample_key(self._shard, self._count)
        meta = sample.meta
        meta |= {"key": key, "gate": {**meta["gate"], "key": sample.key}}
        self._writer.add(Sample(key, {**sample.members, "meta.json": encode_json(meta)}))
        self._count += 1

    def publish(self) -> ShardSummary | None:
        """Publish the shard and return its summary; None where nothing was quarantined."""
        self._opened.close()
        return None if self._writer is None else self._writer.summary

    def __enter__(self) -> QuarantineShard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.__exit__(kind, error, trace)
