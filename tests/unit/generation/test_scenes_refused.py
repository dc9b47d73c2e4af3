"""Large scenes that cannot be made: refused by their settings, with what to do; their memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hpc.errors import ConfigError
from sarhpc.generation.config import (
    CopiesConfig,
    GateConfig,
    GenerateConfig,
    PriorImagesConfig,
    SteerConfig,
)
from sarhpc.generation.plan import plan_generation
from sarhpc.generation.scenes.config import SceneConfig
from sarhpc.generation.scenes.memory import scene_memory


def config(scene: SceneConfig, **changes: Any) -> GenerateConfig:
    return GenerateConfig(prompts=["a river"], scene=scene, **changes)


def draw(path: Path, values: np.ndarray, mode: str = "L") -> str:
    Image.fromarray(values, mode).save(path)
    return str(path)


@pytest.mark.parametrize(
    ("scene", "changes", "message"),
    [
        (SceneConfig(100, 64), {}, r"scene\.rows_px is 100: must be a multiple of 8"),
        (SceneConfig(64, 0), {}, r"scene\.columns_px is 0"),
        (SceneConfig(64, 64, decode_px=12), {}, r"scene\.decode_px is 12"),
        (SceneConfig(65536, 8192), {}, "536,870,912 pixels, and pictures of up to 268,435,456"),
        (SceneConfig(64, 64), {"height_px": 128}, "scene is 64 px .* makes images of 128 px"),
        (SceneConfig(64, 64, None, ["a lake"]), {}, r"scene\.layout, which is not set"),
        (SceneConfig(64, 64, "none.png", ["a lake"]), {}, "cannot read .*none.png"),
        (SceneConfig(64, 64), {"steer": SteerConfig()}, "as large as the scene"),
        (SceneConfig(64, 64), {"gate": GateConfig(memorised=CopiesConfig())}, "memorised=null"),
    ],
)
def test_scenes_that_cannot_be_made_are_refused(
    scene: SceneConfig, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_generation(config(scene, **changes))


@pytest.mark.parametrize(
    ("values", "mode", "regions", "message"),
    [
        (np.zeros((2, 2, 3), np.uint8), "RGB", [], "mode RGB.*one channel of 8 bits"),
        (np.zeros((2, 2, 4), np.uint8), "RGBA", [], "mode RGBA.*without alpha"),
        (np.zeros((2, 3), np.uint8), "L", [], "has 2 x 3 px, and a scene of 64 x 64 px"),
        (np.full((2, 2), 2, np.uint8), "L", ["a lake"], "has the value 2, and .* describes 1"),
        (np.zeros((2, 2), np.uint8), "L", ["a lake"], "value 1 as 'a lake', which no pixel"),
        (np.ones((2, 2), np.uint8), "L", [" "], "an empty description"),
    ],
)
def test_layouts_that_mean_nothing_are_refused(
    tmp_path: Path, values: np.ndarray, mode: str, regions: list[str], message: str
) -> None:
    layout = draw(tmp_path / "map.png", values, mode)
    with pytest.raises(ConfigError, match=message):
        plan_generation(config(SceneConfig(64, 64, layout, regions)))


def test_regularisation_images_are_no_scenes() -> None:
    with pytest.raises(ConfigError, match=r"prior\.scene: regularisation images"):
        plan_generation(PriorImagesConfig(scene=SceneConfig(64, 64)))


def test_parts_bound_the_memory_of_decoding() -> None:
    channels = (128, 256, 512, 512)
    whole, parts = (
        scene_memory(SceneConfig(4096, 4096, decode_px=px), channels, 8).decoding
        for px in (4096, 1024)
    )
    assert whole > 60 * 2**30
    assert parts < 9 * 2**30
