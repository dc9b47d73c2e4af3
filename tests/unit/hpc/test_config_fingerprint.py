"""The fingerprint belongs to the values of the fields and not to the order they are written in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from hpc.config import changes_since, decisive, differences, fingerprint, to_dict


@dataclass
class Rates:
    unet: float = 1e-4
    text: float = 1e-5


@dataclass
class RatesTurned:
    text: float = 1e-5
    unet: float = 1e-4


@dataclass
class Train:
    steps: int = 3
    rates: Any = field(default_factory=Rates)
    sets: list[Any] = field(default_factory=list)
    by_name: dict[str, Any] = field(default_factory=dict)
    workers: int = field(default=2, metadata={"transient": True})
    fused: bool = field(default=False, metadata={"added": True})


@dataclass
class TrainTurned:
    fused: bool = field(default=False, metadata={"added": True})
    by_name: dict[str, Any] = field(default_factory=dict)
    workers: int = field(default=2, metadata={"transient": True})
    sets: list[Any] = field(default_factory=list)
    rates: Any = field(default_factory=RatesTurned)
    steps: int = 3


def test_the_order_of_fields_and_keys_does_not_matter() -> None:
    one = Train(by_name={"a": 1, "b": 2})
    assert fingerprint(one) == fingerprint(TrainTurned(by_name={"b": 2, "a": 1}))
    assert list(decisive(one)) != list(decisive(TrainTurned()))


def test_the_order_of_a_list_matters() -> None:
    assert fingerprint(Train(sets=["a", "b"])) != fingerprint(Train(sets=["b", "a"]))


def test_it_is_the_same_on_every_machine_and_for_ever() -> None:
    assert fingerprint(Rates()) == "19a70c169ddc6a83"
    assert fingerprint(Train(sets=[Rates(unet=0.5)])) == "35549173381a7875"


@pytest.mark.parametrize(
    "changed",
    [
        Train(steps=4),
        Train(rates=Rates(unet=0.5)),
        Train(sets=[Rates()]),
        Train(by_name={"a": Rates()}),
        Train(fused=True),
    ],
)
def test_every_value_that_decides_changes_it(changed: Train) -> None:
    assert fingerprint(changed) != fingerprint(Train())
    assert fingerprint(changed) == fingerprint(changed)


def test_how_a_run_is_done_does_not_change_it() -> None:
    assert fingerprint(Train(workers=9)) == fingerprint(Train())
    inside = Train(sets=[Train(workers=9)], by_name={"a": Train(workers=8)})
    assert fingerprint(inside) == fingerprint(Train(sets=[Train()], by_name={"a": Train()}))


@dataclass
class TrainLater(Train):
    bounds: Rates = field(default_factory=Rates, metadata={"added": True})


def test_a_tree_that_was_added_changes_it_only_where_a_value_of_it_is_set() -> None:
    assert decisive(TrainLater()) == decisive(Train())
    changed = decisive(TrainLater(bounds=Rates(unet=0.5)))
    assert changed == {**decisive(Train()), "bounds": {"unet": 0.5, "text": 1e-5}}


def test_nested_values_become_plain_ones() -> None:
    config = Train(sets=[Rates()], by_name={"a": (Rates(), 1)})
    plain = {"unet": 1e-4, "text": 1e-5}
    assert to_dict(config) == {
        "steps": 3, "rates": plain, "sets": [plain], "by_name": {"a": [plain, 1]}, "workers": 2,
        "fused": False,
    }  # fmt: skip
    assert set(to_dict(config, transient=False)) == set(to_dict(config)) - {"workers"}
    assert set(decisive(config)) == set(to_dict(config)) - {"workers", "fused"}


def test_differences_are_told_key_by_key_and_side_by_side() -> None:
    old, new = Train(workers=1), Train(steps=4, rates=Rates(text=0.5), workers=9)
    output = ["rates.text: 1e-05 -> 0.5", "steps: 3 -> 4"]
    assert differences(old, new) == output
    assert differences(old, new, transient=True) == [*output, "workers: 1 -> 9"]
    assert differences(old, old) == []
    frozen = {**to_dict(old), "gone": 1, "rates": {"text": 0.1, "gone": 2}}
    assert changes_since(frozen, new) == ["rates.text: 0.1 -> 0.5", "steps: 3 -> 4"]
