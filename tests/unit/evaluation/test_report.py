from __future__ import annotations

import base64
import dataclasses
import functools
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from sarhpc.evaluation.classes import Conformity
from sarhpc.evaluation.config import EvaluateConfig
from sarhpc.evaluation.gates import GateResult
from sarhpc.evaluation.headline import judge_gates
from sarhpc.evaluation.report import GridRow, Picture, Report, StageLine, to_json
from sarhpc.evaluation.report_page import MAX_PAGE_BYTES, render
from sarhpc.evaluation.suite import evaluate
from sarhpc.measures.distances import DISTANCES

pytestmark = pytest.mark.slow


@functools.cache
def example(scenes: int | None = None) -> Report:
    rng = np.random.default_rng(0)
    sets = {
        name: np.clip(rng.rayleigh(scale, (8, 64, 64)), 0, 255).astype(np.uint8)
        for name, scale in (("real", 40.0), ("base", 90.0), ("demo", 43.0))
    }
    pictures = {n: [Picture(t, "a <b>river</b>", "seed 3") for t in sets[n][:2]] for n in sets}
    metrics = [
        {"step": i, "loss": 1 / (i + 1), "grad_norm": 1.0, "samples_per_s": 9.0} for i in range(9)
    ]
    return Report(
        name="unit",
        facts={"tiles": "8"},
        config_yaml="tile:\n  tile_px: 64\n",
        stages=[StageLine("tile", 2, 30, {"nodata": 4}, 12.5, 1)],
        real=pictures.pop("real"),
        synthetic=pictures,
        evaluation=evaluate(
            sets["real"],
            {k: sets[k] for k in ("base", "demo")},
            EvaluateConfig(bootstrap=10),
            scenes=[number % scenes for number in range(8)] if scenes else None,
        ),
        tiles=sets,
        conformity={"real": Conformity(0.9, {"water": 0.9, "town": 0.9}, [[9, 1], [1, 9]], 20)},
        progress_prompts=["water"],
        progress=[GridRow("step 0", [sets["demo"][0]])],
        training=metrics,
    )


def test_page_is_self_contained_and_escapes_what_prompts_say() -> None:
    page = render(example())
    assert "a &lt;b&gt;river&lt;/b&gt;" in page
    assert "<b>river</b>" not in page
    # Nothing is fetched: every source is inline, and no reference leaves the page.
    assert all(
        uri.startswith("data:image/png;base64,") for uri in re.findall(r'src="([^"]*)"', page)
    )
    assert not re.findall(r'(?:href|url)\s*[=(]\s*"?https?://', page)
    assert "nodata 4" in page
    assert "It shows no real place" in page


def test_the_page_gives_the_null_of_each_distance_or_says_that_there_is_no_verdict() -> None:
    page = render(example(scenes=8))
    assert "demo: 4 tiles against 4 of other scenes; the null draws 4 of 8 scenes" in page
    assert ">no verdict<" not in page
    assert "p 0.005; ln ratio" in page
    page = render(example(scenes=2))
    assert page.count(">no verdict<") == 2 * len(DISTANCES)
    assert page.count("No verdict for base, demo: the real tiles are of 2 scenes") == 1
    assert page.count("the real tiles are of 2 scenes") == 1, "the reason is given once"


def test_sets_in_other_pixels_are_named_and_not_in_the_figure() -> None:
    whole = render(example())
    page = render(dataclasses.replace(example(), other_pixels={"base": "8-bit codes"}))
    assert "base: 8-bit codes, compared with the real tiles in the same pixels" in page
    assert page.count('<span class="small">8-bit codes</span>') == 2
    # Each curve of the figure is a path of its own.
    assert page.count("<path") < whole.count("<path")


def test_same_report_is_the_same_page() -> None:
    assert render(example()) == render(example.__wrapped__())


def test_json_holds_the_numbers_of_the_page() -> None:
    document = json.loads(json.dumps(to_json(example())))
    assert document["evaluation"]["sets"]["demo"]["measures"]["E3_w1"]["raw"] > 0
    assert document["stages"][0]["rejected"] == {"nodata": 4}
    assert document["conformity"]["real"]["recall"]["water"] == 0.9


def test_large_tiles_are_shown_pixel_by_pixel_within_the_size_of_a_page() -> None:
    rng = np.random.default_rng(1)
    tiles = rng.integers(0, 256, (8, 512, 512), np.uint8)
    shown = {name: [Picture(tile, "a river") for tile in tiles] for name in ("a", "b", "c")}
    page = render(Report("large", {}, "", [], real=shown["a"], synthetic=shown))
    assert len(page.encode()) <= MAX_PAGE_BYTES
    assert "Of 512 x 512 px the middle 288 x 288 are shown pixel by pixel" in page
    uri = re.findall(r'src="data:image/png;base64,([^"]*)"', page)[1]
    with Image.open(io.BytesIO(base64.b64decode(uri))) as first:
        assert np.array_equal(np.asarray(first), tiles[0][112:400, 112:400])


def test_more_tiles_than_a_page_has_room_for_are_fewer_rows() -> None:
    tile = np.random.default_rng(1).integers(0, 256, (128, 128), np.uint8)
    shown = {name: [Picture(tile, "a river")] * 400 for name in ("a", "b")}
    page = render(Report("many", {}, "", [], synthetic=shown))
    assert len(page.encode()) <= MAX_PAGE_BYTES
    assert 100 < page.count("<img") < 800


def test_the_section_of_a_measure_stands_on_the_page_once() -> None:
    use = {"reason": "too few real labels"}
    page = render(dataclasses.replace(example(), blocks={"use": use, "other": {"a": 1}}))
    assert page.count('<h2 id="use">') == 1
    assert page.count("Not measured: too few real labels.") == 1
    assert '<h2 id="other"' not in page


def test_a_report_without_an_evaluation_or_later_fields_is_a_page() -> None:
    page = render(Report("bare", {}, "", []))
    assert "Not evaluated" in page


def test_the_verdict_stands_first_with_the_gates_that_were_missed() -> None:
    missed = GateResult("lsd_db", "E5 log-spectral distance, dB", 3.25, None, 2.0, "fail")
    kept = GateResult("unmeasurable", "share", 0.0, None, 0.0, "pass")
    open_ = GateResult("w1_db", "E3 levels", None, None, 0.5, "undecided", "too few scenes")
    for gates, word in (
        ([kept], "Passes its gate"),
        ([kept, open_], "1 of 2 gates cannot be decided"),
        ([], "No gates were set"),
    ):
        assert judge_gates(gates, {}).text == word
    least = GateResult("use_ratio", "E12 ratio", 0.5, 0.8, None, "fail")
    page = render(dataclasses.replace(example(), gates=[kept, missed, least]))
    assert page.index('<p class="word">Fails 2 of 3 gates</p>') < page.index("<img")
    assert "<li>E5 log-spectral distance, dB: 3.25, allowed at most 2.</li>" in page
    assert "<li>E12 ratio: 0.5, allowed at least 0.8.</li>" in page


def test_figures_are_text_in_the_colours_of_the_style() -> None:
    page = render(example(scenes=8))
    figures = re.findall(r'<svg aria-hidden="true" (?!width="30").*?</svg>', page, re.DOTALL)
    assert len(figures) == 13
    for svg in figures:
        assert "<text" in svg
        assert "<style" not in svg
        assert "DejaVu" not in svg
    assert "var(--set-1, #0f766e)" in page
    assert not re.findall(r'(?<!, )#0f766e(?![")])', page.split("</style>")[1])
