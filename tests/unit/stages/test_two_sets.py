"""Any two sets of images are compared: tables that are kept, gates, exit codes, and the page."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from image_sets_on_disk import (
    codes_of,
    real_set,
    shard_of,
    speckle_amplitude,
    speckle_codes,
    synthetic_set,
)
from PIL import Image

from sarhpc.cli import main

pytestmark = pytest.mark.slow

QUICK = ["bootstrap=10", "gallery=2", "orientation_steps=0"]


def evaluate(real: Path, synthetic: Path, out: Path, *words: str) -> int:
    return main(
        ["evaluate", str(real), str(synthetic), "--out", str(out), "--workers", "1", *words, *QUICK]
    )


def result(out: Path) -> dict[str, Any]:
    return json.loads((out / "evaluation.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("sets")
    return real_set(root / "real"), synthetic_set(root / "synthetic")


def test_a_good_set_passes_and_each_tile_has_a_row_in_a_table(
    sets: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(*sets, tmp_path / "out") == 0
    found = result(tmp_path / "out")
    assert found["gates_passed"]
    assert {gate["verdict"] for gate in found["gates"]} == {"pass"}
    # Twice as many real tiles as synthetic ones, the same number of each of the 12 scenes.
    assert (found["drawn"], found["pixels"]) == ({"real": 36, "synthetic": 16}, "8-bit codes")
    assert found["splits"] == {"val": 36}
    tables = [pq.read_table(path) for path in sorted((tmp_path / "out" / "tables").iterdir())]
    assert [len(table) for table in tables] == [36, 16]
    scenes = tables[0].column("group").to_pylist()
    assert {scenes.count(scene) for scene in scenes} == {3}
    assert {"key", "file", "row", "split", "mean_db", "histogram"} <= {*tables[0].column_names}
    printed = capsys.readouterr().out
    assert "gate w1_db pass" in printed
    assert "Real tiles are from: val (36)." in printed
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Real tiles are from: val (36)." in page
    assert "E4 autocorrelation at lag 1" in page
    assert '<p class="word">Passes all 6 gates</p>' in page
    assert "Measured on 8-bit codes: at low levels" in page
    assert "data:image/png" in page
    assert "classes" not in found, "no tile names one"


def test_tiles_that_name_their_class_are_measured_by_class(tmp_path: Path) -> None:
    truth = {"class_fractions": {"water": 0.9}}
    real = real_set(tmp_path / "real", truth=truth)
    made = tmp_path / "made"
    shard_of(
        made / "000000.tar",
        speckle_codes(2, 16),
        lambda n: {"synthetic": True, "labels": {"class": "river" if n % 2 else "town"}},
    )
    assert evaluate(real, made, tmp_path / "out") in (0, 4)
    classes = result(tmp_path / "out")["classes"]["classes"]
    assert {name: rows["synthetic"]["tiles"] for name, rows in classes.items()} == {"water": 8}
    assert classes["water"]["real"]["tiles"] == 36
    page = (tmp_path / "out" / "report.html").read_text()
    assert '<h2 id="classes">Measures by class</h2>' in page
    assert "cannot be shown" not in page


@pytest.mark.slow
def test_the_look_direction_is_part_of_the_result(
    sets: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["evaluate", *map(str, sets), "--out", str(out), "--workers", "1"]
    assert main([*words, "--suite", "orientation", *QUICK[:2], "orientation_steps=4"]) == 0
    found = result(out)["orientation"]
    # Speckle on levels shows no direction.
    assert found["verdict"] == "undecided"
    assert found["range"]["groups"] == 12
    assert found["sets"]["synthetic"]["unflipped"] is None
    assert "E8, look direction: the real tiles are undecided" in capsys.readouterr().out
    assert "E8, look direction" in (out / "report.html").read_text()


@pytest.mark.usefixtures("without_figures")
def test_a_set_with_too_little_range_of_levels_fails_its_gate_and_exits_4(
    sets: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    amplitude = speckle_amplitude(5, 16)
    level = np.sqrt(np.square(amplitude).mean((1, 2), keepdims=True))
    shard_of(tmp_path / "gray" / "000000.tar", codes_of(0.18 * amplitude / level), {})
    assert evaluate(sets[0], tmp_path / "gray", tmp_path / "out") == 4
    gates = {gate["name"]: gate for gate in result(tmp_path / "out")["gates"]}
    assert gates["level_spread_ratio"]["verdict"] == "fail"
    assert gates["level_spread_ratio"]["value"] < 0.8
    assert gates["lsd_db"]["verdict"] == "pass"
    measures = result(tmp_path / "out")["sets"]["synthetic"]["measures"]
    assert gates["lsd_db"]["value"] == measures["E5_lsd"]["raw"], "one distance, one value"
    assert "gate level_spread_ratio fail" in capsys.readouterr().out
    assert "fail" in (tmp_path / "out" / "report.html").read_text()
    loose = ["gates.level_spread_ratio=null", "gates.w1_db=3", "gates.enl_ratio=null"]
    assert evaluate(sets[0], tmp_path / "gray", tmp_path / "out", *loose) == 0


@pytest.mark.slow
def test_a_table_is_kept_for_the_same_images_and_made_again_for_others(
    sets: tuple[Path, Path], tmp_path: Path
) -> None:
    synthetic = synthetic_set(tmp_path / "synthetic")
    out = tmp_path / "out"
    assert evaluate(sets[0], synthetic, out) == 0
    tables = sorted((out / "tables").iterdir())
    before = [(path.stat().st_ino, path.read_bytes()) for path in tables]
    # Another time of change is no other content.
    os.utime(synthetic / "000000.tar", (1, 1))
    assert evaluate(sets[0], synthetic, out) == 0
    assert [(path.stat().st_ino, path.read_bytes()) for path in tables] == before
    synthetic_set(synthetic, seed=77)
    tables[0].write_bytes(b"cut short")
    evaluate(sets[0], synthetic, out)
    assert tables[0].read_bytes() == before[0][1], "a damaged table is made again"
    assert tables[1].read_bytes() != before[1][1]


def test_only_the_parts_of_the_suite_that_are_named_are_in_the_result(
    sets: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(*sets, tmp_path / "out", "--suite", "spectrum,texture", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == result(tmp_path / "out")
    named = {name.split("_")[0] for name in printed["sets"]["synthetic"]["measures"]}
    assert named == {"E5", "E6"}
    assert {gate["name"] for gate in printed["gates"]} == {"lsd_db", "unmeasurable"}
    assert evaluate(*sets, tmp_path / "out", "--suite", "spectra") == 2
    said = capsys.readouterr().err
    assert "did you mean spectrum? There are radiometry, speckle, spectrum, texture" in said


@pytest.mark.usefixtures("without_figures")
def test_a_set_compared_with_itself_is_said(sets: tuple[Path, Path], tmp_path: Path) -> None:
    for real, synthetic in ((sets[0], sets[0] / "000000.tar"), sets):
        evaluate(real, synthetic, tmp_path / "out", "--suite", "spectrum")
        said = "is compared with itself" in " ".join(result(tmp_path / "out")["notes"])
        assert said is (synthetic is not sets[1])


@pytest.mark.usefixtures("without_figures")
def test_settings_are_taken_as_messages_name_them_and_parts_with_spaces(
    sets: tuple[Path, Path], tmp_path: Path
) -> None:
    words = ["--suite", "spectrum, texture", "evaluate.tiles=8", "evaluate.gates.lsd_db=7"]
    assert evaluate(*sets, tmp_path / "out", *words) == 0
    found = result(tmp_path / "out")
    assert found["drawn"]["synthetic"] == 8
    assert [gate["high"] for gate in found["gates"] if gate["name"] == "lsd_db"] == [7.0]
    from sarhpc.api.evaluation import evaluate as api

    again = api(*sets, tmp_path / "out", words[2:], suites="spectrum, texture").to_json()
    assert again["sets"]["synthetic"]["measures"].keys() == (
        found["sets"]["synthetic"]["measures"].keys()
    )


@pytest.mark.parametrize("ending", ["png", "tif", "npy"])
def test_folders_of_images_are_compared_and_their_scenes_come_from_a_table(
    ending: str, tmp_path: Path
) -> None:
    for name, seed, count in (("real", 1, 32), ("synthetic", 2, 8)):
        (tmp_path / name).mkdir()
        for number, amplitude in enumerate(speckle_amplitude(seed, count)):
            file = tmp_path / name / f"{number:03d}.{ending}"
            if ending == "npy":
                np.save(file, 40_000 * amplitude.astype(np.float32))
            elif ending == "tif":
                pixels = np.rint(4000 * amplitude).astype(np.uint16)
                Image.fromarray(pixels).save(file)
            else:
                Image.fromarray(codes_of(amplitude)).save(file)
    code = evaluate(tmp_path / "real", tmp_path / "synthetic", tmp_path / "out")
    found = result(tmp_path / "out")
    assert found["pixels"] == ("8-bit codes" if ending == "png" else "amplitude")
    gates = {gate["name"]: gate for gate in found["gates"]}
    assert gates["lsd_db"]["verdict"] == "pass"
    # Without scenes there is no null, and a gate that needs one is not passed.
    assert (code, gates["w1_db"]["verdict"]) == (4, "undecided")
    assert gates["w1_db"]["value"] is None
    if ending == "png":
        rows = [{"file_name": f"{n:03d}.png", "scene_id": f"s{n % 10}"} for n in range(32)]
        table = tmp_path / "real" / "metadata.jsonl"
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
        evaluate(tmp_path / "real", tmp_path / "synthetic", tmp_path / "out")
        gates = {gate["name"]: gate for gate in result(tmp_path / "out")["gates"]}
        assert gates["w1_db"]["verdict"] != "undecided"
        # Other scenes of the same pixels are other tables.
        table.write_text(table.read_text().replace('"scene_id": "s', '"scene_id": "t'))
        evaluate(tmp_path / "real", tmp_path / "synthetic", tmp_path / "out")
        part = pq.read_table(tmp_path / "out" / "tables" / "000000.parquet")
        assert {name[0] for name in part.column("group").to_pylist()} == {"t"}


def test_masters_are_measured_where_both_sets_have_them_and_codes_where_one_has_not(
    sets: tuple[Path, Path], tmp_path: Path
) -> None:
    def masters(name: str, seed: int, count: int, gain: float) -> Path:
        amplitude = speckle_amplitude(seed, count, gain=gain)
        meta = {"split": "test", "synthetic": name != "real"}
        shard_of(
            tmp_path / name / "000000.tar",
            codes_of(amplitude),
            lambda n: {**meta, "scene_id": f"s{n % 12}"},
            masters=amplitude,
        )
        return tmp_path / name

    real, synthetic = masters("real", 1, 36, 8.0), masters("synthetic", 2, 12, 8.0)
    evaluate(real, synthetic, tmp_path / "out")
    found = result(tmp_path / "out")
    assert found["pixels"] == "amplitude"
    # At this gain most pixels are beyond code 255; a master holds them.
    assert found["sets"]["real"]["percentiles_db"]["P99"] > 6
    evaluate(real, sets[1], tmp_path / "out")
    found = result(tmp_path / "out")
    assert found["pixels"] == "8-bit codes"
    assert found["sets"]["real"]["percentiles_db"]["P99"] <= 0
    assert any("has 8 bits only" in note for note in found["notes"])


@pytest.mark.usefixtures("without_figures")
def test_tiles_of_the_training_split_are_taken_only_where_there_are_no_others_and_that_is_said(
    sets: tuple[Path, Path], tmp_path: Path
) -> None:
    real = real_set(tmp_path / "real", split="train")
    evaluate(real, sets[1], tmp_path / "out")
    found = result(tmp_path / "out")
    assert found["splits"] == {"train": 36}
    assert any("split train are the reference" in note for note in found["notes"])
    assert "split train are the reference" in (tmp_path / "out" / "report.html").read_text()
    shard_of(
        real / "000009.tar",
        speckle_codes(8, 12),
        lambda n: {"split": "val", "scene_id": f"v{n}", "pixel_m": 0.5},
    )
    evaluate(real, sets[1], tmp_path / "out")
    assert result(tmp_path / "out")["splits"] == {"val": 12}


@pytest.mark.usefixtures("without_figures")
def test_every_tile_is_in_the_tables_where_that_is_asked_and_as_many_are_compared(
    sets: tuple[Path, Path], tmp_path: Path
) -> None:
    evaluate(*sets, tmp_path / "out", "all_tiles=true", "tiles=6")
    found = result(tmp_path / "out")
    assert found["drawn"] == {"real": 48, "synthetic": 16}
    assert [found["sets"][name]["tiles"] for name in ("real", "synthetic")] == [12, 6]


@pytest.mark.slow
def test_two_workers_write_the_same_tables_as_one(sets: tuple[Path, Path], tmp_path: Path) -> None:
    for workers in ("1", "2"):
        words = ["evaluate", *map(str, sets), "--out", str(tmp_path / workers), *QUICK]
        assert main([*words, "--workers", workers]) == 0
    one, two = (sorted((tmp_path / n / "tables").iterdir()) for n in ("1", "2"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert result(tmp_path / "1") == result(tmp_path / "2")
