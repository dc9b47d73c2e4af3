from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from line_runs import TINY, tiny_run

from hpc.config import changes_since, loads, to_dict
from hpc.errors import ConfigError, DataError
from hpc.store.ledger import Record
from hpc.store.plan import make_plan
from hpc.store.rundir import RunDir, now
from sarhpc.stages.caption import CAPTION, resolved_captioner
from sarhpc.stages.caption_train import CAPTION_TRAIN
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.paths import archive_uri, data_root, model_folder
from sarhpc.stages.registry import STAGES, line_of_stages, stage_named
from sarhpc.stages.settings import require_inputs, require_settings
from sarhpc.stages.train import plan_training

CONFIGS = sorted((Path(__file__).resolve().parents[3] / "configs").rglob("*.yaml"))
WHOLE_RUNS = [path for path in CONFIGS if "\ntile:" in path.read_text()]
"""The others are recipes of single models."""


def config(*words: str) -> RunConfig:
    return loads(RunConfig, TINY, ["train.base_model=/m", *words])


def changed_stages(*words: str) -> set[str]:
    one, other = config(), config(*words)
    return {s.name for s in STAGES if s.fingerprint(one) != s.fingerprint(other)}


@pytest.mark.parametrize(
    ("word", "stages"),
    [
        ("simulate.seed=4", {"simulate"}),
        ("archive.band=X", {"tile"}),
        ("tile.tile_px=64", {"tile"}),
        ("caption.template.token=radar", {"caption"}),
        ("caption_train.steps=2", {"caption-train"}),
        ("clip_train.steps=2", {"clip-train"}),
        ("train.max_steps=5", {"train"}),
        ("export.variants=[fp16]", {"export"}),
        ("generate.steps=3", {"generate", "compare"}),
        ("compare.images=3", {"compare"}),
        ("evaluate.tiles=41", {"evaluate"}),
        ("cluster.workers=7", set()),
        ("data=elsewhere", set()),
    ],
)
def test_a_stage_reacts_to_its_own_branches_only(word: str, stages: set[str]) -> None:
    assert changed_stages(word) == stages


def test_settings_of_a_later_version_count_only_when_set() -> None:
    """A run begun before there was CLIP goes on: its caption stage keeps its fingerprint."""
    plain = to_dict(config(), transient=False)["caption"]
    del plain["clip"], plain["dtype"]
    text = json.dumps({"caption": plain}, sort_keys=True)
    before = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert CAPTION.fingerprint(config()) == before
    assert changed_stages("caption.clip.candidates=2") == {"caption"}
    assert changed_stages("caption.dtype=bfloat16") == {"caption"}


def test_a_list_of_sets_enters_the_fingerprint() -> None:
    one = config("caption_train.train=[{path: /a}]")
    other = config("caption_train.train=[{path: /b}]")
    prints = {CAPTION_TRAIN.fingerprint(c) for c in (one, other)}
    assert len(prints) == 2


@pytest.mark.parametrize("path", WHOLE_RUNS, ids=lambda path: path.stem)
def test_shipped_configurations_survive_being_frozen(path: Path) -> None:
    shipped = loads(RunConfig, path.read_text(), ["archive.uri=/archive"])
    frozen = json.loads(json.dumps(to_dict(shipped, transient=False)))
    assert changes_since(frozen, shipped) == []


def test_the_line_has_the_stages_asked_for_and_each_needs_earlier_ones() -> None:
    asked = [
        "compare.models={m: /m}",
        *(f"{s}={{}}" for s in ("optical", "caption_train", "clip_train")),
    ]
    full = config(*asked, "encode={}", "prior={}")
    names = [stage.name for stage in line_of_stages(full)]
    assert names == [spec.name for spec in STAGES]
    for position, stage in enumerate(line_of_stages(full)):
        assert set(stage.needs) <= set(names[:position])
    short = [s.name for s in line_of_stages(config("simulate=null", "generate=null"))]
    assert short == ["tile", "caption", "train", "export"]
    with pytest.raises(ConfigError, match="it has tile, caption"):
        stage_named(config("simulate=null"), "simulate")


def test_names_of_places_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    run = RunDir(tmp_path / "run")
    assert data_root(run, config("data=$SCRATCH/d")) == tmp_path / "d"
    assert data_root(run, config()) == run.root / "data"
    assert archive_uri(run, config("archive.uri=$SCRATCH/a")) == str(tmp_path / "a")
    assert model_folder("$SCRATCH/m") == str(tmp_path / "m")


def test_places_that_cannot_be_are_told(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    require_inputs(run, config())
    with pytest.raises(ConfigError, match="no archive"):
        require_inputs(run, config("simulate=null"))
    for word in (
        "train.base_model=embedded:nosuch",
        "compare.models={m: embedded:nosuch}",
        "caption_train.base_model=embedded:nosuch",
        "clip_train.base_model=embedded:nosuch",
    ):
        with pytest.raises(ConfigError, match="no embedded model 'embedded:nosuch'"):
            require_inputs(run, config(word))
    # Captions from the truth ask no model: none is required, taken along or looked for.
    unused = config("caption.model=embedded:nosuch")
    require_inputs(run, unused)
    assert resolved_captioner(run, unused).model == "embedded:nosuch"


def test_captioners_models_are_known_before_anything_is_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    run = RunDir(tmp_path)
    words = ("caption.captioner=git", "caption.model=$SCRATCH/git")
    picked = config(*words, "caption.clip.model=$SCRATCH/clip", "caption.clip.candidates=2")
    resolved = resolved_captioner(run, picked)
    assert resolved.clip is not None
    assert (resolved.model, resolved.clip.model) == (f"{tmp_path}/git", f"{tmp_path}/clip")
    require_inputs(run, picked)
    with pytest.raises(ConfigError, match="no embedded model 'embedded:nosuch'"):
        require_inputs(run, config(*words, "caption.clip.model=embedded:nosuch"))
    with pytest.raises(ConfigError, match="raise the beams"):
        require_settings(config(*words, "caption.clip.candidates=9"), ["caption"])


def test_training_on_nothing_is_refused_with_the_reasons(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", tmp_path / "model")
    for stage, rejected in (("tile", {"nodata": 7}), ("caption", {"no_optical": 2})):
        plan = make_plan(stage, [{}, {}])
        for task in plan.shards:
            run.ledger(stage).publish(
                Record(task.id, plan.id, "/d", 0, 1, "a", 0, "h", now(), now(), 0.0, rejected,
                       {"split": "train"})
            )  # fmt: skip
        run.ledger(stage).seal(plan)
    with pytest.raises(DataError, match=r"caption no_optical 4, tile nodata 14"):
        plan_training(run)
