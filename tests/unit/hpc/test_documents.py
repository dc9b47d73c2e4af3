"""JSON and YAML of others: a value, or a ValueError."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from yaml import YAMLError

from hpc.documents import MOST_NESTED, built, check_yaml, load_yaml, parse_json

BOMB = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 500 + "1" + "}" * 500,
        '"\\ud800"',
        b'"\xed\xa0\x80"',
        b"\xff\xfe{}",
        "9" * 5000,
        "{} {}",
        "",
    ],
)
def test_json_that_no_program_should_hold_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


def test_ordinary_json_is_read_as_it_is() -> None:
    assert parse_json('{"a": [1, 2.5, null, "\\ud83d\\ude00"]}') == {"a": [1, 2.5, None, "😀"]}
    assert parse_json(b"\xef\xbb\xbf[1]") == [1]
    # Brackets inside a text are no nesting.
    assert parse_json('["' + "[" * 1000 + '\\"[", 1]')[1] == 1
    assert parse_json("[" * MOST_NESTED + "]" * MOST_NESTED)


@pytest.mark.parametrize(
    "text",
    [BOMB, "a: &a [*a]", "[" * 3000, "- " * 3000, "a: 2001-99-99", "!!timestamp x", "!!bool x"],
)
def test_yaml_that_would_hang_or_crash_its_loader_is_refused(text: str) -> None:
    with pytest.raises((ValueError, YAMLError)):
        load_yaml(text)


def test_aliases_in_moderation_are_read() -> None:
    text = "a: &a {x: 1}\nb: *a\nc: [*a, *a]\n"
    assert check_yaml(text) == text
    assert load_yaml(text)["c"] == [{"x": 1}, {"x": 1}]


@dataclass(frozen=True)
class Inner:
    n: int


@dataclass(frozen=True)
class Outer:
    name: str
    inner: tuple[Inner, ...]
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    element: int | None = None


def test_a_dataclass_is_built_of_values_of_its_types() -> None:
    document = {"name": "a", "inner": [{"n": 1}], "seconds": 2, "counts": {"x": 3}, "element": None}
    assert built(Outer, document) == Outer("a", (Inner(1),), 2.0, {"x": 3})


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ([], "object"),
        ({"inner": []}, "name is missing"),
        ({"name": 1, "inner": []}, "name is 1"),
        ({"name": "a", "inner": [{"n": True}]}, "n is True"),
        ({"name": "a", "inner": {}}, "inner"),
        ({"name": "a", "inner": [], "counts": {"x": "y"}}, "counts.x"),
        ({"name": "a", "inner": [], "seconds": 10**400}, "seconds"),
        ({"name": "a", "inner": [], "more": 1}, "unknown key 'more'"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_key(document: object, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        built(Outer, document)
