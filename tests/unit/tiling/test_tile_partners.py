"""The choice of partners while planning: which scene shows a tile in another band."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from array_scenes import white_speckle
from cross_band_scenes import (
    View,
    archive_of,
    asking,
    looking,
    partner_view,
    planned,
    tiled_view,
    tiles_of,
)

from sarhpc.tiling.config import CrossBandConfig
from sarhpc.tiling.plan import plan_scenes


def test_tiles_without_a_partner_are_counted_and_the_others_say_which_they_have():
    wide = View(np.abs(white_speckle((128, 512), 1)), looking(0.35, (128, 512)), 0.35)
    speckle = np.abs(white_speckle((300, 300)))
    there = {"spacing": 0.2, "band": "L", "amplitude": speckle}
    left, right = (looking(0.2, (300, 300), shift=(s, 0)) for s in (-66.8, 66.8))
    archive = archive_of(a=wide, b=View(affine=left, **there), c=View(affine=right, **there))
    plan = planned(archive, asking())
    assert [(s["tiles"], s["other"]["scene_id"]) for s in plan.shards] == [
        ([[0, 0]], "b"),
        ([[0, 3]], "c"),
    ]
    assert plan.counts["tiles_dropped_no_partner"] == 2
    assert plan.counts["tiles"] == 2


def test_the_partner_nearest_in_time_is_taken_ties_by_id_and_none_beyond_the_limit():
    def at(day, **more):
        return partner_view(0.5, (150, 150), datetime=f"2024-05-{day:02d}T10:00:00Z", **more)

    own = tiled_view(datetime="2024-05-10T10:00:00Z")
    archive = archive_of(
        a=own,
        late=at(14),
        near=at(8),
        nigh=at(12),
        same_band=at(10, band="X"),
        unknown=replace(at(10), datetime=None),
    )
    (inputs,) = planned(archive, asking()).shards
    assert (inputs["other"]["scene_id"], inputs["other"]["days"]) == ("near", 2.0)
    crossed = asking(other=CrossBandConfig(band="L", polarization="HV"))
    assert planned(archive, crossed).rejected["a"].startswith("no_partner: ")
    limited = asking(other=CrossBandConfig(band="L", max_days=1.5))
    assert "days=1.5" in planned(archive, limited).rejected["a"]
    alone = archive_of(a=own, unknown=replace(at(10), datetime=None))
    assert planned(alone, asking()).shards[0]["other"]["days"] is None


def test_a_partner_that_cannot_be_used_makes_room_for_the_next():
    good = partner_view(0.5, (150, 150), datetime="2024-05-09T10:00:00Z")
    archive = archive_of(
        a=tiled_view(),
        empty=replace(good, amplitude=np.full((150, 150), np.nan, np.float32)),
        good=replace(good, datetime="2024-06-09T10:00:00Z"),
        uncalibrated=replace(good, header={"calibration": "none"}),
        unknown=replace(good, header={"crs": "EPSG:999999"}),
    )
    (inputs,) = planned(archive, asking()).shards
    assert inputs["other"]["scene_id"] == "good"


def test_a_partner_of_many_scenes_is_opened_and_surveyed_once():
    names = [f"a{number}" for number in range(6)]
    archive = archive_of(b=partner_view(0.5, (150, 150)), **{name: tiled_view() for name in names})
    opened = []

    def opener(scene):
        opened.append(scene.id)
        return archive.open(scene)

    scenes = list(archive.search(ids=frozenset(names)))
    with ThreadPoolExecutor(4) as pool:
        known = {"opener": opener, "offered": archive.search()}
        parallel = plan_scenes(scenes, asking(), scatter=pool.map, **known)
    assert opened.count("b") == 2
    assert parallel == planned(archive, asking(), names)
    assert len({id(shard["other"]["scene"]) for shard in parallel.shards}) == 1


def test_the_next_partner_is_shown_where_the_first_has_a_gap():
    whole = partner_view(0.5, (150, 150), datetime="2024-05-09T10:00:00Z")
    holed = whole.amplitude.copy()
    holed[40:110, 40:110] = np.nan
    archive = archive_of(
        a=tiled_view(),
        first=replace(whole, amplitude=holed, datetime="2024-05-02T10:00:00Z"),
        second=whole,
    )
    (inputs,) = planned(archive, asking()).shards
    assert inputs["other"]["scene_id"] == "first"
    assert [named["scene_id"] for named in inputs["other_further"]] == ["second"]
    samples, rejected = tiles_of(archive, asking())
    assert rejected == {}
    assert samples[0].meta["conditions"]["other"]["scene_id"] == "second"
