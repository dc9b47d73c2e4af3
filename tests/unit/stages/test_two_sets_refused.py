"""Sets that cannot be compared are refused with a message, and never get a number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_sets_on_disk import real_set, shard_of, speckle_codes, synthetic_set
from test_two_sets import evaluate, result

from sarhpc.cli import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real_set(tmp_path_factory.mktemp("real") / "real", band="X")


def assert_refused(
    real: Path, synthetic: Path, out: Path, code: int, capsys: pytest.CaptureFixture[str]
) -> str:
    """What is said where a comparison is refused, with this exit code and no result."""
    assert evaluate(real, synthetic, out) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert not (out / "evaluation.json").exists()
    return said.err


def test_another_spacing_is_refused(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic = synthetic_set(tmp_path / "synthetic", pixel_m=0.35)
    said = assert_refused(real, synthetic, tmp_path / "out", 2, capsys)
    assert "images of 0.5 m a pixel" in said
    assert "of 0.35 m" in said


@pytest.mark.usefixtures("without_figures")
def test_another_band_and_an_unknown_spacing_are_said(real: Path, tmp_path: Path) -> None:
    synthetic = synthetic_set(tmp_path / "synthetic", band="L", pixel_m=None)
    evaluate(real, synthetic, tmp_path / "out")
    notes = " ".join(result(tmp_path / "out")["notes"])
    assert f"{real} is of band X and {synthetic} of L" in notes
    assert f"The spacing of {synthetic} is not known" in notes


@pytest.mark.usefixtures("without_figures")
def test_spacings_that_differ_within_the_real_set_are_said(tmp_path: Path) -> None:
    real = real_set(tmp_path / "real")
    facts = {"pixel_m": 0.7, "split": "val", "scene_id": "x"}
    shard_of(real / "000005.tar", speckle_codes(9, 4), facts)
    evaluate(real, synthetic_set(tmp_path / "synthetic", pixel_m=0.6), tmp_path / "out")
    notes = " ".join(result(tmp_path / "out")["notes"])
    assert "images of 0.5 to 0.7 m a pixel" in notes


@pytest.mark.usefixtures("without_figures")
def test_the_middle_of_larger_images_is_measured_and_that_is_said(
    real: Path, tmp_path: Path
) -> None:
    shard_of(tmp_path / "large" / "000000.tar", speckle_codes(3, 8, px=96), {"pixel_m": 0.5})
    evaluate(real, tmp_path / "large", tmp_path / "out")
    found = result(tmp_path / "out")
    assert found["px"] == [64, 64]
    assert any("of 96 x 96: the middle 64 x 64 px" in note for note in found["notes"])


def test_images_too_small_for_speckle_are_refused(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard_of(tmp_path / "small" / "000000.tar", speckle_codes(3, 8, px=16), {"pixel_m": 0.5})
    assert "32 px or more" in assert_refused(real, tmp_path / "small", tmp_path / "out", 2, capsys)


def test_images_of_several_sizes_in_a_set_are_named(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiles = [*speckle_codes(3, 7), *speckle_codes(3, 1, px=48)]
    shard_of(tmp_path / "mixed" / "000000.tar", tiles, {"pixel_m": 0.5})
    said = assert_refused(real, tmp_path / "mixed", tmp_path / "out", 4, capsys)
    assert "image 00000000007" in said
    assert "48 x 48" in said


@pytest.mark.usefixtures("without_figures")
def test_codes_of_an_unknown_law_against_logarithmic_ones_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    law = {"mode": "db", "mu": 0.2, "sigma": 0.1, "top": 1.0, "low": 0.001}
    real = real_set(tmp_path / "real", normalisation=law)
    said = assert_refused(real, synthetic_set(tmp_path / "synthetic"), tmp_path / "out", 2, capsys)
    assert "follow the law db" in said
    synthetic = synthetic_set(tmp_path / "same", normalisation=law)
    evaluate(real, synthetic, tmp_path / "out")
    assert result(tmp_path / "out")["sets"]["real"]["mean_db"] < -20, "codes are decoded by the law"


def test_too_few_tiles_and_none_are_refused(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = synthetic_set(tmp_path / "few", tiles=3)
    assert "3 images" in assert_refused(real, few, tmp_path / "out", 4, capsys)
    none = synthetic_set(tmp_path / "none", tiles=0)
    assert "no images" in assert_refused(real, none, tmp_path / "out", 4, capsys)
    (tmp_path / "empty").mkdir()
    said = assert_refused(real, tmp_path / "empty", tmp_path / "out", 4, capsys)
    assert "holds no images" in said
    said = assert_refused(real, tmp_path / "absent", tmp_path / "out", 2, capsys)
    assert "does not exist" in said


def test_too_few_scenes_give_no_verdict_and_the_gate_does_not_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = real_set(tmp_path / "real", groups=3)
    assert evaluate(real, synthetic_set(tmp_path / "synthetic"), tmp_path / "out") == 4
    found = result(tmp_path / "out")
    measure = found["sets"]["synthetic"]["measures"]["E3_w1"]
    assert "p_value" not in measure
    assert "of 3 scenes or flight lines" in measure["reason"]
    assert "gate w1_db undecided" in capsys.readouterr().out


def test_a_tile_of_one_value_is_named_and_nothing_is_computed(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiles = speckle_codes(3, 8)
    tiles[5] = 7
    shard_of(tmp_path / "blank" / "000000.tar", tiles, {"pixel_m": 0.5})
    said = assert_refused(real, tmp_path / "blank", tmp_path / "out", 4, capsys)
    assert "1 of 8 images of synthetic cannot be measured: 00000000005 (every pixel is 7)" in said


def test_the_set_of_which_no_image_can_be_measured_is_named(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blank = np.full((8, 64, 64), 7, np.uint8)
    shard_of(tmp_path / "blank" / "000000.tar", blank, {"pixel_m": 0.5})
    said = assert_refused(real, tmp_path / "blank", tmp_path / "out", 4, capsys)
    assert "synthetic: no image can be measured (00000000000: every pixel is 7" in said
    said = assert_refused(tmp_path / "blank", real, tmp_path / "out", 4, capsys)
    assert "real: no image can be measured" in said


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--suite", "text", "text.model=embedded:clip"], "no image of synthetic has a caption"),
        (["--suite", "memory"], "none of train"),
        (["--suite", "memory,use"], "names its class"),
    ],
)
def test_a_suite_of_which_all_is_left_out_does_not_pass(
    words: list[str], reason: str, real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic = synthetic_set(tmp_path / "synthetic")
    assert evaluate(real, synthetic, tmp_path / "out", *words) == 4
    said = capsys.readouterr().err
    assert "nothing that was asked for was measured: " in said
    assert reason in said
    assert "Loading weights" not in said


def test_nan_and_negative_values_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in (("real", 1), ("synthetic", 2)):
        (tmp_path / name).mkdir()
        for number, tile in enumerate(speckle_codes(seed, 8)):
            np.save(tmp_path / name / f"{number}.npy", tile / 255.0)
    place = tmp_path / "synthetic" / "3.npy"
    tile = np.load(place)
    for value, words in ((np.nan, "1 of 4096 pixels are NaN"), (-1.0, "1 pixels are negative")):
        tile[4, 4] = value
        np.save(place, tile)
        said = assert_refused(
            tmp_path / "real", tmp_path / "synthetic", tmp_path / "out", 4, capsys
        )
        assert "1 of 8 images of synthetic cannot be measured: 3 (" in said
        assert words in said


def test_a_shard_cut_short_is_named_whether_listed_or_read(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = synthetic_set(tmp_path / "cut") / "000000.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    said = assert_refused(real, shard.parent, tmp_path / "out", 4, capsys)
    assert str(shard) in said
    damaged = bytearray(whole)
    damaged[2000:2100] = bytes(100)
    shard.write_bytes(damaged)
    said = assert_refused(real, shard.parent, tmp_path / "out", 4, capsys)
    assert "00000000000" in said


def test_a_coloured_picture_and_something_else_than_a_picture_are_named(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    folder = tmp_path / "colour"
    folder.mkdir()
    for number, tile in enumerate(speckle_codes(3, 6)):
        Image.fromarray(tile).save(folder / f"{number}.png")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(folder / "4.png")
    assert "image 4" in (said := assert_refused(real, folder, tmp_path / "out", 4, capsys))
    assert "coloured" in said
    (folder / "4.png").write_bytes(b"no picture")
    assert "image 4" in assert_refused(real, folder, tmp_path / "out", 4, capsys)


def test_words_that_belong_to_two_sets_are_refused_for_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sarhpc.cli import main

    assert main(["evaluate", str(tmp_path), "tiles=3"]) == 2
    assert "name REAL and SYNTH" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path), "--suite", "speckle"]) == 2


def test_a_result_inside_one_of_the_sets_or_in_a_file_is_refused(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    said = assert_refused(real, synthetic_set(tmp_path / "s"), tmp_path / "file", 2, capsys)
    assert "file is a file; give a folder" in said
    assert_refused(real, synthetic_set(tmp_path / "s"), real / "out", 2, capsys)


def test_a_set_without_a_second_one_is_told_how_two_are_compared(
    real: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(real)]) == 2
    assert f"{real} is not a run directory; to compare it with" in capsys.readouterr().err
