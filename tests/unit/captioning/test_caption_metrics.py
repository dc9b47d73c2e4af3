from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from hpc.errors import DataError
from sarhpc.captioning.metrics import caption_metrics, tokenize

NAMES = {
    "bleu_1": "Bleu_1",
    "bleu_2": "Bleu_2",
    "bleu_3": "Bleu_3",
    "bleu_4": "Bleu_4",
    "rouge_l": "ROUGE_L",
    "cider": "CIDEr",
}

EXPECTED_RSICD = {
    "bleu_1": 0.5036892003921695,
    "bleu_2": 0.3579854400223199,
    "bleu_3": 0.27703495771567616,
    "bleu_4": 0.22745830747258278,
    "rouge_l": 0.388878797440042,
    "cider": 1.0444285985733341,
}


@pytest.fixture(scope="module")
def expected(test_data: Path) -> dict[str, dict[str, float]]:
    path = test_data / "caption_metrics" / "nlgeval" / "expected_scores.json"
    return json.loads(path.read_text())


def lines(folder: Path, name: str) -> list[str]:
    return (folder / f"{name}.txt").read_text().splitlines()


def test_corpus_scores_are_the_published_ones(
    test_data: Path, expected: dict[str, dict[str, float]]
) -> None:
    folder = test_data / "caption_metrics" / "nlgeval"
    references = list(zip(lines(folder, "ref1"), lines(folder, "ref2"), strict=True))
    scores = caption_metrics(lines(folder, "hyp"), references)
    published = expected["corpus_hyp_vs_ref1_ref2"]
    full = expected["rerun_full_precision"]
    for ours, theirs in NAMES.items():
        assert scores[ours] == pytest.approx(published[theirs], abs=1e-5)
        assert scores[ours] == pytest.approx(full[theirs], abs=1e-12)


@pytest.mark.parametrize("case", [0, 1])
def test_scores_of_single_captions_are_the_published_ones(
    case: int, expected: dict[str, dict[str, float]]
) -> None:
    one = expected["individual"][case]
    scores = caption_metrics([one["hyp"]], [one["refs"]])
    for ours, theirs in NAMES.items():
        if theirs in one:
            assert scores[ours] == pytest.approx(one[theirs], abs=1e-5)


def test_scores_on_real_captions_are_those_of_the_toolkit_with_its_own_tokenizer(
    test_data: Path,
) -> None:
    """Each image of RSICD's validation split is given the first caption of the image before it.

    The expected values are pycocoevalcap 1.2 (Java PTB tokenizer) on the same strings.
    """
    path = test_data / "captions_rs" / "textaug_valid_rsicd.jsonl.gz"
    with gzip.open(path, "rt") as file:
        references = [json.loads(line)["captions"] for line in file]
    said = [captions[0] for captions in references[-1:] + references[:-1]]
    scores = caption_metrics(said, references)
    assert scores == pytest.approx(EXPECTED_RSICD, abs=1e-9)


def test_words_are_those_of_the_penn_treebank_without_punctuation() -> None:
    assert tokenize("There isn't one: it's A well-kept, 0.35 m 'green'.") == (
        ["there", "is", "n't", "one", "it", "'s", "a", "well-kept", "0.35", "m", "green"]
    )


def test_a_perfect_caption_scores_best_and_an_empty_one_nothing() -> None:
    references = [["a river crosses a field"], ["a dense dark forest stands"]]
    best = caption_metrics([captions[0] for captions in references], references)
    assert best["bleu_4"] == pytest.approx(1)
    assert best["rouge_l"] == pytest.approx(1)
    assert best["cider"] == pytest.approx(10)
    assert max(caption_metrics(["", ""], references).values()) < 1e-9


def test_what_cannot_be_scored_is_an_error() -> None:
    for said, references in ([], []), (["a"], []), (["a"], [[]]):
        with pytest.raises(DataError):
            caption_metrics(said, references)


def test_abbreviations_keep_their_stop_as_in_the_ptb_tokenizer(test_cases):
    first, second = (test_cases / "ptb_stops" / "abbreviations.txt").read_text().splitlines()
    assert " ".join(tokenize(first)) == (
        "there railways are flanked by some trees and a. a road is under the railways"
    )
    assert " ".join(tokenize(second)) == (
        "the desert has yellow sand and some lakeasis and some dec."
    )
    assert " ".join(tokenize("A mass. It isn't a road")) == "a mass it is n't a road"
