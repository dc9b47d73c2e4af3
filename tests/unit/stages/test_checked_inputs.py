"""What is read from outside a run is checked before anything is submitted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from line_runs import tiny_run

from hpc.config import loads
from hpc.errors import ConfigError
from hpc.job.elements import run_element
from hpc.job.pipeline import why_empty
from hpc.store.rundir import RunDir
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.sizes import size_notes
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.settings import require_present, require_settings


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    run = tiny_run(folder / "run", folder, ["simulate.scenes=2", "simulate.size_px=48"])
    simulate = stage_named(load_run_config(run), "simulate")
    run_element(run, simulate, 0, lambda plan: [shard.id for shard in plan.shards])
    assert simulate.finish is not None
    return folder / "run" / "data" / "archive"


def present(tmp_path: Path, stage: str, *words: str) -> None:
    require_present(RunDir(tmp_path), loads(RunConfig, "", list(words)), [stage])


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (
            ["tile.tile_px=64"],
            r"no tile could be cut from any of 2 scenes .*too_small: 48 x 48 pix",
        ),
        (["tile.pixel_m=0.1", "tile.tile_px=32"], r"any of 2 scenes .*upsampling: "),
        (["archive.band=P"], r"no scene that archive.band, polarization.* select; set them to"),
        (["archive.ids=[nothing]"], r"has no scene that"),
    ],
)
def test_an_archive_that_gives_no_tile_is_told_with_the_reasons(
    archive: Path, tmp_path: Path, words: list[str], reported: str
) -> None:
    with pytest.raises(ConfigError, match=reported):
        present(tmp_path, "tile", f"archive.uri={archive}", *words)


def test_an_archive_that_may_give_tiles_and_one_of_a_plug_in_pass(
    archive: Path, tmp_path: Path
) -> None:
    present(tmp_path, "tile", f"archive.uri={archive}", "tile.tile_px=32")
    present(tmp_path, "tile", "archive.uri=institute:campaign")


def test_a_file_that_is_no_catalogue_is_told(tmp_path: Path) -> None:
    (tmp_path / "catalog.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"archive\.uri="):
        present(tmp_path, "tile", f"archive.uri={tmp_path}")


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["tile.tile_px=100"], "tile.tile_px=100 is no multiple of 8.*give 96 or 104"),
        (["imported={path: /x, px: 5}"], "imported.px=5 is no multiple of 8.*give 8$"),
        (
            ["imported={path: /x, px: 64}", "train.judge={}"],
            r"tiles of 64 px \(imported.px\) with grid images of 128 px, .*set train.image_px=64",
        ),
        (["tile.tile_px=128", "train.judge={}", "train.image_px=64"], "set train.image_px=128"),
        (["train.prior={shards: /none}"], "train.prior.shards=/none is no folder"),
    ],
)
def test_sizes_that_the_training_would_refuse_are_told(
    tmp_path: Path, words: list[str], reported: str
) -> None:
    base = ["train.base_model=embedded:base"]
    with pytest.raises(ConfigError, match=reported):
        present(tmp_path, "train", *base, "tile.tile_px=128", *words)


def test_the_advice_on_sizes_can_be_followed(tmp_path: Path) -> None:
    words = ["train.base_model=embedded:base", "imported={path: /x, px: 64}"]
    present(tmp_path, "train", *words, "train.judge={}", "train.image_px=64")
    [note] = size_notes(loads(RunConfig, "", words))
    advised = [word for word in note.split() if word.startswith("generate.")]
    assert advised == ["generate.height_px=64", "generate.width_px=64"]
    assert size_notes(loads(RunConfig, "", [*words, *advised])) == []


def test_scenes_to_simulate_that_are_smaller_than_a_tile_are_told() -> None:
    words = ["simulate={size_px: 96, pixel_m: 0.5}", "tile.tile_px=64"]
    require_settings(loads(RunConfig, "", words), ["tile"])
    with pytest.raises(ConfigError, match=r"simulate\.size_px=96: scenes of 48 px at the spacing"):
        require_settings(loads(RunConfig, "", [*words, "tile.pixel_m=1.0"]), ["tile"])


@pytest.mark.parametrize("shards", ["/none", "''", "EMPTY"])
def test_shards_that_steer_and_are_not_there_are_told(tmp_path: Path, shards: str) -> None:
    (tmp_path / "empty").mkdir()
    named = shards.replace("EMPTY", str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match=r"generate\.steer\.shards=\S* is no folder"):
        present(tmp_path, "generate", f"generate.steer={{shards: {named}}}")


def test_a_scene_smaller_than_a_tile_is_refused_before_submission(tmp_path: Path) -> None:
    words = ["train.base_model=embedded:sar", "tile.tile_px=128"]
    scene = "generate.scene={rows_px: 64, columns_px: 512}"
    with pytest.raises(ConfigError, match=r"scene is 64 px along an axis.*images of 128 px"):
        present(tmp_path, "generate", *words, scene)
    present(tmp_path, "generate", "generate.scene={rows_px: 128, columns_px: 512}", *words)


def test_tiles_that_the_buffer_between_splits_takes_all_are_told(
    archive: Path, tmp_path: Path
) -> None:
    words = [f"archive.uri={archive}", "simulate=null", "tile.tile_px=32", "tile.split.cell_m=20"]
    run = tiny_run(tmp_path / "run", tmp_path, [*words, "tile.split.buffer_m=500"])
    plan = stage_named(load_run_config(run), "tile").plan(run)
    reported = r"inputs were rejected \(\d+ tiles: split_buffer; give larger scenes, a smaller "
    assert re.search(reported, why_empty(plan))


def test_training_shards_for_the_search_of_copies_are_told_where_they_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "evaluate.memory={shards: $TILES}"
    monkeypatch.setenv("TILES", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"evaluate\.memory\.shards=\$TILES does not exist"):
        present(tmp_path, "evaluate", words)
    monkeypatch.setenv("TILES", str(tmp_path))
    present(tmp_path, "evaluate", words)
