"""Radar images of the procedural archive beside measured ones, by the project's own measures.

    python tools/compare_simulator.py [--data ../shared/data] [--scenes 16] [--seed 21]

GOTCHA is tiled to 0.35 m by this project, and parted into its lawn and its car park; SpaceNet-6 is
taken as it is. Beside the lawn stand flat scenes of grass, beside the car park scenes of kind town,
and beside the whole both in equal parts; all scenes are 126 m wide, as GOTCHA is. Beside SpaceNet-6
stand towns decimated like it. The rows of kinds have no measured peer. Percentiles are dB over the
median, E4 is the autocorrelation at lag 1, E5 the distance of radial spectra to that of the peer in
dB, E6 contrast at 1 px, mean over directions.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from sarhpc.archive.procedural.config import SCENE_KINDS, KindWeights, ProceduralConfig
from sarhpc.archive.procedural.simulate import scene_ids, simulate_scene
from sarhpc.archive.scene import Scene
from sarhpc.measures.levels import PERCENTILES
from sarhpc.measures.log_cumulants import log_cumulants
from sarhpc.measures.point_response import point_response
from sarhpc.measures.speckle_correlation import lag_products, speckle_autocorrelation
from sarhpc.measures.spectrum import SEGMENT_PX, log_spectral_distance, measure_spectrum
from sarhpc.measures.texture import FEATURES, measure_texture
from sarhpc.shards.images import decode_array
from sarhpc.shards.radiometry import decode_master
from sarhpc.tiling.config import SplitConfig, TileConfig
from sarhpc.tiling.plan import plan_scenes
from sarhpc.tiling.tile import tile_shard

Image = NDArray[np.float64]
GOTCHA = "gotcha_xband/derived_gotcha_az1-4_HH_slc_ground_0p2m.tif"
SIDE_PX = 360
"""What the tiling makes of GOTCHA's 128 m at 0.35 m."""
LAWN = (slice(190, 355), slice(230, 355))
CAR_PARK = (slice(0, 320), slice(0, 200))
"""Rows and columns of the tiled GOTCHA, near range left."""
SPACENET = ("hh", "hv", "vh", "vv")
DECIMATION = 7
"""From 0.35 m to 2.45 m."""
CHIP_PX = 64


@dataclass(frozen=True)
class Row:
    """Figures of a set of images, pixels pooled."""

    k2: float
    k3: float
    percentiles_db: tuple[float, ...]
    """PERCENTILES over the median, dB."""
    azimuth: float
    """Autocorrelation of speckle at lag 1."""
    range: float
    radial: Image
    """Radial spectrum of ln A (32,)."""
    contrast: float
    """Contrast of the co-occurrence matrix at 1 px, mean over directions."""

    def over_median(self, percentile: float) -> float:
        """A percentile over the median, dB."""
        return self.percentiles_db[PERCENTILES.index(percentile)]


def measure(images: list[Image]) -> Row:
    """Figures of amplitude images (H, W); each has at least 64 x 64 px."""
    power = np.concatenate([image.ravel() for image in images]) ** 2
    cumulants = log_cumulants(power[power > 0])
    levels = 10 * np.log10(np.percentile(power, PERCENTILES))
    levels -= levels[PERCENTILES.index(50.0)]
    products = np.mean([lag_products(image**2) for image in images], axis=0)
    speckle = speckle_autocorrelation(products)
    contrast = [measure_texture(image)[:, 0, FEATURES.index("contrast")] for image in images]
    return Row(
        cumulants.k2,
        cumulants.k3,
        tuple(levels.tolist()),
        float(speckle[0, 0]),
        float(speckle[1, 0]),
        np.mean([measure_spectrum(image).radial for image in images], axis=0),
        float(np.mean(contrast)),
    )


class _OneScene:
    """An archive of one scene."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def search(self, **_: Any) -> Iterator[Scene]:
        """The scene."""
        yield self.scene


def tiled_gotcha(data: Path) -> Image:
    """Amplitude (360, 360) of GOTCHA at 0.35 m as the tiling makes it, near range left."""
    properties = {
        "sarhpc:range_direction": "-row",
        "sarhpc:calibration": "sigma0",
        "sar:frequency_band": "X",
    }
    archive = _OneScene(Scene("gotcha", {"sar": data / GOTCHA}, properties))
    cfg = TileConfig(tile_px=SIDE_PX, split=SplitConfig(fractions=[1.0, 0.0, 0.0]))
    [inputs] = plan_scenes([archive.scene], cfg).shards
    [sample] = tile_shard(0, inputs, archive, cfg).samples
    codes = decode_array(sample.members["sar16.npy"])
    return np.asarray(decode_master(codes, sample.meta["master_scale"]), np.float64)


def measured(data: Path) -> dict[str, Row]:
    """Figures of GOTCHA's lawn, car park and whole."""
    image = tiled_gotcha(data)
    parts = {"lawn": image[LAWN], "car park": image[CAR_PARK], "whole": image}
    return {name: measure([part]) for name, part in parts.items()}


def spacenet(data: Path) -> dict[str, Row]:
    """Figures of the four channels of SpaceNet-6, at 2.5 m."""
    rows = {}
    for channel in SPACENET:
        with rasterio.open(data / "spacenet6_solaris" / f"sar_{channel}.tif") as source:
            amplitude = np.abs(source.read(1)).astype(np.float64)
        rows[channel.upper()] = measure([amplitude])
    return rows


def scenes(cfg: ProceduralConfig, kind: str) -> list[Image]:
    """Amplitudes of the scenes of an archive of one kind."""
    weights = KindWeights(**{name: float(name == kind) for name in SCENE_KINDS})
    cfg = replace(cfg, scene_kinds=weights)
    return [np.abs(simulate_scene(cfg, name).sar).astype(np.float64) for name in scene_ids(cfg)]


def archive(radiometry: int, count: int, seed: int) -> ProceduralConfig:
    """An archive of `count` scenes without optical images, of GOTCHA's size."""
    return ProceduralConfig(
        seed=seed, scenes=count, size_px=SIDE_PX, optical=False, radiometry=radiometry
    )


def peers(radiometry: int, count: int, seed: int) -> dict[str, list[Image]]:
    """Simulated peers of GOTCHA's lawn, car park and whole: amplitudes of `count` scenes each."""
    cfg = archive(radiometry, count, seed)
    lawn, towns = scenes(replace(cfg, flat_class="grass"), "field"), scenes(cfg, "town")
    return {"lawn": lawn, "car park": towns, "whole": lawn + towns}


def decimated_towns(radiometry: int, count: int, seed: int) -> list[Image]:
    """Towns of 490 m with every seventh pixel kept, without a filter, as SpaceNet-6 was made."""
    cfg = replace(archive(radiometry, count, seed), size_px=200 * DECIMATION)
    return [image[::DECIMATION, ::DECIMATION] for image in scenes(cfg, "town")]


def trihedral(radiometry: int, seed: int) -> str:
    """Impulse response of simulated trihedral reflectors, as text."""
    cfg = replace(
        archive(radiometry, 1, seed), trihedrals=9, flat_class="road", size_px=3 * CHIP_PX
    )
    scene = simulate_scene(cfg, scene_ids(cfg)[0])
    half = CHIP_PX // 2
    places = [(int(p["row"]), int(p["col"])) for p in scene.objects]
    fits = [(r, c) for r, c in places if half <= min(r, c) and max(r, c) < cfg.size_px - half]
    chips = [scene.sar[r - half : r + half, c - half : c + half] for r, c in fits]
    found = point_response(chips, (cfg.pixel_m, cfg.pixel_m))
    return f"IRW {found.range.irw_m:.3f} m range, {found.azimuth.irw_m:.3f} m azimuth"


def line(name: str, row: Row, peer: Row | None = None) -> str:
    """A line of the table."""
    levels = " ".join(f"{row.over_median(p):6.1f}" for p in PERCENTILES if p != 50)
    distance = f"{log_spectral_distance(row.radial, peer.radial):5.2f}" if peer else "     "
    return (
        f"{name:24} {row.k2:5.2f} {row.k3:6.2f} | {levels} | {row.azimuth:5.3f} {row.range:5.3f}"
        f" | {distance} | {row.contrast:6.1f}"
    )


def heading() -> str:
    """The first line of the table."""
    levels = " ".join(f"{f'P{p:g}':>6}" for p in PERCENTILES if p != 50)
    return f"{'':24} {'k2':>5} {'k3':>6} | {levels} | E4 az E4 rg |    E5 |     E6"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--scenes", type=int, default=16, help="scenes of each kind")
    parser.add_argument("--seed", type=int, default=1033, help="archive seed")
    args = parser.parse_args()
    if not (args.data / GOTCHA).is_file():
        parser.error(f"no {GOTCHA} in {args.data}: name the folder of the test data by --data")
    assert SIDE_PX >= SEGMENT_PX
    print(heading())
    real = measured(args.data)
    for name, row in real.items():
        print(line(f"GOTCHA {name}", row))
    for name, row in spacenet(args.data).items():
        print(line(f"SpaceNet-6 {name}", row))
    for version in (1, 2):
        _print_version(version, args.scenes, args.seed, real)


def _print_version(version: int, count: int, seed: int, real: dict[str, Row]) -> None:
    for name, images in peers(version, count, seed).items():
        print(line(f"radiometry {version}, {name}", measure(images), real[name]), flush=True)
    towns = decimated_towns(version, max(count // 4, 1), seed)
    print(line(f"radiometry {version}, 2.45 m", measure(towns)), flush=True)
    each = []
    for kind in SCENE_KINDS:
        images = scenes(archive(version, count, seed), kind)
        each += [measure([image]) for image in images]
        print(line(f"radiometry {version}, {kind}", measure(images)), flush=True)
    bright = np.median([row.over_median(99.9) for row in each])
    print(
        f"radiometry {version}, median over {len(each)} scenes: "
        f"k3 {np.median([row.k3 for row in each]):.2f}, P99.9 - P50 {bright:.1f} dB; "
        f"trihedrals {trihedral(version, seed)}"
    )


if __name__ == "__main__":
    main()
