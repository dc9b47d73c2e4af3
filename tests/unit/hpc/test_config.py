from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpc.config import changes_since, differences, fingerprint, load, loads, to_dict, to_yaml
from hpc.errors import ConfigError


@dataclass
class Inner:
    lr: float = 1e-4
    names: list[str] = field(default_factory=list)
    workers: int = field(default=2, metadata={"transient": True})


@dataclass
class Outer:
    name: str = "???"
    steps: int | None = None
    train: Inner = field(default_factory=Inner)


def test_later_layers_win(tmp_path: Path) -> None:
    yaml = tmp_path / "c.yaml"
    yaml.write_text("name: from-yaml\ntrain: {lr: 1.0e-3, names: [a]}\n")
    config = load(Outer, yaml, ["train.lr=2e-5", "steps=7"])
    assert (config.name, config.steps, config.train.lr) == ("from-yaml", 7, 2e-5)
    assert config.train.names == ["a"]


def test_parsing_the_same_text_again_gives_an_independent_configuration() -> None:
    first = loads(Outer, "name: a", ["train.names=[x]"])
    first.train.names.append("y")
    first.train.lr = 1.0
    second = loads(Outer, "name: a", ["train.names=[x]"])
    assert (second.train.names, second.train.lr) == (["x"], 1e-4)
    assert loads(Outer, "name: a").train.names == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["name=a", "train.lrr=1"], "did you mean train.lr"),
        (["name=a", "lr=1"], "did you mean train.lr"),
        (["name=a", "train.lr=abc"], "train.lr"),
        (["name=a", "train"], "key.subkey=value"),
        ([], "lacks name"),
    ],
)
def test_bad_words_name_the_cure(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        load(Outer, None, words)
    assert caught.value.exit_code == 2


def test_unknown_key_in_yaml_names_the_file(tmp_path: Path) -> None:
    yaml = tmp_path / "c.yaml"
    yaml.write_text("name: x\ntrian: {}\n")
    with pytest.raises(ConfigError, match=r"trian.*c\.yaml.*did you mean train"):
        load(Outer, yaml)


def test_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration file"):
        load(Outer, tmp_path / "none.yaml")


def test_fingerprint_ignores_transient_fields_only() -> None:
    config = load(Outer, None, ["name=a"])
    assert fingerprint(config) == fingerprint(load(Outer, None, ["name=a", "train.workers=9"]))
    other = load(Outer, None, ["name=a", "train.lr=1"])
    assert fingerprint(config) != fingerprint(other)
    assert differences(config, other) == ["train.lr: 0.0001 -> 1.0"]


@dataclass
class LaterInner(Inner):
    compile: bool = field(default=False, metadata={"added": True})


@dataclass
class LaterOuter:
    name: str = "???"
    steps: int | None = None
    train: LaterInner = field(default_factory=LaterInner)


def test_a_field_of_a_later_version_changes_the_fingerprint_only_when_set() -> None:
    before, after = load(Outer, None, ["name=a"]), load(LaterOuter, None, ["name=a"])
    assert fingerprint(after) == fingerprint(before)
    used = load(LaterOuter, None, ["name=a", "train.compile=true"])
    assert fingerprint(used) != fingerprint(before)
    frozen = to_dict(used, transient=False)
    assert changes_since(frozen, after) == ["train.compile: True -> False"]


def test_yaml_round_trip_keeps_the_fingerprint(tmp_path: Path) -> None:
    config = load(Outer, None, ["name=a", "train.names=[x,y]"])
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    assert fingerprint(load(Outer, tmp_path / "c.yaml")) == fingerprint(config)
