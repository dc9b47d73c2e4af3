from __future__ import annotations

import pytest

from sarhpc.evaluation.caption_content import caption_of, class_of
from sarhpc.evaluation.image_sets import Image
from sarhpc.evaluation.text_config import LAND_COVER
from sarhpc.measures.relations import RELATIONS, exchanges, swapped


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("A SAR image of calm water with trees in the near range", "water"),
        ("a winding river crosses a dense forest", "forest"),
        ("a dense forest crossed by a river", "forest"),
        ("a road that crosses crop fields with a few houses", "field"),
        ("a town with houses and streets and a pond in the middle", "town"),
        ("a forest beside a lake", None),
        ("a forest next to a wood", "forest"),
        ("Vineyard FIELDS", "field"),
        ("a parking lot", None),
        ("a forester", None),
    ],
)
def test_the_main_class_of_a_caption(caption: str, named: str | None) -> None:
    assert class_of(caption, LAND_COVER) == named


def test_other_archives_name_other_classes() -> None:
    classes = {"airfield": ["an airport", "a runway"], "harbour": ["a harbour", "ships"]}
    assert class_of("two ships at a quay", classes) == "harbour"
    assert class_of("runways and hangars", classes) == "airfield"
    assert class_of("a lake", classes) is None


def test_relations_are_exchanged_word_by_word() -> None:
    pair = RELATIONS["range"]
    assert swapped("trees in the near range and a pond in the far range", pair) == (
        "trees in the far range and a pond in the near range"
    )
    assert swapped("a range of hills", pair) is None
    assert swapped("houses on the left", RELATIONS["left and right"]) == "houses on the right"
    assert swapped("leftover fields", RELATIONS["left and right"]) is None


@pytest.mark.parametrize(
    ("members", "meta", "caption"),
    [
        ({"txt": b" a lake \n"}, {"prompt": "a town"}, "a lake"),
        ({"txt": b""}, {"prompt": "a town", "caption": {"SHORT": "a pond"}}, "a town"),
        ({}, {"caption": {"SHORT": "a pond"}}, "a pond"),
        ({}, {"caption": "a pond"}, "a pond"),
        ({}, {"text": "a pond"}, "a pond"),
        ({}, {"caption": {"SHORT": 3}, "text": 4}, None),
    ],
)
def test_where_a_caption_stands(
    members: dict[str, bytes], meta: dict[str, object], caption: str | None
) -> None:
    assert caption_of(Image("k", members, meta, "f.tar", 0)) == caption


def test_each_relation_is_exchanged_alone() -> None:
    caption = "trees in the upper part and a pond in the near range"
    assert exchanges(caption) == [
        "trees in the upper part and a pond in the far range",
        "trees in the lower part and a pond in the near range",
    ]
    assert exchanges("a lake") == []
