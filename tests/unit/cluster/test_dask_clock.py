"""Workers that join from a node with another clock stay as long as those of rank 0."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hpc.cluster.certificate import Credentials
from hpc.cluster.dask import _await_scheduler_file, _write_scheduler_file


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
