"""The layer `other`: another radar image of the same ground, in the pixels of the tile."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from array_scenes import LAMBERT93, array_reader, white_speckle
from cross_band_scenes import (
    MIDDLE,
    TARGET,
    TRAIN,
    View,
    archive_of,
    asking,
    blob,
    centres,
    looking,
    partner_view,
    planned,
    tiled_view,
    tiles_of,
)

from hpc.config import decisive
from hpc.errors import ConfigError, DataError
from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.scene import Scene
from sarhpc.diffusion.config import LAYERS
from sarhpc.shards.images import decode_gray8
from sarhpc.shards.radiometry import Normalisation
from sarhpc.shards.schema import validate_sample
from sarhpc.tiling.config import CrossBandConfig, TileConfig
from sarhpc.tiling.grid import scene_frame
from sarhpc.tiling.orientation import inverse, transform
from sarhpc.tiling.pairs.area_resampling import Place, area_taps, locate, overlay, pixel_extent
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.tile import tile_shard

UTM31 = "EPSG:32631"


def centroid(power):
    """(row, col) of what is bright in an image (H, W)."""
    weight = np.where(power > 0.1 * power.max(), power, 0)
    row, col = np.indices(power.shape) + 0.5
    return np.array([(row * weight).sum(), (col * weight).sum()]) / weight.sum()


PARTNERS = {
    "finer": {"spacing": 0.1, "shape": (900, 900), "turn": 33},
    "much finer": {"spacing": 0.04, "shape": (1600, 1600), "turn": -71},
    "same spacing": {"spacing": 0.35, "shape": (220, 220), "turn": 45},
    "coarser": {"spacing": 0.9, "shape": (90, 90), "turn": -20},
    "oblong": {"spacing": (0.2, 0.8), "shape": (400, 100), "turn": 50},
    "mirrored": {"spacing": 0.25, "shape": (300, 300), "turn": 90.65, "mirrored": True},
    "other look side": {
        "spacing": 0.25,
        "shape": (300, 300),
        "turn": 180,
        "header": {"look_side": "left", "range_direction": "-col"},
    },
    "range along rows": {
        "spacing": 0.25,
        "shape": (300, 300),
        "turn": 5,
        "header": {"range_direction": "+row"},
    },
    "other zone": {"spacing": 0.2, "shape": (400, 400), "turn": 7, "crs": UTM31},
}


@pytest.mark.parametrize("kind", PARTNERS)
def test_a_bright_target_lies_at_the_same_pixel_in_both_layers(kind):
    archive = archive_of(a=tiled_view(), b=partner_view(**PARTNERS[kind]))
    cfg = asking(normalisation="percentile", percentile=100.0, max_saturated=1.0)
    (sample,), rejected = tiles_of(archive, cfg)
    assert rejected == {}
    validate_sample(sample)
    meta = sample.meta
    own = Normalisation.from_json(meta["normalisation"])
    law = Normalisation.from_json(meta["conditions"]["other"]["normalisation"])
    tile = own.decode(decode_gray8(sample.members["sar.png"])).astype(float) ** 2
    other = law.decode(decode_gray8(sample.members[LAYERS["other"]])).astype(float) ** 2
    expected = transform(inverse(tuple(meta["affine"])), TARGET)[::-1]
    assert np.abs(centroid(tile) - expected).max() < 0.1
    assert np.abs(centroid(other) - centroid(tile)).max() < 0.5
    assert other.sum() == pytest.approx(tile.sum(), rel=0.03)


@pytest.mark.parametrize(
    ("spacing", "turn"), [(0.1, 0), (0.1, 30), (0.2, 17), (0.35, 0), (0.35, 45), (1.0, 30)]
)
def test_mean_intensity_and_looks_are_as_recorded(spacing, turn):
    side = int(120 / spacing)
    speckle = white_speckle((side, side), 5, power=0.3)
    affine = looking(spacing, (side, side), turn=turn, shift=(0.13, 0.07))
    tile = looking(0.35, (200, 200))
    reader = array_reader(speckle, spacing, affine=affine)
    frame = scene_frame(reader.header, None)
    power, valid = overlay(reader, frame, Place(tile, LAMBERT93, (200, 200)))
    assert valid.all()
    under = transform(inverse(tile), centres(affine, speckle.shape))
    inside = ((under > 0) & (under < 200)).all(axis=-1)
    truth = np.mean(np.abs(speckle[inside]).astype(float) ** 2)
    assert power.mean(dtype=float) / truth == pytest.approx(1, abs=0.01)
    archive = archive_of(
        a=View(np.abs(white_speckle((200, 200), 1)), tile, 0.35),
        b=View(speckle, affine, spacing, band="L"),
    )
    (sample,), _ = tiles_of(archive, asking(192, max_saturated=1.0))
    measured = power.mean(dtype=float) ** 2 / power.var(dtype=float)
    assert sample.meta["conditions"]["other"]["enl"] == pytest.approx(measured, rel=0.1)


def test_equal_grids_are_copied_pixel_by_pixel():
    amplitude = np.abs(white_speckle((128, 128), 2))
    affine = looking(0.35, (128, 128), turn=90.65, mirrored=True)
    reader = array_reader(amplitude, 0.35, affine=affine)
    power, valid = overlay(
        reader, scene_frame(reader.header, None), Place(affine, LAMBERT93, (128, 128))
    )
    assert valid.all()
    assert np.allclose(power, amplitude**2, rtol=1e-3)


def test_coarser_pixels_are_repeated_and_nothing_is_put_between_them():
    amplitude = np.sqrt(np.array([[1, 1, 1, 1], [1, 1, 9, 9], [1, 1, 9, 9]], np.float32))
    affine = looking(3.5, amplitude.shape)
    reader = array_reader(amplitude, 3.5, affine=affine)
    place = Place(looking(0.35, (30, 40)), LAMBERT93, (30, 40))
    power, _ = overlay(reader, scene_frame(reader.header, None), place)
    assert np.allclose(power, (amplitude**2).repeat(10, axis=0).repeat(10, axis=1))


def test_gaps_have_no_say_and_are_black():
    amplitude = np.abs(white_speckle((400, 400), 7))
    gap = np.zeros(amplitude.shape, bool)
    gap[150:170, 150:250] = True
    amplitude[gap] = np.nan
    view = View(amplitude, looking(0.2, amplitude.shape), 0.2, band="L")
    archive = archive_of(a=tiled_view(), b=view)
    cfg = asking(normalisation="db", max_saturated=1.0)
    (sample,), _ = tiles_of(archive, cfg)
    note = sample.meta["conditions"]["other"]
    lost = gap.sum() * 0.2**2 / (128 * 0.35) ** 2
    assert note["valid_fraction"] == pytest.approx(1 - lost, abs=0.003)
    black = decode_gray8(sample.members["other.png"]) == 0
    assert black.mean() == pytest.approx(lost, abs=0.02)
    stricter = replace(cfg, other=CrossBandConfig(band="L", min_coverage=0.99))
    assert tiles_of(archive, stricter) == ([], {"condition_missing": 1})


def test_a_tile_at_the_edge_of_its_partner_is_kept_down_to_the_least_coverage():
    side = (300, 300)

    def archive(shift):
        speckle = np.abs(white_speckle(side, 3))
        return archive_of(
            a=View(np.abs(white_speckle((128, 128), 4)), looking(0.35, (128, 128)), 0.35),
            b=View(speckle, looking(0.2, side, shift=(shift, 0)), 0.2, band="L"),
        )

    # The partner is 60 m wide and the tile 44.8 m; 10 m of shift leave 2.4 m of the tile bare.
    (sample,), _ = tiles_of(archive(10.0), asking())
    other = decode_gray8(sample.members["other.png"])
    bare = round((22.4 - 20) / 0.35)
    assert (other[:, : bare - 1] == 0).all()
    assert (other[:, bare + 1 :] > 0).mean() > 0.99
    note = sample.meta["conditions"]["other"]
    assert note["valid_fraction"] == pytest.approx(1 - bare / 128, abs=0.01)
    plan = planned(archive(20.0), asking())
    assert plan.shards == []
    assert plan.counts["scenes_rejected"] == 1
    assert plan.rejected["a"].startswith("no_partner: no scene of band=L covers a tile (1 of that")


def test_metadata_tell_the_partner_and_tiles_do_not_depend_on_the_blocks():
    view = partner_view(0.25, (700, 700), datetime="2024-05-04T10:00:00Z", turn=180)
    view = replace(view, header={"look_side": "left", "incidence_deg": 51.0})
    affine = looking(0.35, (300, 300))
    archive = archive_of(a=View(np.abs(white_speckle((300, 300))), affine, 0.35), b=view)
    cfg = asking(block_tiles=2)
    samples, _ = tiles_of(archive, cfg)
    assert len(samples) == 4
    note = samples[0].meta["conditions"]["other"]
    assert {name: note[name] for name in ("scene_id", "band", "polarization", "delta_days")} == {
        "scene_id": "b",
        "band": "L",
        "polarization": "HH",
        "delta_days": 3.0,
    }
    assert (note["look_side"], note["incidence_deg"], note["resampling"]) == ("left", 51.0, "area")
    assert note["pixels"] == pytest.approx([1.4, 1.4])
    again, _ = tiles_of(archive, replace(cfg, block_tiles=1, shard_samples=1))
    layers = [[s.members["other.png"] for s in some] for some in (samples, again)]
    assert layers[0] == layers[1]


def test_only_what_lies_under_a_tile_is_read_of_its_partner():
    side = (4000, 4000)
    reader = array_reader(np.ones(side, np.float32), 0.1, affine=looking(0.1, side))
    frame = scene_frame(reader.header, None)
    overlay(reader, frame, Place(looking(0.35, (128, 128), turn=20), LAMBERT93, (128, 128)))
    rows, cols = (max(r[1] - r[0] for r in each) for each in zip(*reader.reads, strict=True))
    assert max(rows, cols) < 128 * 3.5 * 1.3 + 8
    reader.reads.clear()
    overlay(reader, frame, Place(looking(3.0, (128, 128)), LAMBERT93, (128, 128)))
    assert len(reader.reads) > 1
    assert max(r[1] - r[0] for pair in reader.reads for r in pair) < 2048 * 1.3


def test_a_partner_that_is_gone_rejects_the_tiles_of_its_shard():
    archive = archive_of(a=tiled_view(), b=partner_view(0.5, (150, 150)))
    (inputs,) = planned(archive, asking()).shards

    def broken(scene):
        if scene.id == "b":
            raise DataError("the file is torn; restore it")
        return archive.open(scene)

    shard = tile_shard(0, inputs, archive, asking(), opener=broken)
    assert list(shard.samples) == []
    assert dict(shard.rejected) == {"unreadable": 1}
    assert shard.notes == {"unreadable": "the file is torn; restore it"}


def test_plans_and_fingerprints_without_the_layer_know_nothing_of_it():
    archive = archive_of(a=tiled_view(), b=partner_view(0.5, (150, 150)))
    plan = planned(archive, TileConfig(tile_px=128, split=TRAIN, max_saturated=1.0))
    assert all(set(s) == {"split", "scene_id", "tiles", "scene"} for s in plan.shards)
    assert "other" not in decisive(TileConfig())
    assert "other" in decisive(asking())
    with pytest.raises(ConfigError, match=r"tile\.other\.band"):
        planned(archive, asking(other=CrossBandConfig()))
    with pytest.raises(ConfigError, match="min_coverage"):
        planned(archive, asking(other=CrossBandConfig(band="L", min_coverage=0.0)))


class Bent:
    """A placement that bends by metres over the image."""

    def to_map(self, positions):
        col, row = positions[..., 0], positions[..., 1]
        x = MIDDLE[0] + 0.5 * (col - 100) + 2e-4 * (col - 100) ** 2
        return np.stack([x, MIDDLE[1] - 0.5 * (row - 100) + 1e-4 * (row - 100) ** 2], axis=-1)

    def to_json(self):
        return {"model": "bent"}


def test_a_partner_that_no_affine_places_is_found_point_by_point():
    header = {"placement": Bent(), "affine": looking(0.5, (200, 200))}
    points = Bent().to_map(centres((1, 0, 0, 0, 1, 0), (200, 200)))
    amplitude = np.sqrt(blob(points, TARGET, 1.2)).astype(np.float32)
    reader = array_reader(amplitude, 0.5, **header)
    frame = scene_frame(reader.header, None)
    found = locate(frame, LAMBERT93, points[::7, ::7])
    assert np.abs(found - centres((1, 0, 0, 0, 1, 0), (200, 200))[::7, ::7]).max() < 1e-3
    tile = looking(0.35, (128, 128))
    power, valid = overlay(reader, frame, Place(tile, LAMBERT93, (128, 128)))
    assert valid.all()
    expected = transform(inverse(tile), TARGET)[::-1]
    assert np.abs(centroid(power) - expected).max() < 0.5


@pytest.mark.parametrize("extent", [0.1, 0.999, 1.0, 1.75, 3.5])
def test_kernels_of_area_sum_to_one_wherever_pixels_meet(extent):
    weight = area_taps(np.linspace(0, 7, 90), extent).weight
    assert np.allclose(weight.sum(axis=1), 1, atol=1e-6)


def sentinel(test_data):
    properties = {"sarhpc:range_direction": "+col", "sarhpc:calibration": "sigma0"}
    return Scene("gcps", {"sar": test_data / "sentinel1" / "cog_gcps.tif"}, properties)


def test_a_real_scene_of_210_control_points_is_found_point_by_point(test_data):
    reader = open_sar(sentinel(test_data))
    frame = scene_frame(reader.header, None)
    rows, cols = frame.shape
    col, row = np.meshgrid(np.linspace(0, cols, 12), np.linspace(0, rows, 9))
    positions = np.stack([col, row], axis=-1)
    assert np.abs(locate(frame, frame.crs, frame.to_map(positions)) - positions).max() < 1e-2
    # Fifty pixels of a tile that lies across, at half the spacing.
    window = frame.window_affine((300, 310), (500, 510))
    place = Place(window, frame.crs, (20, 20))
    power, valid = overlay(reader, frame, place)
    assert valid.all()
    truth, _ = reader.read((300, 320), (500, 520))
    assert pixel_extent(frame, place) == pytest.approx((1, 1), abs=0.02)
    assert power.mean() == pytest.approx(np.mean(truth.astype(float) ** 2), rel=0.05)


def spacenet(test_data, channel):
    properties = {
        "sarhpc:range_direction": "+col",
        "sarhpc:calibration": "sigma0",
        "sar:frequency_band": "X",
        "sar:polarizations": [channel.upper()],
        "datetime": "2019-08-04T00:00:00Z",
    }
    sar = test_data / "spacenet6_solaris" / f"sar_{channel}.tif"
    return Scene(channel, {"sar": sar}, properties, (4.3, 51.8, 4.4, 51.9))


def test_the_cross_polarised_channel_of_a_real_scene_lies_on_the_copolarised_one(test_data):
    """Both channels have one grid, so the layer is the picture the channel's own tiles show."""
    scenes = {name: spacenet(test_data, name) for name in ("hh", "hv")}

    class Both:
        def search(self, *, ids=None, **_):
            yield from (scene for name, scene in scenes.items() if ids is None or name in ids)

    cfg = TileConfig(tile_px=96, pixel_m=None, split=TRAIN, max_saturated=1.0)
    crossed = replace(cfg, conditions=["other"], other=CrossBandConfig(polarization="HV"))
    with_layer = plan_scenes([scenes["hh"]], crossed, offered=scenes.values())
    own = plan_scenes([scenes["hv"]], cfg)
    samples = [s for i in with_layer.shards for s in tile_shard(0, i, Both(), crossed).samples]
    alone = [s for i in own.shards for s in tile_shard(0, i, Both(), cfg).samples]
    assert len(samples) == len(alone) == 4
    for sample, channel in zip(samples, alone, strict=True):
        validate_sample(sample)
        note = sample.meta["conditions"]["other"]
        assert (note["polarization"], note["delta_days"]) == ("HV", 0.0)
        assert note["enl"] == pytest.approx(1.0, abs=0.01)
        assert note["valid_fraction"] == channel.meta["valid_fraction"]
        assert note["normalisation"] == channel.meta["normalisation"]
        layer = decode_gray8(sample.members["other.png"]).astype(int)
        assert np.abs(layer - decode_gray8(channel.members["sar.png"])).max() <= 1
