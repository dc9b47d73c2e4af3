"""How often each row of a prompt table is used: counts that a corpus user relies on."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc.errors import ConfigError
from sarhpc.generation.prompts.config import PromptTableConfig
from sarhpc.generation.prompts.coverage import covered_fields, image_counts
from sarhpc.generation.prompts.order import image_order
from sarhpc.generation.prompts.row import PromptRow
from sarhpc.generation.prompts.table import PromptTable, build_table

FIELDS = ("class", "season", "band")


def product_table(sizes: Sequence[int], prompts: int = 1) -> PromptTable:
    """A table with `prompts` rows for every combination of levels."""
    levels = [[f"{name}{n}" for n in range(size)] for name, size in zip(FIELDS, sizes, strict=True)]
    chosen = itertools.product(*levels, range(prompts))
    rows = [
        PromptRow(f"a scene of {' '.join(map(str, combination))}", line,
                  labels=dict(zip(FIELDS, combination, strict=False)))
        for line, combination in enumerate(chosen, 1)
    ]  # fmt: skip
    return build_table(rows, "t.csv")


def totals(table: PromptTable, counts: Sequence[int], name: str) -> Counter[object]:
    found: Counter[object] = Counter()
    for level, count in zip(table.labels[name], counts, strict=True):
        found[level] += count
    return found


def spread(numbers: Sequence[int]) -> int:
    return max(numbers) - min(numbers)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)),
    prompts=st.integers(1, 3),
    total=st.integers(1, 400),
    seed=st.integers(0, 2**40),
)
def test_balanced_levels_and_combinations_differ_by_one_image_at_most(
    sizes: tuple[int, int, int], prompts: int, total: int, seed: int
) -> None:
    table = product_table(sizes, prompts)
    cfg = PromptTableConfig(coverage="balanced")
    counts = image_counts(table, cfg, FIELDS, total, seed)
    assert counts.sum() == total
    for name in FIELDS:
        assert spread(list(totals(table, counts.tolist(), name).values())) <= 1
    cells = counts.reshape(-1, prompts)
    assert spread(cells.sum(axis=1).tolist()) <= 1
    assert all(spread(cell.tolist()) <= 1 for cell in cells)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)),
    total=st.integers(1, 300),
    seed=st.integers(0, 2**40),
)
def test_a_latin_hypercube_has_each_level_of_each_field_equally_often(
    sizes: tuple[int, int, int], total: int, seed: int
) -> None:
    table = product_table(sizes)
    cfg = PromptTableConfig(coverage="latin_hypercube")
    counts = image_counts(table, cfg, FIELDS, total, seed)
    assert counts.sum() == total
    for name in FIELDS:
        assert spread(list(totals(table, counts.tolist(), name).values())) <= 1
    again = image_counts(table, cfg, FIELDS, total, seed)
    assert again.tolist() == counts.tolist()


@settings(max_examples=80, deadline=None)
@given(
    weights=st.lists(st.floats(0, 1e300), min_size=1, max_size=12),
    total=st.integers(1, 200),
    most=st.none() | st.integers(1, 60),
)
def test_weighted_counts_are_proportional_within_one_image_unless_limited(
    weights: list[float], total: int, most: int | None
) -> None:
    rows = [PromptRow(f"p{n}", n, weight) for n, weight in enumerate(weights, 1)]
    table = build_table(rows, "t.csv")
    cfg = PromptTableConfig(max_per_prompt=most)
    positive = sum(weight > 0 for weight in weights)
    if positive == 0:
        return
    if most is not None and positive * most < total:
        with pytest.raises(ConfigError, match="max_per_prompt"):
            image_counts(table, cfg, [], total, 0)
        return
    counts = image_counts(table, cfg, [], total, 0)
    assert counts.sum() == total
    assert counts.max() <= (most or total)
    assert all(count == 0 for count, weight in zip(counts, weights, strict=True) if weight == 0)
    if most is None:
        whole = sum(weight / max(weights) for weight in weights)
        share = [total * (weight / max(weights) / whole) for weight in weights]
        assert np.abs(counts - share).max() <= 1


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 3), st.just(1)),
    weights=st.lists(st.floats(0.1, 10), min_size=4, max_size=4),
    total=st.integers(1, 300),
)
def test_levels_of_the_first_field_have_their_share_whatever_the_rows_are(
    sizes: tuple[int, int, int], weights: list[float], total: int
) -> None:
    table = product_table(sizes, prompts=3)
    level_weights = {f"class{n}": weight for n, weight in enumerate(weights)}
    for row, name in enumerate(table.labels["class"]):
        table.weights[row] = level_weights[str(name)]
    counts = image_counts(table, PromptTableConfig(), FIELDS, total, 0)
    assert counts.sum() == total
    whole = sum(weights[: sizes[0]])
    for name, count in totals(table, counts.tolist(), "class").items():
        assert abs(count - total * level_weights[str(name)] / whole) < 1


def test_counts_of_a_table_are_used_as_they_are() -> None:
    rows = [PromptRow(f"p{n}", n + 1, weight) for n, weight in enumerate([3.0, 0.0, 5.0])]
    table = build_table(rows, "t.csv", counted=True)
    assert image_counts(table, PromptTableConfig(), [], 8, 0).tolist() == [3, 0, 5]
    with pytest.raises(
        ConfigError, match=r"t\.csv line 3: count is 5, and max_per_prompt allows 4"
    ):
        image_counts(table, PromptTableConfig(max_per_prompt=4), [], 8, 0)


def test_a_limit_that_would_break_the_balance_is_told_with_the_combination() -> None:
    table = product_table((2, 1, 1), prompts=2)
    cfg = PromptTableConfig(coverage="balanced", max_per_prompt=3)
    assert image_counts(table, cfg, ["class"], 12, 0).tolist() == [3, 3, 3, 3]
    with pytest.raises(ConfigError, match=r"7 images of class=class\d .* 2 prompts allow 6"):
        image_counts(table, cfg, ["class"], 14, 0)


def test_rows_of_one_prompt_share_what_it_may_have() -> None:
    rows = [PromptRow("a lake", n, seed=n) for n in range(3)]
    table = build_table([*rows, PromptRow("a wood", 9)], "t.csv")
    counts = image_counts(table, PromptTableConfig(max_per_prompt=6), [], 12, 0)
    assert counts.tolist() == [2, 2, 2, 6]
    with pytest.raises(ConfigError, match=r"max_per_prompt is 2, and 3 rows"):
        image_counts(table, PromptTableConfig(max_per_prompt=2), [], 4, 0)


def test_levels_without_a_row_cannot_be_combined_freely() -> None:
    table = build_table(
        [PromptRow("a", 1, labels={"x": 1, "y": 1}), PromptRow("b", 2, labels={"x": 2, "y": 2})],
        "t.csv",
    )
    cfg = PromptTableConfig(coverage="latin_hypercube")
    with pytest.raises(ConfigError, match=r"t\.csv has no row with x=\d y=\d.*coverage=balanced"):
        image_counts(table, cfg, ["x", "y"], 50, 1)


def test_an_identifier_of_each_row_is_no_field_to_cover() -> None:
    rows = [PromptRow(f"p{n}", n, labels={"id": n}) for n in range(20_001)]
    with pytest.raises(ConfigError, match=r"by: id of t\.csv have 20,001 combinations"):
        image_counts(
            build_table(rows, "t.csv"), PromptTableConfig(coverage="balanced"), ["id"], 9, 0
        )


def test_fields_to_cover_are_labels_of_the_table() -> None:
    table = product_table((2, 2, 1))
    cfg = PromptTableConfig(coverage="balanced", by=["clas"])
    with pytest.raises(ConfigError, match=r"no label clas; its labels are: class, season, band"):
        covered_fields(table, cfg, ["class"])
    with pytest.raises(ConfigError, match="name the labels"):
        covered_fields(table, PromptTableConfig(coverage="balanced"), ["kind"])
    assert covered_fields(table, PromptTableConfig(coverage="balanced"), ["class"]) == ["class"]


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 3), st.just(1)),
    each=st.integers(1, 4),
    seed=st.integers(0, 2**40),
)
def test_any_first_part_of_the_corpus_covers_the_combinations_alike(
    sizes: tuple[int, int, int], each: int, seed: int
) -> None:
    table = product_table(sizes, prompts=2)
    cells = sizes[0] * sizes[1]
    counts = np.full(len(table), each)
    rows, repetitions = image_order(table, counts, FIELDS[:2], seed)
    assert Counter(zip(rows.tolist(), repetitions.tolist(), strict=True)) == Counter(
        itertools.product(range(len(table)), range(each))
    )
    for part in range(cells, len(rows) + 1, cells):
        found = Counter((rows[:part] // 2).tolist())
        assert set(found.values()) == {part // cells}


def test_the_order_depends_on_the_seed_alone() -> None:
    table = product_table((3, 2, 1), prompts=4)
    counts = np.full(len(table), 2)
    first, again, other = (
        image_order(table, counts, FIELDS, seed)[0].tolist() for seed in (5, 5, 6)
    )
    assert first == again != other
    assert first[:8] == [14, 11, 3, 22, 18, 5, 13, 9], "the same in every version"
