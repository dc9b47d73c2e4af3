"""A corpus of a sensor sweep: planned, made, indexed, split and described by layouts."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from gated_runs import image_run, make_corpus, real_tiles
from line_runs import KNOWN_PIXELS, TINY, make_tiny_model
from shard_checks import validate_shard

from hpc.config import loads
from hpc.errors import ConfigError
from hpc.publish import publish_json
from hpc.store.plan import read_plan
from hpc.store.rundir import RunDir
from sarhpc.cli import main
from sarhpc.corpus.splits import split_group
from sarhpc.shards.contract import CONTRACT_FILE
from sarhpc.shards.reader import read_shard
from sarhpc.stages.config import RunConfig
from sarhpc.stages.generate import GENERATE, plan_corpus
from sarhpc.stages.planned_corpus import coverage_so_far
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.settings import require_settings

pytestmark = pytest.mark.slow

SENSOR = "{resolution_m: [0.5, 1.0], looks: [1, 4], noise_db: [null, -20]}"
SWEEP = (f"generate.sweep.sensor={SENSOR}", "generate.shard_samples=20", "generate.images=5",
         "generate.prompts=[a lake, a field]")  # fmt: skip
EACH = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose pixels have a meaning."""
    folder = tmp_path_factory.mktemp("model")
    model = make_tiny_model(folder)
    publish_json(model / CONTRACT_FILE, {**KNOWN_PIXELS, "pixel_m": [0.35, 0.35]})
    return model


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, model: Path) -> RunDir:
    run = image_run(tmp_path_factory.mktemp("corpus") / "run", model, *SWEEP)
    make_corpus(run)
    return run


def test_shards_hold_whole_layouts_and_the_index_labels_their_settings(corpus: RunDir) -> None:
    plan = read_plan(corpus.plan_file("generate"))
    assert [len(task.inputs["images"]) for task in plan.shards] == [2, 2, 1]
    records = corpus.ledger("generate").records().values()
    assert [record.samples for record in records] == [16, 16, 8]
    assert all(validate_shard(Path(record.path)) for record in records)
    rows = pyarrow.parquet.read_table(corpus.root / "data/synthetic/index.parquet").to_pylist()
    layouts = [list(g) for _, g in itertools.groupby(rows, key=lambda row: row["layout"])]
    assert [len(layout) for layout in layouts] == [EACH] * 5, "next to each other"
    for layout in layouts:
        assert len({(row["split"], row["shard"], row["prompt"]) for row in layout}) == 1
        settings = {(r["resolution_m"], r["looks"], r["noise_db"], r["speckle_draw"])
                    for r in layout}  # fmt: skip
        assert len(settings) == EACH
        assert {row["speckle"] for row in layout} == {"drawn"}
        assert {row["noise_reference"] for row in layout} == {"sigma0"}
        assert all(json.loads(row["parameters"])["sweep"]["window_px"] == 9 for row in layout)
    card = (corpus.root / "data/synthetic/README.md").read_text()
    assert "5 layouts" in card
    assert "| looks | 1 (20), 4 (20) |" in card
    assert "| added noise, dB | none (20), -20.0 (20) |" in card
    assert "drawn by a sensor model, not by the text-to-image model" in card
    assert "speckle draw |" not in card, "there is one"


def test_images_of_a_layout_are_in_one_split_whatever_their_prompts() -> None:
    meta = {"seed": 4, "layout": "abc"}
    assert len({split_group({**meta, "prompt": f"a lake {i}"}) for i in (20, 30)}) == 1
    steered = {**meta, "steered_by": {"sha256": "f00"}}
    other = {"seed": 5, "layout": "def", "steered_by": {"sha256": "f00"}}
    assert split_group(steered) == split_group(other), "two layouts of one conditioning layer"
    named = {**meta, "labels": {"layout_id": 7}}
    assert split_group(named) == split_group({**named, "layout": "def"})


def test_pairs_are_read_in_pytorch_as_the_guide_says(
    corpus: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = (Path(__file__).parents[3] / "docs/guide/generation.md").read_text()
    section = guide.partition("## Sensor sweeps")[2]
    [code] = [c for c in re.findall(r"```python\n(.*?)```", section, re.S) if "pairs" in c]
    monkeypatch.chdir(corpus.root / "data/synthetic")
    found: dict[str, Any] = {}
    for split in ("train", "val", "test"):
        namespace: dict[str, Any] = {}
        exec(code.replace('"train"', f'"{split}"'), namespace)
        found[split] = len(namespace["pairs"])
        for one_look, many_looks in namespace["pairs"]:
            assert one_look.shape == many_looks.shape == (1, 64, 64)
            assert not (one_look == many_looks).all()
    # Four pairs of each of five layouts: two resolutions, two levels of noise.
    assert sum(found.values()) == 20


def test_a_dry_run_shows_layouts_times_settings(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = image_run(tmp_path / "run", model, *SWEEP, "generate.gate={}")
    assert main(["run", str(run.root), "--dry-run"]) in (0, 2)
    shown = capsys.readouterr().out
    assert "sweep: 5 layouts x 8 settings = 40 images: resolution_m 0.5, 1; looks 1, 4" in shown
    assert "the gate judges what the model draws of a layout" in shown
    assert GENERATE.shards(load_run_config(run)) == 3


@pytest.mark.slow
def test_a_gate_counts_layouts_and_the_same_bytes_in_another_order(
    tmp_path: Path, model: Path
) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(model, plain)
    tiles = real_tiles(tmp_path / "tiles", plain, 120)
    gate = f"generate.gate={{false_rejects: 0.08, redraws: 2, shards: {tiles}}}"
    words = (*SWEEP, gate, "generate.images=18", "generate.shard_samples=48")
    runs = [image_run(tmp_path / name, model, *words) for name in ("a", "b")]
    make_corpus(runs[0])
    plan_b = plan_corpus(runs[1])
    make_corpus(runs[1], [2, 0, 1])
    digests = [
        [record.sha256 for _, record in sorted(run.ledger("generate").records().items())]
        for run in runs
    ]
    assert digests[0] == digests[1]
    assert len(plan_b.shards) == 3
    facts = json.loads((runs[0].root / "data/synthetic/gate.json").read_text())
    assert facts["counted"] == "layouts"
    assert facts["planned"] == 18
    assert facts["draws"] >= facts["accepted"] > 0
    rows = pyarrow.parquet.read_table(runs[0].root / "data/synthetic/index.parquet").to_pylist()
    assert len(rows) == facts["accepted"] * EACH
    assert all(row["near_duplicate_of"] is None for row in rows), "settings are no duplicates"
    assert "planned layouts" in (runs[0].root / "data/synthetic/README.md").read_text()
    quarantined = [
        sample
        for path in sorted((runs[0].root / "data/quarantine").glob("*.tar"))
        for sample in read_shard(path)
    ]
    assert len(quarantined) == facts["quarantined"]
    keys = {row["key"] for row in rows}
    assert all("sweep" not in sample.meta for sample in quarantined)
    if facts["unmet"] == 0:
        assert all(sample.meta["gate"]["key"] in keys for sample in quarantined)


def test_a_table_counts_layouts_and_a_prompt_states_what_is_swept(
    tmp_path: Path, model: Path
) -> None:
    table = tmp_path / "prompts.csv"
    table.write_text("prompt,count,class\na lake,2,water\na wood,1,forest\n")
    words = (
        f"generate.table.file={table}", "generate.images=null", "generate.shard_samples=6",
        "generate.prompt_template='SAR {prompt}, {incidence} degrees'",
        "generate.sweep.incidence_deg=[20, 40]",
    )  # fmt: skip
    run = image_run(tmp_path / "run", model, *words)
    make_corpus(run)
    rows = pyarrow.parquet.read_table(run.root / "data/synthetic/index.parquet").to_pylist()
    assert len(rows) == 6
    assert sorted({row["prompt"] for row in rows}) == [
        f"SAR {name}, {degrees} degrees" for name in ("a lake", "a wood") for degrees in (20, 40)
    ]
    assert {row["incidence_deg"] for row in rows} == {20.0, 40.0}
    assert {row["speckle"] for row in rows} == {"model"}
    assert len({(row["layout"], row["split"]) for row in rows}) == 3
    coverage = coverage_so_far(run, load_run_config(run))
    assert coverage is not None
    assert (coverage.planned, coverage.achieved) == (3, 3)
    table.write_text("prompt,count,incidence_deg\na lake,2,30\n")
    again = image_run(tmp_path / "again", model, *words)
    with pytest.raises(ConfigError, match=r"sweep\.incidence_deg sweeps it"):
        plan_corpus(again)


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["generate.sweep.sensor.resolution_m=[]"], "resolution_m is empty"),
        (
            ["generate.sweep.sensor.looks=[-1]"],
            "generate.sweep.sensor.looks=-1: give from 1 to 1000",
        ),
        (["generate.sweep.sensor.noise_db=[.inf]"], "give a finite number"),
        (["generate.sweep.sensor.draws=40"], "320 settings"),
        (["generate.shard_samples=4"], "shard_samples to 8 or more"),
        (["compare.models={base: 'embedded:base'}"], "compare.models with generate.sweep"),
        (["prior={}", "train.prior={}", f"prior.sweep.sensor={SENSOR}"], "show no radar"),
    ],
)
def test_sweeps_that_cannot_be_are_refused_before_submission(
    words: list[str], reported: str
) -> None:
    config = loads(RunConfig, TINY, [*SWEEP, *words])
    stages = ["generate", *(["compare"] if "compare" in words[0] else []),
              *(["prior"] if "prior" in words[0] else [])]  # fmt: skip
    with pytest.raises(ConfigError) as raised:
        require_settings(config, stages, lambda _: 1)
    assert reported in str(raised.value)


def test_a_model_that_cannot_hold_the_settings_is_refused_when_planned(
    tmp_path: Path, model: Path
) -> None:
    fine = image_run(tmp_path / "a", model, *SWEEP, "generate.sweep.sensor.resolution_m=[0.2]")
    with pytest.raises(ConfigError, match=r"the finest is 0\.394 m"):
        plan_corpus(fine)
    unknown = tmp_path / "unknown"
    shutil.copytree(model, unknown)
    (unknown / CONTRACT_FILE).unlink()
    with pytest.raises(ConfigError, match=r"no contract.*sarhpc contract"):
        plan_corpus(image_run(tmp_path / "b", unknown, *SWEEP))
    assert not (tmp_path / "b/generate/plan.json").exists()
