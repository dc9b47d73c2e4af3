from __future__ import annotations

import pytest

from sarhpc.captioning.clean import clean, degeneracy, sentences


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("there is a piece of farmland .", "a piece of farmland"),
        ("An aerial view of a town , with trees.", "a town, with trees"),
        ("  many\n planes   are parked  ", "many planes are parked"),
        ("there isolated trees", "there isolated trees"),
        ("there is", "there is"),
    ],
)
def test_a_caption_loses_its_opening_and_its_loose_ends(caption: str, cleaned: str) -> None:
    assert clean(caption, ["an aerial view of", "there is"]) == cleaned


def test_sentences_are_split_at_stops_and_not_at_decimals() -> None:
    assert sentences("a river . it bends twice. 0.35 m wide!") == [
        "a river",
        "it bends twice",
        "0.35 m wide!",
    ]


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("", "caption_empty"),
        (" . ", "caption_empty"),
        ("forest", "caption_short"),
        ("dai dai dai", "caption_loop"),
        ("a road next to a road next to a road next to a road", "caption_loop"),
        ("dai dai dai in the end of a caption", "caption_loop"),
        ("a very very dark forest", None),
        ("a house and a house next to a river", None),
        ("two towns", None),
    ],
)
def test_degenerate_captions_are_told_by_their_reason(caption: str, reason: str | None) -> None:
    assert degeneracy(caption, min_words=2, max_repeats=2) == reason


def test_one_repetition_can_be_too_many() -> None:
    assert degeneracy("a dark dark forest", 2, max_repeats=1) == "caption_loop"
    assert degeneracy("a dark dark forest", 2, max_repeats=2) is None
