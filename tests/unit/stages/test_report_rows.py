"""Rows of the report are named after the tiles that they are of."""

from __future__ import annotations

import pytest

from sarhpc.shards.sample import Sample
from sarhpc.stages.run_report import SYNTHETIC, of_the_same_prompts, real_row


@pytest.mark.parametrize("splits", [["train"], ["val", "train"]])
def test_tiles_that_the_classifier_learned_from_are_not_called_held_out(splits: list[str]) -> None:
    assert "held out" not in real_row(splits)
    assert real_row(["val", "test"]) == "real, held out"


def test_images_beside_each_other_share_a_prompt_where_a_gate_left_some_out() -> None:
    def samples(*prompts: str) -> list[Sample]:
        return [Sample(f"{n}", {"txt": text.encode()}) for n, text in enumerate(prompts)]

    corpus = samples("lake", "wood", "lake", "town")
    others = samples("lake", "field", "wood", "town", "lake")
    shown = of_the_same_prompts({SYNTHETIC: corpus, "base": others}, 3)
    assert [sample.caption for sample in shown[SYNTHETIC]] == ["lake", "wood", "lake"]
    assert [sample.key for sample in shown["base"]] == ["0", "2", "4"]
    apart = of_the_same_prompts({SYNTHETIC: corpus, "base": samples("sea")}, 3)
    assert [len(group) for group in apart.values()] == [3, 1]
