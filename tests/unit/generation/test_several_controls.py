"""Several ControlNets at once, of both families: what each adds, when, and what fits what."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_bundle import make_bundle

from hpc.errors import ConfigError, DataError
from sarhpc.diffusion.bundle import load_bundle, save_bundle
from sarhpc.diffusion.control import new_controlnet
from sarhpc.diffusion.control_facts import publish_control_facts
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.controls.checks import require_prompts
from sarhpc.generation.controls.config import ControlInputConfig, SteerConfig
from sarhpc.generation.controls.drawn import DrawnLayers, drawings
from sarhpc.generation.controls.several import SeveralLayers
from sarhpc.generation.image_shard import Provenance, generate_shard
from sarhpc.generation.model import load_pipeline
from sarhpc.generation.plan import check_config, plan_generation
from sarhpc.generation.scenes.config import SceneConfig
from sarhpc.generation.steering import LayerSource, SteeringLayers
from sarhpc.shards.images import encode_gray8, encode_rgb8
from sarhpc.shards.sample import Sample, encode_json, sample_key
from sarhpc.shards.schema import validate_sample
from sarhpc.shards.writer import write_shard

PX = 32


def steered_model(base: Path, folder: Path, layer: str, seed: int) -> Path:
    """The bundle `base` with a ControlNet whose last convolutions are not zero."""
    bundle = load_bundle(base)
    controlnet = new_controlnet(bundle.backbone, seed)
    torch.manual_seed(seed)
    for name, parameter in controlnet.named_parameters():
        if name.startswith("controlnet_") or "conv_out" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    save_bundle(dataclasses.replace(bundle, controlnet=controlnet), folder)
    publish_control_facts(folder, layer)
    return folder


@dataclasses.dataclass(frozen=True)
class Models:
    """A base, and what steers it."""

    base: Path
    edges: Path
    cover: Path


@pytest.fixture(scope="module", params=[False, True], ids=["sd15", "sdxl"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("controls")
    base = make_bundle(folder, xl=request.param)
    edges = steered_model(base, folder / "edges", "edges", 1)
    return Models(base, edges, steered_model(base, folder / "cover", "segmentation", 2))


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a shard of three captioned tiles with edges and a land cover each."""
    rng = np.random.default_rng(0)
    samples = []
    for index in range(3):
        sketch = np.zeros((PX, PX), np.uint8)
        sketch[4 + 8 * index : 7 + 8 * index] = 255
        members = {
            "edges.png": encode_gray8(sketch),
            "segmentation.png": encode_rgb8(rng.integers(0, 256, (PX, PX, 3), np.uint8)),
            "meta.json": encode_json({"caption": {"SHORT": "a lake"}}),
        }
        samples.append(Sample(sample_key(7, index), members))
    folder = tmp_path_factory.mktemp("tiles")
    write_shard(folder / "000007.tar", samples)
    return folder


def config(steer: SteerConfig | None, **changes: Any) -> GenerateConfig:
    values = {"images": 3, "steps": 4, "batch": 2, "shard_samples": 2, "steer": steer}
    return GenerateConfig(**{"prompts": ["a forest"], **values, **changes})


def both(models: Models, scale: float = 1.0, **changes: Any) -> SteerConfig:
    further = ControlInputConfig(
        layer="segmentation", model=str(models.cover), scale=scale, **changes
    )
    return SteerConfig(further=[further])


def images(
    model: Path, cfg: GenerateConfig, layers: LayerSource | None, order: int = 1
) -> list[Sample]:
    pipeline = load_pipeline(model, cfg, "cpu")
    made: dict[int, list[Sample]] = {}
    for number, inputs in list(enumerate(plan_generation(cfg)))[::order]:
        shard = generate_shard(number, inputs, cfg, pipeline, Provenance("m", "c"), layers=layers)
        made[number] = list(shard.samples)
    return [sample for number in sorted(made) for sample in made[number]]


def pixels(samples: list[Sample]) -> list[bytes]:
    return [sample.members["sar.png"] for sample in samples]


def of_tiles(tiles: Path) -> Callable[[SteerConfig], LayerSource]:
    def layers(steer: SteerConfig) -> LayerSource:
        """The layers of the tiles for all controls."""
        [shard] = tiles.glob("*.tar")
        sources = [SteeringLayers([shard], each) for each in (steer, *steer.further)]
        return sources[0] if len(sources) == 1 else SeveralLayers(sources)

    return layers


@pytest.mark.slow
def test_two_controls_differ_from_each_and_zero_weight_takes_one_away(
    models: Models, tiles: Path
) -> None:
    layers = of_tiles(tiles)

    def made(steer: SteerConfig, model: Path = models.edges) -> list[bytes]:
        """Pixels of the images under these controls."""
        return pixels(images(model, config(steer), layers(steer)))

    edges = made(SteerConfig())
    cover = made(SteerConfig(layer="segmentation"), models.cover)
    together = made(both(models))
    assert all(a != b for a, b in zip(together, edges, strict=True))
    assert all(a != b for a, b in zip(together, cover, strict=True))
    assert made(both(models, scale=0.0)) == edges
    plain = pixels(images(models.base, config(None), None))
    assert made(SteerConfig(scale=0.0)) == plain
    assert made(both(models, start=0.5)) not in (together, edges)
    named = SteerConfig(model=str(models.edges))
    assert made(named, models.base) == edges, "the same ControlNet on a model without one"


@pytest.mark.slow
def test_a_control_contributes_between_its_start_and_its_end(models: Models, tiles: Path) -> None:
    layers = of_tiles(tiles)

    def made(**changes: Any) -> list[bytes]:
        """Pixels under one control."""
        steer = SteerConfig(**changes)
        return pixels(images(models.edges, config(steer), layers(steer)))

    whole, early, late = made(), made(end=0.5), made(start=0.5)
    assert all(len({*each}) == 3 for each in zip(whole, early, late, strict=True))


@pytest.mark.slow
def test_images_of_several_controls_depend_on_neither_order_nor_neighbours(
    models: Models, tiles: Path
) -> None:
    steer = both(models, scale=0.5, end=0.75)
    layers, cfg = of_tiles(tiles)(steer), config(steer)
    made = images(models.edges, cfg, layers)
    assert pixels(images(models.edges, cfg, layers, order=-1)) == pixels(made)
    alone = images(models.edges, dataclasses.replace(cfg, images=1), layers)
    assert pixels(alone) == pixels(made)[:1]
    for sample in made:
        validate_sample(sample)
    facts = made[1].meta["steered_by"]
    assert (facts["layer"], facts["tile"]) == ("edges", sample_key(7, 1))
    assert "end" not in facts
    [further] = facts["further"]
    assert (further["layer"], further["scale"], further["end"]) == ("segmentation", 0.5, 0.75)


@pytest.mark.slow
def test_a_drawing_steers_like_the_layer_of_a_tile_that_it_copies(
    models: Models, tiles: Path, tmp_path: Path
) -> None:
    [shard] = tiles.glob("*.tar")
    of_shard = SteeringLayers([shard], SteerConfig())
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(of_shard.member(number))
    drawn = DrawnLayers(drawings(str(tmp_path)), (PX, PX))
    cfg = config(SteerConfig(sketch=str(tmp_path)))
    made = images(models.edges, cfg, drawn)
    assert pixels(made) == pixels(images(models.edges, config(SteerConfig()), of_shard))
    facts = made[1].meta["steered_by"]
    assert facts["drawing"] == "1.png"
    assert "tile" not in facts
    assert facts["sha256"] == of_shard.load(1).sha256


@pytest.mark.slow
def test_a_drawing_as_large_as_a_scene_steers_it_beside_another_control(
    models: Models, tmp_path: Path
) -> None:
    scene, steps = SceneConfig(40, 56), {"images": 1, "steps": 2}

    def made(row: int, scale: float) -> bytes:
        """Pixels of a scene with a line that begins on this row in its last columns."""
        drawn = np.full((40, 56), 255, np.uint8)
        drawn[row : row + 3, 40:] = 0
        Image.fromarray(drawn).save(tmp_path / "d.png")
        sketch = str(tmp_path / "d.png")
        further = ControlInputConfig(
            layer="segmentation", shards="/none", model=str(models.cover), scale=scale
        )
        steer = SteerConfig(sketch=sketch, further=[further])
        source = DrawnLayers(drawings(sketch), (40, 56))
        cfg = config(steer, scene=scene, **steps)
        [image] = pixels(images(models.edges, cfg, SeveralLayers([source, source])))
        return image

    assert len({made(8, 0.0), made(20, 0.0), made(8, 1.0)}) == 3


def test_a_control_of_another_layer_or_model_is_refused_by_name(
    models: Models, tmp_path: Path
) -> None:
    def load(model: Path, steer: SteerConfig) -> None:
        """Load the model, under these controls."""
        load_pipeline(model, config(steer), "cpu")

    with pytest.raises(ConfigError, match="trained on the layer `edges` and is to read `coarse`"):
        load(models.edges, SteerConfig(layer="coarse"))
    wrong = SteerConfig(further=[ControlInputConfig(layer="optical", model=str(models.cover))])
    with pytest.raises(ConfigError, match="trained on the layer `segmentation`"):
        load(models.edges, wrong)
    with pytest.raises(ConfigError, match=r"set generate\.steer\.model"):
        load(models.base, SteerConfig())
    with pytest.raises(DataError, match="no ControlNet in"):
        load(models.base, SteerConfig(model=str(models.base)))
    bundle = load_bundle(models.base)
    with torch.no_grad():
        bundle.backbone.conv_in.weight.add_(1.0)
    save_bundle(bundle, tmp_path / "other")
    with pytest.raises(ConfigError, match="trained on another U-Net"):
        load(tmp_path / "other", SteerConfig(model=str(models.edges)))


def test_a_control_of_another_family_is_refused_by_its_shapes(tmp_path: Path) -> None:
    base, other = make_bundle(tmp_path / "a"), make_bundle(tmp_path / "b", xl=True)
    controlnet = steered_model(other, tmp_path / "xl", "edges", 1) / "controlnet"
    (controlnet / "control.json").unlink()
    with pytest.raises(ConfigError, match="of another kind of model"):
        load_pipeline(base, config(SteerConfig(model=str(controlnet))), "cpu")


@pytest.mark.parametrize(
    ("steer", "reason"),
    [
        (SteerConfig(start=0.5, end=0.5), r"steer\.start is 0\.5 and generate\.steer\.end 0\.5"),
        (SteerConfig(further=[ControlInputConfig()]), r"steer\.further\[0\] names no model"),
        (
            SteerConfig(further=[ControlInputConfig(model="m", scale=float("nan"))]),
            r"further\[0\]\.scale is nan: give at least 0",
        ),
        (
            SteerConfig(further=[ControlInputConfig(model="m", end=1.5)]),
            r"further\[0\]\.end is 1\.5: give 0 to 1",
        ),
        (SteerConfig(sketch="a.png", shards="/data"), "leave one of them out"),
        (SteerConfig(sketch="a.png", layer="optical"), "stands for `edges`"),
        (
            SteerConfig(further=[ControlInputConfig(layer="relief", model="m")]),
            r"further\[0\]\.layer is 'relief'",
        ),
    ],
)
def test_settings_that_no_model_could_follow_are_refused(steer: SteerConfig, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_config(config(steer))


def test_a_drawing_needs_prompts() -> None:
    with pytest.raises(ConfigError, match=r"a drawing has no caption; set generate\.prompts"):
        require_prompts(config(SteerConfig(sketch="a.png"), prompts=[]))
    require_prompts(config(SteerConfig(sketch="a.png"), prompts=["a lake"]))
