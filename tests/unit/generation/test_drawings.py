"""Drawings as layers: what is understood, what is refused, and that nothing else is read or run."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hpc.errors import ConfigError, DataError
from sarhpc.generation.controls.config import ControlInputConfig
from sarhpc.generation.controls.drawing import drawn_layer
from sarhpc.generation.controls.drawn import DrawnLayers, check_drawings, drawings, drawings_sha
from sarhpc.shards.images import decode_gray8
from sarhpc.tiling.pairs.conditions import draw_edges, edge_ratios_db

PX = 64
XMLNS = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
HEAD = f'<svg {XMLNS} viewBox="0 0 64 64"'
LINE = '<path d="M0 20H64" stroke="black" stroke-width="3"/>'


def lines(px: int = PX, width: int = 3) -> NDArray[np.uint8]:
    """Black lines on white paper: one along rows and one along columns."""
    drawn = np.full((px, px), 255, np.uint8)
    at = px // 4
    drawn[at : at + width] = 0
    drawn[:, 2 * at : 2 * at + width] = 0
    return drawn


def save(folder: Path, pixels: NDArray[np.uint8], mode: str = "L", name: str = "d.png") -> Path:
    picture = Image.fromarray(pixels)
    assert picture.mode == mode
    picture.save(folder / name)
    return folder / name


def svg(folder: Path, inner: str = LINE, attributes: str = "", before: str = "") -> Path:
    path = folder / "d.svg"
    path.write_text(f"{before}{HEAD}{attributes}>{inner}</svg>")
    return path


def test_dark_lines_on_white_and_light_ones_on_black_are_the_same_layer(tmp_path: Path) -> None:
    dark = drawn_layer(save(tmp_path, lines()), PX, PX)
    light = drawn_layer(save(tmp_path, 255 - lines()), PX, PX)
    assert np.array_equal(dark, light)
    assert np.array_equal(dark, 255 - lines()), "lines are white, paper is black"


def test_transparent_paper_is_white(tmp_path: Path) -> None:
    ink = np.zeros((PX, PX, 4), np.uint8)
    ink[..., 3] = 255 - lines()
    assert np.array_equal(drawn_layer(save(tmp_path, ink, "RGBA"), PX, PX), 255 - lines())
    ink[..., :3] = 255
    with pytest.raises(DataError, match="no lines: all of it is white"):
        drawn_layer(save(tmp_path, ink, "RGBA"), PX, PX)


def test_the_edges_of_a_tile_stay_as_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    amplitude = rng.rayleigh(1.0, (PX, PX)).astype(np.float32)
    amplitude[:, 30:] *= 4
    amplitude[40:] *= 3
    layer = draw_edges(edge_ratios_db(amplitude, np.ones((PX, PX), bool)), 2.0)
    assert 0 < np.count_nonzero(layer) < layer.size / 2
    assert np.array_equal(drawn_layer(save(tmp_path, layer), PX, PX), layer)


def test_a_larger_drawing_is_fitted_and_its_thin_lines_become_three_pixels_wide(
    tmp_path: Path,
) -> None:
    layer = drawn_layer(save(tmp_path, lines(8 * PX, width=2)), PX, PX)
    assert layer[:, 0].tolist().count(255) == 3
    assert abs(int(np.flatnonzero(layer[:, 0]).mean()) - PX // 4) <= 1
    smaller = drawn_layer(save(tmp_path, lines(PX // 2)), PX, PX)
    assert smaller[:, 0].tolist().count(255) == 6


def test_the_strength_of_a_line_is_that_of_its_ink(tmp_path: Path) -> None:
    faint = lines()
    faint[faint == 0] = 155
    assert set(np.unique(drawn_layer(save(tmp_path, faint), PX, PX))) == {0, 100}


@pytest.mark.parametrize(
    ("pixels", "mode", "reason"),
    [
        (np.dstack([lines(), lines(), np.full((PX, PX), 255, np.uint8)]), "RGB", "in colour"),
        (np.full((PX, PX), 128, np.uint8), "L", "most of it is grey"),
        (np.full((PX, PX), 250, np.uint8), "L", "no lines: all of it is white"),
        (np.zeros((PX, PX), np.uint8), "L", "no lines: all of it is black"),
        (lines()[:32], "L", "64 x 32 px and the images are 64 x 64 px"),
        (lines().astype(np.uint16) * 257, "I;16", "more than 8 bits"),
    ],
)
def test_what_is_no_line_drawing_is_refused(
    tmp_path: Path, pixels: NDArray[np.uint8], mode: str, reason: str
) -> None:
    path = save(tmp_path, pixels, mode)
    with pytest.raises(DataError, match=reason) as error:
        drawn_layer(path, PX, PX)
    assert str(path) in str(error.value)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    Image.fromarray(lines()).save(tmp_path / "d.png", "JPEG")
    with pytest.raises(DataError, match="not a PNG"):
        drawn_layer(tmp_path / "d.png", PX, PX)
    with pytest.raises(ConfigError, match="no drawing"):
        drawings(str(tmp_path / "absent.png"))
    folder = tmp_path / "several"
    folder.mkdir()
    with pytest.raises(ConfigError, match="no drawings in"):
        drawings(str(folder))
    save(folder, lines())
    (folder / "notes.jpg").write_text("")
    with pytest.raises(ConfigError, match=r"notes\.jpg is no drawing"):
        drawings(str(folder))


def test_an_svg_is_drawn_at_the_size_of_the_images(tmp_path: Path) -> None:
    layer = drawn_layer(svg(tmp_path), PX, PX)
    assert np.flatnonzero(layer[:, 5] == 255).tolist() in ([18, 19, 20, 21], [19, 20, 21])
    assert np.array_equal(layer, drawn_layer(svg(tmp_path), PX, PX)), "the same bits each time"
    assert drawn_layer(svg(tmp_path), 2 * PX, 2 * PX).shape == (2 * PX, 2 * PX)
    with pytest.raises(DataError, match="px and the images are 128 x 64"):
        drawn_layer(svg(tmp_path), PX, 2 * PX)


@pytest.mark.parametrize("side", ["64mm", "2.5in", "64px", "100%"])
def test_an_svg_may_have_its_size_in_any_unit(tmp_path: Path, side: str) -> None:
    sized = svg(tmp_path, attributes=f' width="{side}" height="{side}"')
    layer = drawn_layer(sized, PX, PX)
    assert np.array_equal(layer, drawn_layer(svg(tmp_path), PX, PX))


@pytest.mark.parametrize("name", ["d.png", "d.svg"])
def test_a_pipe_that_is_called_a_drawing_is_refused_and_not_waited_for(
    tmp_path: Path, name: str
) -> None:
    os.mkfifo(tmp_path / name)
    for sketch in (tmp_path / name, tmp_path):
        with pytest.raises(DataError, match="not a regular file"):
            check_drawings(ControlInputConfig(sketch=str(sketch)), (PX, PX))


def test_names_that_are_no_text_are_planned_and_recorded(tmp_path: Path) -> None:
    save(tmp_path, lines(), name=os.fsdecode(b"\xff.png"))
    files = drawings(str(tmp_path))
    assert len(drawings_sha(files)) == 64
    assert DrawnLayers(files, (PX, PX)).load(0).key == r"\xff.png"


def test_a_link_to_nowhere_and_an_empty_name_are_no_drawings(tmp_path: Path) -> None:
    save(tmp_path, lines())
    (tmp_path / "e.png").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"e\.png"):
        check_drawings(ControlInputConfig(sketch=str(tmp_path)), (PX, PX))
    with pytest.raises(ConfigError, match="no drawing ''"):
        drawings("")


def test_what_an_editor_adds_is_left_out(tmp_path: Path) -> None:
    added = (
        "<metadata>made by hand</metadata><title>a road</title><defs><text>x</text></defs>"
        '<n:view xmlns:n="http://editor.example/ns" n:zoom="2"/><!-- note -->'
    )
    doctype = '<?xml version="1.0"?><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "svg11.dtd">'
    plain = drawn_layer(svg(tmp_path), PX, PX)
    edited = drawn_layer(svg(tmp_path, f"{added}<g>{LINE}</g>", before=doctype), PX, PX)
    assert np.array_equal(plain, edited)


ENTITIES = '<!DOCTYPE svg [<!ENTITY a "M0 20H64"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("inner", "before", "reason"),
    [
        ("<script>1</script>", "", "<script>.*remove it"),
        ('<image href="/etc/passwd"/>', "", "<image>.*give it as a PNG"),
        ('<use href="#a"/>', "", "<use>.*unlink clones"),
        ("<text>road</text>", "", "<text>.*convert it to paths"),
        ("<style>@import url(//host/a.css);</style>", "", "<style>"),
        ("<filter/>", "", "<filter>.*plain paths"),
        ('<foreignObject xmlns="http://www.w3.org/2000/svg"/>', "", "<foreignObject>"),
        ('<path d="M0 0H9" onload="a()"/>', "", "onload"),
        ('<path d="M0 0H9" xlink:href="file:///etc/passwd"/>', "", "href"),
        ('<path d="M0 0H9" style="fill: url(http://host/a)"/>', "", "plain colours"),
        ('<path d="&b;"/>', ENTITIES, "declares entities"),
        ("<g/>" * 20_000, "", "of at most 20000"),
        ("<path", "", "is no SVG"),
        ("", "", "no lines"),
    ],
)
def test_an_svg_refers_to_nothing_and_runs_nothing(
    tmp_path: Path, inner: str, before: str, reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        drawn_layer(svg(tmp_path, inner, before=before), PX, PX)


def test_a_large_svg_and_another_root_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more than 4 MB"):
        drawn_layer(svg(tmp_path, " " * 4_000_001), PX, PX)
    (tmp_path / "d.svg").write_text("<html/>")
    with pytest.raises(DataError, match="its root is html"):
        drawn_layer(tmp_path / "d.svg", PX, PX)


def test_the_drawings_of_a_folder_are_used_in_turn(tmp_path: Path) -> None:
    save(tmp_path, lines(), name="b.png")
    save(tmp_path, lines().T[::-1].copy(), name="a.png")
    (tmp_path / ".hidden").write_text("")
    files = drawings(str(tmp_path))
    layers = DrawnLayers(files, (PX, PX))
    assert [layers.load(number).key for number in range(3)] == ["a.png", "b.png", "a.png"]
    loaded = layers.load(1)
    assert loaded.drawn
    assert loaded.layer.shape == (PX, PX, 3)
    assert np.array_equal(decode_gray8(layers.members(1)["edges.png"]), 255 - lines())
    before = drawings_sha(files)
    save(tmp_path, 255 - lines(), name="b.png")
    assert drawings_sha(files) != before


def test_every_drawing_is_checked_before_work_begins(tmp_path: Path) -> None:
    save(tmp_path, lines(), name="a.png")
    save(tmp_path, lines()[:32], name="b.png")
    with pytest.raises(DataError, match=r"b\.png is 64 x 32"):
        check_drawings(ControlInputConfig(sketch=str(tmp_path)), (PX, PX))
    check_drawings(ControlInputConfig(sketch=str(tmp_path / "a.png")), (PX, PX))
