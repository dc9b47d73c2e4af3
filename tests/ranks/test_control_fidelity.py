"""Images that a ControlNet steers have the edges of the layer that steered them.

On the embedded base and the procedural archive, over three seeds. Named before: the metric is the
share of pairs of pixels, one on a drawn edge of the layer and one off it, of which the painted
image has the higher edge ratio off it (`tiling.conditions.edge_ratios_db`, the larger of both
axes): 1 - AUC, which needs no threshold. A half is chance. Images of the base without a layer, of
a ControlNet that learnt from its own layers, and of one that learnt from those of others, all
asked for the captions of held-out tiles, both ControlNets steered by the edges of those very
tiles; the mean over 48 of them. `pytest -s -m long` on this file prints the table of
docs/benchmarks.md.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gain_methods import METHODS, paint, painted_numbers, trained
from gains import BASE, SEEDS, sure_gain, tiles
from numpy.typing import NDArray
from training_ranks import tiny_config

from hpc.store.rundir import RunDir
from sarhpc.tiling.pairs.edge_fidelity import misplaced_edges
from sarhpc.training.denoising.start import load_base

STEPS = 100


def infidelity(images: NDArray[np.uint8], layers: NDArray[np.uint8]) -> float:
    pairs = zip(images, layers, strict=True)
    return float(np.nanmean([misplaced_edges(image, layer) for image, layer in pairs]))


def test_pairs_are_misplaced_by_half_without_edges_and_hardly_with_them() -> None:
    layer = np.zeros((128, 128), np.uint8)
    layer[:, 63:66] = 255
    speckle = np.random.default_rng(0).rayleigh(40.0, layer.shape)
    assert abs(misplaced_edges(speckle.clip(0, 255).astype(np.uint8), layer) - 0.5) < 0.1
    speckle[:, :64] /= 4
    assert misplaced_edges(speckle.clip(0, 255).astype(np.uint8), layer) < 0.02


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.xdist_group("gains-controlnet")
@pytest.mark.timeout(3600)
def test_edges_of_painted_images_lie_where_the_layer_has_them(gains_run: RunDir) -> None:
    held_out, numbers = tiles(gains_run, "val"), painted_numbers(gains_run)
    layers = held_out.grays("edges.png")[numbers]
    base = infidelity(paint(gains_run, load_base(tiny_config(), BASE)), layers)
    real = infidelity(held_out.grays()[numbers], layers)
    print(f"| real tiles: 1 - AUC | | {real:.4f} | |", flush=True)
    found: dict[bool, list[float]] = {False: [], True: []}
    for seed in SEEDS:
        for shuffle in (False, True):
            changed = replace(METHODS["controlnet"]["control"], shuffle=shuffle)
            name = "controlnet-shuffled" if shuffle else "controlnet"
            bundle = trained(gains_run, name, seed, {"control": changed}, STEPS)
            found[shuffle].append(infidelity(paint(gains_run, bundle), layers))
    what = "controlnet (edges): 1 - AUC of images,"
    assert sure_gain(f"{what} base and steered", [base] * len(SEEDS), found[False]) > 0
    sure_gain(f"{what} base and steered after the layers of others", [base] * 3, found[True])
    assert sure_gain(f"{what} with the layers of others and its own", found[True], found[False]) > 0
