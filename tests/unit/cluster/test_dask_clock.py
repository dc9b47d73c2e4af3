"""A cluster whose nodes' clocks differ, or are set while it works."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import distributed.batched
import pytest

from hpc.cluster.certificate import Credentials
from hpc.cluster.dask import _await_scheduler_file, _write_scheduler_file, dask_setup


@pytest.mark.parametrize("ahead_s", [0.0, 130.0, -130.0])
def test_a_worker_that_joins_has_the_time_that_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    path, real = tmp_path / "scheduler-12-0.json", time.time
    credentials = Credentials(*(tmp_path / name for name in ("ca", "cert", "key")))
    _write_scheduler_file(path, "tls://127.0.0.1:1", credentials, real() + 100)
    monkeypatch.setattr(time, "time", lambda: real() + ahead_s)
    document = _await_scheduler_file(path, lambda: False, 1.0)
    assert document is not None
    assert document["ends"] - time.time() == pytest.approx(100, abs=5)
    assert document["address"] == "tls://127.0.0.1:1"


class _Sent(list[Any]):
    """A connection that records what is sent."""

    async def write(self, messages: list[Any], **options: Any) -> int:
        self.extend(messages)
        return 1

    def closed(self) -> bool:
        return False

    def abort(self) -> None:
        """Nothing is left to send."""


def test_messages_of_a_cluster_are_not_held_back_when_the_clock_is_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    back = [0.0]
    monkeypatch.setattr(distributed.batched, "time", lambda: time.time() - back[0])
    monkeypatch.setattr("hpc.cluster.dask.ignore_stop_signals", lambda: None)
    dask_setup(None)

    async def send() -> list[Any]:
        sent, sender = _Sent(), distributed.batched.BatchedSend(interval="10ms")
        sender.start(sent)
        for number in range(20):
            back[0] = 7200.0 * (number > 3)
            sender.send(number)
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.1)
        sender.abort()
        return list(sent)

    assert asyncio.run(send()) == list(range(20))
