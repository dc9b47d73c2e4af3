"""`train.fit`: the layout that a GPU's memory allows, and what would fit where none does."""

from __future__ import annotations

import pytest

from hpc.errors import ConfigError
from sarhpc.training.config import OffloadConfig, TrainConfig
from sarhpc.training.config_checks import check
from sarhpc.training.estimate.fit import Fit, choose, is_deterministic, what_would_fit
from sarhpc.training.estimate.footprint import GIB, Counts, footprint

# Per image, counted by estimate_flops: Stable Diffusion 1.5 at 512 px, SDXL at 1,024 px.
SD = {False: 0.913, True: 0.226}
XL = {False: 6.563, True: 0.682}


def sd_counts(checkpointing: bool) -> Counts:
    return Counts(982_600_000, 982_600_000, 83_700_000, SD[checkpointing] * GIB, 0.0)


def xl_counts(checkpointing: bool) -> Counts:
    return Counts(3_385_000_000, 3_385_000_000, 83_700_000, XL[checkpointing] * GIB, 0.0)


def layout(fit: Fit | None) -> tuple[int, bool, int]:
    assert fit is not None
    return fit.micro_batch, fit.gradient_checkpointing, fit.zero_stage


@pytest.mark.parametrize(
    ("world", "gib", "chosen"),
    [
        (4, 79.2, (4, False, 1)),
        (4, 39.4, (4, False, 1)),
        (1, 79.2, (16, False, 1)),
        (1, 39.4, (8, False, 1)),
        (8, 22.0, (2, False, 1)),
        (8, 11.5, (2, False, 2)),
        (8, 8.0, (2, True, 2)),
    ],
)
def test_stable_diffusion_takes_all_that_the_memory_allows(
    world: int, gib: float, chosen: tuple[int, bool, int]
) -> None:
    cfg = TrainConfig(fit="auto", micro_batch=2, zero_stage=3)
    found = choose(cfg, world, gib * GIB, sd_counts)
    assert layout(found) == chosen
    assert found is not None
    one = sd_counts(found.gradient_checkpointing)
    held = footprint(
        found.of(cfg),
        Counts(one.parameters, one.learned, one.autoencoder,
               one.activation_bytes * found.micro_batch, 0.0),
        world,
    )  # fmt: skip
    assert held.needed() == found.needed <= gib * GIB


def test_global_batch_is_never_changed() -> None:
    for world in (1, 2, 4, 8, 16):
        found = choose(TrainConfig(fit="auto"), world, 79.2 * GIB, sd_counts)
        assert found is not None
        assert 16 // world % found.micro_batch == 0


def test_sdxl_shards_more_where_memory_is_short() -> None:
    cfg = TrainConfig(fit="auto")
    assert layout(choose(cfg, 8, 79.2 * GIB, xl_counts)) == (2, False, 1)
    assert layout(choose(cfg, 8, 39.4 * GIB, xl_counts)) == (2, False, 2)
    assert layout(choose(cfg, 8, 18 * GIB, xl_counts))[2] == 3


def test_where_nothing_fits_it_says_what_would() -> None:
    cfg = TrainConfig(fit="auto")
    assert choose(cfg, 1, 39.4 * GIB, xl_counts) is None
    said = what_would_fit(cfg, 1, 39.4 * GIB, xl_counts)
    assert "no layout fits on 1 ranks of 39.4 GiB" in said
    assert "4 ranks" in said
    assert "train.offload={}" in said
    held = choose(TrainConfig(fit="auto", offload=OffloadConfig()), 1, 39.4 * GIB, xl_counts)
    assert held is not None, "as it said"
    assert choose(cfg, 4, 39.4 * GIB, xl_counts) is not None, "as it said"


def test_options_of_the_engine_limit_the_stages() -> None:
    alone = choose(TrainConfig(fit="auto", precision="fp32"), 1, 79.2 * GIB, sd_counts)
    assert layout(alone)[2] == 0, "nothing to shard, and no masters"
    compiled = TrainConfig(fit="auto", compile=True)
    assert choose(compiled, 8, 18 * GIB, xl_counts) is None, "compile goes not with stage 3"
    weights_away = TrainConfig(fit="auto", offload=OffloadConfig(parameters="cpu"))
    assert layout(choose(weights_away, 8, 79.2 * GIB, sd_counts))[2] == 3


def test_auto_gives_up_deterministic_kernels_on_gpus_alone() -> None:
    for fit, on_gpu, kept in (("auto", True, False), ("auto", False, True), ("exact", True, True)):
        assert is_deterministic(TrainConfig(fit=fit), on_gpu=on_gpu) is kept
    assert is_deterministic(TrainConfig(), on_gpu=True)
    assert not is_deterministic(TrainConfig(fit="exact", deterministic=False), on_gpu=True)


def test_other_values_are_refused() -> None:
    with pytest.raises(ConfigError, match="fit='most': use one of None, auto, exact"):
        check(TrainConfig(fit="most"))
