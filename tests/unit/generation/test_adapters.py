"""Several adapters at generation, of every kind: off is the base to the byte, on by weight."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tiny_bundle import make_bundle

from hpc.errors import ConfigError, DataError, VerificationError
from sarhpc.diffusion.adapter import (
    TEXT,
    add_adapter,
    low_rank_weights,
    save_low_rank,
    unet_targets,
)
from sarhpc.diffusion.config import LORA_FILE, LYCORIS_FILE, AdapterConfig
from sarhpc.diffusion.dylora import truncate
from sarhpc.diffusion.families.registry import is_text_encoder
from sarhpc.diffusion.lycoris import lycoris_weights, save_lycoris
from sarhpc.generation.adapters.chosen import planned_adapters, require_planned
from sarhpc.generation.adapters.config import AppliedAdapterConfig
from sarhpc.generation.adapters.fitting import require_fit
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.image_shard import Provenance, generate_shard
from sarhpc.generation.model import load_pipeline
from sarhpc.generation.plan import check_config, plan_generation, shard_requests
from sarhpc.generation.sampler import sample_images
from sarhpc.shards.sample import Sample

pytestmark = pytest.mark.slow

KINDS = ("lora", "dylora", "loha", "lokr")


def config(*applied: tuple[Path | None, float], **changes: Any) -> GenerateConfig:
    adapters = [
        AppliedAdapterConfig(None if path is None else str(path), weight)
        for path, weight in applied
    ]
    settings = {"prompts": ["a forest"], "images": 2, "steps": 2, "batch": 2}
    return GenerateConfig(**{**settings, "adapters": adapters, **changes})


def images(model: Path, cfg: GenerateConfig) -> NDArray[np.float32]:
    [inputs] = plan_generation(cfg)
    return sample_images(load_pipeline(model, cfg, "cpu"), shard_requests(inputs), cfg, 2, 1)


def trained(model: Path, kind: str, folder: Path, size: float = 0.2) -> NDArray[np.float32]:
    """Save an adapter of all parts, as a training leaves it; the images of the adapted model."""
    pipeline = load_pipeline(model, config(), "cpu")
    cfg = AdapterConfig(kind=kind, rank=4, alpha=2.0)
    names = ("unet", "text_encoder", "text_encoder_2")
    parts = {name: getattr(pipeline, name) for name in names if hasattr(pipeline, name)}
    generator = torch.Generator().manual_seed(KINDS.index(kind))
    for part, network in parts.items():
        add_adapter(network, cfg, list(TEXT) if is_text_encoder(part) else unet_targets(cfg), 0)
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.data = torch.randn(parameter.shape, generator=generator) * size
    if kind == "dylora":
        truncate(parts, cfg, 2)
    folder.mkdir()
    low_rank = "lora" in kind
    read = low_rank_weights if low_rank else lycoris_weights
    weights = {part: read(network) for part, network in parts.items()}
    (save_low_rank if low_rank else save_lycoris)(weights, folder)
    [inputs] = plan_generation(config())
    return sample_images(pipeline, shard_requests(inputs), config(), 2, 1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], tuple[Path, dict[str, Any]]]:
    """A model of SD 1.5 or SDXL; folder and images of an adapter of each kind."""
    known: dict[bool, tuple[Path, dict[str, Any]]] = {}

    def make(xl: bool) -> tuple[Path, dict[str, Any]]:
        if xl not in known:
            folder = tmp_path_factory.mktemp("xl" if xl else "sd15")
            model = make_bundle(folder, xl=xl)
            found = {kind: folder / kind for kind in KINDS}
            known[xl] = model, {k: (path, trained(model, k, path)) for k, path in found.items()}
        return known[xl]

    return make


@pytest.mark.parametrize("xl", [False, True], ids=["sd15", "sdxl"])
def test_every_kind_makes_the_images_of_its_training_and_off_those_of_the_base(
    made: Callable[[bool], tuple[Path, dict[str, Any]]], xl: bool
) -> None:
    model, adapters = made(xl)
    base = images(model, config())
    for path, wanted in adapters.values():
        assert np.abs(wanted - base).max() > 0.01
        assert np.allclose(images(model, config((path, 1.0))), wanted, atol=2e-3)
    off = config(*((path, 0.0) for path, _ in adapters.values()))
    assert np.array_equal(images(model, off), base)


@pytest.mark.parametrize("kind", ["lora", "loha", "lokr"])
def test_the_distance_from_the_base_rises_with_the_weight(
    made: Callable[[bool], tuple[Path, dict[str, Any]]], kind: str
) -> None:
    model, adapters = made(False)
    base = images(model, config())
    weights = (0.0, 0.25, 0.5, 1.0)
    found = [images(model, config((adapters[kind][0], weight))) for weight in weights]
    for image in range(2):
        distances = [float(np.abs(one[image] - base[image]).mean()) for one in found]
        assert distances[0] == 0
        assert distances == sorted(set(distances)), "rises, and never stays"


def test_several_act_together_and_one_that_is_off_does_not(
    made: Callable[[bool], tuple[Path, dict[str, Any]]],
) -> None:
    model, adapters = made(False)
    lora, loha, lokr = (adapters[kind][0] for kind in ("lora", "loha", "lokr"))
    three = images(model, config((lora, 0.5), (loha, 0.5), (lokr, 0.5)))
    two = images(model, config((lora, 0.5), (loha, 0.5)))
    assert np.abs(three - two).max() > 1e-3
    assert np.array_equal(images(model, config((lora, 0.5), (loha, 0.5), (lokr, 0.0))), two)
    # Updates are added, so that their order matters to the last bits only.
    assert np.allclose(images(model, config((loha, 0.5), (lora, 0.5))), two, atol=1e-4)


def test_the_one_in_the_models_folder_is_listed_by_the_path_null(
    made: Callable[[bool], tuple[Path, dict[str, Any]]], tmp_path: Path
) -> None:
    model, adapters = made(False)
    tuned = tmp_path / "tuned"
    shutil.copytree(model, tuned)
    loha, wanted = adapters["loha"]
    shutil.copy(loha / LYCORIS_FILE, tuned)
    lora = adapters["lora"][0]
    assert np.allclose(images(tuned, config()), wanted, atol=2e-3), "alone it is on by itself"
    assert np.array_equal(images(tuned, config(adapter_weight=0.0)), images(model, config())), (
        "and its weight takes it off"
    )
    both = images(tuned, config((None, 1.0), (lora, 0.5)))
    assert np.array_equal(both, images(model, config((loha, 1.0), (lora, 0.5))))
    named = images(tuned, config((lora, 0.5)))
    assert np.array_equal(named, images(model, config((lora, 0.5)))), "listed ones, and no other"
    with pytest.raises(DataError, match="which the path null means"):
        images(model, config((None, 1.0)))


def test_digest_and_weight_of_each_are_planned_recorded_and_checked(
    made: Callable[[bool], tuple[Path, dict[str, Any]]], tmp_path: Path
) -> None:
    model, adapters = made(False)
    lora = shutil.copytree(adapters["lora"][0], tmp_path / "lora")
    cfg = config((lora, 0.5), (adapters["lokr"][0], 0.25), images=3)
    facts = planned_adapters(model, cfg)
    assert [one["weight"] for one in facts["adapters"]] == [0.5, 0.25]
    [inputs] = plan_generation(cfg)
    require_planned({**inputs, **facts}, model, cfg)

    def samples(inputs: dict[str, Any]) -> list[Sample]:
        pipeline = load_pipeline(model, cfg, "cpu")
        return list(generate_shard(0, inputs, cfg, pipeline, Provenance("m", "c")).samples)

    first, again = (samples({**inputs, **facts}) for _ in range(2))
    assert all(sample.meta["adapters"] == facts["adapters"] for sample in first)
    assert first == again, "the same after a restart"
    alone = {**inputs, **facts, "images": inputs["images"][2:]}
    assert samples(alone)[0].members["sar.png"] == first[2].members["sar.png"], "by no neighbour"

    file = lora / LORA_FILE
    save_file({name: tensor * 2 for name, tensor in load_file(file).items()}, file)
    with pytest.raises(VerificationError, match="an adapter changed since the corpus was planned"):
        require_planned({**inputs, **facts}, model, cfg)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_of_another_model_is_refused_by_name_or_shape(
    made: Callable[[bool], tuple[Path, dict[str, Any]]], kind: str, tmp_path: Path
) -> None:
    model, adapters = made(False)
    other, _ = made(True)
    require_fit(next(adapters[kind][0].iterdir()), model)
    with pytest.raises(DataError, match=r"does not fit .* it changes (unet|text_encoder) \S+, "):
        require_fit(next(adapters[kind][0].iterdir()), other)
    with pytest.raises(DataError, match="does not fit"):
        load_pipeline(other, config((adapters[kind][0], 0.5)), "cpu")


@pytest.mark.parametrize(
    ("settings", "reported"),
    [
        ({"adapter": "a"}, r"generate\.adapter with generate\.adapters"),
        ({"adapter_weight": 0.5}, r"generate\.adapter_weight with generate\.adapters"),
        ({"adapters": [AppliedAdapterConfig("a"), AppliedAdapterConfig("a", 2)]}, "a twice"),
    ],
)
def test_settings_of_adapters_that_contradict_each_other_are_refused(
    settings: dict[str, Any], reported: str
) -> None:
    with pytest.raises(ConfigError, match=reported):
        check_config(config(**{"adapters": [AppliedAdapterConfig("a")], **settings}))


def test_files_that_are_no_adapters_are_refused_with_what_they_hold(
    made: Callable[[bool], tuple[Path, dict[str, Any]]], tmp_path: Path
) -> None:
    model, _ = made(False)
    file = tmp_path / "file.safetensors"
    for tensors, reported in (
        ({"unet.conv_in.weight": torch.zeros(2)}, r"no adapter that can be read.*unet\.conv_in"),
        ({"base_model.model.x.lora_A.weight": torch.zeros(2, 2)}, "no adapter that can be read"),
        ({}, "is empty"),
    ):
        save_file(tensors, file)
        with pytest.raises(DataError, match=reported):
            require_fit(file, model)
    file.write_text("{}")
    with pytest.raises(DataError, match="not a whole safetensors file"):
        require_fit(file, model)
