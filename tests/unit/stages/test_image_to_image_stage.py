"""Image to image as a stage: planned from its images, made alike again, refused before work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from line_runs import make_tiny_model, seal_captions, seal_export, tiny_run
from safetensors.torch import load_file, save_file

import sarhpc
from hpc.errors import ConfigError, DataError, VerificationError
from hpc.job.pipeline import ensure_plan
from hpc.store.ledger import Record
from hpc.store.plan import Plan, ShardTask
from hpc.store.rundir import RunDir, now
from sarhpc.corpus.splits import split_group
from sarhpc.generation.adapters.chosen import require_planned
from sarhpc.shards.images import encode_gray8
from sarhpc.shards.reader import read_shard
from sarhpc.shards.sample import Sample
from sarhpc.stages.compare import COMPARE, make_compare_shard
from sarhpc.stages.generate import GENERATE, check_inputs, make_corpus_shard
from sarhpc.stages.image_to_image_set import (
    BEGUN_IMAGES,
    IMAGE_TO_IMAGE,
    image_to_image_notes,
    image_to_image_settings,
    image_to_image_shards,
)
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.run_report import synthetic_shards
from sarhpc.stages.work.image_shards import loaded_pipeline
from sarhpc.stages.work.sharded import ShardResult, sealed_records

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def run_of(folder: Path, model: Path, *words: str) -> RunDir:
    run = tiny_run(folder / "run", model, ["generate.images=null", *words])
    seal_export(run, model)
    return run


def planned(run: RunDir) -> Plan:
    config = load_run_config(run)
    return ensure_plan(run, stage_named(config, "generate"))


def made(run: RunDir) -> list[Sample]:
    results = [make_corpus_shard(run, task) for task in planned(run).shards]
    return [sample for result in results for sample in read_shard(result.path)]


def pictures(folder: Path, count: int, side: int = 32) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        data = encode_gray8(rng.integers(0, 256, (side, side), np.uint8))
        (folder / f"{number}.png").write_bytes(data)
        (folder / f"{number}.txt").write_text("a lake" if number % 2 else "a town with houses")
    return folder


def test_a_folder_gives_an_image_of_each_picture_with_its_text(tmp_path: Path, model: Path) -> None:
    folder = pictures(tmp_path / "scenes", 3)
    run = run_of(tmp_path, model, f"generate.image_to_image={{images: {folder}}}")
    samples = made(run)
    assert [s.meta["image_to_image"]["image"] for s in samples] == ["0.png", "1.png", "2.png"]
    texts = ["a town with houses", "a lake", "a town with houses"]
    assert [s.meta["prompt"] for s in samples] == [f"A SAR image of {text}" for text in texts]
    again = [sample for task in planned(run).shards[::-1] for sample in
             list(read_shard(make_corpus_shard(run, task).path))[::-1]][::-1]  # fmt: skip
    assert [sample.members for sample in again] == [sample.members for sample in samples]


def test_held_out_tiles_are_begun_with_in_turn(tmp_path: Path, model: Path) -> None:
    words = ["generate.images=5", "generate.image_to_image={}", "generate.prompts=[a lake]"]
    run = run_of(tmp_path, model, *words)
    seal_captions(run)
    names = [sample.meta["image_to_image"]["image"] for sample in made(run)]
    assert names == ["00000100000", "00000100001"] * 2 + ["00000100000"]


def test_pictures_of_another_size_are_refused_when_planned(tmp_path: Path, model: Path) -> None:
    folder = pictures(tmp_path / "scenes", 2, side=64)
    run = run_of(tmp_path, model, f"generate.image_to_image={{images: {folder}}}")
    with pytest.raises(DataError, match=r"2 of 2 .*0\.png is 64 x 64 px, and images of 32 x 32"):
        planned(run)
    assert not run.plan_file("generate").exists()


def test_a_picture_that_changed_after_planning_stops_its_shard(tmp_path: Path, model: Path) -> None:
    folder = pictures(tmp_path / "scenes", 3)
    run = run_of(tmp_path, model, f"generate.image_to_image={{images: {folder}}}")
    first, second = planned(run).shards
    (folder / "2.png").write_bytes(encode_gray8(np.zeros((32, 32), np.uint8)))
    assert make_corpus_shard(run, first).samples == 2
    with pytest.raises(VerificationError, match="not those that were planned"):
        make_corpus_shard(run, second)


@pytest.mark.parametrize("kind", ["missing", "empty", "texts"])
def test_a_folder_without_images_is_refused_before_submission(
    tmp_path: Path, model: Path, kind: str
) -> None:
    folder = tmp_path / "scenes"
    if kind != "missing":
        folder.mkdir()
    if kind == "texts":
        (folder / "a.txt").write_text("a lake")
    run = run_of(tmp_path, model, f"generate.image_to_image={{images: {folder}}}")
    with pytest.raises(ConfigError, match=r"generate\.image_to_image\.images: "):
        check_inputs(run, load_run_config(run))


@pytest.mark.parametrize("strength", ["0", "1.5", "-1", "nan", "0.4"])
def test_a_strength_that_means_nothing_is_refused_in_the_configuration(
    tmp_path: Path, model: Path, strength: str
) -> None:
    run = run_of(tmp_path, model, f"generate.image_to_image={{strength: {strength}}}")
    config = load_run_config(run)
    with pytest.raises(ConfigError, match=r"image_to_image\.strength"):
        GENERATE.check(config)


def test_pipelines_that_begin_with_noise_and_with_images_are_told_apart(
    tmp_path: Path, model: Path
) -> None:
    run = run_of(tmp_path, model, "generate.image_to_image={}")
    cfg = load_run_config(run).generate
    assert cfg is not None
    assert type(loaded_pipeline(model, cfg)).__name__ == "StableDiffusionImg2ImgPipeline"
    cfg.image_to_image = None
    assert type(loaded_pipeline(model, cfg)).__name__ == "StableDiffusionPipeline"


def test_python_begins_with_a_folder_of_images(tmp_path: Path, model: Path) -> None:
    folder = pictures(tmp_path / "scenes", 3)
    image = {"images": str(folder), "strength": 0.5}
    loaded = sarhpc.load_model(model, steps=2, batch=2, image_to_image=image)
    found = sarhpc.generate(loaded, out=tmp_path / "corpus")
    assert found.prompts[0] == "A SAR image of a town with houses"
    assert [s.meta["image_to_image"]["image"] for s in found.samples] == ["0.png", "1.png", "2.png"]
    index = pq.read_table(tmp_path / "corpus" / "index.parquet").to_pylist()
    assert [row["source_image"] for row in index] == ["0.png", "1.png", "2.png"]
    assert {row["source_strength"] for row in index} == {0.5}
    assert len({row["split_group"] for row in index}) == 3
    (folder / "1.png").write_bytes(b"?")
    with pytest.raises(DataError, match=r"1 of 3 .*1\.png"):
        sarhpc.generate(loaded, "a lake")
    unnamed = sarhpc.load_model(model, steps=2, image_to_image={})
    with pytest.raises(ConfigError, match=r"image_to_image\.images: name the folder"):
        sarhpc.generate(unnamed, "a lake")


def test_images_that_begin_with_one_source_are_in_one_split() -> None:
    one, other = ({"prompt": text, "seed": n, "image_to_image": {"sha256": "5"}}
                  for n, text in enumerate(["a lake", "a wood"]))  # fmt: skip
    assert split_group(one) == split_group(other) == "source 5"


def seal_made(run: RunDir, stage: str, make: Callable[[RunDir, ShardTask], ShardResult]) -> None:
    """Make every shard of a stage, and seal it."""
    plan = ensure_plan(run, stage_named(load_run_config(run), stage))
    for task in plan.shards:
        made = make(run, task)
        record = Record(
            task.id, plan.id, str(made.path), made.samples, made.bytes, made.sha256, 0, "h", now(),
            now(), 1.0, {}, made.detail or {},
        )  # fmt: skip
        run.ledger(stage).publish(record)
    run.ledger(stage).seal(plan)


def lora_of(model: Path, file: Path) -> Path:
    """An adapter of one module of the U-Net, without effect."""
    module = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    weights = load_file(model / "unet" / "diffusion_pytorch_model.safetensors")
    outputs, inputs = weights[f"{module}.weight"].shape
    factors = {"lora_A": torch.zeros(2, inputs), "lora_B": torch.zeros(outputs, 2)}
    save_file({f"unet.{module}.{name}.weight": one for name, one in factors.items()}, file)
    return file


def test_the_set_is_planned_with_the_adapters_of_the_corpus(tmp_path: Path, model: Path) -> None:
    file = lora_of(model, tmp_path / "lora.safetensors")
    words = [f"generate.adapters=[{{path: {file}, weight: 0.5}}]", "compare={image_to_image: {}}"]
    run = run_of(tmp_path, model, *words, "generate.prompts=[a lake]")
    seal_captions(run)
    config = load_run_config(run)
    inputs = image_to_image_shards(run, config)[0]
    cfg = image_to_image_settings(config)
    require_planned(inputs, model, cfg)
    assert [one["weight"] for one in inputs["adapters"]] == [0.5]
    save_file({name: one + 1 for name, one in load_file(file).items()}, file)
    with pytest.raises(VerificationError, match="an adapter changed"):
        require_planned(inputs, model, cfg)


def test_a_few_images_beside_the_compared_models_give_one_line(tmp_path: Path, model: Path) -> None:
    compare = f"compare={{models: {{other: {model}}}, images: 2, image_to_image: {{}}}}"
    words = ["generate.images=2", "generate.prompts=[a lake]", "generate.shard_samples=8", compare]
    run = run_of(tmp_path, model, *words)
    seal_captions(run)
    seal_made(run, "generate", make_corpus_shard)
    seal_made(run, "compare", make_compare_shard)
    config = load_run_config(run)
    [line] = image_to_image_notes(run, config)
    assert line.startswith("Image to image: 8 images of this run begin with others, strength 0.5.")
    sets = {record.detail["set"]: record.samples for record in sealed_records(run, "compare")}
    assert sets == {"other": 2, IMAGE_TO_IMAGE: BEGUN_IMAGES}
    assert list(synthetic_shards(run, config)) == ["this run", "other"], "it is no model compared"
    assert COMPARE.shards is not None
    assert COMPARE.shards(config) == 2


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (
            ["compare={image_to_image: {strength: 0.1}}"],
            r"compare\.image_to_image\.strength=0\.1 of generate\.steps=2 is less",
        ),
        (
            ["compare={models: {image to image: embedded:sar}, image_to_image: {}}"],
            "give the model another",
        ),
        (["generate.steer={}", "compare={image_to_image: {}}"], "has a ControlNet; leave it out"),
    ],
)
def test_a_set_that_cannot_be_made_is_refused(
    tmp_path: Path, model: Path, words: list[str], reported: str
) -> None:
    config = load_run_config(run_of(tmp_path, model, *words))
    with pytest.raises(ConfigError, match=reported):
        COMPARE.check(config)
