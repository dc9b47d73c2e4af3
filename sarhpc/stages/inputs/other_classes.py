"""Limits on the class of images, taken from real tiles when a gate is planned."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.errors import ConfigError
from hpc.store.rundir import RunDir
from sarhpc.generation.config import OtherClassConfig
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.class_gate import asked_class, loaded_clip
from sarhpc.stages.inputs.class_tiles import INSTEAD, KEY, labelled_tiles
from sarhpc.stages.inputs.clip_models import clip_digest, clip_folder, loadable_clip, unnamed_clip

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sarhpc.generation.other_classes import PlannedClasses
    from sarhpc.generation.plan import ImageRequest
    from sarhpc.shards.contract import PixelContract

log = logging.getLogger(__name__)

LEAST_GROUPS = 4
"""Fewest flight lines or scenes for an interval."""
_DRAWS = 1000
"""Of the bootstrap of the balanced accuracy."""


def check_classes(config: RunConfig) -> None:
    """Raise ConfigError where settings alone tell that no class can be judged.

    Raises:
        ConfigError: names the setting and the values that work.
    """
    gate = config.generate and config.generate.gate
    cfg = gate.other_class if gate else None
    if cfg is None:
        return
    if cfg.model is None and config.clip_train is None:
        raise unnamed_clip(f"{KEY}.model")
    phrases = phrases_of(config, cfg)
    if len(phrases) < 2 or not all(phrases.values()):
        raise ConfigError(
            f"{KEY}.classes={phrases}: give two classes or more, each with the phrases that name "
            "it: {water: [a lake, a river], forest: [a forest]}"
        )
    if cfg.shards is not None and not Path(cfg.shards).is_dir():
        raise ConfigError(
            f"{KEY}.shards={cfg.shards} is no folder: name that of shards of captioned real "
            "tiles, or leave it out to take those of the other limits"
        )


def check_class_model(config: RunConfig) -> None:
    """Raise ConfigError where the CLIP that is named cannot be used here."""
    gate = config.generate and config.generate.gate
    if gate and gate.other_class is not None and gate.other_class.model is not None:
        loadable_clip(gate.other_class.model, f"{KEY}.model")


def phrases_of(config: RunConfig, cfg: OtherClassConfig) -> dict[str, list[str]]:
    """Class -> phrases that name it."""
    from sarhpc.evaluation.text_config import TextConfig

    found = (config.evaluate.text or TextConfig()).classes if cfg.classes is None else cfg.classes
    return {name: list(phrases) for name, phrases in found.items()}


def plan_classes(
    run: RunDir,
    config: RunConfig,
    cfg: OtherClassConfig,
    contract: PixelContract | None,
    shards: Sequence[Path],
    requests: Iterable[ImageRequest],
) -> PlannedClasses:
    """The limits on the class of images, from real tiles of known class.

    Args:
        run: that is planned.
        config: its configuration.
        cfg: of this part of the gate.
        contract: what pixels of the model mean.
        shards: of the tiles that the other limits are from.
        requests: images of the corpus, read until one of them is of a class with a limit.

    Raises:
        ConfigError: there are too few tiles or classes, tiles of other pixels or smaller than the
            images, no prompt names a class, or the CLIP cannot tell the classes of real tiles.
    """
    import numpy as np

    from sarhpc.captioning.captioners.pretrained import model_name
    from sarhpc.generation.other_classes import PlannedClasses
    from sarhpc.measures.class_margins import class_margins, class_vectors

    phrases, law = phrases_of(config, cfg), None if contract is None else contract.law
    tiles = labelled_tiles(cfg, contract, shards, config, phrases)
    names = sorted({tile.name for tile in tiles})
    _require_asked(requests, phrases, names)
    folder = clip_folder(run, cfg.model)
    digest = clip_digest(folder)
    log.info("stage=generate gate: the CLIP %s reads %d real tiles", folder.name, len(tiles))
    seer = loaded_clip(folder, digest)
    labels = np.array([names.index(tile.name) for tile in tiles])
    vectors = class_vectors(seer.read([tile.caption for tile in tiles]), labels, len(names))
    images = np.stack([seer.see(tile.codes, law) for tile in tiles])
    margins, nearest = class_margins(images, vectors, labels)
    read = np.where(margins > 0, labels, nearest)
    accuracy = _accuracy(labels, read, [tile.group for tile in tiles], len(names), folder)
    limits = {
        name: _limit(name, vectors[number], margins[labels == number], cfg.false_rejects)
        for number, name in enumerate(names)
    }
    held = {name: tuple(each) for name, each in phrases.items()}
    return PlannedClasses(model_name(str(folder)), digest, held, limits, accuracy)


def _require_asked(
    requests: Iterable[ImageRequest], phrases: Mapping[str, Sequence[str]], names: Sequence[str]
) -> None:
    """Raise ConfigError where no image of the corpus would be judged."""
    said = ""
    for request in requests:
        if asked_class(request, phrases) in names:
            return
        said = said or request.prompt
    raise ConfigError(
        f"{KEY}: no prompt names one of the classes {', '.join(names)}, so that no image would be "
        f"judged; one says “{said[:80]}”. Give the phrases that prompts have ({KEY}.classes), or "
        f"labels `class` in the prompt table, {INSTEAD}"
    )


def _accuracy(
    labels: NDArray[np.int64],
    read: NDArray[np.int64],
    groups: Sequence[str],
    classes: int,
    folder: Path,
) -> dict[str, float]:
    """Balanced accuracy on the real tiles, with its interval over flight lines or scenes."""
    from sarhpc.evaluation.text import interval
    from sarhpc.measures.class_margins import balanced_accuracy

    own = [group or (row,) for row, group in enumerate(groups)]
    if len({*own}) < LEAST_GROUPS:
        raise ConfigError(
            f"{KEY}: {len(labels)} real tiles are of {len({*own})} flight lines or scenes, and "
            f"{LEAST_GROUPS} are needed to say whether the CLIP tells their classes. Give tiles of "
            f"more ({KEY}.shards), {INSTEAD}"
        )
    found = interval(lambda at: balanced_accuracy(labels[at], read[at]), own, _DRAWS, 0)
    if found["low"] <= 1 / classes:
        raise ConfigError(
            f"{KEY}.model: the CLIP {folder} does not tell the classes of {len(labels)} real tiles"
            f": balanced accuracy {found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f}),"
            f" chance {1 / classes:.2f}. Name one that was trained on such images "
            f"(docs/sar_clip.md), let the run train one (clip_train={{}}), give more tiles "
            f"({KEY}.tiles), {INSTEAD}"
        )
    return {name: float(f"{found[name]:.6g}") for name in ("value", "low", "high")}


def _limit(
    name: str, vector: NDArray[np.float64], margins: NDArray[np.float64], asked: float
) -> Any:
    from sarhpc.generation.other_classes import ClassLimit
    from sarhpc.measures.class_margins import least_margin

    rate = max(asked, 1 / (len(margins) + 1))
    if rate > asked:
        log.warning(
            "%s.false_rejects=%g needs %.0f real tiles of %s, there are %d: %.3g is used",
            KEY, asked, 1 / asked - 1, name, len(margins), rate,
        )  # fmt: skip
    least = float(f"{least_margin(margins, rate):.9g}")
    return ClassLimit(tuple(vector.tolist()), least, rate, len(margins))
