"""A gate that looks for images of another class: planned, applied, reported, refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import start
from gated_runs import image_run, make_corpus, real_tiles
from line_runs import TINY, kill_group, make_tiny_model, shard_digests
from numpy.typing import NDArray
from procedural_tiles import procedural_samples, procedural_shard
from safetensors.numpy import load_file, save_file

from hpc.config import loads
from hpc.errors import ConfigError, VerificationError
from hpc.job.pipeline import ensure_plan
from hpc.store.rundir import RunDir
from sarhpc.cli import main
from sarhpc.corpus.index import read_index
from sarhpc.evaluation.caption_content import class_of
from sarhpc.evaluation.text_config import LAND_COVER
from sarhpc.generation.finishing import SampledImage
from sarhpc.generation.gate import PlannedGate, ShardGate
from sarhpc.generation.plan import ImageRequest
from sarhpc.measures.gate_limits import GateLimits
from sarhpc.shards.images import decode_gray8
from sarhpc.shards.reader import read_shard
from sarhpc.shards.sample import Sample, encode_json
from sarhpc.shards.writer import write_shard
from sarhpc.stages.config import RunConfig
from sarhpc.stages.generate import GENERATE, make_corpus_shard, plan_corpus
from sarhpc.stages.inputs.class_gate import asked_class, class_gate, loaded_clip
from sarhpc.stages.inputs.clip_models import clip_digest
from sarhpc.stages.inputs.gate_limits import planned_gate
from sarhpc.stages.inputs.other_classes import plan_classes
from sarhpc.stages.inputs.paths import model_folder
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.settings import require_present, require_settings
from sarhpc.stages.work.sharded import make_and_record

CLASSES = tuple(LAND_COVER)
PROMPTS = {"water": "a lake", "forest": "a forest", "field": "a field", "town": "a town"}
IMAGES = ("generate.images=32", "generate.shard_samples=16")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """What the other limits are from."""
    return real_tiles(tmp_path_factory.mktemp("tiles") / "run", model, 120)


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a shard of radar tiles whose captions are true."""
    root = tmp_path_factory.mktemp("captioned")
    procedural_shard(root / "000000.tar", 987, scenes=6, stride_px=64)
    return root


def gated(root: Path, model: Path, tiles: Path, other_class: str, *words: str) -> RunDir:
    gate = f"{{false_rejects: 0.08, redraws: 1, shards: {tiles}, other_class: {other_class}}}"
    prompts = f"generate.prompts=[{', '.join(PROMPTS.values())}]"
    return image_run(root, model, prompts, f"generate.gate={gate}", *IMAGES, *words)


def by_clip(captioned: Path, model: str = "embedded:clip", more: str = "") -> str:
    return f"{{model: '{model}', shards: {captioned}{more}}}"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, model: Path, tiles: Path) -> RunDir:
    """A corpus whose gate does not look at classes."""
    run = gated(tmp_path_factory.mktemp("plain") / "run", model, tiles, "null")
    make_corpus(run)
    return run


@pytest.fixture(scope="module")
def corpus(
    tmp_path_factory: pytest.TempPathFactory, model: Path, tiles: Path, captioned: Path
) -> RunDir:
    """A finished corpus of a model of random weights, whose images are no water; tests read it."""
    run = gated(tmp_path_factory.mktemp("corpus") / "run", model, tiles, by_clip(captioned))
    make_corpus(run)
    return run


def samples_of(folder: Path) -> dict[str, Sample]:
    return {s.key: s for path in sorted(folder.glob("*.tar")) for s in read_shard(path)}


@pytest.mark.slow
def test_images_of_another_class_are_quarantined_and_drawn_again(
    corpus: RunDir, plain: RunDir
) -> None:
    found = [
        sample.meta["gate"]
        for sample in samples_of(corpus.root / "data/quarantine").values()
        if sample.meta["gate"]["reasons"][0]["name"] == "other class"
    ]
    assert found
    for gate in found:
        of = gate["other_class"]
        assert (
            f"shows {of['nearest_other']} rather than {of['class']}" in gate["reasons"][0]["text"]
        )
        assert gate["values"]["class_margin"] < 0
    again = {gate["key"] for gate in found if gate["draw"] == 0}
    before = samples_of(plain.root / "data/synthetic")
    after = samples_of(corpus.root / "data/synthetic")
    drawn = [key for key in again if key in after]
    assert all(after[key].meta["seed"] != before[key].meta["seed"] for key in drawn)
    kept = [key for key, sample in after.items() if sample.meta["gate"]["draw"] == 0]
    assert len(kept) >= 8
    for key in kept:
        assert after[key].members["sar.png"] == before[key].members["sar.png"]


@pytest.mark.slow
def test_record_index_and_card_tell_what_became_of_classes(corpus: RunDir) -> None:
    records = corpus.ledger("generate").records().values()
    refused = sum(record.rejected.get("other_class", 0) for record in records)
    reported = json.loads((corpus.root / "data/synthetic/gate.json").read_text())
    assert reported["reasons"]["other class"] == refused > 0
    of = reported["other_class"]
    assert set(of["classes"]) == set(CLASSES)
    assert len(of["model_sha256"]) == 64
    assert refused < of["judged"] <= reported["draws"]
    assert of["balanced_accuracy"]["low"] > 0.25
    card = (corpus.root / "data/synthetic/README.md").read_text()
    assert f"other class {refused}" in card
    assert f"{of['judged']} draws held against the class of their prompt" in card
    [row, *_] = list(read_index(corpus.root / "data/synthetic/index.parquet"))
    assert "class_margin" in json.loads(row["verdict_values"])


@pytest.mark.slow
def test_without_the_setting_nothing_is_said_of_classes(plain: RunDir) -> None:
    sample = next(iter(samples_of(plain.root / "data/synthetic").values()))
    assert not {"other_class", "class_margin"} & {
        *sample.meta["gate"],
        *sample.meta["gate"]["values"],
    }
    reported = json.loads((plain.root / "data/synthetic/gate.json").read_text())
    assert "other_class" not in reported
    [limits] = plain.stage("generate").glob("gate-*.json")
    assert "other_class" not in json.loads(limits.read_text())


@pytest.mark.slow
def test_the_same_bytes_after_a_kill_and_in_another_order(
    tmp_path: Path,
    corpus: RunDir,
    model: Path,
    tiles: Path,
    captioned: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = gated(tmp_path / "run", model, tiles, by_clip(captioned))
    plan = ensure_plan(run, stage_named(load_run_config(run), "generate"))
    making = (make_corpus_shard, str(run.root), "generate", plan.id, 0, plan.shards[1])
    killed = start(make_and_record, *making, log=tmp_path / "killed.log")
    shard = run.root / "data/synthetic"
    deadline = time.monotonic() + 60
    while not any(shard.glob("*")) and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert killed.poll() is None, "it is making the shard"
    kill_group(killed)
    assert not run.ledger("generate").records(), "it was killed inside the shard"
    make_corpus(run, [1])
    assert main(["status", str(run.root), "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    [shown] = [stage for stage in stages if stage["name"] == "generate"]
    assert shown["reasons"]["other_class"] > 0
    make_corpus(run, [0])
    assert shard_digests(run, "generate") == shard_digests(corpus, "generate")
    for name in ("synthetic/gate.json", "quarantine/000000.tar", "quarantine/000001.tar"):
        assert (run.root / "data" / name).read_bytes() == (corpus.root / "data" / name).read_bytes()


def channels(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.repeat((codes / np.float32(255))[:, :, None], 3, axis=2)


def judged_by(run: RunDir, rate: float) -> ShardGate:
    """A gate whose only test is that of the class, by limits from the tiles of the run."""
    config = load_run_config(run)
    assert config.generate is not None
    assert config.generate.gate is not None
    assert config.generate.gate.other_class is not None
    cfg = dataclasses.replace(config.generate.gate.other_class, false_rejects=rate)
    classes = plan_classes(run, config, cfg, None, [], [ImageRequest(0, "a lake", 0)])
    gate = PlannedGate(GateLimits({}, {}, 0, 0.5, 10, 10, 64), None, ("val",), None, classes)
    assert PlannedGate.from_json(json.loads(encode_json(gate.to_json()))) == gate
    applied = class_gate(run, config.generate.gate, classes, None)
    return ShardGate(gate, 1, lambda image: None, classes=applied)


def reasons(gate: ShardGate, planted: Sequence[tuple[NDArray[np.uint8], str]]) -> list[str | None]:
    """Why these images under these prompts are refused."""
    return [
        gate.judge(SampledImage(ImageRequest(n, prompt, n), channels(codes), {})).reason
        for n, (codes, prompt) in enumerate(planted)
    ]


def recall_and_false_rejects(
    gate: ShardGate, samples: Sequence[Sample]
) -> tuple[dict[tuple[str, str], float], dict[str, float]]:
    """Refused share of real tiles by (class asked, class shown), and by class under their own."""
    known = [(s, class_of(s.caption or "", LAND_COVER)) for s in samples]
    shown = {
        name: [decode_gray8(s.members["sar.png"]) for s, c in known if c == name]
        for name in CLASSES
    }
    share = {
        (asked, name): float(np.mean([r == "other_class" for r in reasons(gate, planted)]))
        for name, pictures in shown.items()
        for asked in CLASSES
        if (planted := [(codes, f"A SAR image of {PROMPTS[asked]}") for codes in pictures])
    }
    wrong = {pair: value for pair, value in share.items() if pair[0] != pair[1]}
    return wrong, {name: share[name, name] for name in CLASSES if (name, name) in share}


@pytest.mark.slow
def test_real_tiles_under_the_prompt_of_another_class_are_found(
    tmp_path: Path, model: Path, tiles: Path, captioned: Path
) -> None:
    size = ("tile.tile_px=128", "generate.height_px=128", "generate.width_px=128")
    run = gated(tmp_path / "run", model, tiles, by_clip(captioned), *size)
    gate = judged_by(run, 0.05)
    samples = list(procedural_samples(654, scenes=3, stride_px=128))
    wrong, own = recall_and_false_rejects(gate, samples)
    assert np.mean([*wrong.values()]) >= 0.6
    assert np.mean([*own.values()]) <= 0.2, "of 27 tiles"
    lake = decode_gray8(samples[0].members["sar.png"])
    for prompt in ("a harbour", "a lake beside a town"):
        [verdict] = [gate.judge(SampledImage(ImageRequest(0, prompt, 0), channels(lake), {}))]
        assert verdict.reason is None
        assert "other_class" not in verdict.facts["gate"]


@pytest.mark.long
def test_recall_at_one_and_five_per_cent_of_false_rejects(tmp_path: Path, model: Path) -> None:
    """The figures of docs/guide/generation.md: 2,000 tiles of 80 scenes, each half by the other."""
    halves = {seed: list(procedural_samples(seed, 40, stride_px=64)) for seed in (987, 654)}
    size = ("tile.tile_px=128", "generate.height_px=128", "generate.width_px=128")
    for rate, least in ((0.01, 0.4), (0.05, 0.75)):
        found = []
        for (seed, samples), others in zip(
            halves.items(), list(halves.values())[::-1], strict=True
        ):
            root = tmp_path / f"{seed}"
            if not root.exists():
                write_shard(root / "000000.tar", samples)
            run = gated(tmp_path / f"{seed}-{rate}", model, root, by_clip(root), *size)
            wrong, own = recall_and_false_rejects(judged_by(run, rate), others)
            found.append((np.mean([*wrong.values()]), np.mean([*own.values()])))
            print(rate, seed, {k: round(v, 2) for k, v in wrong.items()}, own, found[-1])
        recall, rejected = np.mean(found, axis=0)
        print(f"at {rate:.0%}: recall {recall:.2f}, {rejected:.1%} of real tiles refused")
        assert recall >= least
        assert rejected <= 1.5 * rate + 0.005


@pytest.mark.slow
def test_images_are_read_by_one_thread_beside_a_sampler_that_keeps_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    clip = Path(model_folder("embedded:clip"))
    seer = loaded_clip(clip, clip_digest(clip))
    tiles = np.random.default_rng(0).integers(0, 256, (12, 64, 64), np.uint8)
    alone = [seer.see(tile, None) for tile in tiles]
    before, inside = torch.get_num_threads(), []
    forward = seer._scorer._clip.model.get_image_features

    def counted(*args: Any) -> Any:
        inside.append(torch.get_num_threads())
        return forward(*args)

    monkeypatch.setattr(seer._scorer._clip.model, "get_image_features", counted)
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(seer.see, tile, None) for tile in tiles]
            while not all(future.done() for future in futures):
                assert torch.get_num_threads() == 2
            beside = [future.result() for future in futures]
    finally:
        torch.set_num_threads(before)
    assert inside == [1] * len(tiles)
    np.testing.assert_array_equal(beside, alone)


@pytest.mark.parametrize(
    ("labels", "prompt", "asked"),
    [
        ({}, "A SAR image of a lake", "water"),
        ({}, "A SAR image of a harbour", None),
        ({}, "a lake beside a town", None),
        ({"class": "river"}, "what a river looks like", "water"),
        ({"class": "forest"}, "a road crosses a forest", "forest"),
        ({"class": "town"}, "houses beside a river", None),
        ({"class": "airport"}, "an airport in a field", "airport"),
        ({"class": 3}, "a lake", "water"),
    ],
)
def test_the_label_of_an_image_says_its_class_else_its_prompt(
    labels: dict[str, str | int], prompt: str, asked: str | None
) -> None:
    assert asked_class(ImageRequest(0, prompt, 0, labels=labels), LAND_COVER) == asked


def refused(run: RunDir) -> str:
    with pytest.raises(ConfigError) as raised:
        plan_corpus(run)
    assert not run.plan_file("generate").exists()
    return str(raised.value)


def unable(folder: Path) -> Path:
    """The embedded CLIP with a projection of random numbers."""
    shutil.copytree(model_folder("embedded:clip"), folder)
    weights = load_file(folder / "model.safetensors")
    shape = weights["visual_projection.weight"].shape
    weights["visual_projection.weight"] = np.random.default_rng(0).normal(size=shape).astype("f")
    (folder / "model.safetensors").unlink()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.slow
def test_classes_that_cannot_be_told_are_refused_at_planning(
    tmp_path: Path, model: Path, tiles: Path, captioned: Path
) -> None:
    weak = by_clip(captioned, str(unable(tmp_path / "clip")))
    words = refused(gated(tmp_path / "a", model, tiles, weak))
    assert "does not tell the classes of" in words
    assert "chance 0.25" in words
    assert "set generate.gate.other_class=null" in words
    words = refused(gated(tmp_path / "b", model, tiles, by_clip(captioned, more=", tiles: 20")))
    assert "of 20 real tiles captions name water" in words
    assert "generate.gate.other_class.tiles" in words
    words = refused(
        gated(tmp_path / "c", model, tiles, by_clip(captioned), "generate.prompts=[a quay]")
    )
    assert "no prompt names one of the classes field, forest, town, water" in words
    assert "a quay" in words
    large = ("generate.height_px=256", "generate.width_px=256")
    words = refused(gated(tmp_path / "d", model, tiles, by_clip(captioned), *large))
    assert "images of 256 x 256 px are larger than real tiles of 128 x 128 px" in words
    (tmp_path / "empty").mkdir()
    words = refused(gated(tmp_path / "e", model, tiles, by_clip(tmp_path / "empty")))
    assert "no shards below generate.gate.other_class.shards" in words
    one = [
        sample.with_members(meta__json=encode_json({**sample.meta, "scene_id": "one"}))
        for sample in samples_of(captioned).values()
    ]
    write_shard(tmp_path / "one/000000.tar", one)
    words = refused(gated(tmp_path / "f", model, tiles, by_clip(tmp_path / "one")))
    assert "of 1 flight lines or scenes, and 4 are needed" in words


@pytest.mark.slow
def test_a_model_that_was_changed_or_lost_since_the_plan_is_refused(
    tmp_path: Path, model: Path, tiles: Path, captioned: Path
) -> None:
    clip = tmp_path / "clip"
    shutil.copytree(model_folder("embedded:clip"), clip)
    run = gated(tmp_path / "run", model, tiles, by_clip(captioned, str(clip)))
    plan = ensure_plan(run, stage_named(load_run_config(run), "generate"))
    planned = planned_gate(run, plan.shards[0].inputs["gate_sha256"]).classes
    assert planned is not None
    assert min(one.tiles for one in planned.limits.values()) >= 9
    loaded_clip.cache_clear()
    shutil.rmtree(clip)
    unable(clip)
    with pytest.raises(VerificationError, match="another CLIP than"):
        make_corpus_shard(run, plan.shards[0])
    shutil.rmtree(clip)
    with pytest.raises(VerificationError, match="restore it"):
        make_corpus_shard(run, plan.shards[0])


def config_of(*words: str) -> RunConfig:
    return loads(RunConfig, TINY, ["train.base_model=/m", "tile.tile_px=64", *words])


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        ({"model": "null"}, "generate.gate.other_class.model: name the CLIP"),
        ({"model": "'embedded:clip'", "tiles": "0"}, "other_class.tiles"),
        ({"model": "'embedded:clip'", "false_rejects": "0"}, "other_class.false_rejects"),
        ({"model": "'embedded:clip'", "false_rejects": "1"}, "other_class.false_rejects"),
        ({"model": "'embedded:clip'", "shards": "/nowhere"}, "shards=/nowhere is no folder"),
        ({"model": "'embedded:clip'", "classes": "{water: [a lake]}"}, "two classes or more"),
        ({"model": "'embedded:clip'", "classes": "{water: [a lake], town: []}"}, "two classes"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_submitted(
    words: dict[str, str], reported: str
) -> None:
    inner = ", ".join(f"{key}: {value}" for key, value in words.items())
    config = config_of(f"generate.gate={{other_class: {{{inner}}}}}")
    with pytest.raises(ConfigError, match=reported):
        require_settings(config, ["generate"], lambda _: 1)


@pytest.mark.slow
@pytest.mark.parametrize("named", ["embedded:blip", "embedded:clap", "/nowhere"])
def test_what_is_no_clip_is_refused_before_anything_is_submitted(named: str, plain: RunDir) -> None:
    config = config_of(f"generate.gate={{other_class: {{model: '{named}'}}}}")
    with pytest.raises(ConfigError, match=named.removeprefix("embedded:")) as raised:
        require_present(plain, config, ["generate"])
    assert raised.value.exit_code == 2


def test_a_corpus_waits_for_the_clip_that_judges_it() -> None:
    words = ["clip_train={}", "generate.gate={other_class: {}}"]
    assert stage_named(config_of(*words), "generate").needs == ("clip-train", "export")
    assert GENERATE.models(config_of(*words)) == []
    named = ["clip_train={}", "generate.gate={other_class: {model: 'embedded:clip'}}"]
    assert stage_named(config_of(*named), "generate").needs == ("export",)
    assert GENERATE.models(config_of(*named)) == ["embedded:clip"]
