"""Limits of the gate of a corpus: calibrated once, when it is planned, and read by every shard."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.documents import parse_json
from hpc.errors import ConfigError, DataError, VerificationError
from hpc.publish import publish_bytes
from hpc.regular_files import read_regular
from hpc.store.rundir import PreviewedRun, RunDir
from sarhpc.generation.config import GATE_LEAST_PX, GateConfig
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.other_classes import check_classes, plan_classes
from sarhpc.stages.inputs.prompts import held_out_splits, sample_shards
from sarhpc.stages.inputs.real_tiles import even_samples
from sarhpc.stages.inputs.sizes import tile_side
from sarhpc.stages.inputs.training_maps import plan_copies, training_shards

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sarhpc.generation.gate import PlannedGate
    from sarhpc.generation.plan import ImageRequest
    from sarhpc.measures.gate_limits import GateLimits
    from sarhpc.shards.contract import PixelContract

log = logging.getLogger(__name__)

GATE_SHA = "gate_sha256"
"""Entry of the inputs of a shard: digest of the limits of its gate."""
LARGEST_RATE = 0.5
"""Share of real tiles that a gate may reject at most: where they are so few, there is no gate."""


def calibrated(
    run: RunDir,
    config: RunConfig,
    model: Path,
    contract: PixelContract | None,
    images: int,
    requests: Iterable[ImageRequest],
) -> dict[str, str]:
    """Entry of the inputs of each shard about its gate; publishes limits in the stage's directory.

    A preview names no limits: measuring tiles takes minutes, and the job does it.

    Args:
        run: that is planned.
        config: its configuration.
        model: folder of the model, with the autoencoder.
        contract: what its pixels mean.
        images: of the corpus.
        requests: these images, read as far as needed.

    Raises:
        ConfigError: there are no real tiles, too few of them, or tiles of other pixels.
    """
    from sarhpc.shards.sample import encode_json

    cfg = config.generate and config.generate.gate
    if not cfg:
        return {}
    shards, splits = real_shards(run, config, cfg)
    if cfg.memorised is not None:
        training_shards(run, cfg.memorised)
    if isinstance(run, PreviewedRun):
        return {GATE_SHA: "calibrated by the job"}
    require_same_pixels(shards, contract)
    copies = None if cfg.memorised is None else plan_copies(run, config, cfg.memorised, contract)
    classes = None
    if cfg.other_class is not None:
        classes = plan_classes(run, config, cfg.other_class, contract, shards, requests)
    limits = _calibrate(shards, splits, config, model, contract, images)
    gate = dataclasses.replace(limits, copies=copies, classes=classes)
    data = encode_json(gate.to_json())
    digest = hashlib.sha256(data).hexdigest()
    publish_bytes(_file(run, digest), data)
    return {GATE_SHA: digest}


def check_gate(config: RunConfig) -> None:
    """Raise ConfigError where it is known before anything is made that there can be no limits.

    Raises:
        ConfigError: tiles are too small, or the folder of real ones is missing.
    """
    cfg = config.generate and config.generate.gate
    if not cfg:
        return
    check_classes(config)
    copies = cfg.memorised
    if copies is not None and copies.shards is not None and not Path(copies.shards).is_dir():
        raise ConfigError(
            f"generate.gate.memorised.shards={copies.shards} is no folder: name that of the shards "
            "that the model was trained on, or leave it out to take split train of the run"
        )
    _check_splits(cfg)
    if cfg.shards is not None:
        if not Path(cfg.shards).is_dir():
            raise ConfigError(
                f"generate.gate.shards={cfg.shards} is no folder: name that of shards of real "
                "tiles, or leave it out to take the held-out tiles of the run"
            )
        return
    key, side = tile_side(config)
    if side is not None and side < GATE_LEAST_PX:
        raise ConfigError(
            f"generate.gate measures tiles of at least {GATE_LEAST_PX} px, and {key} is {side}: "
            "set generate.gate=null, or cut larger tiles"
        )


def _check_splits(cfg: GateConfig) -> None:
    """Raise ConfigError unless the limits can be from the splits that are named."""
    from sarhpc.shards.sample import SPLITS

    if cfg.splits is None:
        return
    if cfg.shards is not None:
        raise ConfigError(
            f"generate.gate.splits={cfg.splits} are of the run, and generate.gate.shards names "
            "other tiles: give one of them"
        )
    if not cfg.splits or not {*cfg.splits} <= {*SPLITS}:
        raise ConfigError(
            f"generate.gate.splits={cfg.splits}: give some of {', '.join(SPLITS)}, or null for "
            "evaluate.real_splits"
        )


def planned_gate(run: RunDir, digest: str) -> PlannedGate:
    """The gate that a corpus was planned with.

    Raises:
        VerificationError: its file is missing, or another one.
    """
    from sarhpc.generation.gate import PlannedGate

    path = _file(run, digest)
    try:
        data = read_regular(path)
        if hashlib.sha256(data).hexdigest() == digest:
            return PlannedGate.from_json(parse_json(data))
    except (OSError, ValueError, DataError) as error:
        raise VerificationError(
            f"the limits of the gate cannot be read from {path} ({error}): restore it"
        ) from error
    raise VerificationError(f"{path} holds other limits than were planned: restore it")


def _file(run: RunDir, digest: str) -> Path:
    return run.stage("generate") / f"gate-{digest[:12]}.json"


def real_shards(
    run: RunDir, config: RunConfig, cfg: GateConfig
) -> tuple[list[Path], tuple[str, ...]]:
    """Shards of the tiles that limits are from, and the splits of these.

    Raises:
        ConfigError: there are none.
    """
    if cfg.shards is not None:
        shards, splits = sorted(Path(cfg.shards).rglob("*.tar")), ["given shards"]
        where = f"no shards below generate.gate.shards={cfg.shards}"
    elif not run.ledger("caption").sealed:
        shards, splits, where = [], [], "the run has no captioned tiles"
    else:
        splits = cfg.splits or held_out_splits(run, config.evaluate.real_splits)
        shards = sample_shards(run, splits)
        where = f"the run has no tiles of {', '.join(splits)}"
        if splits == ["train"]:
            log.warning("no tile is held out: the gate has its limits from tiles of the training")
    if not shards:
        raise ConfigError(
            f"generate.gate has no real tiles to take limits from: {where}. Name a folder of "
            "shards (generate.gate.shards), or set generate.gate=null"
        )
    return shards, tuple(splits)


def require_same_pixels(shards: Sequence[Path], contract: PixelContract | None) -> None:
    """Raise ConfigError where pixels of tiles mean something else than those of the model.

    Raises:
        ConfigError: they do; the message says what.
    """
    from sarhpc.shards.contract import differences
    from sarhpc.shards.tile_contract import contract_of_shards

    found = [] if contract is None else differences(contract, contract_of_shards(shards))
    if found:
        raise ConfigError(
            "generate.gate: pixels of the model mean something else than those of the real tiles "
            f"that limits are to be from: {'; '.join(found)}. Name tiles as the model makes them "
            "(generate.gate.shards), or set generate.gate=null"
        )


def _calibrate(
    shards: Sequence[Path],
    splits: tuple[str, ...],
    config: RunConfig,
    model: Path,
    contract: PixelContract | None,
    images: int,
) -> PlannedGate:
    from sarhpc.generation.gate import PlannedGate
    from sarhpc.generation.judged_pixels import judged_pixels
    from sarhpc.measures.gate_limits import calibrate

    generate = config.generate
    assert generate is not None
    assert generate.gate is not None
    law = None if contract is None else contract.law
    size = generate.height_px, generate.width_px
    tiles = _measurable([_middle(tile, size) for tile in _tiles(shards, generate.gate.tiles)], law)
    rate = rate_of(generate.gate.false_rejects, len(tiles))
    log.info("stage=generate gate: measuring %d real tiles at %.2g false rejects", len(tiles), rate)
    try:
        limits: GateLimits = calibrate(
            (judged_pixels(tile, law) for tile in tiles),
            rate,
            decoded=_decoded(model, tiles),
            corpus_size=images,
        )
    except ValueError as error:
        raise ConfigError(f"generate.gate cannot take limits from real tiles: {error}") from error
    return PlannedGate(limits, law, splits)


def rate_of(asked: float, tiles: int) -> float:
    """The rate of false rejects: what was asked for, or the least that so many tiles allow.

    Raises:
        ConfigError: that is more than a half.
    """
    from sarhpc.measures.gate_limits import LOWER, UPPER

    tests = len(LOWER) + len(UPPER) + 1
    least = tests / (tiles + 1)
    if asked >= least:
        return asked
    if least > LARGEST_RATE:
        raise ConfigError(
            f"generate.gate: {tiles} real tiles can be measured, which allow no rate of false "
            f"rejects below {min(least, 1):.0%}; {tests / LARGEST_RATE - 1:.0f} allow "
            f"{LARGEST_RATE:.0%}, {tests / asked - 1:.0f} allow the {asked:.2%} of "
            "generate.gate.false_rejects. Give more tiles (generate.gate.tiles, "
            "generate.gate.shards), or set generate.gate=null"
        )
    log.warning(
        "generate.gate.false_rejects=%g needs %.0f real tiles, there are %d: %.3g is used",
        asked, tests / asked - 1, tiles, least,
    )  # fmt: skip
    return least


def _tiles(shards: Sequence[Path], limit: int) -> Iterator[NDArray[np.uint8]]:
    from sarhpc.shards.images import decode_gray8

    for sample in even_samples(shards, limit, ("sar.png",)):
        yield decode_gray8(sample.members["sar.png"])


def _middle(tile: NDArray[np.uint8], size: tuple[int | None, int | None]) -> NDArray[np.uint8]:
    """The middle of a tile that is larger than the images: smaller ones spread more."""
    rows, cols = (min(side, want or side) for side, want in zip(tile.shape, size, strict=True))
    row, col = (tile.shape[0] - rows) // 2, (tile.shape[1] - cols) // 2
    return tile[row : row + rows, col : col + cols]


def _measurable(tiles: list[NDArray[np.uint8]], law: Any) -> list[NDArray[np.uint8]]:
    """The tiles that can be measured; how many others there are is logged.

    Raises:
        ConfigError: none of them can.
    """
    from sarhpc.generation.judged_pixels import judged_pixels
    from sarhpc.measures.image_defects import measure_image

    kept, why = [], ""
    for tile in tiles:
        try:
            measure_image(judged_pixels(tile, law))
            kept.append(tile)
        except ValueError as error:
            why = str(error)
    if not kept:
        raise ConfigError(
            f"generate.gate: none of {len(tiles)} real tiles can be measured ({why}); name others "
            "(generate.gate.shards), or set generate.gate=null"
        )
    if why:
        log.warning("%d of %d real tiles cannot be measured, the last one because: %s",
                    len(tiles) - len(kept), len(tiles), why)  # fmt: skip
    return kept


def _decoded(model: Path, tiles: Sequence[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
    """Channels (H, W, 3), 0 to 1, of each tile through the model's autoencoder, by a GPU if any."""
    import torch

    from sarhpc.diffusion.autoencoder import reconstruct
    from sarhpc.diffusion.bundle import load_autoencoder
    from sarhpc.diffusion.crops import as_input

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    autoencoder = load_autoencoder(model / "vae").to(device)
    for number, tile in enumerate(tiles):
        out = reconstruct(autoencoder, as_input(tile)[None], number)[0]
        yield ((out + 1) / 2).permute(1, 2, 0).numpy()
