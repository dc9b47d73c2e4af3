from __future__ import annotations

import pytest

from sarhpc.shards.subset import spread


def test_a_subset_comes_evenly_from_the_whole_sequence() -> None:
    assert spread(range(100), 4) == [12, 37, 62, 87]
    assert spread(range(3), 8) == [0, 1, 2]
    assert spread(range(7), 7) == list(range(7))
    assert spread(range(7), 0) == spread([], 3) == []


@pytest.mark.parametrize("size", [0, 1, 3, 10, 20, 12345])
def test_a_subset_has_no_item_twice_and_keeps_their_order(size: int) -> None:
    chosen = spread(range(size), 4)
    assert len(chosen) == min(size, 4)
    assert sorted(set(chosen)) == chosen
