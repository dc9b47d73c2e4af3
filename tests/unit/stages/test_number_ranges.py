"""Every number of the configuration, set to 0 and to -1, is refused by name or has a meaning."""

from __future__ import annotations

import copy
import dataclasses
import functools
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from line_runs import TINY, tiny_run

from hpc.config import loads
from hpc.errors import ConfigError
from hpc.frozen_config import fields_of
from sarhpc.cli import main
from sarhpc.stages.config import RunConfig
from sarhpc.stages.number_ranges import out_of_range
from sarhpc.stages.registry import STAGES
from sarhpc.stages.settings import require_settings

NEGATIVE = """
    simulate.seed simulate.nesz_db simulate.ambiguity_db tile.split.seed imported.seed
    prior.sweep.sensor.noise_db generate.sweep.sensor.noise_db
    optical.cloud_codes optical.reference_height_m caption.seed prior.seed generate.seed
    prior.adapter_weight generate.adapter_weight
    prior.adapters.weight generate.adapters.weight train.validation_seeds evaluate.gates.use_gain
    generate.sweep.sensor.noise_db
"""
ZERO = """
    generate.gate.redraws evaluate.memory.pairs
    simulate.reflown_fraction simulate.scene_kinds.water simulate.scene_kinds.forest
    simulate.scene_kinds.field simulate.scene_kinds.town simulate.scene_kinds.mixed
    simulate.incidence_spread_deg simulate.relief_m simulate.trihedrals simulate.ambiguity_shift_m
    tile.min_valid tile.max_saturated tile.min_signal tile.min_optical_coverage
    tile.max_optical_delta_days tile.other.max_days tile.split.buffer_m imported.incidence_deg
    imported.val_of_train
    optical.min_coverage optical.max_cloud optical.max_delta_days caption.clip.min_share
    caption.min_words caption.template.metadata_dropout caption_train.micro_batch caption_train.lr
    caption_train.warmup_steps caption_train.weight_decay caption_train.grad_clip
    caption_train.label_smoothing caption_train.ema_decay caption_train.seed
    caption_train.zero_stage caption_train.checkpoint_every_s caption_train.eval_images
    clip_train.lr clip_train.warmup_steps clip_train.weight_decay clip_train.grad_clip
    clip_train.ema_decay clip_train.seed clip_train.zero_stage clip_train.checkpoint_every_s
    prior.guidance prior.guidance_rescale train.caption_dropout
    train.noise_offset train.token.lr train.control.lr train.prior.weight train.lr_unet
    train.lr_text_encoder train.lr_text_encoder_2 train.warmup_steps train.weight_decay
    train.grad_clip train.ema_decay train.seed train.zero_stage train.checkpoint_every_s
    train.validation_every_steps train.validation_guidance generate.guidance
    generate.guidance_rescale generate.steer.scale generate.steer.start evaluate.seed
    evaluate.gallery evaluate.autoencoder_s evaluate.orientation_steps evaluate.gates.w1_db
    evaluate.gates.acf_lag1 evaluate.gates.lsd_db evaluate.gates.unmeasurable
    evaluate.gates.use_ratio evaluate.gates.manifest evaluate.memory.pairs
    cluster.quota_gb cluster.quota_inodes
"""
NEGATIVE_HAS_A_MEANING = {*NEGATIVE.split()}
ZERO_HAS_A_MEANING = {*NEGATIVE.split(), *ZERO.split()}
BESIDE = {
    "imported": ["simulate=null", "imported.path=/data"],
    "caption_train": ["caption_train.train=[{path: /set}]"],
    "clip_train.new": ["clip_train={base_model: null}"],
    "compare": ["compare.models={one: /m}"],
    "prior": ["train.prior={}", "prior={}"],
    "train.judge": ["train.validation_prompts=[a, b]", "train.validation_seeds=[0, 1]"],
    "train.adapter.block": ["train.adapter={kind: dylora}"],
    "caption.clip": ["caption={captioner: clip, clip: {phrases: [a, b]}}"],
    "export": ["train.adapter={kind: dylora}"],
    "generate.gate": ["tile.tile_px=64"],
    "generate.scene": ["generate.scene={rows_px: 256, columns_px: 256}"],
    "generate.sweep": ["generate.sweep={sensor: {resolution_m: [1]}}"],
    "generate.table": ["generate={images: 4, table: {grammar: {classes: [water]}}}"],
}


def is_branch(hint: Any) -> bool:
    return dataclasses.is_dataclass(hint)


def numbers(schema: type[Any], prefix: str = "") -> Iterator[str]:
    """The keys of numbers and of lists of numbers."""
    for name, hint in fields_of(schema).items():
        kinds: list[Any] = [hint, *typing.get_args(hint)]
        nested = [kind for kind in kinds if is_branch(kind)]
        if typing.get_origin(hint) is not dict and not (typing.get_origin(hint) is list and nested):
            for kind in nested:
                yield from numbers(kind, f"{prefix}{name}.")
            if any({int, float} & {kind, *typing.get_args(kind)} for kind in kinds):
                yield f"{prefix}{name}"


REFUSED_WHOLE = ("prior.table.", "prior.steer.", "prior.gate.", "prior.scene.", "prior.sweep.")
KEYS = [key for key in numbers(RunConfig) if not key.startswith(REFUSED_WHOLE)]


@functools.cache
def loaded(*words: str) -> RunConfig:
    return loads(RunConfig, TINY, words)


def told_of(key: str, value: float) -> str:
    """What is said of a configuration in which `key` is `value`; empty if it is accepted."""
    beside = [word for part, words in BESIDE.items() if f"{key}.".startswith(f"{part}.")
              for word in words]  # fmt: skip
    config: Any = copy.deepcopy(loaded(*beside))
    owner, *parts = config, *key.split(".")
    for part in parts[:-1]:
        if getattr(owner, part) is None:
            kinds: tuple[Any, ...] = typing.get_args(fields_of(type(owner))[part])
            setattr(owner, part, next(filter(is_branch, kinds))())
        owner = getattr(owner, part)
    hint = fields_of(type(owner))[parts[-1]]
    listed = any(typing.get_origin(kind) is list for kind in (hint, *typing.get_args(hint)))
    setattr(owner, parts[-1], [value] if listed else value)
    names = [spec.name for spec in STAGES if parts[0] in spec.branches and spec.enabled(config)]
    try:
        require_settings(config, names or ["train"], lambda _: config.cluster.ranks)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("key", KEYS)
def test_zero_and_a_negative_number_are_refused_by_name_or_have_a_meaning(key: str) -> None:
    name = key.rpartition(".")[2]
    for value, meant in ((0, ZERO_HAS_A_MEANING), (-1, NEGATIVE_HAS_A_MEANING)):
        reported = told_of(key, value)
        assert (name in reported) != (key in meant), f"{key}={value}: {reported or 'accepted'}"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", ["train.lr_unet", "generate.guidance", "simulate.nesz_db"])
def test_a_number_that_is_not_finite_is_refused(key: str, value: float) -> None:
    assert f"{key}={value}: give a finite number" in told_of(key, value)


def test_a_dry_run_names_every_number_that_is_out_of_range(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ["cluster.ranks=0", "tile.max_tiles=0", "train.betas=[0.9, 1]", "encode={threads: -1}"]
    run = tiny_run(tmp_path / "run", tmp_path, wrong)
    assert main(["run", str(run.root), "--executor", "local", "--dry-run"]) == 2
    reported = capsys.readouterr().err
    for line in (
        "cluster.ranks=0: give at least 1",
        "tile.max_tiles=0: give at least 1",
        "train.betas=[0.9, 1.0]: give two",
        "encode.threads=-1: give at least 1",
    ):
        assert line in reported


def test_a_number_that_two_checks_refuse_is_named_once() -> None:
    words = ["train.max_steps=-6", "generate.gate.false_rejects=1", "generate.gate.redraws=-1"]
    config = loads(RunConfig, "simulate: {scenes: 2}", words)
    with pytest.raises(ConfigError) as caught:
        require_settings(config, ["train", "generate"])
    assert str(caught.value).splitlines() == [
        "train.max_steps=-6: give at least 1",
        "generate.gate.false_rejects=1.0: give more than 0 and less than 1",
        "generate.gate.redraws=-1: give at least 0",
    ]


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (
            "generate.sweep.sensor={resolution_m: [0.5], looks: [1000000000]}",
            "generate.sweep.sensor.looks=1000000000: give from 1 to 1000",
        ),
        (
            "generate.image_to_image.keep_mean_px=1e12",
            "generate.image_to_image.keep_mean_px=1000000000000.0: "
            "give more than 0 and at most 1000",
        ),
    ],
)
def test_numbers_that_would_take_all_time_or_memory_are_refused(words: str, reported: str) -> None:
    assert out_of_range(loads(RunConfig, "", [words]), ["generate"]) == [reported]
