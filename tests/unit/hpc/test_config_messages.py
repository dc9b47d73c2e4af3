"""What a configuration that cannot be read is told: where, what, and the names that are known."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpc.config import changes_since, differences, load, loads, to_dict, to_yaml
from hpc.errors import ConfigError


@dataclass
class Inner:
    rate: float = 0.5
    names: list[str] = field(default_factory=list)


@dataclass
class Outer:
    name: str = "???"
    second: str = "???"
    steps: int | None = None
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    many: list[Inner] = field(default_factory=list)


GIVEN = "name: a\nsecond: b\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a\n second: [", r"invalid configuration in text: line 2, column 8: mapping"),
        ("- a\n- b\n", r"from text must be keys and values, not '- a\\n- b\\n'"),
        ("3", r"must be keys and values, not '3'"),
        ("x" * 60, rf"must be keys and values, not '{'x' * 40}'$"),
        ("", r"from text lacks name, second; give it in the YAML or as name=VALUE"),
        ("name: a", r"from text lacks second; give it in the YAML or as second=VALUE"),
        (GIVEN + "steps: many", r"invalid configuration in text at 'steps': Value 'many'"),
        (GIVEN + "inner: {rate: x}", r"invalid configuration in text at 'inner\.rate'"),
        (GIVEN + "nmae: c", r"unknown key 'nmae' in text; did you mean name, maybe\?$"),
        (GIVEN + "rate: 1", r"unknown key 'rate' in text; did you mean inner\.rate"),
        (GIVEN + "inner: {rte: 1}", r"unknown key 'inner\.rte' in text; did you mean inner\.rate"),
        (GIVEN + "maybe: {rte: 1}", r"unknown key 'maybe\.rte' in text; did you mean maybe\.rate"),
        (
            GIVEN + "zzzz: 1",
            r"unknown key 'zzzz' in text; known here: inner, many, maybe, name, second, steps$",
        ),
        (GIVEN + "inner: 3", r"invalid configuration in text at 'inner': one value is given where"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        loads(Outer, text)


@dataclass
class Similar:
    rate_a: int = 0
    rate_b: int = 0
    rate_c: int = 0
    rate_d: int = 0


def test_no_more_than_three_similar_names_are_told() -> None:
    with pytest.raises(ConfigError, match=r"did you mean rate_\w, rate_\w, rate_\w\?$"):
        loads(Similar, "rate_x: 1")


def test_words_are_told_as_those_of_the_command_line() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'nmae' in the command line"):
        loads(Outer, GIVEN, ["nmae=x"])
    with pytest.raises(ConfigError, match=r"'steps' is not an override"):
        loads(Outer, GIVEN, ["name=x", "steps"])
    with pytest.raises(ConfigError, match=r"configuration from defaults lacks name, second"):
        load(Outer)


def test_every_unknown_key_of_file_and_command_line_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        loads(Outer, GIVEN + "nmae: c\ninner: {rte: 1}", ["maybe.rte=3", "stps=1"])
    lines = str(caught.value).splitlines()
    assert [line.split(";")[0] for line in lines] == [
        "unknown key 'nmae' in text",
        "unknown key 'inner.rte' in text",
        "unknown key 'maybe.rte' in the command line",
        "unknown key 'stps' in the command line",
    ]


def test_every_mistyped_override_is_named_with_its_value() -> None:
    with pytest.raises(ConfigError) as caught:
        loads(Outer, GIVEN, ["steps=many", "inner=[a]", "name=c", "maybe.rate=x"])
    says = str(caught.value)
    assert says.startswith("invalid configuration in the command line: steps=many: Value 'many'")
    assert "; inner=[a]: " in says
    assert "; maybe.rate=x: Value 'x'" in says
    assert "name=c" not in says


def test_every_wrong_value_and_key_of_both_layers_is_named_at_once() -> None:
    text = GIVEN + "steps: many\nnmae: c\ninner: {rate: x, names: 3}\nmaybe: {rate: y}\nmany: 4"
    with pytest.raises(ConfigError) as caught:
        loads(Outer, text, ["maybe.rate=z", "stps=1", "name=d"])
    assert [line.partition(";")[0].partition(": Value")[0] for line in
            str(caught.value).splitlines()] == [
        "unknown key 'nmae' in text",
        "unknown key 'stps' in the command line",
        "invalid configuration in text at 'steps'",
        "invalid configuration in text at 'inner.rate'",
        "invalid configuration in text at 'inner.names': a list is expected, such as [1, 2]",
        "invalid configuration in text at 'maybe.rate'",
        "invalid configuration in text at 'many': a list is expected, such as [1, 2]",
        "invalid configuration in the command line: maybe.rate=z",
    ]  # fmt: skip


def test_a_document_at_fault_is_not_blamed_on_the_command_line() -> None:
    with pytest.raises(ConfigError, match=r"invalid configuration in text at 'steps'"):
        loads(Outer, GIVEN + "steps: many", ["inner.rate=x"])


def test_a_file_is_told_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    with pytest.raises(ConfigError, match=r"no configuration file .*c\.yaml"):
        load(Outer, path)
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match=r"c\.yaml cannot be read"):
        load(Outer, path)
    path.write_text("nmae: x")
    with pytest.raises(ConfigError, match=r"unknown key 'nmae' in .*c\.yaml"):
        load(Outer, path)


def test_an_empty_document_takes_every_default() -> None:
    found = loads(Outer, "", ["name=a", "second=b"])
    assert found == Outer("a", "b")
    assert loads(Outer, "{}", ["name=a", "second=b"]) == found


def test_optional_and_repeated_parts_are_read() -> None:
    text = GIVEN + "maybe: {rate: 2}\nmany: [{rate: 3}, {names: [x]}]"
    found = loads(Outer, text)
    assert found.maybe == Inner(2.0)
    assert found.many == [Inner(3.0), Inner(names=["x"])]
    assert found.inner == Inner()


def test_an_override_holds_over_a_document_that_has_every_key() -> None:
    whole = Outer("a", "b", 3, Inner(2.0))
    assert loads(Outer, to_yaml(whole)) == whole
    assert loads(Outer, to_yaml(whole), ["steps=4"]) == Outer("a", "b", 4, Inner(2.0))


def test_a_value_is_written_in_its_declared_type() -> None:
    assert to_yaml(Inner(rate=2)) == "rate: 2.0\nnames: []\n"
    assert to_yaml(Inner(rate=2.0)) == "rate: 2.0\nnames: []\n"


def test_a_part_that_one_side_leaves_out_is_one_difference() -> None:
    without, given = Outer("a", "b"), Outer("a", "b", maybe=Inner(2.0))
    values = "{'rate': 2.0, 'names': []}"
    assert differences(without, given) == [f"maybe: None -> {values}"]
    assert differences(given, without) == [f"maybe: {values} -> None"]
    assert changes_since(to_dict(without), given) == [f"maybe: None -> {values}"]
    assert changes_since(to_dict(given), without) == [f"maybe: {values} -> None"]
