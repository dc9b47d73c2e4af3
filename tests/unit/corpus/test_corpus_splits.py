from __future__ import annotations

from collections import Counter

from corpora import corpus_of, generated

from sarhpc.corpus.index import read_index
from sarhpc.corpus.splits import split_group, split_of


def test_four_fifths_train_and_a_tenth_each_validates_and_tests():
    counts = Counter(split_of(f"image {number}") for number in range(10_000))
    assert 7_800 < counts["train"] < 8_200
    assert 900 < counts["val"] < 1_100
    assert 900 < counts["test"] < 1_100


def test_images_of_one_layout_are_in_one_split(tmp_path):
    """With and without a target, or four seeds of one conditioning layer: never in two splits."""
    pairs = [
        generated(0, i, labels={"pair_id": i // 2, "target": "truck" if i % 2 else "none"})
        for i in range(199)
    ]
    steered = [
        generated(1, index, steered_by={"layer": "edges", "sha256": f"layer {index // 4}"})
        for index in range(200)
    ]
    corpus = corpus_of(tmp_path, pairs, steered)
    rows = list(read_index(corpus.index))
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["split_group"], set()).add(row["split"])
    assert len(splits) == 150
    assert all(len(found) == 1 for found in splits.values())
    assert [row["target"] for row in rows[:2]] == ["none", "truck"]
    card = corpus.card.read_text()
    assert (
        "| pairs with and without a target | 99 |\n| pairs that lack one of the two | 1 |" in card
    )


def test_the_split_does_not_depend_on_the_number_of_the_shard():
    """The same image in a corpus of other shard sizes, with another key."""
    one, other = generated(0, 9, prompt="a lake", seed=9), generated(3, 1, prompt="a lake", seed=9)
    assert one.key != other.key
    assert split_group(one.meta) == split_group(other.meta)
    assert split_group(one.meta) != split_group(generated(0, 9, prompt="a lake", seed=8).meta)
