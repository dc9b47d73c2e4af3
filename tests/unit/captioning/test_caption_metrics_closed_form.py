"""Caption metrics by hand, on captions of a few words."""

from __future__ import annotations

import math

import pytest

from hpc.errors import DataError
from sarhpc.captioning.metrics import bleu, caption_metrics, cider, rouge_l, tokenize


def words(*captions: str) -> list[list[str]]:
    return [caption.split() for caption in captions]


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("It’s a river, isn’t it?", ["it", "'s", "a", "river", "is", "n't", "it"]),
        ("It's a river, isn't it?", ["it", "'s", "a", "river", "is", "n't", "it"]),
        ("they’re we've you'll he'd I'm", ["they", "'re", "we", "'ve", "you", "'ll", "he", "'d",
                                           "i", "'m"]),
        ("0.35 m; two-lane, x.", ["0.35", "m", "two-lane", "x."]),
        ("in the U.S. at the lake.", ["in", "the", "u.s.", "at", "the", "lake"]),
        ("the farmers' fields", ["the", "farmers", "fields"]),
        ("", []),
    ],
)  # fmt: skip
def test_tokens(caption: str, tokens: list[str]) -> None:
    assert tokenize(caption) == tokens


def test_an_apostrophe_scores_the_same_in_either_form() -> None:
    one = caption_metrics(["a farmer's field lies here"], [["a farmer’s field lies here"]])
    assert one["bleu_4"] == pytest.approx(1)
    assert one["rouge_l"] == pytest.approx(1)


def test_bleu_is_the_geometric_mean_of_clipped_precisions() -> None:
    # Unigrams: a once of two counts, river, here: 3 of 4. Bigrams: a river: 1 of 3. Trigrams: none.
    [said], [wanted] = words("a a river here"), words("here stands a river")
    found = bleu([said], [[wanted]])
    assert found[0] == pytest.approx(3 / 4)
    assert found[1] == pytest.approx(math.sqrt(3 / 4 * 1 / 3))
    assert found[2] == pytest.approx(0, abs=1e-4)
    assert found[3] == pytest.approx(0, abs=1e-3)


def test_a_caption_shorter_than_its_reference_pays_and_a_longer_one_does_not() -> None:
    short, long = words("a river runs"), words("a river runs by fields")
    assert bleu(short, [long])[0] == pytest.approx(math.exp(1 - 5 / 3))
    assert bleu(long, [short])[0] == pytest.approx(3 / 5)


def test_the_closest_reference_sets_the_length_the_shorter_of_two_as_close() -> None:
    said = words("a b c d")
    assert bleu(said, [words("a b c d e f g h", "a b c d e")])[0] == pytest.approx(math.exp(-1 / 4))
    assert bleu(said, [words("a b c d e", "a b c")])[0] == pytest.approx(1)


def test_matches_and_lengths_add_up_over_the_corpus() -> None:
    # 2 of 2 and 1 of 4 words are right: 3 of 6, not the mean of 1 and 1/4.
    found = bleu(words("a b", "c x y z"), [words("a b"), words("c d e f")])
    assert found[0] == pytest.approx(0.5)


def test_a_word_counts_as_often_as_the_best_reference_has_it() -> None:
    found = bleu(words("a a a"), [words("a b c", "a a b")])
    assert found[0] == pytest.approx(2 / 3)


def test_rouge_is_the_f_score_of_the_longest_common_subsequence() -> None:
    # In common: a river here (3), of 4 said and of 5 wanted.
    [said], [wanted] = words("a river flows here"), words("a wide river bends here")
    precision, recall, beta2 = 3 / 4, 3 / 5, 1.44
    expected = (1 + beta2) * precision * recall / (recall + beta2 * precision)
    assert rouge_l([said], [[wanted]]) == pytest.approx(expected)
    # The order matters: of these only one word at a time is in sequence.
    assert rouge_l(words("c b a"), [words("a b c")]) == pytest.approx(1 / 3)


def test_rouge_takes_the_best_precision_and_the_best_recall_and_the_mean_over_images() -> None:
    said = words("a b c")
    # Precision 1 by the long reference, recall 1 by the short one.
    assert rouge_l(said, [words("a b c d e f", "a b")]) == pytest.approx(1)
    assert rouge_l(words("a", "x"), [words("a"), words("y")]) == pytest.approx(0.5)
    assert rouge_l([[]], [words("a")]) == 0


def test_cider_of_a_caption_that_is_its_reference_is_ten() -> None:
    captions = words("a b c d", "e f g h")
    assert cider(captions, [[one] for one in captions]) == pytest.approx(10)


def test_cider_weighs_words_by_how_few_images_have_them() -> None:
    # "a" stands in both images and weighs log(2/2) = 0, the others log 2.
    said, wanted = words("a b", "a c"), [words("a b"), words("a c")]
    # Of four orders only the first two have n-grams, and both are found whole.
    assert cider(said, wanted) == pytest.approx(10 * 2 / 4)
    assert cider(words("a a", "a a"), wanted) == pytest.approx(0)


def test_cider_damps_a_caption_of_another_length_and_clips_its_repetitions() -> None:
    wanted = [words("b"), words("c")]
    # Two words for one: unigram cosine with the counts clipped to the reference's.
    cosine = min(2, 1) * 1 / (2 * 1)
    damping = math.exp(-(1**2) / (2 * 6.0**2))
    assert cider(words("b b", "x"), wanted) == pytest.approx(10 * cosine * damping / 4 / 2)


def test_cider_is_the_mean_over_references() -> None:
    wanted = [words("b", "d"), words("c", "e")]
    assert cider(words("b", "c"), wanted) == pytest.approx(10 / 4 / 2)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [([], []), (["a"], [["a"], ["b"]]), (["a", "b"], [["a"]]), (["a", "b"], [["a"], []])],
)
def test_a_caption_without_a_reference_is_refused(said: list[str], wanted: list[list[str]]) -> None:
    with pytest.raises(DataError, match=rf"{len(said)} captions against {len(wanted)} reference"):
        caption_metrics(said, wanted)
