from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from hpc.config import load, loads, to_yaml
from hpc.errors import ConfigError
from hpc.frozen_config import DECLINED, read_frozen
from sarhpc.stages.config import RunConfig

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


@dataclass
class Inner:
    rate: float = 1e-5
    words: dict[str, str] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    phrases: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Outer:
    name: str = "a"
    steps: int | None = None
    ready: bool = False
    scales: list[float] = field(default_factory=lambda: [1.0, 2.5])
    inner: Inner = field(default_factory=Inner)
    more: Inner | None = None


def by_omegaconf(text: str) -> Outer:
    merged = OmegaConf.merge(OmegaConf.structured(Outer), OmegaConf.create(text))
    return OmegaConf.to_object(merged)  # type: ignore[return-value]


@pytest.mark.parametrize(
    "config",
    [
        Outer(),
        Outer(name="1e-3", steps=3, ready=True, scales=[], more=Inner(1e30, {"on": "yes"})),
        Outer(name="2024-01-01", inner=Inner(float("inf"), {"null": "~", "x: y": "# z"})),
        Outer(inner=Inner(weights={"a": 2.0}, phrases={"port": ["a port", "1"], "bay": []})),
        Outer(name="été\n: -", scales=[1e-05, -0.0, 123456789.125]),
    ],
)
def test_a_printed_configuration_reads_back_as_omegaconf_reads_it(config: Outer) -> None:
    text = to_yaml(config)
    assert read_frozen(Outer, text) == by_omegaconf(text) == config


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: a", "name: ???"),
        ("name: a", "name: 1"),
        ("steps: null", "steps: 1.0"),
        ("rate: 1.0e-05", "rate: 1"),
        ("ready: false\n", ""),
        ("ready: false", "ready: false\nready: true"),
        ("more: null", "more: {rate: 1.0}"),
        ("more: null", "more: null\nother: 1"),
        ("- 1.0", "- a"),
        ("steps: null", "steps: [1"),
        ("weights: {}", "weights: {a: 1}"),
        ("phrases: {}", "phrases: {a: [1]}"),
    ],
)
def test_what_takes_a_default_a_conversion_or_a_complaint_is_declined(old: str, new: str) -> None:
    text = to_yaml(Outer())
    assert old in text
    assert read_frozen(Outer, text.replace(old, new)) is DECLINED


def test_an_integer_for_a_float_is_printed_as_a_float() -> None:
    whole: Any = 1
    text = to_yaml(replace(Outer(), inner=Inner(whole), scales=[whole]))
    assert "rate: 1.0\n" in text
    assert "- 1.0\n" in text


LAYERS: list[tuple[str, list[str]]] = [
    ("", []),
    ("name: b\ninner: {words: {a: b}}", ["inner.words.c=d", "inner.rate=0.5"]),
    (
        "inner: {words: {a: b}, phrases: {port: [a port]}}",
        ["inner.words.a=e", "inner.phrases.x=[y]"],
    ),
    ("more: {rate: 2.0}", ["more.words.a=b"]),
    ("more: {rate: 2.0}", ["more=null", "steps=4"]),
    ("", ["more.rate=0.25", "more.weights={a: 1.5}"]),
    ("scales: []", ["scales=[3.0, 4.0]"]),
    ("steps: 3", ["steps=null", "ready=true"]),
    # Converted: an integer for a float, a number for a text, a text for a number.
    ("scales: [1, 2]\nname: 3", ["inner.rate=1", "steps='7'", "inner.weights={a: 1}"]),
    ("name: yes", ["name=on"]),
]


@pytest.mark.parametrize(("text", "overrides"), LAYERS)
def test_layers_are_merged_as_omegaconf_merges_them(text: str, overrides: list[str]) -> None:
    merged = OmegaConf.merge(
        OmegaConf.structured(Outer), OmegaConf.create(text), OmegaConf.from_dotlist(overrides)
    )
    expected = OmegaConf.to_object(merged)
    assert repr(loads(Outer, text, overrides)) == repr(expected)
    assert to_yaml(expected) == OmegaConf.to_yaml(OmegaConf.structured(expected))


@pytest.mark.parametrize("overrides", [["steps=a"], ["inner=null"], ["scales=[a]"], ["ready=7.5"]])
def test_what_omegaconf_refuses_is_refused(overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match="invalid configuration"):
        loads(Outer, "", overrides)


@pytest.mark.parametrize("name", ["demo", "paper_sd15", "sdxl_hybrid", "embedded/sar"])
def test_shipped_configurations_take_the_quick_way_once_frozen(name: str) -> None:
    config = load(RunConfig, CONFIGS / f"{name}.yaml")
    text = to_yaml(config)
    assert text == OmegaConf.to_yaml(OmegaConf.structured(config))
    assert read_frozen(RunConfig, text) == config == loads(RunConfig, text, ["data=data"])
