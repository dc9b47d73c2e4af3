"""Who keeps the others waiting."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from hpc.job.agreement import SingleProcess
from hpc.job.stragglers import PaceTable, rank_paces


def test_a_rank_straggles_when_it_is_slower_by_factor_and_by_time() -> None:
    paces = [("n1", 0.20), ("n1", 0.21), ("n2", 0.30), ("n2", 0.19)]
    assert [pace.straggles for pace in rank_paces(paces, 1.3, 0.01)] == [False, False, True, False]
    assert rank_paces(paces, 1.3, 0.01)[2].ratio == pytest.approx(1.463, abs=0.001)
    assert not any(pace.straggles for pace in rank_paces(paces, 1.3, 0.2))
    assert not any(pace.straggles for pace in rank_paces([("n1", 0.0)] * 2, 1.3, 0.0))


def test_the_table_is_published_every_so_many_steps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class FourRanks(SingleProcess):
        def gather(self, value):  # type: ignore[no-untyped-def]
            return [value, ("n1", 0.1), ("n2", 0.5), ("n2", 0.1)]

    path = tmp_path / "pace.json"
    table = PaceTable(FourRanks(), path, every=3)
    caplog.set_level(logging.WARNING)
    for step in range(1, 3):
        assert table.note(step, 0.1) == []
    assert not path.exists()
    assert [pace.rank for pace in table.note(3, 0.1) if pace.straggles] == [2]
    document = json.loads(path.read_text())
    assert document["step"] == 3
    assert [row["host"] for row in document["ranks"]][1:] == ["n1", "n2", "n2"]
    assert "straggler rank=2 host=n2" in caplog.text
