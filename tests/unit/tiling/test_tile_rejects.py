"""What is left out of the tiles, with its reason: scenes that cannot be tiled, and single tiles."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from array_scenes import array_reader, white_speckle
from tiled_archives import FIELD, SMALL, archive_of, tiles_of

from hpc.errors import DataError
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.tile import tile_shard


def unreadable():
    raise DataError("cannot read one.tif: truncated; restore the file")


def no_decoder():
    raise OSError("not recognised as a supported format")


def nan_scene():
    return array_reader(np.full((400, 400), np.nan, np.float32))


SCENE_REJECTS = {
    "unreadable": unreadable,
    "unreadable: ": no_decoder,
    "uncalibrated": lambda: array_reader(FIELD, calibration="none"),
    "upsampling": lambda: array_reader(FIELD, 0.6),
    "too_small": lambda: array_reader(FIELD[:100]),
    "nodata": lambda: array_reader(FIELD, valid=np.zeros(FIELD.shape, bool)),
    "nodata: ": nan_scene,
    "no_signal": lambda: array_reader(np.zeros((400, 400), np.complex64)),
}


@pytest.mark.parametrize("reason", sorted(SCENE_REJECTS))
def test_a_scene_that_cannot_be_tiled_is_named_with_its_reason_and_costs_no_other(reason):
    archive = archive_of(bad=SCENE_REJECTS[reason], good=array_reader(FIELD))
    plan = plan_scenes(archive.search(), SMALL, opener=archive.open)
    assert plan.rejected["bad"].split(":")[0] == reason.split(":")[0]
    assert {shard["scene_id"] for shard in plan.shards} == {"good"}
    assert plan.counts["scenes_rejected"] == 1
    assert plan.counts["tiles"] == 42


def test_a_passing_trouble_of_the_disk_is_no_reason_against_a_scene():
    def stale():
        raise OSError(116, "Stale file handle")

    archive = archive_of(one=stale)
    with pytest.raises(OSError, match="Stale"):
        plan_scenes(archive.search(), SMALL, opener=archive.open)


def test_upsampling_is_done_when_asked():
    archive = archive_of(one=array_reader(FIELD, 0.6))
    samples, _ = tiles_of(archive, replace(SMALL, allow_upsampling=True))
    assert len(samples) == 18 * 21
    assert samples[0].meta["resampling"] == "fft"


def test_moderate_upsampling_needs_no_leave():
    samples, _ = tiles_of(archive_of(one=array_reader(FIELD, 0.5)), SMALL)
    assert samples[0].meta["pixel_m"] == pytest.approx(0.35)


def test_uncalibrated_scenes_say_so_in_their_tiles():
    archive = archive_of(one=array_reader(FIELD, calibration="none"))
    samples, _ = tiles_of(archive, replace(SMALL, allow_uncalibrated=True))
    assert {sample.meta["calibration"] for sample in samples} == {"none"}


def bad_tile(change):
    """A scene of 42 tiles in which the ground of tile (0, 0) is changed."""
    pixels = white_speckle((700, 800))
    valid = np.ones(pixels.shape, bool)
    change(pixels[:112, :112], valid[:112, :112])
    return array_reader(pixels, valid=valid)


def gap(pixels, valid):
    valid[:20] = False


def broken(pixels, valid):
    pixels[:20] = np.nan


def dark(pixels, valid):
    pixels[:] = 0


def bright(pixels, valid):
    pixels *= 8


@pytest.mark.parametrize(
    ("reason", "change"),
    [("nodata", gap), ("nonfinite", broken), ("no_signal", dark), ("saturated", bright)],
)
def test_a_bad_tile_is_rejected_with_its_reason_and_leaves_a_gap_in_the_keys(reason, change):
    # Amplitude keeps what is done to one tile's ground inside that tile.
    cfg = replace(SMALL, detect_first=True)
    samples, rejected = tiles_of(archive_of(one=bad_tile(change)), cfg)
    assert rejected == {reason: 1}
    assert samples[0].key == "00000000001"
    assert len(samples) == 41


def test_tiles_outside_a_scene_that_shrank_are_counted():
    full = archive_of(one=array_reader(FIELD))
    plan = plan_scenes(full.search(), SMALL, opener=full.open)
    shrunk = archive_of(one=array_reader(FIELD[:400]))
    samples, rejected = tiles_of(shrunk, SMALL, plan)
    assert rejected == {"outside": 21}
    assert len(samples) == 21


def test_a_scene_that_breaks_after_planning_rejects_its_tiles_not_the_job(caplog):
    archive = archive_of(one=array_reader(FIELD))
    plan = plan_scenes(archive.search(), SMALL, opener=archive.open)
    with caplog.at_level(logging.WARNING):
        samples, rejected = tiles_of(archive_of(one=unreadable), SMALL, plan)
    assert samples == []
    assert rejected == {"unreadable": 42}
    assert "truncated" in caplog.text
    gone = tile_shard(0, plan.shards[0], archive_of(), SMALL)
    assert list(gone.samples) == []
    assert gone.rejected == {"unreadable": 42}
    assert "not in the archive" in gone.notes["unreadable"]


def test_a_file_that_is_damaged_in_places_loses_only_those_tiles():
    class Torn(type(array_reader(FIELD))):
        def read(self, rows, cols):
            if rows[1] > 600:
                raise DataError("cannot read one.tif: strip 40 is cut short; restore the file")
            return super().read(rows, cols)

    whole = array_reader(FIELD)
    archive = archive_of(one=whole)
    plan = plan_scenes(archive.search(), SMALL, opener=archive.open)
    torn = Torn(whole.header, whole.pixels, whole.valid)
    samples, rejected = tiles_of(archive_of(one=torn), SMALL, plan)
    assert rejected == {"unreadable": 14}
    assert len(samples) == 28


def test_a_stale_handle_during_work_is_raised_to_be_tried_again():
    class Stale(type(array_reader(FIELD))):
        def read(self, rows, cols):
            raise OSError(116, "Stale file handle")

    whole = array_reader(FIELD)
    archive = archive_of(one=whole)
    plan = plan_scenes(archive.search(), SMALL, opener=archive.open)
    stale = Stale(whole.header, whole.pixels, whole.valid)
    with pytest.raises(OSError, match="Stale"):
        tiles_of(archive_of(one=stale), SMALL, plan)
    assert stale.closed == 1


def test_require_optical_rejects_tiles_without():
    archive = archive_of(one=array_reader(FIELD))
    samples, rejected = tiles_of(archive, replace(SMALL, require_optical=True))
    assert samples == []
    assert rejected == {"optical_missing": 42}
