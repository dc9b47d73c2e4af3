"""Refinement of simulated scenes by image to image: nearer to real ones, and the layout stays?

    python tools/refine_simulated.py [--model FOLDER] [--out refined.png]

Scenes of the procedural archive stand on both sides. The clean ones are those of an idealised
simulator: 64 looks, no texture, so that hardly anything but the mean backscatter of the layout is
in the image (`simulate.looks=64 simulate.texture=false`). The real ones have one look and texture,
of grounds of their own. Clean tiles are brought under the model's law mu+3sigma with the constants
that their scene has once it is speckled, and refined at several strengths.

Measured are distances to real tiles with nulls drawn by scenes, and the layout as somebody else
reads it: a U-Net that learned land cover from real tiles of further scenes. Its mean intersection
over union with the land cover that was simulated is printed, beside the same of real tiles of the
same grounds. The strength is chosen on the first set of grounds by that bar alone: the nearest to
real of those whose layout is above `LEAST_IOU`. The second set, of other grounds, is what counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from sarhpc.generation.sources.source_images import SourceImage

Pictures = NDArray[np.uint8]
PX = 128
SCENE = ProceduralConfig(size_px=4 * PX, scenes_per_line=1, optical=False)
CLEAN = {"looks": 64, "texture": False}
READER, REFERENCE, CHOICE, REPORT = 9101, 9404, 9202, 9303
"""Archive seeds: what the reader learns from, real tiles, grounds to choose on, to report on."""
CLASSES = {"water": (WATER,), "forest": (FOREST,), "town": (URBAN,)}
OPEN = "open land"
LEAST_IOU = 0.8
MEASURES = ("E1_enl", "E2_cumulants", "E3_w1", "E4_acf", "E5_lsd", "E6_glcm")


@dataclass(frozen=True)
class Tiles:
    """Tiles of simulated scenes, four of each scene."""

    pictures: Pictures
    """(N, H, W) under mu+3sigma of each scene."""
    cover: NDArray[np.uint8]
    """(N, H, W) number of the class, `UNKNOWN` where there is none."""
    captions: tuple[str, ...]
    scenes: tuple[str, ...]


def simulated(seed: int, scenes: int, each: int, *, clean: bool = False) -> Tiles:
    """`each` tiles of every scene of an archive, the same places whether it is clean or not."""
    cfg = replace(SCENE, seed=seed, scenes=scenes, **(CLEAN if clean else {}))
    found: list[tuple[Pictures, NDArray[np.uint8], str, str]] = []
    for number, scene_id in enumerate(scene_ids(cfg)):
        scene = simulate_scene(cfg, scene_id)
        picture = _picture(np.abs(scene.sar).astype(np.float64), clean=clean)
        side = SCENE.size_px // PX
        places = np.random.default_rng([seed, number]).permutation(side**2)[:each]
        for row, column in ((place // side * PX, place % side * PX) for place in sorted(places)):
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
    cover = np.full(label.shape, len(CLASSES), np.uint8)
    for number, codes in enumerate(CLASSES.values()):
        cover[np.isin(label, codes)] = number
    cover[label == NODATA] = UNKNOWN
    return cover


def refined(
    model: Path, tiles: Tiles, strength: float, *, prompted: bool, steps: int, guidance: float
) -> Pictures:
    """The tiles after image to image, each with its own caption, or with no words."""
    cfg = GenerateConfig(
        steps=steps,
        guidance=guidance if prompted else 1.0,
        image_to_image=ImageToImageConfig(strength=strength),
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
    return np.rint(255 * np.concatenate(made).mean(axis=3)).astype(np.uint8)


def layout_iou(
    learned: Tiles, real: Tiles, sets: Mapping[str, Pictures], steps: int
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
    targets = {part: each[:, ::2, ::2] for part, each in cover.items()}
    targets[SYNTHETIC] = np.concatenate([targets[TEST]] * len(sets))
    # Groups are numbered in the order of their names.
    groups = {TRAIN: learned.scenes, TEST: ("real",) * len(real.scenes),
              SYNTHETIC: tuple(f"{n:03d}" for n in range(len(sets)) for _ in real.scenes)}  # fmt: skip
    data = UseData(
        (*CLASSES, OPEN), images, targets, groups, flips=True, notes=(), pixels="", grouped=True
    )
    found = fit(data, FitSettings(REAL, 1.0, 0), steps).confusions
    names = ["real", *sets]
    tables = [found[TEST], *(_of(found[SYNTHETIC], n) for n in range(len(sets)))]
    return {name: _iou(rows) for name, rows in zip(names, tables, strict=True)}


def _averaged(pictures: Pictures) -> NDArray[np.float16]:
    """Tiles at half their size, averaged in intensity, dB relative to code 255."""
    power = np.square(pictures.astype(np.float32) / 255)
    power = power.reshape(len(power), PX // 2, 2, PX // 2, 2).mean(axis=(2, 4))
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


def distances(reference: Tiles, sets: Mapping[str, Pictures], bootstrap: int) -> Evaluation:
    """Every distance of each set to the real tiles, with its null."""
    config = EvaluateConfig(bootstrap=bootstrap)
    return evaluate(reference.pictures, sets, config, reference.scenes)


def table(evaluation: Evaluation, iou: Mapping[str, float]) -> list[str]:
    """Rows of Markdown: distance of each set with what 95 % of real against real lie below."""
    names = [name for name in evaluation.sets if name != "real"]
    first = evaluation.sets[names[0]].measures
    measures = [name for name in first if name in MEASURES] or list(first)
    lines = [
        f"| set | {' | '.join(measures)} | layout IoU |",
        "|---|" + "---|" * (len(measures) + 1),
        "| real against real, 95 % below | "
        + " | ".join(f"{getattr(first[m], 'null_95', float('nan')):.3g}" for m in measures)
        + f" | {iou['real']:.3f} |",
    ]
    for name in names:
        found = evaluation.sets[name].measures
        cells = []
        for measure in measures:
            verdict: Any = found[measure]
            low, high = getattr(verdict, "low", np.nan), getattr(verdict, "high", np.nan)
            cells.append(f"{verdict.raw:.3g} ({low:.3g} to {high:.3g})")
        lines.append(f"| {name} | {' | '.join(cells)} | {iou.get(name, float('nan')):.3f} |")
    return lines


def main() -> None:
    """Print the table of all strengths on the first grounds, and of the chosen on the second."""
    arguments = _arguments()
    began = time.monotonic()
    learned = simulated(READER, arguments.learned, 16)
    reference = simulated(REFERENCE, arguments.scenes * 2, 4)
    print(f"chosen among (grounds of seed {CHOICE}):")
    names, lines, score, iou = _compared(arguments, learned, reference, CHOICE, arguments.scenes)
    print("\n".join(lines))
    kept = [name for name in names if iou[name] > LEAST_IOU]
    print(f"above {LEAST_IOU}: {', '.join(kept) or 'none'}  ({time.monotonic() - began:.0f} s)")


if __name__ == "__main__":
    main()
