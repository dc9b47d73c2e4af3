"""What a model's pixels mean: derived from its tiles, read back, refused where damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpc.errors import DataError
from sarhpc.shards.contract import (
    CONTRACT_FILE,
    LawSpan,
    PixelContract,
    differences,
    only,
    read_contract,
    sidecar,
    sigma0_db,
)
from sarhpc.shards.radiometry import (
    Normalisation,
    amplitude_of_db,
    encode_levels,
    encode_master,
    master_amplitude,
)
from sarhpc.shards.tile_contract import contract_of_tiles

LOW_DB, TOP_DB = -38.0, 24.0
DB = {"mode": "db", "low": amplitude_of_db(LOW_DB), "top": amplitude_of_db(TOP_DB)}
TILE: dict[str, Any] = {
    "scene_id": "a",
    "datetime": "2024-05-01T10:00:00Z",
    "normalisation": {**DB, "mu": 0.3, "sigma": 0.2},
    "calibration": "sigma0",
    "pixel_m": 0.35,
    "range_direction": "+col",
    "look_side": "right",
    "band": "X",
    "polarization": "HH",
    "incidence_deg": 41.0,
    "caption_template": {"token": "A SAR image of", "pattern": "{token} {caption}"},
}


def tile(**changes: Any) -> dict[str, Any]:
    return {**TILE, **changes}


def test_what_all_tiles_share_is_a_value_and_what_differs_a_range_or_a_list():
    other = {"scene_id": "b", "polarization": "VV", "incidence_deg": 52.5}
    law = {**TILE["normalisation"], "mu": 0.7}
    found = contract_of_tiles([tile(), tile(**other, normalisation=law), tile()])
    assert found.law == Normalisation("db", None, None, DB["top"], DB["low"])
    assert only(found.pixel_m) == 0.35
    assert found.polarization == ("HH", "VV")
    assert only(found.polarization) is None
    assert found.incidence_deg == (41.0, 52.5)
    assert only(found.incidence_deg) is None
    assert (found.plane, found.range_direction, found.token) == ("ground", "+col", "A SAR image of")
    assert (found.scenes, found.tiles) == (2, 3)
    assert found.is_calibrated


@pytest.mark.parametrize(
    "name", ["pixel_m", "range_direction", "band", "polarization", "incidence_deg", "calibration"]
)
@pytest.mark.parametrize("order", [1, -1])
def test_what_one_tile_does_not_say_is_unknown(name, order):
    found = contract_of_tiles([tile(), tile(**{name: None}), tile()][::order])
    assert getattr(found, name) is None


def test_an_imported_tile_has_the_plane_that_it_says_and_no_other():
    imported = tile(origin={"name": "x"}, scene_id=None)
    assert contract_of_tiles([imported]).plane is None
    assert contract_of_tiles([{**imported, "plane": "slant"}]).plane == "slant"
    assert contract_of_tiles([imported]).archive is None


def test_the_archive_is_named_by_its_scenes_in_any_order():
    tiles = [tile(), tile(scene_id="b"), tile()]
    one, other = contract_of_tiles(tiles), contract_of_tiles(tiles[::-1])
    assert one == other
    assert one.archive != contract_of_tiles([tile()]).archive


def test_constants_that_differ_by_scene_leave_amplitude_relative_or_unknown():
    per_scene = [
        tile(normalisation={"mode": "mu+3sigma", "mu": m, "sigma": 1.0, "top": m + 3})
        for m in (1.0, 2.0)
    ]
    found = contract_of_tiles(per_scene)
    assert found.normalisation == LawSpan("mu+3sigma", (4.0, 5.0))
    assert found.law == Normalisation("mu+3sigma", None, None, 1.0)
    assert not found.is_calibrated
    with pytest.raises(DataError, match=r"tile\.db_scope=archive"):
        sigma0_db(np.zeros((2, 2), np.uint16), found)
    of_windows = [tile(), tile(normalisation={**DB, "top": 3.0})]
    assert contract_of_tiles(of_windows).law is None
    modes = [tile(), tile(normalisation={"mode": "log", "low": 0.1, "top": 3.0})]
    assert contract_of_tiles(modes).normalisation is None


def test_no_tiles_imply_no_contract():
    with pytest.raises(DataError, match="no tiles"):
        contract_of_tiles([])


def test_the_master_gives_sigma0_of_the_tile_within_half_a_step():
    amplitude = np.geomspace(amplitude_of_db(LOW_DB), amplitude_of_db(TOP_DB), 4096)
    amplitude = amplitude.astype(np.float32).reshape(64, 64)
    contract = contract_of_tiles([tile()])
    assert contract.law is not None
    master = encode_levels(contract.law.levels(amplitude))
    step = (TOP_DB - LOW_DB) / 65535
    ours = sigma0_db(master, contract)
    assert np.abs(ours - 20 * np.log10(amplitude)).max() <= step / 2 + 1e-5
    # The tile's own master is linear, with 0.01 dB to 43 dB below its brightest pixel.
    codes, scale = encode_master(amplitude)
    theirs = 20 * np.log10(master_amplitude(codes, {"master_scale": scale}))
    upper = amplitude > amplitude_of_db(TOP_DB - 43)
    assert np.abs(ours - theirs)[upper].max() <= 0.01 + step
    meta = {"master_law": "level", "normalisation": DB}
    np.testing.assert_allclose(20 * np.log10(master_amplitude(master, meta)), ours, atol=1e-5)


def test_a_master_of_levels_without_constants_is_refused():
    with pytest.raises(DataError, match="different normalisations"):
        master_amplitude(np.zeros((2, 2), np.uint16), {"master_law": "level", "key": "7"})


def write(path: Path, value: Any) -> None:
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def test_a_contract_is_read_from_the_folder_of_its_model_or_beside_it(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    contract = contract_of_tiles([tile()])
    assert read_contract(model) is None
    write(sidecar(model), {**contract.to_json(), "of_a_later_version": {"unknown": 1}})
    assert read_contract(model) == contract
    inside = contract_of_tiles([tile(pixel_m=0.5)])
    write(model / CONTRACT_FILE, inside.to_json())
    assert read_contract(model) == inside


GOOD = contract_of_tiles([tile()]).to_json()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{", "cannot be read"),
        ("[]", "no contract"),
        ({"schema": "sarhpc.sample/1"}, "sarhpc.sample/1"),
        ({**GOOD, "schema": "sarhpc.contract/2"}, "sarhpc.contract/2"),
        ({**GOOD, "pixel_m": 0.35}, "pixel_m is 0.35"),
        ({**GOOD, "pixel_m": [0.5, 0.3]}, "pixel_m"),
        ({**GOOD, "incidence_deg": [float("nan"), 40.0]}, "incidence_deg"),
        ({**GOOD, "band": "X"}, "band is 'X'"),
        ({**GOOD, "band": []}, "band"),
        ({**GOOD, "token": 3}, "token is 3"),
        ({**GOOD, "tiles": None}, "tiles is None"),
        ({**GOOD, "normalisation": {"mode": "gamma", "top": [1, 1]}}, "normalisation is"),
        ({**GOOD, "normalisation": {"mode": "db"}}, "no `top`"),
        ({**GOOD, "normalisation": {"mode": "db", "low": [2, 2], "top": [1, 1]}}, "not below"),
    ],
)
def test_a_damaged_contract_is_an_error_that_names_file_and_entry(tmp_path, value, words):
    write(tmp_path / CONTRACT_FILE, value)
    with pytest.raises(DataError) as raised:
        read_contract(tmp_path)
    assert words in str(raised.value)
    assert str(tmp_path / CONTRACT_FILE) in str(raised.value)


def test_differences_name_what_means_something_else_and_pass_over_the_unknown():
    one = contract_of_tiles([tile()])
    assert differences(one, one) == []
    assert differences(one, PixelContract()) == []
    [line] = differences(one, contract_of_tiles([tile(pixel_m=0.5, incidence_deg=30.0)]))
    assert line == "pixel_m: 0.35 against 0.5"


def test_scenes_of_their_own_within_one_mode_are_no_difference():
    per_scene = [
        contract_of_tiles(
            [tile(normalisation={"mode": "mu+3sigma", "top": top + n}) for n in (0, 1)]
        )
        for top in (1.0, 5.0)
    ]
    assert differences(*per_scene) == []
    both = contract_of_tiles([tile(), tile(polarization="VV")])
    assert differences(both, contract_of_tiles([tile(polarization="VV")])) == []
    found = differences(contract_of_tiles([tile()]), per_scene[0])
    assert found == [
        "normalisation: db, low -38.00 dB, top 24.00 dB against mu+3sigma, top 0.00 to 6.02 dB"
    ]
