"""Defects planted in real tiles one by one, and the share of each that the gate quarantines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sarhpc.measures.defects import (
    blurred,
    gained,
    gridded,
    multilooked,
    noisy,
    respeckled,
    saturated,
)
from sarhpc.measures.gate_limits import GateLimits, calibrate
from sarhpc.measures.image_gate import ImageGate

Tile = NDArray[np.floating]
DECODER_SPREAD = 1 / 255
"""Standard deviation between the channels of a decoder that is in order, of full scale."""


def decoded(A: Tile, rng: np.random.Generator, leak: float = 0.0) -> NDArray[np.float64]:
    """Channels of a tile over 60 dB, each with its own error; the first is `leak` too bright."""
    gray = np.clip(1 + 20 * np.log10(np.maximum(A / max(A.max(), 1e-9), 1e-9)) / 60, 0, 1)
    channels = gray[..., None] + rng.normal(scale=DECODER_SPREAD, size=(*A.shape, 3))
    channels[..., 0] += leak
    return channels


def without_a_number(A: Tile) -> Tile:
    spoiled = A.astype(float)
    spoiled[3, 4] = np.nan
    return spoiled


def defects(rng: np.random.Generator) -> dict[str, Callable[[Tile], Tile]]:
    """Those of the acceptance of the gate; each takes a tile and returns it spoiled."""
    return {
        "NaN": without_a_number,
        "black": np.zeros_like,
        "constant": lambda A: np.full_like(A, A.mean()),
        "saturated, +20 dB": saturated,
        "blur of 0.6 px": blurred,
        "blur of 1 px": lambda A: blurred(A, 1.0),
        "level, -20 dB": lambda A: gained(A, -20),
        "multilook 3 x 3": multilooked,
        "white re-speckle": lambda A: respeckled(A, rng),
    }


CURVES: dict[str, Callable[[Tile], Tile]] = {
    **{f"blur of {s} px": lambda A, s=s: blurred(A, s) for s in (0.3, 0.4, 0.5)},
    **{f"grid of {db} dB": lambda A, db=db: gridded(A, db) for db in (0.5, 1, 1.5, 2, 3, 4)},
    **{f"level, {db} dB": lambda A, db=db: gained(A, db) for db in (-15, -10, 10)},
    **{f"saturated, +{db} dB": lambda A, db=db: saturated(A, db) for db in (3, 6, 10)},
    "multilook 2 x 2": lambda A: multilooked(A, 2),
}


def limits_of(tiles: Sequence[Tile], rate: float) -> GateLimits:
    """Limits from tiles and what a decoder in order makes of them."""
    rng = np.random.default_rng(1)
    return calibrate(tiles, rate, decoded=(decoded(A, rng) for A in tiles))


def rejected(limits: GateLimits, tiles: Sequence[Tile], leak: float = 0.0) -> NDArray[np.bool_]:
    """Which tiles (N,) the gate quarantines, each judged alone."""
    rng = np.random.default_rng(2)
    return np.array([not ImageGate(limits).judge(A, decoded(A, rng, leak)).accepted for A in tiles])


def false_rejects(limits: GateLimits, tiles: Sequence[Tile]) -> float:
    """Share of tiles that are in order and do not enter one corpus."""
    rng, share = np.random.default_rng(2), []
    for start in range(0, len(tiles), limits.corpus_size):
        gate = ImageGate(limits)
        corpus = tiles[start : start + limits.corpus_size]
        share += [not gate.judge(A, decoded(A, rng)).accepted for A in corpus]
    return float(np.mean(share))


def copies_found(limits: GateLimits, tiles: Sequence[Tile], copy: Callable[[Tile], Tile]) -> float:
    """Share of the copies of accepted tiles that are quarantined, for being duplicates alone."""
    gate = ImageGate(limits)
    originals = [A for A in tiles[: limits.corpus_size] if gate.judge(A).accepted]
    found = [{r.name for r in gate.judge(copy(A)).reasons} for A in originals]
    return float(np.mean([bool(names & {"duplicate", "near duplicate"}) for names in found]))


def recalls(limits: GateLimits, tiles: Sequence[Tile]) -> dict[str, float]:
    """Share of tiles quarantined, by the defects of the acceptance."""
    rng = np.random.default_rng(3)
    found = {
        name: float(rejected(limits, [spoil(A) for A in tiles]).mean())
        for name, spoil in defects(rng).items()
    }
    found["colour, 0.05"] = float(rejected(limits, tiles, 0.05).mean())
    found["exact copy"] = copies_found(limits, tiles, np.copy)
    found["copy, SNR 20 dB"] = copies_found(limits, tiles, lambda A: noisy(A, rng))
    return found


def curves(limits: GateLimits, tiles: Sequence[Tile]) -> dict[str, float]:
    """Share of tiles quarantined, by defects of other strengths."""
    rng = np.random.default_rng(4)
    found = {
        name: float(rejected(limits, [spoil(A) for A in tiles]).mean())
        for name, spoil in CURVES.items()
    }
    for leak in (0.01, 0.02):
        found[f"colour, {leak:.2f}"] = float(rejected(limits, tiles, leak).mean())
    for snr in (30, 10, 3):
        found[f"copy, SNR {snr} dB"] = copies_found(
            limits, tiles, lambda A, snr=snr: noisy(A, rng, snr)
        )
    return found
