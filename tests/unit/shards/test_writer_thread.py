"""A shard that is written beside its making: the same bytes, or nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc.errors import DataError, TransientError
from sarhpc.shards.sample import Sample
from sarhpc.shards.writer import write_shard
from sarhpc.shards.writer_thread import SAMPLES_WAITING, write_shard_beside


def samples(count: int) -> Iterator[Sample]:
    for index in range(count):
        yield Sample(f"{index:011d}", {"txt": b"a town", "sar.png": bytes([index % 256]) * 5000})


@pytest.mark.parametrize("count", [0, 1, 3 * SAMPLES_WAITING])
def test_the_bytes_are_those_of_a_shard_written_in_turn(tmp_path: Path, count: int) -> None:
    summary = write_shard_beside(tmp_path / "a.tar", samples(count))
    assert summary == write_shard(tmp_path / "b.tar", samples(count))
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


@pytest.mark.parametrize("error", [DataError("no image"), KeyboardInterrupt()])
def test_an_error_among_the_samples_is_raised_and_nothing_is_published(
    tmp_path: Path, error: BaseException
) -> None:
    def failing() -> Iterator[Sample]:
        yield from samples(2)
        raise error

    with pytest.raises(type(error)):
        write_shard_beside(tmp_path / "a.tar", failing())
    assert list(tmp_path.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("write")]


def test_a_writer_that_fails_ends_the_sampling_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SARHPC_FAULT", "shard.mid_write:2:enospc")
    made = []

    def endless() -> Iterator[Sample]:
        for sample in samples(10**6):
            made.append(sample.key)
            yield sample

    with pytest.raises(TransientError, match="no space left"):
        write_shard_beside(tmp_path / "a.tar", endless())
    assert len(made) < 10 * SAMPLES_WAITING
    assert list(tmp_path.iterdir()) == []
