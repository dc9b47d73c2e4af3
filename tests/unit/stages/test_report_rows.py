"""Rows of the report are named after the tiles that they are of."""

from __future__ import annotations

import pytest

from sarhpc.stages.run_report import real_row


@pytest.mark.parametrize("splits", [["train"], ["val", "train"]])
def test_tiles_that_the_classifier_learned_from_are_not_called_held_out(splits: list[str]) -> None:
    assert "held out" not in real_row(splits)
    assert real_row(["val", "test"]) == "real, held out"
