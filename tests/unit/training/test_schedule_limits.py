"""Lengths and rates at their ends, and settings just inside and just outside what is allowed."""

from __future__ import annotations

import math

import pytest

from hpc.errors import ConfigError
from sarhpc.diffusion.config import AdapterConfig, ControlConfig, TokenConfig
from sarhpc.training.config import (
    JudgeConfig,
    LoopConfig,
    OffloadConfig,
    PriorConfig,
    TrainConfig,
)
from sarhpc.training.config_checks import check, check_judge
from sarhpc.training.schedule import (
    accumulation,
    ema_decay,
    fitting_micro_batch,
    length,
    rate_scale,
)


def config(**changes: object) -> TrainConfig:
    return TrainConfig(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("samples", "epochs", "batch", "steps"),
    [(16, 1, 4, 4), (17, 1, 4, 5), (17, 4, 4, 17), (3, 2, 4, 2), (1, 1, 4, 1)],
)
def test_a_run_ends_with_the_batch_that_holds_its_last_sample(
    samples: int, epochs: int, batch: int, steps: int
) -> None:
    cfg = config(global_batch=batch, micro_batch=1, epochs=epochs)
    found = length(cfg, samples, 2)
    assert (found.samples, found.global_batch, found.steps) == (samples, batch, steps)
    assert found.accumulation == 2


@pytest.mark.parametrize(("most", "steps"), [(None, 10), (3, 3), (10, 10), (99, 10), (0, 0)])
def test_a_run_is_no_longer_than_its_most_steps(most: int | None, steps: int) -> None:
    cfg = config(global_batch=4, micro_batch=4, epochs=1, max_steps=most)
    assert length(cfg, 40, 1).steps == steps


def test_epochs_are_counted_by_samples() -> None:
    found = length(config(global_batch=4, micro_batch=4, epochs=3), 10, 1)
    assert [found.epoch(step) for step in range(9)] == [0, 0, 0, 1, 1, 2, 2, 2, 3]
    assert [found.ends_epoch(step) for step in range(9)] == [
        False, False, False, True, False, True, False, False, True,
    ]  # fmt: skip
    assert length(config(global_batch=4, micro_batch=4, epochs=1), 4, 1).ends_epoch(1)


@pytest.mark.parametrize(("micro", "world", "passes"), [(1, 1, 12), (2, 3, 2), (12, 1, 1)])
def test_passes_make_up_the_global_batch(micro: int, world: int, passes: int) -> None:
    assert accumulation(12, micro, world) == passes
    with pytest.raises(ConfigError, match="batch=12 is no multiple of micro_batch x ranks = 5 x 1"):
        accumulation(12, 5, 1, "batch")


@pytest.mark.parametrize(
    ("most", "batch", "world", "size"),
    [(8, 16, 8, 2), (8, 16, 1, 8), (6, 16, 2, 4), (5, 12, 2, 3), (7, 14, 2, 7), (1, 16, 4, 1),
     (99, 16, 2, 8), (3, 16, 1, 2)],
)  # fmt: skip
def test_the_micro_batch_is_the_largest_that_divides_a_ranks_share(
    most: int, batch: int, world: int, size: int
) -> None:
    found = fitting_micro_batch(most, batch, world)
    assert found == size
    assert accumulation(batch, found, world) * found * world == batch


@pytest.mark.parametrize("world", [3, 5, 17, 32])
def test_ranks_that_do_not_divide_a_batch_are_told_those_that_do(world: int) -> None:
    reported = f"batch=16 does not divide among {world} ranks: use one of 1, 2, 4, 8, 16 "
    with pytest.raises(ConfigError, match=reported):
        fitting_micro_batch(8, 16, world)


@pytest.mark.parametrize(
    ("step", "scale"), [(0, 0.25), (3, 1.0), (4, 1.0), (7, 0.5), (10, 0.0), (12, 0.0)]
)
def test_the_cosine_is_half_way_down_in_the_middle(step: int, scale: float) -> None:
    cfg = config(warmup_steps=4, lr_schedule="cosine")
    assert rate_scale(cfg, step, 10) == pytest.approx(scale, abs=1e-12)
    third = 0.5 * (1 + math.cos(math.pi / 3))
    assert rate_scale(cfg, 6, 10) == pytest.approx(third)


def test_a_warm_up_as_long_as_the_run_ends_at_the_full_rate() -> None:
    cfg = config(warmup_steps=4, lr_schedule="cosine")
    assert rate_scale(cfg, 3, 4) == rate_scale(cfg, 4, 4) == 1.0
    assert rate_scale(cfg, 5, 4) == pytest.approx(0.0)


@pytest.mark.parametrize(("step", "decay"), [(0, 1 / 10), (1, 2 / 11), (90, 0.9), (10**6, 0.9)])
def test_an_average_follows_by_the_smaller_of_its_age_and_its_setting(
    step: int, decay: float
) -> None:
    assert ema_decay(config(ema_decay=0.9), step) == pytest.approx(decay)


LOOP = LoopConfig(steps=10, global_batch=4, micro_batch=4, grad_clip=1.0, seed=0)


@pytest.mark.parametrize("off", [TrainConfig(ema_decay=0.0), LOOP])
def test_without_a_decay_the_average_is_the_weights_themselves(
    off: TrainConfig | LoopConfig,
) -> None:
    assert [ema_decay(off, step) for step in (0, 1, 10**6)] == [0.0, 0.0, 0.0]


COUNTS = ("epochs", "global_batch", "micro_batch", "threads", "loader_threads",
          "log_every_steps", "validation_steps")  # fmt: skip
RATES = ("lr_unet", "lr_text_encoder", "lr_text_encoder_2", "warmup_steps", "weight_decay",
         "grad_clip", "noise_offset", "max_steps", "validation_every_steps")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "least"),
    [("keep_last", 2), ("keep_every_steps", 1), ("checkpoint_every_steps", 1),
     ("checkpoint_every_s", 0)],
)  # fmt: skip
def test_checkpoints_are_refused_that_could_not_be_kept(name: str, least: int) -> None:
    check(config(**{name: least}))
    with pytest.raises(ConfigError, match=f"^{name}={least - 1}"):
        check(config(**{name: least - 1}))


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_one_or_more(name: str) -> None:
    check(config(**{name: 1}))
    with pytest.raises(ConfigError, match=f"{name}=0"):
        check(config(**{name: 0}))


@pytest.mark.parametrize("name", RATES)
def test_rates_are_not_negative(name: str) -> None:
    check(config(**{name: 0}))
    with pytest.raises(ConfigError, match=f"{name}=-1"):
        check(config(**{name: -1}))


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("ema_decay", (0.0, 0.999), (-0.1, 1.0)),
        ("caption_dropout", (0.0, 1.0), (-0.1, 1.1)),
        ("skip_in_a_row", (1,), (0,)),
        ("skip_in_all", (1,), (0,)),
        ("zero_stage", (1, 2, 3), (-1, 4)),
        ("lr_schedule", ("constant", "cosine"), ("linear",)),
        ("on_nonfinite", ("stop", "skip"), ("pass",)),
        ("prediction_type", (None, "epsilon", "v_prediction"), ("sample",)),
        ("image_member", ("sar.png", "optic.png"), ("sar.npy",)),
        ("precision", ("fp32", "bf16"), ("fp16",)),
    ],
)
def test_settings_are_taken_up_to_their_limits(
    name: str, inside: tuple[object, ...], outside: tuple[object, ...]
) -> None:
    for value in inside:
        check(config(**{name: value}))
    for value in outside:
        with pytest.raises(ConfigError, match=name):
            check(config(**{name: value}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"zero_stage": 0, "precision": "fp32"}, None),
        ({"zero_stage": 0, "precision": "bf16"}, "without fp32 master weights"),
        ({"zero_stage": 1, "precision": "bf16"}, None),
        ({"compile": True, "zero_stage": 2}, None),
        ({"compile": True, "zero_stage": 3}, "compile with zero_stage=3"),
        ({"compile": True, "adapter": AdapterConfig(kind="lora")}, None),
        ({"compile": True, "adapter": AdapterConfig(kind="dylora")}, "changes with each batch"),
        ({"compile": True, "control": ControlConfig()}, "only a U-Net is compiled"),
        ({"adapter": AdapterConfig(kind="dylora")}, None),
        ({"adapter": AdapterConfig(kind="lorra")}, r"adapter\.kind='lorra': use one of lora"),
        ({"offload": OffloadConfig(optimizer="cpu"), "zero_stage": 1}, None),
        ({"offload": OffloadConfig(optimizer="nvme"), "zero_stage": 3}, "fp32 masters"),
        ({"offload": OffloadConfig(optimizer="gpu"), "zero_stage": 3}, r"offload\.optimizer='gpu'"),
        (
            {"offload": OffloadConfig(parameters="gpu"), "zero_stage": 3},
            r"offload\.parameters='gpu'",
        ),
        ({"offload": OffloadConfig(optimizer="none"), "zero_stage": 0, "precision": "fp32"}, None),
        (
            {"offload": OffloadConfig(optimizer="cpu"), "zero_stage": 0, "precision": "fp32"},
            "shards none",
        ),
        ({"offload": OffloadConfig(parameters="cpu"), "zero_stage": 3}, None),
        ({"offload": OffloadConfig(parameters="cpu"), "zero_stage": 2}, "keeps weights whole"),
        (
            {"offload": OffloadConfig(parameters="nvme", nvme_path="/disk"), "zero_stage": 3},
            None,
        ),
        ({"offload": OffloadConfig(parameters="nvme"), "zero_stage": 3}, "goes with nvme"),
        ({"offload": OffloadConfig(nvme_path="/disk"), "zero_stage": 3}, "goes with nvme"),
    ],
)
def test_settings_of_the_engine_go_together_or_not(
    changes: dict[str, object], says: str | None
) -> None:
    if says is None:
        check(config(**changes))
    else:
        with pytest.raises(ConfigError, match=says):
            check(config(**changes))


def test_a_controlnet_is_trained_alone_on_a_known_layer() -> None:
    check(config(control=ControlConfig()))
    with pytest.raises(ConfigError, match="control with token and prior"):
        check(config(control=ControlConfig(), token=TokenConfig(), prior=PriorConfig()))
    with pytest.raises(ConfigError, match=r"control\.layer='relief': use one of "):
        check(config(control=ControlConfig(layer="relief")))


def grid(prompts: int, seeds: int, **changes: object) -> TrainConfig:
    """A training whose validation grids have that many images."""
    texts = [f"field {n}" for n in range(prompts)]
    return config(validation_prompts=texts, validation_seeds=[*range(seeds)], **changes)


def test_a_grid_of_four_radar_images_or_more_is_judged() -> None:
    for prompts, seeds in ((1, 4), (2, 2), (4, 1), (3, 3)):
        for choose in ("best", "last"):
            check_judge(grid(prompts, seeds), JudgeConfig(choose=choose))


@pytest.mark.parametrize(
    ("cfg", "judge", "says"),
    [
        (grid(3, 1), JudgeConfig(), "there are 3 of them; give 4 or more"),
        (grid(0, 4), JudgeConfig(), "there are 0 of them"),
        (grid(2, 2, validation_every_steps=0), JudgeConfig(), "do not set validation_every_steps"),
        (grid(2, 2, image_member="optic.png"), JudgeConfig(), r"image_member=optic\.png has none"),
        (grid(2, 2), JudgeConfig(choose="bst"), r"judge\.choose='bst': use one of best, last"),
    ],
)
def test_what_cannot_be_judged_is_refused(cfg: TrainConfig, judge: JudgeConfig, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_judge(cfg, judge)
