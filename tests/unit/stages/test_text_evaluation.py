"""E10 in an evaluation of two sets: its block, its tables, and what is left out."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caption_training import process_as_before
from clip_tiles import clip_training, fine_tune_clip, write_radar_tiles
from evaluated_runs import run_before_evaluation, seal
from line_runs import TINY, make_tiny_model
from safetensors.torch import load_file, save_file

from hpc.config import loads
from hpc.errors import ConfigError
from hpc.job.pipeline import run_stage
from sarhpc.cli import main
from sarhpc.evaluation.text_config import TextConfig
from sarhpc.shards.reader import read_shard
from sarhpc.shards.writer import write_shard
from sarhpc.stages.config import RunConfig
from sarhpc.stages.evaluate import EVALUATE
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.settings import require_present
from sarhpc.training.ranks import join, leave

pytestmark = pytest.mark.slow

QUICK = ["bootstrap=50", "gallery=2", "tiles=60", "gates.enl_ratio=null"]
WORDS = "{water: [a lake], forest: [a forest], field: [a field], town: [a town]}"
"""The phrases that these captions have."""


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiles of eight different captions: `train` to learn from; `val` and `test` held out."""
    root = tmp_path_factory.mktemp("tiles")
    for shard, (split, count) in enumerate({"train": 40, "val": 60, "test": 60}.items()):
        write_radar_tiles(root, split, count, shard)
    return root


@pytest.fixture(scope="module")
def clip(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP that has learnt these tiles."""
    folder = tmp_path_factory.mktemp("clip")
    cfg = clip_training(steps=120, batch=20, lr=4e-3, val_every=1000)
    with process_as_before():
        ranks = join(1, deterministic=True, seed=0, on_cpu=True)
        try:
            fine_tune_clip(cfg, tiles, folder, ranks)
        finally:
            leave()
    return folder / "model"


def evaluate(tiles: Path, synthetic: Path, out: Path, *words: str, suite: str = "text") -> int:
    given = ["evaluate", str(tiles / "val"), str(synthetic), "--out", str(out), "--workers", "1"]
    return main([*given, "--suite", suite, *words, *QUICK])


def result(out: Path) -> dict[str, Any]:
    return json.loads((out / "evaluation.json").read_text())  # type: ignore[no-any-return]


def rewritten(source: Path, target: Path, texts: Any) -> Path:
    """The shards below `source` with other texts, by number of the sample; None has none."""
    for path in source.glob("*.tar"):
        samples = []
        for number, sample in enumerate(read_shard(path)):
            text = texts(number, sample.caption)
            members = {n: data for n, data in sample.members.items() if n != "txt"}
            samples.append(type(sample)(sample.key, members))
            if text is not None:
                samples[-1] = samples[-1].with_members(txt=text.encode())
        write_shard(target / path.name, samples)
    return target


def test_images_that_show_their_captions_and_the_same_with_others_captions(
    tiles: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"text.model={clip}", "text.among=4", f"text.classes={WORDS}"]
    assert evaluate(tiles, tiles / "test", tmp_path / "own", *words) == 0
    printed = capsys.readouterr().out
    assert "E10 own caption nearest of 4: " in printed
    block = result(tmp_path / "own")["text"]
    assert block["left_out"] == []
    for name in ("real", "synthetic"):
        found = block["sets"][name]
        assert found["images"] == 60
        assert found["r_precision"]["low"] > found["r_precision"]["shuffled"]["high"]
        assert found["classes"]["value"] > 0.7
        assert found["relations"]["range"]["images"] == 60
    page = (tmp_path / "own" / "report.html").read_text()
    assert "Images and their captions (E10)" in page
    assert "cannot be shown" not in page

    texts = [sample.caption or "" for sample in read_shard(next((tiles / "test").glob("*.tar")))]
    order = np.random.default_rng(3).permutation(60)
    other = rewritten(tiles / "test", tmp_path / "other", lambda number, _: texts[order[number]])
    assert evaluate(tiles, other, tmp_path / "wrong", *words) == 0
    wrong = result(tmp_path / "wrong")["text"]["sets"]["synthetic"]
    ours = block["sets"]["synthetic"]
    assert wrong["score"]["high"] < ours["score"]["low"]
    assert wrong["r_precision"]["high"] < ours["r_precision"]["low"]
    assert wrong["classes"]["high"] < ours["classes"]["low"]


def test_vectors_of_a_part_are_kept_for_the_same_images_and_model(
    tiles: Path, clip: Path, tmp_path: Path
) -> None:
    words = [f"text.model={clip}", "text.among=4"]
    assert evaluate(tiles, tiles / "test", tmp_path, *words) == 0
    tables = sorted((tmp_path / "text").iterdir())
    assert len(tables) == 2
    before, stamps = result(tmp_path)["text"], [path.stat().st_ino for path in tables]
    tables[1].unlink()
    assert evaluate(tiles, tiles / "test", tmp_path, *words) == 0
    assert result(tmp_path)["text"] == before
    assert tables[0].stat().st_ino == stamps[0], "the part that was done is not done again"
    other = tmp_path / "other"
    shutil.copytree(clip, other)
    weights = load_file(other / "model.safetensors")
    weights["visual_projection.weight"] *= -1
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    assert evaluate(tiles, tiles / "test", tmp_path, f"text.model={other}", *words[1:]) == 0
    assert tables[0].stat().st_ino != stamps[0]


def test_sets_without_captions_or_classes_are_left_out_and_the_rest_is_measured(
    tiles: Path, clip: Path, tmp_path: Path
) -> None:
    bare = rewritten(tiles / "test", tmp_path / "bare", lambda number, text: None)
    words = [f"text.model={clip}", "text.among=4"]
    assert evaluate(tiles, bare, tmp_path / "a", *words, suite="text,speckle") == 0
    found = result(tmp_path / "a")
    assert found["text"]["left_out"] == ["no image of synthetic has a caption"]
    assert "E10, left out: no image of synthetic has a caption" in found["notes"]
    assert list(found["text"]["sets"]) == ["real"]
    assert found["sets"]["synthetic"]["measures"]["E4_acf"]
    assert "Left out: no image of synthetic" in (tmp_path / "a" / "report.html").read_text()

    strange = rewritten(tiles / "test", tmp_path / "b", lambda number, text: f"quay {number % 9}")
    assert evaluate(tiles, strange, tmp_path / "c", *words) == 0
    text = result(tmp_path / "c")["text"]
    assert "no caption of synthetic names one of the classes water, forest" in text["left_out"][0]
    assert "0 captions name a class" in text["sets"]["synthetic"]["classes"]["left_out"]
    assert "value" in text["sets"]["synthetic"]["r_precision"]


def test_sets_whose_captions_name_other_classes_are_named(
    tiles: Path, clip: Path, tmp_path: Path
) -> None:
    def of(*grounds: str) -> Any:
        return lambda number, text: f"{grounds[number % 2]} with a strip {number % 7}"

    real = rewritten(tiles / "val", tmp_path / "real" / "val", of("a lake", "a forest")).parent
    other = rewritten(tiles / "test", tmp_path / "other", of("a town", "a field"))
    assert evaluate(real, other, tmp_path / "out", f"text.model={clip}") == 0
    [reason] = result(tmp_path / "out")["text"]["left_out"]
    assert reason.endswith("no class in common")


def test_a_clip_that_does_not_load_is_refused_before_anything_is_measured(
    tiles: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = tmp_path / "wide"
    shutil.copytree(clip, wide)
    config = json.loads((wide / "config.json").read_text())
    config["projection_dim"] = 24
    (wide / "config.json").write_text(json.dumps(config))
    for model, named in (
        (wide, "cannot load CLIP from"),
        (tmp_path / "none", "there is no such folder. It must be a folder with config.json"),
        ("embedded:blip", "evaluate.text.model=embedded:blip: "),
    ):
        assert evaluate(tiles, tiles / "test", tmp_path / "out", f"text.model={model}") == 2
        assert named in capsys.readouterr().err
    assert evaluate(tiles, tiles / "test", tmp_path / "out") == 2
    assert "evaluate.text.model: name the CLIP" in capsys.readouterr().err
    assert not (tmp_path / "out" / "tables").exists()


def test_a_run_names_a_clip_or_trains_one() -> None:
    config = loads(RunConfig, TINY, ["evaluate.text={}"])
    with pytest.raises(ConfigError, match=r"evaluate\.text\.model: name the CLIP"):
        EVALUATE.check(config)
    EVALUATE.check(loads(RunConfig, TINY, ["evaluate.text={}", "clip_train={}"]))
    with pytest.raises(ConfigError, match=r"evaluate\.text\.classes=.*give two classes"):
        EVALUATE.check(loads(RunConfig, TINY, ["evaluate.text={model: m, classes: {a: []}}"]))
    # Runs that began before are what they were.
    assert EVALUATE.fingerprint(loads(RunConfig, TINY)) == EVALUATE.fingerprint(
        loads(RunConfig, TINY, ["clip_train={}"])
    )


@pytest.mark.slow
def test_a_run_reads_captions_with_the_clip_that_it_trained(clip: Path, tmp_path: Path) -> None:
    words = [
        "evaluate.text={}",
        "clip_train={base_model: null}",
        "evaluate.features.measured=false",
    ]
    run = run_before_evaluation(tmp_path / "run", make_tiny_model(tmp_path / "model"), words)
    shutil.copytree(clip, run.stage("clip-train") / "model")
    seal(run, "clip-train", [(run.stage("clip-train") / "model", 0, {})])
    config = load_run_config(run)
    require_present(run, config, ["evaluate"])
    run_stage(run, stage_named(config, "evaluate"))
    block = result(run.stage("evaluate"))["text"]
    # Every caption of this run is the same.
    found = block["sets"]["this run"]
    assert found["score"]["images"] == 12
    assert found["r_precision"] == {"left_out": "1 different captions, and R@1 of 10 needs 10"}
    assert "of 1 classes" in found["classes"]["left_out"]
    assert len(list((run.stage("evaluate") / "text").iterdir())) == 2
    assert "Images and their captions (E10)" in (run.root / "report.html").read_text()


def test_a_run_refuses_a_clip_that_does_not_load_before_submission(tmp_path: Path) -> None:
    words = [f"evaluate.text={{model: {tmp_path}}}"]
    run = run_before_evaluation(tmp_path / "run", make_tiny_model(tmp_path / "model"), words)
    with pytest.raises(ConfigError, match=r"evaluate\.text\.model=.*: cannot load CLIP from"):
        require_present(run, load_run_config(run), ["evaluate"])


def test_a_login_node_without_torch_looks_at_the_files_of_a_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The packages are in the container of the jobs.
    missing = {"torch", "transformers"}
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n in missing else find(n))
    run = run_before_evaluation(tmp_path / "run", make_tiny_model(tmp_path / "model"), [])
    config = load_run_config(run)
    config.evaluate.text = TextConfig(model="embedded:clip")
    config.evaluate.features.backbone = "/models/dinov2"
    EVALUATE.check_inputs(run, config)
    config.evaluate.text.model = str(tmp_path)
    with pytest.raises(ConfigError, match=r"evaluate\.text\.model=.* it has no config\.json"):
        EVALUATE.check_inputs(run, config)


def test_captions_of_a_folder_of_images_are_read_from_its_table_or_beside_them(
    tiles: Path, clip: Path, tmp_path: Path
) -> None:
    table, beside = tmp_path / "table", tmp_path / "beside"
    rows = []
    for folder in (table, beside):
        folder.mkdir()
    for sample in read_shard(next((tiles / "test").glob("*.tar"))):
        for folder in (table, beside):
            (folder / f"{sample.key}.png").write_bytes(sample.members["sar.png"])
        rows.append(json.dumps({"file_name": f"{sample.key}.png", "text": sample.caption}))
        (beside / f"{sample.key}.txt").write_text(sample.caption or "")
    (table / "metadata.jsonl").write_text("\n".join(rows))
    words = ["--out", str(tmp_path / "out"), "--workers", "1", "--suite", "text", *QUICK]
    given = [f"text.model={clip}", "text.among=4", f"text.classes={WORDS}"]
    assert main(["evaluate", str(table), str(beside), *words, *given]) == 0
    found = result(tmp_path / "out")["text"]["sets"]
    assert found["real"]["images"] == found["synthetic"]["images"] == 60
    assert found["real"]["r_precision"]["value"] == found["synthetic"]["r_precision"]["value"]
