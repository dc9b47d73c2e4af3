"""What two sets say of themselves decides which pixels are compared."""

from __future__ import annotations

from typing import Any

import pytest

from hpc.errors import ConfigError
from sarhpc.evaluation.comparison_plan import _views
from sarhpc.evaluation.image_sets import Image
from sarhpc.evaluation.set_facts import (
    AMPLITUDE,
    CODES,
    RAW_CODES,
    Comparison,
    SetFacts,
    comparison_of,
    facts_of,
)

DB = {"mode": "db", "mu": 0.1, "sigma": 0.1, "top": 1.0, "low": 0.01}
LINEAR = {"mode": "mu+3sigma", "mu": 0.1, "sigma": 0.1, "top": 1.0}


def facts(name: str, *members: str, **meta: Any) -> SetFacts:
    image = Image("1", dict.fromkeys(members, b""), meta, "a.tar", 0)
    return facts_of(name, [image], (64, 64), sixteen_bits=False)


def real(law: dict[str, Any]) -> SetFacts:
    return facts("real", "sar.png", "sar16.npy", normalisation=law, master_scale=0.1)


def test_masters_are_compared_where_both_sets_have_them() -> None:
    assert comparison_of(real(LINEAR), real(DB)).pixels == AMPLITUDE
    found = comparison_of(real(LINEAR), facts("made", "sar.png"))
    assert found.pixels == CODES
    assert any("clipped levels are not seen" in note for note in found.notes)


def test_levels_of_a_linear_law_are_amplitude_even_where_the_law_is_not_said() -> None:
    made = facts("made", "sar.png", "sar16.npy", master_law="level")
    found = comparison_of(real(LINEAR), made)
    assert (found.pixels, found.common_scale) == (AMPLITUDE, True)


@pytest.mark.parametrize("members", [("sar.png",), ("sar.png", "sar16.npy")])
def test_images_of_a_model_trained_on_logarithmic_tiles_are_compared_code_by_code(
    members: tuple[str, ...],
) -> None:
    made = facts("made", *members, **({"master_law": "level"} if len(members) > 1 else {}))
    with pytest.raises(ConfigError, match="follow the law db"):
        comparison_of(real(DB), made)
    found = comparison_of(real(DB), made, one_law=True)
    assert found.pixels == RAW_CODES
    assert any("compared as they are" in note for note in found.notes)


def test_amplitude_of_no_law_is_compared_with_masters_of_any() -> None:
    found = comparison_of(real(DB), facts("made", "sar.npy"))
    assert (found.pixels, found.common_scale) == (AMPLITUDE, False)
    assert any("a difference of gain is not seen" in note for note in found.notes)


def test_sets_of_worse_pixels_than_the_judged_one_are_compared_beside_it() -> None:
    def views(**pixels: str) -> Any:
        return _views({name: Comparison(kind, (64, 64), ()) for name, kind in pixels.items()})

    assert views(a=AMPLITUDE, b=AMPLITUDE) == ((AMPLITUDE, ("a", "b")),)
    assert views(a=AMPLITUDE, b=CODES, c=RAW_CODES, d=AMPLITUDE) == (
        (AMPLITUDE, ("a", "d")),
        (CODES, ("a", "b")),
        (RAW_CODES, ("a", "c")),
    )
    assert views(a=CODES, b=AMPLITUDE) == ((CODES, ("a", "b")),)
