"""The grammar of prompts: descriptions in the words of captions, and no odd combination."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc.errors import ConfigError
from sarhpc.archive.procedural.truth.phrases import NOUNS, vocabulary
from sarhpc.generation.prompts.config import GrammarConfig
from sarhpc.generation.prompts.expansion import expand
from sarhpc.generation.prompts.grammar import DENSITIES, SEASONS, Grammar
from sarhpc.generation.prompts.relation import PLACES

GRAMMAR = Grammar(NOUNS)
ELEMENTS = ("pond", "lake", "trees", "wood", "fields", "clearing", "house", "houses", "village")
RELATIONS = (
    "none",
    *(f"crossed by {name}" for name in ("river", "road", "path")),
    *(f"beside {name}" for name in GRAMMAR.classes),
    *(f"with {name}" for name in ELEMENTS),
    *(f"with {name} in the {place}" for name in ELEMENTS for place in PLACES),
)


def levels(known: tuple[str, ...], least: int = 0) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(known), unique=True, min_size=least, max_size=3)


@settings(max_examples=150, deadline=None)
@given(
    classes=levels(GRAMMAR.classes, least=1),
    relations=levels(RELATIONS),
    season=levels(SEASONS),
    density=levels(DENSITIES),
)
def test_every_combination_is_said_in_words_that_captions_have(
    classes: list[str], relations: list[str], season: list[str], density: list[str]
) -> None:
    cfg = GrammarConfig(classes, ["none", *relations], season=season, density=density)
    cfg.relations = list(dict.fromkeys(cfg.relations))
    known = vocabulary() | {"in", *SEASONS}
    found: dict[str, set[str]] = {name: set() for name in classes}
    for fields, descriptions in expand(GRAMMAR, cfg):
        assert set(fields) >= {"class", "relation"}
        assert fields.get("season") in (season or [None])
        for text in descriptions:
            assert set(text.split()) <= known, text
            assert text not in found[str(fields["class"])], "each description once"
            found[str(fields["class"])].add(text)
    assert all(found.values()), "no class is left out"


@pytest.mark.parametrize(
    ("name", "relation"),
    [
        ("water", "crossed by road"),
        ("town", "crossed by path"),
        ("river", "beside water"),
        ("vineyard", "beside crop"),
        ("town", "with houses"),
        ("water", "with pond"),
        ("forest", "with trees in the middle"),
        ("field", "with clearing"),
    ],
)
def test_what_makes_no_sense_is_left_out_of_a_grammar_and_refused_in_a_row(
    name: str, relation: str
) -> None:
    with pytest.raises(ConfigError, match=f"class {name} cannot be {relation}"):
        GRAMMAR.descriptions({"class": name, "relation": relation})
    rows = list(expand(GRAMMAR, GrammarConfig([name], ["none", relation])))
    assert [fields["relation"] for fields, _ in rows] == ["none"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"class": "forest", "relation": "crossed by rail"}, "did you mean crossed by"),
        ({"class": "forest", "relation": "crossed by road in the middle"}, "is unknown"),
        ({"class": "forest", "relation": "with houses in the corner"}, "is unknown"),
        ({"class": "forest", "density": "thick"}, "density 'thick' is unknown"),
        ({"class": "water", "density": "dense"}, "class water has no density"),
        ({"class": "forest", "season": "may"}, "season 'may' is unknown"),
        ({"relation": "none"}, "class '' is unknown"),
    ],
)
def test_unknown_levels_are_told_with_the_nearest(fields: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        GRAMMAR.descriptions(fields)  # type: ignore[arg-type]


def test_densities_choose_the_words() -> None:
    said = {
        density: GRAMMAR.descriptions({"class": "town", "density": density})
        for density in DENSITIES
    }
    assert said["dense"][0] == "a dense town"
    pairs = itertools.combinations(said.values(), 2)
    assert all(set(one).isdisjoint(other) for one, other in pairs)


def test_own_classes_go_with_any_relation_and_may_replace_known_ones() -> None:
    own = Grammar(NOUNS, {"harbour": ["a harbour"], "town": ["a quarter of a city"]})
    assert own.descriptions({"class": "harbour", "relation": "with houses"}) == [
        "a harbour with a few houses"
    ]
    assert own.descriptions({"class": "town"}) == ["a quarter of a city"]
    assert own.descriptions({"class": "water", "relation": "beside harbour"})[0].endswith("harbour")


def test_too_many_combinations_are_refused_at_once() -> None:
    many = [float(n) for n in range(1, 999)]
    cfg = GrammarConfig(["forest"], incidence_deg=many, spacing_m=many, season=list(SEASONS))
    with pytest.raises(ConfigError, match="more than 1,000,000 combinations"):
        list(expand(GRAMMAR, cfg))
