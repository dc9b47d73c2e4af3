from __future__ import annotations

from pathlib import Path

import pytest

from hpc.errors import ConfigError
from sarhpc.archive.declaration import read_declarations


def declare(folder: Path, text: str) -> None:
    (folder / "sarhpc.yaml").write_text(text)


def test_later_and_nearer_declarations_win(tmp_path: Path) -> None:
    declare(
        tmp_path,
        """
        defaults: {band: X, looks: 1}
        files:
          "*.tif": {band: C, incidence_deg: 40}
          "sub/a.tif": {incidence_deg: 45.5}
        """,
    )
    known = read_declarations(tmp_path, {"files": {"a.tif": {"looks": 4}}})
    found = known.of("sub/a.tif")
    assert (found.band, found.incidence_deg, found.looks) == ("C", 45.5, 4)
    other = known.of("b.nitf")
    assert (other.band, other.incidence_deg, other.looks) == ("X", None, 1)


def test_a_folder_without_declarations_declares_nothing(tmp_path: Path) -> None:
    assert read_declarations(tmp_path).of("x.tif").band is None


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2019-08-04", "2019-08-04T00:00:00Z"),
        ("2019-08-04T10:00:00Z", "2019-08-04T10:00:00Z"),
        ("'2019-08-04T12:30:00+02:00'", "2019-08-04T10:30:00Z"),
    ],
)
def test_times_become_utc(tmp_path: Path, written: str, read: str) -> None:
    declare(tmp_path, f"defaults: {{datetime: {written}}}")
    assert read_declarations(tmp_path).of("x").datetime == read


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("default: {}", "did you mean defaults"),
        ("defaults: {incidence: 3}", "incidence_deg"),
        ("defaults: {range_direction: left}", r"\+col, -col, \+row, -row"),
        ("defaults: {scale: big}", "scale is 'big'"),
        ("defaults: {calibrated: 1}", "calibrated is 1"),
        ("defaults: {spacing_m: 2}", "spacing_m is 2"),
        ("defaults: {band_index: 1.5}", "band_index"),
        ("defaults: {datetime: soon}", "RFC 3339"),
        ("files: {x.tif: [1]}", "expected a mapping"),
        ("- a", "expected a mapping"),
        ("{", "not YAML"),
    ],
)
def test_wrong_declarations_name_the_place_and_the_choices(
    tmp_path: Path, text: str, said: str
) -> None:
    declare(tmp_path, text)
    with pytest.raises(ConfigError, match=said) as caught:
        read_declarations(tmp_path)
    assert "sarhpc.yaml" in str(caught.value)
