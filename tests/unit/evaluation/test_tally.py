from __future__ import annotations

import numpy as np
import pytest

from sarhpc.evaluation.tally import EvenSample, Histogram, Tally, Warnings


@pytest.mark.parametrize("seen", [0, 1, 9, 10, 19, 20, 21, 1000, 12345])
def test_an_even_sample_keeps_enough_and_never_more_than_twice_that(seen: int) -> None:
    sample = EvenSample[int](10)
    for number in range(seen):
        sample.offer(number)
    assert min(seen, 10) <= len(sample.items) <= 20
    steps = set(np.diff(sample.items).tolist())
    assert len(steps) <= 1
    assert sample.seen == seen


def test_a_tally_stays_bounded_and_says_so() -> None:
    tally = Tally(most=3)
    for value in "aabbbcddde":
        tally.add(value)
    assert tally.ranked(2) == [("b", 3), ("a", 2), ("others", 5)]
    assert (tally.total, tally.distinct) == (10, "more than 3")


def test_a_spread_counts_what_lies_outside_at_its_ends() -> None:
    spread = Histogram([0.0, 1.0, 2.0])
    for value in (-5.0, 0.5, 1.0, 9.0):
        spread.add(value)
    assert spread.counts == [2, 2]
    assert (spread.least, spread.most, spread.mean) == (-5.0, 9.0, 1.375)


def test_remarks_name_the_first_places_and_count_the_rest() -> None:
    warnings = Warnings(examples=2)
    for place in "abcd":
        warnings.add("torn", place)
    warnings.add("empty", "z")
    assert warnings.lines() == ["torn: a, b and 2 more", "empty: z"]
