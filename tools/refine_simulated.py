"""Refinement of simulated scenes by image to image: nearer to real ones, and the layout stays?

    python tools/refine_simulated.py [--model FOLDER] [--out refined.png]

Scenes of the procedural archive stand on both sides. The clean ones are those of an idealised
simulator: 16 looks and no texture, so that little but the mean backscatter of the layout is in the
image (`simulate.looks=16 simulate.texture=false`). The real ones have one look and texture. Clean
tiles are brought under the model's law mu+3sigma with the constants that their scene has once it is
speckled, and refined at several strengths, with and without `keep_mean_px`.

Measured are distances to real tiles of other grounds, with nulls drawn by scenes, and the layout as
a third party reads it: a U-Net that learned water, woods, towns and open land from real tiles of
further scenes, at 4 px. It reads the refined tiles, and real tiles of the same grounds; the layout
is kept by the share of the mean intersection over union with the ground that was simulated which is
left: that of the refined tiles over that of the real ones. On the first grounds the nearest to real
of those settings is chosen that keep more than `LEAST_KEPT`; what counts is the second table, of
grounds by which nothing was chosen.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import uniform_filter

from sarhpc.archive.procedural.config import FOREST, NODATA, URBAN, WATER, ProceduralConfig
from sarhpc.archive.procedural.simulate import scene_ids, simulate_scene
from sarhpc.archive.procedural.truth.captions import describe
from sarhpc.evaluation.config import EvaluateConfig
from sarhpc.evaluation.suite import Evaluation, evaluate
from sarhpc.evaluation.use.data import SYNTHETIC, TEST, TRAIN, UNKNOWN, UseData
from sarhpc.evaluation.use.fit import fit
from sarhpc.evaluation.use.settings import REAL, FitSettings
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.model import load_pipeline
from sarhpc.generation.plan import ImageRequest, full_prompt, image_seed
from sarhpc.generation.sampler import sample_images
from sarhpc.generation.sources.config import ImageToImageConfig
from sarhpc.generation.sources.mean_power import with_mean_power
from sarhpc.generation.sources.source_images import SourceImage
from sarhpc.measures.score import mean_log
from sarhpc.shards.radiometry import Normalisation

Pictures = NDArray[np.uint8]
PX = 128
SCENE = ProceduralConfig(scenes_per_line=1, optical=False)
CLEAN = {"looks": 16, "texture": False}
READER, REFERENCE, CHOICE, REPORT = 9101, 9404, 9202, 9303
"""Archive seeds: what the reader learns from, real tiles, grounds to choose on, to report on."""
CLASSES = {"forest": (FOREST, 17, 0.5), "town": (URBAN, 33, 0.12), "water": (WATER, 9, 0.5)}
"""Label, side of the square around a pixel, and share of the label in it; a later class first."""
OPEN = "open land"
LEAST_KEPT = 0.8
MEASURES = ("E1_enl", "E3_w1", "E4_acf", "E5_lsd", "E6_texture")
"""Distances in the table; the score is of levels, speckle and spectrum."""
LAW = Normalisation("mu+3sigma", None, None, 1.0)
_BLOCK = 4
"""Pixels that the reader takes as one."""
TWIN, CLEAN_SET = "real tiles of the same grounds", "clean simulation"


@dataclass(frozen=True)
class Tiles:
    """Tiles of simulated scenes, four of each scene."""

    pictures: Pictures
    """(N, H, W) under mu+3sigma of each scene."""
    cover: NDArray[np.uint8]
    """(N, H, W) number of the class, `UNKNOWN` where there is none."""
    captions: tuple[str, ...]
    scenes: tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """How clean tiles are refined."""

    strength: float
    guidance: float | None
    """With the caption of each tile; None gives no words."""
    keep_px: float | None = None
    """As `generate.image_to_image.keep_mean_px`."""

    @property
    def name(self) -> str:
        """As in the table."""
        words = "" if self.guidance is None else f", caption, guidance {self.guidance:g}"
        kept = "" if self.keep_px is None else f", mean kept within {self.keep_px:g} px"
        return f"strength {self.strength:g}{words}{kept}"


@dataclass(frozen=True)
class Compared:
    """Sets of tiles of the same grounds, and what was measured of them."""

    sets: Mapping[str, Pictures]
    iou: Mapping[str, float]
    score: Mapping[str, float]
    """Mean ln of one distance each of levels, speckle and spectrum: lower is nearer to real."""
    lines: tuple[str, ...]
    """Rows of Markdown."""


def simulated(seed: int, scenes: int, side: int, *, clean: bool = False) -> Tiles:
    """All tiles of an archive, `side` times `side` of each scene."""
    cfg = replace(SCENE, seed=seed, scenes=scenes, size_px=side * PX, **(CLEAN if clean else {}))
    found: list[tuple[Pictures, NDArray[np.uint8], str, str]] = []
    for scene_id in scene_ids(cfg):
        scene = simulate_scene(cfg, scene_id)
        picture = _picture(np.abs(scene.sar).astype(np.float64), clean=clean)
        for row, column in itertools.product(range(0, side * PX, PX), repeat=2):
            part = (slice(row, row + PX), slice(column, column + PX))
            label = np.ascontiguousarray(scene.label[part])
            found.append((picture[part], _cover(label), describe(label).caption, scene_id))
    pictures, cover, captions, ids = zip(*found, strict=True)
    return Tiles(np.stack(pictures), np.stack(cover), captions, ids)


def _picture(amplitude: NDArray[np.float64], *, clean: bool) -> Pictures:
    """The picture of a scene under mu+3sigma, of a clean one as of the scene with speckle."""
    power = float(np.square(amplitude).mean())
    # The mean of Rayleigh amplitude is sqrt(pi / 4) of its root mean square.
    mean = float(amplitude.mean()) * (np.sqrt(np.pi / 4) if clean else 1.0)
    top = mean + 3 * np.sqrt(power - mean**2)
    return np.rint(255 * np.minimum(amplitude / top, 1)).astype(np.uint8)


def _cover(label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Class of the ground around each pixel: a town is more than its roofs."""
    cover = np.full(label.shape, len(CLASSES), np.uint8)
    for number, (code, width, least) in enumerate(CLASSES.values()):
        share = uniform_filter((label == code).astype(np.float32), width, mode="nearest")
        cover[share > least] = number
    cover[label == NODATA] = UNKNOWN
    return cover


def refined(
    model: Path, tiles: Tiles, settings: Sequence[Setting], steps: int
) -> dict[str, Pictures]:
    """The tiles after image to image in each way, by its name."""
    found: dict[str, Pictures] = {}
    for (strength, guidance), alike in itertools.groupby(
        settings, key=lambda one: (one.strength, one.guidance)
    ):
        made = _begun_with(model, tiles, Setting(strength, guidance), steps)
        for one in alike:
            levels = made
            if one.keep_px is not None:
                pairs = zip(made, tiles.pictures, strict=True)
                levels = np.stack([
                    with_mean_power(image, picture.astype(np.float32) / 255, LAW, one.keep_px)
                    for image, picture in pairs
                ])  # fmt: skip
            found[one.name] = np.rint(255 * levels.mean(axis=3)).astype(np.uint8)
    return found


def _begun_with(model: Path, tiles: Tiles, setting: Setting, steps: int) -> NDArray[np.float32]:
    """Levels (N, H, W, 3) of the tiles after image to image."""
    prompted = setting.guidance is not None
    cfg = GenerateConfig(
        steps=steps,
        guidance=setting.guidance or 1.0,
        image_to_image=ImageToImageConfig(strength=setting.strength),
    )
    pipeline, made, batch = load_pipeline(model, cfg), [], 8
    sources = [SourceImage(p.astype(np.float32) / 255, "", "") for p in tiles.pictures]
    for first in range(0, len(sources), batch):
        texts = [
            full_prompt(cfg, caption) if prompted else ""
            for caption in tiles.captions[first : first + batch]
        ]
        requests = [
            ImageRequest(n, text, image_seed(0, text, first + n)) for n, text in enumerate(texts)
        ]
        begun = sources[first : first + batch]
        made.append(sample_images(pipeline, requests, cfg, batch, 1, begun=begun))
    return np.concatenate(made)


def layout_iou(
    learned: Tiles, real: Tiles, sets: Mapping[str, Pictures], steps: int, seed: int = 0
) -> dict[str, float]:
    """Mean IoU of the land cover that a network reads in each set with that of `real`.

    The network learned from other real tiles; pixels of a set are pooled over its tiles.
    """
    images = {
        TRAIN: _averaged(learned.pictures),
        TEST: _averaged(real.pictures),
        SYNTHETIC: np.concatenate([_averaged(pictures) for pictures in sets.values()]),
    }
    cover = {TRAIN: learned.cover, TEST: real.cover}
    targets = {p: c[:, _BLOCK // 2 :: _BLOCK, _BLOCK // 2 :: _BLOCK] for p, c in cover.items()}
    targets[SYNTHETIC] = np.concatenate([targets[TEST]] * len(sets))
    # Groups are numbered in the order of their names.
    numbered = tuple(f"{n:03d}" for n in range(len(sets)) for _ in real.scenes)
    groups = {TRAIN: learned.scenes, TEST: ("real",) * len(real.scenes), SYNTHETIC: numbered}
    data = UseData(
        (*CLASSES, OPEN), images, targets, groups, flips=True, notes=(), pixels="", grouped=True
    )
    found = fit(data, FitSettings(REAL, 1.0, seed), steps).confusions
    names = [TWIN, *sets]
    tables = [found[TEST], *(_of(found[SYNTHETIC], n) for n in range(len(sets)))]
    return {name: _iou(rows) for name, rows in zip(names, tables, strict=True)}


def _averaged(pictures: Pictures) -> NDArray[np.float16]:
    """Tiles averaged in intensity, dB relative to code 255."""
    power = np.square(pictures.astype(np.float32) / 255)
    side = PX // _BLOCK
    power = power.reshape(len(power), side, _BLOCK, side, _BLOCK).mean(axis=(2, 4))
    return np.asarray(10 * np.log10(np.maximum(power, 1e-5)), np.float16)


def _of(rows: Sequence[Sequence[int]], group: int) -> list[Sequence[int]]:
    return [row for row in rows if row[0] == group]


def _iou(rows: Sequence[Sequence[int]]) -> float:
    """Mean over classes of intersection over union, of rows of group, true, read and count."""
    table = np.zeros((len(CLASSES) + 1, len(CLASSES) + 1))
    for _, true, read, count in rows:
        table[true, read] += count
    both = np.diag(table)
    union = table.sum(0) + table.sum(1) - both
    return float(np.mean((both / np.maximum(union, 1))[table.sum(1) > 0]))


def compared(
    given: argparse.Namespace,
    learned: Tiles,
    reference: Tiles,
    seed: int,
    scenes: int,
    settings: Sequence[Setting],
) -> Compared:
    """Clean tiles of an archive, refined in each way, and the real ones of the same grounds."""
    real, clean = simulated(seed, scenes, 2), simulated(seed, scenes, 2, clean=True)
    sets = {CLEAN_SET: clean.pictures}
    sets |= refined(given.model, clean, settings, given.steps)
    iou = layout_iou(learned, real, sets, given.reader_steps)
    sets[TWIN] = real.pictures
    config = EvaluateConfig(bootstrap=given.bootstrap)
    evaluation = evaluate(reference.pictures, sets, config, reference.scenes)
    score = {
        name: mean_log({measure: verdict.raw for measure, verdict in found.measures.items()})
        for name, found in evaluation.sets.items()
        if name != "real"
    }
    return Compared(sets, iou, score, tuple(_table(evaluation, iou, score)))


def _table(
    evaluation: Evaluation, iou: Mapping[str, float], score: Mapping[str, float]
) -> Iterator[str]:
    """Yield rows of Markdown: distances with 95 % intervals, and what real ones lie below."""
    measures = list(MEASURES)
    nulls: list[Any] = [evaluation.sets[TWIN].measures[measure] for measure in measures]
    yield f"| set | {' | '.join(measures)} | score | layout IoU | of that of real tiles |"
    yield "|---|" + "---|" * (len(measures) + 3)
    ends = " | ".join(f"{null.null_95:.3g}" for null in nulls)
    yield f"| real against real, 95 % below | {ends} | | | |"
    for name, value in score.items():
        found: list[Any] = [evaluation.sets[name].measures[measure] for measure in measures]
        cells = (f"{each.raw:.3g} ({each.low:.3g} to {each.high:.3g})" for each in found)
        kept = iou[name] / iou[TWIN]
        yield f"| {name} | {' | '.join(cells)} | {value:.2f} | {iou[name]:.3f} | {kept:.2f} |"


def drawn(path: Path, rows: Sequence[Sequence[Pictures]], titles: Sequence[str]) -> None:
    """Write a sheet of tiles, one column for each title, in sixteen levels of gray."""
    top, gap = 18, 4
    width = len(titles) * (PX + gap) - gap
    sheet = Image.new("L", (width, top + len(rows) * (PX + gap) - gap), 255)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for column, title in enumerate(titles):
        draw.text((column * (PX + gap), 2), title, fill=0, font=font)
        for row, tiles in enumerate(rows):
            shown = 255 * np.sqrt(tiles[column] / 255)
            tile = Image.fromarray((shown // 17 * 17).astype(np.uint8))
            sheet.paste(tile, (column * (PX + gap), top + row * (PX + gap)))
    sheet.quantize(16).save(path, optimize=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--model", type=Path, default=Path("sarhpc/embedded/sar"), help="diffusers folder")
    add("--strengths", type=float, nargs="+", default=[0.2, 0.4, 0.55, 0.7])
    add("--steps", type=int, default=20, help="of the whole schedule")
    add("--guidance", type=float, nargs="*", default=[], help="also with captions, guided so")
    add("--keep", type=float, default=4.0, help="px, of keep_mean_px, beside none")
    add("--scenes", type=int, default=12, help="to choose on; twice as many to report on")
    add("--learned", type=int, default=30, help="scenes that the reader learns from")
    add("--reader-steps", type=int, default=300)
    add("--bootstrap", type=int, default=100)
    add("--out", type=Path, help="PNG of two grounds of the report")
    return parser.parse_args()


def main() -> None:
    """Print the table of all settings on the first grounds, and of the chosen on the second."""
    given = _arguments()
    learned = simulated(READER, given.learned, 4)
    reference = simulated(REFERENCE, 5 * given.scenes, 2)
    settings = [
        Setting(strength, guidance, keep)
        for guidance in (None, *given.guidance)
        for strength in given.strengths
        for keep in (None, given.keep)
    ]
    print(f"Grounds of seed {CHOICE}, to choose on:")
    tried = compared(given, learned, reference, CHOICE, given.scenes, settings)
    print("\n".join(tried.lines))
    kept = [one for one in settings if tried.iou[one.name] > LEAST_KEPT * tried.iou[TWIN]]
    best = min(kept or settings, key=lambda one: tried.score[one.name])
    print(f"Chosen: {best.name}. Grounds of seed {REPORT}, to report on:")
    found = compared(given, learned, reference, REPORT, 2 * given.scenes, [best])
    print("\n".join(found.lines))
    if given.out is not None:
        columns = [found.sets[name] for name in (CLEAN_SET, best.name, TWIN)]
        pairs = zip(*(pictures[9::44] for pictures in columns), strict=True)
        drawn(given.out, list(pairs), ["clean simulation", "refined", "real"])


if __name__ == "__main__":
    main()
