"""Large scenes of tiny models: bits, seamless decoding, steering, SDXL, refusals."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from controlnet_models import save_with_controlnet
from corpora import FACTS, shards_of
from PIL import Image
from tiny_bundle import make_bundle
from torch import nn

from hpc.errors import ConfigError, DataError, VerificationError
from sarhpc.corpus.export import LAYOUTS, export_corpus
from sarhpc.corpus.index import read_index
from sarhpc.corpus.packaging import package_corpus
from sarhpc.generation.config import (
    GenerateConfig,
    SteerConfig,
)
from sarhpc.generation.image_shard import GenerationStoppedError, Provenance, generate_shard
from sarhpc.generation.model import load_pipeline
from sarhpc.generation.plan import plan_generation
from sarhpc.generation.scenes import memory
from sarhpc.generation.scenes.config import SceneConfig
from sarhpc.generation.scenes.denoising import WindowedNetwork
from sarhpc.generation.scenes.memory import SceneMemoryError
from sarhpc.generation.steering import SteeringLayers
from sarhpc.shards.contract import sigma0_db
from sarhpc.shards.images import decode_array, decode_gray8, encode_gray8
from sarhpc.shards.sample import Sample, encode_json, sample_key
from sarhpc.shards.schema import validate_sample
from sarhpc.shards.tile_contract import contract_of_tiles
from sarhpc.shards.writer import write_shard

pytestmark = pytest.mark.slow

PROVENANCE = Provenance("m1", "c1")
TILE = {
    "scene_id": "a", "calibration": "sigma0", "pixel_m": 0.5, "incidence_deg": 40.0,
    "normalisation": {"mode": "db", "low": 0.01, "top": 10.0}, "range_direction": "+col",
}  # fmt: skip


def config(scene: SceneConfig | None, **changes: Any) -> GenerateConfig:
    settings = {"prompts": ["a river", "a forest"], "images": 3, "steps": 3, "batch": 2}
    return GenerateConfig(**{**settings, "scene": scene, **changes})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 32 px tiles, of 4 x 4 latent pixels."""
    return make_bundle(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def pipeline(model: Path) -> Any:
    return load_pipeline(model, GenerateConfig(), "cpu")


def generate(pipeline: Any, cfg: GenerateConfig, order: int = 1, **facts: Any) -> list[Sample]:
    shards = list(enumerate(plan_generation(cfg)))[::order]
    made = {
        n: list(generate_shard(n, {**inputs, **facts}, cfg, pipeline, PROVENANCE).samples)
        for n, inputs in shards
    }
    return [sample for number in sorted(made) for sample in made[number]]


def pictures(samples: list[Sample]) -> dict[tuple[str, int], bytes]:
    return {(s.meta["prompt"], s.meta["seed"]): s.members["sar.png"] for s in samples}


SCENE = SceneConfig(72, 104)


@pytest.fixture(scope="module")
def scenes(pipeline: Any) -> list[Sample]:
    return generate(pipeline, config(SCENE))


def test_a_scene_says_what_it_is_and_has_no_place(scenes: list[Sample]) -> None:
    for sample in scenes:
        validate_sample(sample)
        assert decode_gray8(sample.members["sar.png"]).shape == (72, 104)
        assert sample.meta["scene"] == {
            "window_px": [32, 32], "decode_px": 1024, "incidence_varies": False, "seams": None,
        }  # fmt: skip
    assert len({sample.members["sar.png"] for sample in scenes}) == 3


@pytest.mark.parametrize(
    ("changes", "order"), [({"shard_samples": 1}, -1), ({"prompts": ["a forest", "a river"]}, 1)]
)
def test_a_scene_is_the_same_bits_whatever_shard_order_and_neighbours(
    pipeline: Any, scenes: list[Sample], changes: dict[str, Any], order: int
) -> None:
    other = pictures(generate(pipeline, config(SCENE, **changes), order))
    mine = pictures(scenes)
    assert len(mine.keys() & other.keys()) >= 2
    assert all(other[name] == mine[name] for name in mine.keys() & other.keys())


def test_a_stop_within_a_scene_abandons_it_and_the_next_start_makes_the_same_bits(
    pipeline: Any, scenes: list[Sample]
) -> None:
    cfg = config(SCENE)
    inputs, asked = plan_generation(cfg)[0], []

    def stop() -> bool:
        asked.append(None)
        return len(asked) == 4  # before the first scene, then at each step

    with pytest.raises(GenerationStoppedError, match="resume generates it again"):
        list(generate_shard(0, inputs, cfg, pipeline, PROVENANCE, stop).samples)
    assert len(asked) == 4
    assert generate(pipeline, cfg) == scenes


@pytest.mark.parametrize(
    ("scheduler", "guidance"), [("ddim", 1.0), ("ddim", 4.0), ("dpmsolver", 4.0), ("pndm", 4.0)]
)
def test_a_scene_of_one_window_is_the_tile(model: Path, scheduler: str, guidance: float) -> None:
    changes = {"scheduler": scheduler, "guidance": guidance, "negative_prompt": "a town"}
    pipeline = load_pipeline(model, config(None, **changes), "cpu")
    tiles = generate(pipeline, config(None, **changes))
    scenes = generate(pipeline, config(SceneConfig(32, 32), **changes))
    assert pictures(scenes) == pictures(tiles)


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpmsolver", "pndm"])
def test_every_scheduler_steps_the_scene_as_a_whole(
    model: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a network that sees single pixels, windows change nothing; schedulers remember steps."""
    cfg = config(SCENE, images=1, scheduler=scheduler, steps=6)
    pipeline = load_pipeline(model, cfg, "cpu")

    def pixelwise(sample: torch.Tensor, timestep: Any, hidden: Any = None, **_: Any) -> Any:
        return (torch.tanh(sample * (1 + timestep / 1000)),)

    monkeypatch.setitem(pipeline.unet.__dict__, "forward", pixelwise)
    windowed = generate(pipeline, cfg)
    whole = generate(pipeline, config(None, **_of(cfg), height_px=72, width_px=104, batch=1))
    assert pictures(windowed) == pictures(whole)


def _of(cfg: GenerateConfig) -> dict[str, Any]:
    return {name: getattr(cfg, name) for name in ("images", "scheduler", "steps")}


def test_scenes_decoded_in_parts_are_the_same_to_half_a_code(
    pipeline: Any, scenes: list[Sample]
) -> None:
    parts = generate(pipeline, config(dataclasses.replace(SCENE, decode_px=32)))
    for one, other in zip(scenes, parts, strict=True):
        codes = [decode_gray8(s.members["sar.png"]).astype(int) for s in (one, other)]
        assert np.abs(codes[0] - codes[1]).max() <= 1
        assert (codes[0] != codes[1]).mean() < 0.001


def draw(path: Path, values: np.ndarray, mode: str = "L") -> str:
    Image.fromarray(values, mode).save(path)
    return str(path)


def test_regions_are_recorded_and_change_the_image(
    pipeline: Any, scenes: list[Sample], tmp_path: Path
) -> None:
    layout = draw(tmp_path / "map.png", np.repeat(np.uint8([[0, 1, 1, 2]]), 3, axis=0))
    scene = SceneConfig(72, 96, layout, ["a town", "calm water"])
    made = generate(pipeline, config(scene))
    facts = made[0].meta["scene"]
    assert facts["regions"] == ["A SAR image of a town", "A SAR image of calm water"]
    assert facts["region_shares"] == [0.25, 0.5, 0.25]
    other = generate(pipeline, config(dataclasses.replace(scene, regions=["a road", "a road"])))
    assert all(one != two for one, two in zip(made, other, strict=True))
    Path(layout).write_bytes(Path(layout).read_bytes() + b" ")
    with pytest.raises(VerificationError, match="not the layout that was planned"):
        generate(pipeline, config(scene), layout_sha256=facts["layout_sha256"])


def test_a_contract_gives_a_cog_of_sigma0_without_a_place(pipeline: Any, tmp_path: Path) -> None:
    import rasterio

    contract = contract_of_tiles([TILE])
    made = generate(pipeline, config(SCENE, images=1), contract=contract.to_json())
    package_corpus(tmp_path / "corpus", shards_of(tmp_path / "corpus", made), FACTS)
    [row] = read_index(tmp_path / "corpus" / "index.parquet")
    assert json.loads(row["parameters"])["scene"]["window_px"] == [32, 32]
    assert (row["height_px"], row["width_px"], row["incidence_deg"]) == (72, 104, 40.0)
    export_corpus(tmp_path / "corpus", tmp_path / "out", LAYOUTS["cog-db"])
    [path] = (tmp_path / "out").rglob("*.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no place
        opened = rasterio.open(path)
    with opened as file:
        expected = sigma0_db(decode_array(made[0].members["sar16.npy"]), contract)
        np.testing.assert_allclose(file.read(1), expected, atol=1e-4)
        assert (file.crs, file.transform.is_identity, file.gcps) == (None, True, ([], None))
        tags = file.tags()
        assert (tags["QUANTITY"], tags["UNITS"], tags["SYNTHETIC"]) == ("sigma0_db", "dB", "YES")
        assert (tags["RANGE_DIRECTION"], tags["PIXEL_SPACING_M"]) == ("+col", "0.5")


def test_a_corpus_without_masters_is_not_exported_in_decibels(tmp_path, scenes) -> None:
    root = tmp_path / "corpus"
    package_corpus(root, shards_of(root, scenes), FACTS)
    with pytest.raises(DataError, match="no 16-bit master"):
        export_corpus(root, tmp_path / "out", LAYOUTS["cog-db"])
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def steered(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with a ControlNet whose last convolutions are not zero, as after training."""
    return save_with_controlnet(model, tmp_path_factory.mktemp("steered") / "model", (4, 4, 4, 8))


def layers_of(folder: Path, size: tuple[int, int], *, cut: int = 0) -> SteeringLayers:
    """One coarse layer of random blocks; from column `cut` on another one."""
    rng = np.random.default_rng(0)
    layer = np.kron(rng.integers(0, 256, (9, 13), np.uint8), np.ones((8, 8), np.uint8))
    if cut:
        layer[:, cut:] = 255 - layer[:, cut:]
    members = {
        "coarse.png": encode_gray8(layer[: size[0], : size[1]]),
        "meta.json": encode_json({"caption": {"SHORT": "a lake"}}),
    }
    path = folder / "layers" / "000000.tar"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_shard(path, [Sample(sample_key(0, 0), members)])
    return SteeringLayers([path], SteerConfig(shards=str(path.parent), layer="coarse"))


def test_a_coarse_layer_steers_a_scene_window_by_window(steered: Path, tmp_path: Path) -> None:
    steer = SteerConfig(shards=str(tmp_path / "layers"), layer="coarse")
    one = config(None, images=1, steer=steer)
    pipeline = load_pipeline(steered, one, "cpu")

    def made(cfg: GenerateConfig, layers: SteeringLayers) -> Sample:
        [inputs] = plan_generation(cfg)
        [sample] = generate_shard(0, inputs, cfg, pipeline, PROVENANCE, layers=layers).samples
        return sample

    small = layers_of(tmp_path, (32, 32))
    tile, window = (
        made(dataclasses.replace(one, scene=scene), small) for scene in (None, SceneConfig(32, 32))
    )
    assert tile.members["sar.png"] == window.members["sar.png"], "a scene of one window"
    wide = dataclasses.replace(one, scene=SCENE)
    first = made(wide, layers_of(tmp_path, (72, 104)))
    assert first.meta["steered_by"]["layer"] == "coarse"
    other = made(wide, layers_of(tmp_path, (72, 104), cut=96))
    assert first.members["sar.png"] != other.members["sar.png"], "the far end is steered as well"
    with pytest.raises(DataError, match=r"32 x 32 px and cannot steer a scene of 72 x 104 px"):
        made(wide, layers_of(tmp_path, (32, 32)))


class Spy(nn.Module):
    """Notes the size ids that a network is called with."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.call, self.seen = network.forward, set()

    def forward(self, sample: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        ids = options["added_cond_kwargs"]["time_ids"]
        self.seen.add((tuple(sample.shape), tuple(map(tuple, ids.tolist()))))
        return self.call(sample, *arguments, **options)


def test_an_xl_model_is_told_the_size_of_its_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = draw(tmp_path / "map.png", np.repeat(np.uint8([[0, 1]]), 2, axis=0))
    cfg = config(SceneConfig(64, 64, layout, ["a town"]), images=2, negative_prompt="a road")
    pipeline = load_pipeline(make_bundle(tmp_path, xl=True), cfg, "cpu")
    spy = Spy(pipeline.unet)
    monkeypatch.setitem(pipeline.unet.__dict__, "forward", spy.forward)
    first, again = generate(pipeline, cfg), generate(pipeline, cfg, -1)
    assert first == again
    assert spy.seen == {((4, 4, 4, 4), ((32.0, 32.0, 0.0, 0.0, 32.0, 32.0),) * 4)}
    plain = generate(pipeline, config(SceneConfig(64, 64), images=2, negative_prompt="a road"))
    assert pictures(plain) != pictures(first), "the pooled embedding of a region is its own"


def test_a_stopped_call_leaves_the_pipeline_as_it_was(pipeline: Any) -> None:
    network = WindowedNetwork(pipeline, (4, 4), 1, 2)
    with pytest.raises(KeyboardInterrupt), network.in_place():
        raise KeyboardInterrupt
    assert "forward" not in pipeline.unet.__dict__


def test_a_scene_smaller_than_a_tile_is_refused_before_it_is_begun(pipeline: Any) -> None:
    cfg = config(SceneConfig(24, 64))
    with pytest.raises(ConfigError, match=r"scene is 24 px .* images of 32 px"):
        generate(pipeline, cfg)


def test_a_scene_larger_than_memory_is_refused_with_numbers_before_it_is_begun(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "node_memory_bytes", lambda: 2**30)
    cfg = config(SceneConfig(4096, 4096))
    shard = plan_generation(cfg)[0]
    with pytest.raises(SceneMemoryError, match=r"4096 x 4096 px takes about 5\.\d+ GiB .* 1 GiB"):
        generate_shard(0, shard, cfg, pipeline, PROVENANCE)
