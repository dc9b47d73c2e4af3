"""What generated images say of their pixels: what the contract says, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpc.errors import ConfigError, DataError
from hpc.publish import publish_json
from sarhpc.generation.areas import area_facts
from sarhpc.generation.config import GenerateConfig, HomogeneousAreasConfig
from sarhpc.generation.pixels import pixel_members, pixel_metadata, planned_contract
from sarhpc.generation.plan import check_config, plan_generation
from sarhpc.shards.contract import CONTRACT_FILE, LawSpan, PixelContract, sidecar, sigma0_db
from sarhpc.shards.images import decode_array, decode_gray8
from sarhpc.shards.radiometry import amplitude_of_db, master_amplitude
from sarhpc.shards.tile_contract import contract_of_tiles
from sarhpc.stages.inputs.contracts import contract_for

LOW, TOP = amplitude_of_db(-40.0), amplitude_of_db(20.0)
CONTRACT = PixelContract(
    LawSpan("db", (TOP, TOP), (LOW, LOW)), "sigma0", (2.5, 2.5), "ground", None, ("left",),
    ("X",), ("HH", "VV"), (31.0, 47.0), archive="ab", scenes=2, tiles=9,
)  # fmt: skip


def metadata(contract: PixelContract | None, **changes: Any) -> dict[str, Any]:
    inputs = {"contract": None if contract is None else contract.to_json()}
    return pixel_metadata(inputs, GenerateConfig(**changes))


def test_single_values_are_stamped_and_what_differs_or_is_unknown_is_null():
    found = metadata(CONTRACT)
    assert found["pixel_m"] == 2.5
    assert found["range_direction"] is None, "the tiles do not say where near range is"
    assert found["polarization"] is None
    assert found["incidence_deg"] is None
    assert (found["band"], found["plane"], found["calibration"]) == ("X", "ground", "sigma0")
    assert found["normalisation"] == {"mode": "db", "low": LOW, "top": TOP}
    assert found["contract_sha"] == CONTRACT.sha256


def test_nothing_is_stamped_without_a_contract():
    found = metadata(None, pixel_m=0.35)
    assert found == {"pixel_m": None, "range_direction": None, "contract_sha": None}


def test_a_shard_planned_before_contracts_says_what_its_siblings_say():
    [inputs] = plan_generation(GenerateConfig(prompts=["a river"]))
    assert "contract" not in inputs
    found = pixel_metadata(inputs, GenerateConfig())
    assert found == {"pixel_m": 0.35, "range_direction": "+col"}


def test_amplitude_in_units_of_a_scene_is_relative_and_not_calibrated():
    per_scene = PixelContract(LawSpan("mu+3sigma", (0.4, 2.0)), "sigma0")
    found = metadata(per_scene)
    assert found["calibration"] == "none"
    image = np.full((2, 2, 3), 0.25, np.float32)
    codes = decode_array(pixel_members(image, master=True)["sar16.npy"])
    np.testing.assert_allclose(master_amplitude(codes, found), 0.25, atol=1e-5)
    windows = metadata(PixelContract(LawSpan("db", (0.4, 2.0), (0.1, 0.1)), "sigma0"))
    assert (windows["normalisation"], windows["calibration"]) == (None, None)
    with pytest.raises(DataError, match="different normalisations"):
        master_amplitude(codes, windows)


def test_the_master_holds_levels_between_those_of_the_picture():
    level = np.linspace(0.4, 0.404, 64, dtype=np.float32).reshape(8, 8)
    image = np.repeat(level[:, :, None], 3, axis=2)
    members = pixel_members(image, master=True)
    assert len(np.unique(decode_gray8(members["sar.png"]))) == 2
    codes = decode_array(members["sar16.npy"])
    assert len(np.unique(codes)) == 64
    wanted = -40 + 60 * level.astype(np.float64)
    assert np.abs(sigma0_db(codes, CONTRACT) - wanted).max() <= 60 / 65535 / 2 + 1e-5
    assert set(pixel_members(image, master=False)) == {"sar.png"}


def test_a_master_has_a_floor_where_level_zero_is_zero_amplitude_and_says_so():
    tile = {"key": "1", "pixel_m": 0.5, "incidence_deg": 40.0}
    linear = contract_of_tiles([{**tile, "normalisation": {"mode": "mu+3sigma", "top": 2.0}}])
    found = metadata(linear)
    assert found["master_floor"] == linear.level_floor == pytest.approx(0.5 / 255)
    image = np.zeros((2, 2, 3), np.float32)
    members = pixel_members(image, master=True, floor=found["master_floor"])
    codes = decode_array(members["sar16.npy"])
    assert master_amplitude(codes, found).min() == pytest.approx(2.0 * 0.5 / 255, rel=0.01)
    windowed = contract_of_tiles(
        [{**tile, "normalisation": {"mode": "db", "low": LOW, "top": TOP}}]
    )
    assert "master_floor" not in metadata(windowed), "level 0 has an amplitude"
    # Earlier images stay what they were, and so does the digest that they carry.
    before = PixelContract.from_json({**linear.to_json(), "level_floor": None})
    assert "level_floor" not in before.to_json()
    assert "master_floor" not in metadata(before)


def test_a_damaged_contract_in_a_plan_is_an_error():
    with pytest.raises(DataError, match="contract in the plan"):
        planned_contract({"contract": {"schema": "sarhpc.contract/9"}})


def test_a_model_without_a_contract_is_told_with_the_command_that_writes_one(tmp_path, caplog):
    assert contract_for(tmp_path, GenerateConfig()) is None
    assert f"sarhpc contract {tmp_path} --tiles" in caplog.text


def test_a_spacing_that_the_contract_contradicts_is_refused(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    publish_json(sidecar(model), CONTRACT.to_json())
    assert contract_for(model, GenerateConfig()) == CONTRACT
    assert contract_for(model, GenerateConfig(pixel_m=None)) == CONTRACT
    with pytest.raises(ConfigError, match=r"generate.pixel_m=0.5.* 2.5 m"):
        contract_for(model, GenerateConfig(pixel_m=0.5))
    publish_json(model / CONTRACT_FILE, {"schema": "sarhpc.contract/2"})
    with pytest.raises(DataError, match=r"sarhpc\.contract/2"):
        contract_for(model, GenerateConfig())


def test_homogeneous_areas_are_measured_on_the_intensity_of_the_master() -> None:
    rng = np.random.default_rng(3)
    intensity = rng.exponential(size=(64, 64)) * np.where(np.arange(64) < 32, 1.0, 0.01)[:, None]
    levels = (10 * np.log10(intensity) + 40) / 60
    image = np.repeat(levels[:, :, None], 3, axis=2).clip(0, 1).astype(np.float32)
    cfg = GenerateConfig(homogeneous_areas=HomogeneousAreasConfig())
    found = area_facts({"contract": CONTRACT.to_json()}, cfg)(image)["homogeneous_areas"]
    assert [(one["row"], one["column"]) for one in found] == [(0, 0), (0, 32), (32, 0), (32, 32)]
    levels_db = [one["level_db"] for one in found]
    np.testing.assert_allclose(levels_db, [0.0, 0.0, -20.0, -20.0], atol=0.4)
    black = np.zeros_like(image)
    assert area_facts({"contract": CONTRACT.to_json()}, cfg)(black) == {"homogeneous_areas": []}
    assert area_facts({"contract": None}, GenerateConfig())(image) == {}


def test_homogeneous_areas_without_a_contract_are_refused_before_any_image(tmp_path: Path) -> None:
    cfg = GenerateConfig(prompts=["a river"], homogeneous_areas=HomogeneousAreasConfig())
    with pytest.raises(ConfigError, match=r"_areas needs the intensity.*sarhpc contract"):
        contract_for(tmp_path, cfg)
    cfg.homogeneous_areas = HomogeneousAreasConfig(side_px=34)
    with pytest.raises(ConfigError, match="side_px is 34: must be a multiple of 4"):
        check_config(cfg)
    cfg.homogeneous_areas, cfg.height_px = HomogeneousAreasConfig(side_px=128), 64
    with pytest.raises(ConfigError, match="images of 64 rows: areas of 128 px need images of at"):
        check_config(cfg)
