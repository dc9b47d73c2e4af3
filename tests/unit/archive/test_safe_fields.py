"""Each field of a Sentinel-1 annotation by itself, and tables whose vectors are out of order."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safe_files import write_safe

from hpc.errors import DataError
from sarhpc.archive.formats.safe.metadata import LookupTable, Noise, NoiseBlock, read_safe

SHAPE = (80, 120)


def gain(row: float, col: float) -> float:
    """Differs along both axes, and more along rows."""
    return 400.0 + 2.0 * row + 0.5 * col


def incidence(row: float, col: float) -> float:
    return 30.0 + 0.1 * row + 0.01 * col


@pytest.fixture
def measurement(tmp_path: Path) -> Path:
    """A measurement with its annotation; its pixels are not looked at here."""
    return write_safe(tmp_path, tmp_path / "none.tiff", SHAPE, gain=gain, incidence=incidence)


def annotation(measurement: Path, kind: str = "") -> Path:
    folder = measurement.parent.parent / "annotation"
    name = f"{measurement.stem}.xml"
    return folder / "calibration" / f"{kind}-{name}" if kind else folder / name


def change(path: Path, edit: Callable[[str], str]) -> None:
    text = path.read_text()
    edited = edit(text)
    assert edited != text
    path.write_text(edited)


def turned(text: str, element: str) -> str:
    """The XML with its elements of that name in the opposite order."""
    found = re.findall(rf"<{element}>.*?</{element}>", text, re.DOTALL)
    assert len(found) > 2
    before, after = text.split(found[0])[0], text.rsplit(found[-1], maxsplit=1)[-1]
    return before + "".join(reversed(found)) + after


def test_fields_are_those_of_the_annotation(measurement: Path) -> None:
    found = read_safe(measurement)
    assert (found.platform, found.product_type, found.mode) == ("sentinel-1a", "GRD", "IW")
    assert (found.polarization, found.orbit) == ("VV", "S1A-22822")
    assert found.start == "2018-07-16T06:06:23.104000Z"
    assert found.looks == (5, 1), "range before azimuth"
    assert found.centre_ghz == 5.405
    assert found.mid_incidence_deg == 39.2


@pytest.mark.parametrize(
    ("hertz", "ghz"), [("5.333123499e9", 5.333123), ("5.333123501e9", 5.333124)]
)
def test_a_frequency_is_in_hertz_and_kept_to_the_kilohertz(
    measurement: Path, hertz: str, ghz: float
) -> None:
    change(annotation(measurement), lambda text: text.replace("5.405000454334350e+09", hertz))
    assert read_safe(measurement).centre_ghz == ghz


@pytest.mark.parametrize(
    ("mission", "platform"), [("S1B", "sentinel-1b"), ("S1D", "sentinel-1d"), ("ASA", "asa")]
)
def test_missions_have_the_names_of_the_catalogue(
    measurement: Path, mission: str, platform: str
) -> None:
    change(annotation(measurement), lambda text: text.replace(">S1A<", f">{mission}<"))
    found = read_safe(measurement)
    assert (found.platform, found.orbit) == (platform, f"{mission}-22822")


def test_a_time_that_is_marked_as_utc_is_left_so(measurement: Path) -> None:
    change(annotation(measurement), lambda t: t.replace("23.104000<", "23.104000Z<"))
    assert read_safe(measurement).start == "2018-07-16T06:06:23.104000Z"


PLACES = ((0, 0), (3, 100), (41, 7), (79, 119))


def test_rows_and_columns_keep_their_places_in_every_table(measurement: Path) -> None:
    found = read_safe(measurement)
    for row, col in PLACES:
        read = found.at(row, col)
        assert read["incidence_deg"] == pytest.approx(incidence(row, col), abs=1e-4)
        noise = 1600.0 * (2 if col >= 60 else 1) / gain(row, col) ** 2
        assert read["noise_floor_db"] == pytest.approx(10 * np.log10(noise), abs=1e-3)


def test_noise_keeps_its_places_along_both_axes(tmp_path: Path) -> None:
    def noise(row: float, col: float) -> float:
        return 1000.0 + 7.0 * row + 3.0 * col

    found = read_safe(write_safe(tmp_path, tmp_path / "none.tiff", SHAPE, noise=noise)).noise
    assert found is not None
    for row, col in PLACES:
        assert found.at(row, col) == pytest.approx(noise(row, col) * (2 if col >= 60 else 1))


def test_angles_are_kept_to_four_digits_and_noise_to_three(tmp_path: Path) -> None:
    found = read_safe(
        write_safe(tmp_path, tmp_path / "none.tiff", SHAPE, incidence=lambda row, col: 31.234567)
    )
    assert found.at(0, 0) == {"incidence_deg": 31.2346, "noise_floor_db": -20.0}
    assert found.at(0, 119) == {"incidence_deg": 31.2346, "noise_floor_db": -16.990}


def test_noise_of_zero_has_no_level_in_decibels(tmp_path: Path) -> None:
    found = read_safe(
        write_safe(tmp_path, tmp_path / "none.tiff", SHAPE, noise=lambda row, col: 0.0)
    )
    assert set(found.at(0, 0)) == {"incidence_deg"}


def test_a_table_may_have_a_value_for_every_pixel(measurement: Path) -> None:
    def edit(text: str) -> str:
        return re.sub(
            r'(<pixel count="\d+">)([^<]*)',
            lambda found: found[1] + " ".join(map(str, range(len(found[2].split())))),
            text,
        )

    change(annotation(measurement, "calibration"), edit)
    table = read_safe(measurement).amplitude_gain
    assert table is not None
    # The vectors are of columns 0, 5 (and a half, rounded down), 11, ...
    assert table.at(np.array([0.0]), np.array([0.0, 1.0])).tolist() == [[400.0, gain(0, 5)]]


@pytest.mark.parametrize(
    ("kind", "element"),
    [
        ("calibration", "calibrationVector"),
        ("noise", "noiseRangeVector"),
        ("", "geolocationGridPoint"),
    ],
)
def test_vectors_out_of_order_are_put_in_order(measurement: Path, kind: str, element: str) -> None:
    before = [read_safe(measurement).at(*place) for place in PLACES]
    change(annotation(measurement, kind), lambda text: turned(text, element))
    assert [read_safe(measurement).at(*place) for place in PLACES] == before


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    ("kind", "lut"), [("calibration", "sigmaNought"), ("noise", "noiseRangeLut")]
)
def test_values_that_are_no_numbers_are_refused(
    measurement: Path, kind: str, lut: str, number: str
) -> None:
    change(
        annotation(measurement, kind),
        lambda text: re.sub(rf"(<{lut} [^>]*>)\S+", rf"\g<1>{number}", text, count=1),
    )
    with pytest.raises(DataError, match="values that are not finite"):
        read_safe(measurement)


@pytest.mark.parametrize(
    "pixels",
    [
        lambda first, *rest: [first],  # another number of them
        lambda first, second, *rest: [second, first, *rest],  # not growing
        lambda first, second, *rest: [first, first, *rest],
    ],
)
def test_pixels_must_match_their_values_and_grow(
    measurement: Path, pixels: Callable[..., list[str]]
) -> None:
    def edit(text: str) -> str:
        return re.sub(
            r'(<pixel count="\d+">)([^<]*)',
            lambda found: found[1] + " ".join(pixels(*found[2].split())),
            text,
            count=1,
        )

    change(annotation(measurement, "calibration"), edit)
    with pytest.raises(DataError, match="pixels and values do not match"):
        read_safe(measurement)


@pytest.mark.parametrize("number", ["0.0", "-400.0"])
def test_a_gain_that_is_not_positive_is_refused(measurement: Path, number: str) -> None:
    change(
        annotation(measurement, "calibration"),
        lambda text: re.sub(r"(<sigmaNought [^>]*>)\S+", rf"\g<1>{number}", text, count=1),
    )
    with pytest.raises(DataError, match="not positive"):
        read_safe(measurement)


def test_a_gain_below_one_is_a_gain(tmp_path: Path) -> None:
    found = read_safe(
        write_safe(tmp_path, tmp_path / "none.tiff", SHAPE, gain=lambda row, col: 0.5)
    ).amplitude_gain
    assert found is not None
    assert found.at(np.array([0.0]), np.array([0.0])).tolist() == [[0.5]]


def test_a_table_without_vectors_is_refused(measurement: Path) -> None:
    annotation(measurement, "calibration").write_text("<calibration/>")
    with pytest.raises(DataError, match="without vectors"):
        read_safe(measurement)


def test_without_gain_or_noise_there_is_no_floor(measurement: Path) -> None:
    annotation(measurement, "calibration").unlink()
    found = read_safe(measurement)
    assert (found.amplitude_gain, set(found.at(0, 0))) == (None, {"incidence_deg"})
    annotation(measurement, "noise").write_text("<noise/>")
    assert read_safe(measurement).noise is None
    annotation(measurement).unlink()
    with pytest.raises(DataError, match="no annotation beside it"):
        read_safe(measurement)


@pytest.mark.parametrize(
    "declaration", ['<!DOCTYPE product SYSTEM "product.dtd">', '<!ENTITY x "y">']
)
def test_declarations_that_could_bring_entities_are_refused(
    measurement: Path, declaration: str
) -> None:
    change(
        annotation(measurement), lambda text: text.replace("<product>", f"{declaration}<product>")
    )
    with pytest.raises(DataError, match="declares XML entities"):
        read_safe(measurement)


def table(*values: float) -> LookupTable:
    """A table that is even along columns, a vector every ten lines."""
    pixels = tuple(np.array([0.0, 10.0]) for _ in values)
    return LookupTable(np.arange(len(values)) * 10.0, pixels, tuple(np.full(2, v) for v in values))


@pytest.mark.parametrize(
    ("row", "col", "level"),
    [
        (10, 20, 6.0),  # first line and first column of the block: inside
        (20, 30, 14.0),  # the last ones too
        (15, 25, 10.0),
        (9, 25, 2.0),
        (21, 25, 2.0),
        (15, 19, 2.0),
        (15, 31, 2.0),
    ],
)
def test_a_block_of_noise_holds_its_first_and_last_pixels(
    row: float, col: float, level: float
) -> None:
    block = NoiseBlock((10, 20), (20, 30), np.array([10.0, 20.0]), np.array([3.0, 7.0]))
    assert Noise(table(2.0), (block,)).at(row, col) == pytest.approx(level)


def test_the_first_block_that_holds_a_pixel_counts() -> None:
    every = (0, 99), (0, 99)
    blocks = [NoiseBlock(*every, np.array([0.0]), np.array([f])) for f in (3.0, 5.0)]
    assert Noise(table(2.0), tuple(blocks)).at(4, 4) == 6.0


def test_scalloping_without_bounds_holds_for_the_whole_image(measurement: Path) -> None:
    def edit(text: str) -> str:
        text = text.replace(">1.0 1.0<", ">3.0 3.0 3.0<").replace(">2.0 2.0<", ">2.0 2.0 2.0<")
        text = text.replace('<line count="2">0 79<', '<line count="3">0 40 79<')
        return re.sub(r"<(first|last)(AzimuthLine|RangeSample)>\d+</\1\2>", "", text)

    change(annotation(measurement, "noise"), edit)
    found = read_safe(measurement)
    assert found.noise is not None
    assert [block.rows for block in found.noise.blocks] == [(0, 79), (0, 79)]
    assert found.noise.at(3, 119) == found.noise.at(3, 0) == pytest.approx(4800)


def test_windows_of_one_row_between_and_beyond_vectors() -> None:
    values = table(1.0, 2.0, 6.0)
    for row, level in ((-5, 1.0), (0, 1.0), (5, 1.5), (10, 2.0), (12.5, 3.0), (20, 6.0), (99, 6.0)):
        assert values.at(np.array([row]), np.array([3.0, 4.0])).tolist() == [[level, level]]
