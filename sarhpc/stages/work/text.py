"""E10 of sets whose tiles were measured: by a CLIP, from their pixels and captions."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.errors import ConfigError, DataError, HpcError
from sarhpc.stages.work.measuring import PROGRESS_S, Locate, Part, parts_in

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sarhpc.captioning.captioners.clip import ClipScorer
    from sarhpc.evaluation.compared import ComparedSets
    from sarhpc.evaluation.comparison_plan import ComparisonPlan
    from sarhpc.evaluation.config import EvaluateConfig
    from sarhpc.evaluation.image_sets import Image
    from sarhpc.evaluation.tables import TileMeasures
    from sarhpc.evaluation.text import CaptionedVectors
    from sarhpc.evaluation.text_config import TextConfig

    View = Mapping[str, TileMeasures]

log = logging.getLogger(__name__)

BLOCK = "text"
TABLES = "text"
"""Folder of the tables of vectors, one a part."""

Place = tuple[str, int]


def require_clip(cfg: TextConfig) -> Path:
    """The folder of the CLIP that reads images and captions; it loads.

    Raises:
        ConfigError: none is named, it cannot be loaded, or its parts are of other widths.
        MissingExtraError: packages that it needs are not installed.
    """
    from sarhpc.extras import require_extra
    from sarhpc.stages.inputs.paths import model_folder

    require_extra("caption", "evaluate.text")
    if cfg.model is None:
        raise ConfigError(
            "evaluate.text.model: name the CLIP that reads images and captions, such as "
            "embedded:clip, or let the run train one (clip_train={})"
        )
    from sarhpc.captioning.captioners.clip import load_clip

    folder = Path(model_folder(cfg.model))
    try:
        load_clip(folder)
    except DataError as error:
        raise ConfigError(f"evaluate.text.model={cfg.model}: {error}") from error
    return folder


def with_text(
    compared: ComparedSets,
    planned: ComparisonPlan,
    views: Sequence[View],
    config: EvaluateConfig,
    clip: Path | None,
    folder: Path,
    locate: Locate = Path,
    report: Callable[[str], None] = log.info,
) -> ComparedSets:
    """The same with the block `text`; what could not be measured is said in it, and in a note.

    Tables of vectors in `folder` of the same tiles and model are kept.

    Args:
        compared: the sets as they are compared so far.
        planned: what is compared.
        views: measures of the tiles by set.
        config: of the evaluation.
        clip: folder of the CLIP; None where there is none.
        folder: of the evaluation.
        locate: finds a file by its name in the plan.
        report: is given a line at most every 30 s.
    """
    if config.text is None or clip is None:
        return compared
    from sarhpc.evaluation.text import TEXT_SCHEMA

    block: dict[str, Any] = {
        "schema": TEXT_SCHEMA,
        "classes": {name: list(phrases) for name, phrases in config.text.classes.items()},
        "sets": {},
        "left_out": [],
    }
    try:
        _fill(block, _Reading(planned, folder, locate, report, config), views, clip)
    except (HpcError, OSError, ValueError) as error:
        block["left_out"].append(str(error))
    for reason in block["left_out"]:
        log.warning("text: left out: %s", reason)
    notes = [f"E10, left out: {reason}" for reason in block["left_out"]]
    return dataclasses.replace(
        compared,
        notes=(*compared.notes, *notes),
        blocks={**compared.blocks, BLOCK: block},
    )


def _fill(block: dict[str, Any], reading: _Reading, views: Sequence[View], clip: Path) -> None:
    """Measure each set into the block."""
    from sarhpc.captioning.captioners.clip import ClipScorer, load_clip
    from sarhpc.captioning.captioners.pretrained import model_name, pick_device, weights_digest
    from sarhpc.evaluation.compared import REAL
    from sarhpc.evaluation.text import common_classes, judge_text

    config = reading.config
    cfg = config.text
    assert cfg is not None
    sets = _in_first_view(views, reading.planned)
    described = {
        name: list(reading.captions(name, pixels, measures))
        for name, (pixels, measures) in sets.items()
    }
    _leave_out(block, described, cfg)
    revision = weights_digest(clip)
    block |= {"model": model_name(str(clip)), "revision": revision[:16]}
    block["contract"] = _other_pixels(clip, described)
    scorer = ClipScorer(
        load_clip(clip, pick_device(cfg.device)),
        name=block["model"],
        revision=revision,
        batch=cfg.batch,
        threads=cfg.threads,
    )
    for name, (pixels, measures) in sets.items():
        if not any(one.caption for one in described[name]):
            continue
        vectors = reading.vectors(name, pixels, measures, scorer)
        found = _captioned(vectors, described[name])
        block["sets"][name] = judge_text(found, scorer.read, cfg, config.bootstrap, config.seed)
    block["left_out"] += common_classes(block["sets"], REAL).values()


def _in_first_view(
    views: Sequence[View], planned: ComparisonPlan
) -> dict[str, tuple[str, TileMeasures]]:
    """Pixels and measures of each set, of the first view that has it."""
    found: dict[str, tuple[str, TileMeasures]] = {}
    for view, (pixels, _) in zip(views, planned.views, strict=True):
        for name, measures in view.items():
            found.setdefault(name, (pixels, measures))
    return found


@dataclass(frozen=True)
class _Described:
    """What an image says of itself, without its pixels."""

    caption: str | None
    group: str
    meta: Mapping[str, Any]


def _leave_out(
    block: dict[str, Any], described: Mapping[str, Sequence[_Described]], cfg: TextConfig
) -> None:
    """Say before anything is computed which sets have no captions, or none that name a class."""
    from sarhpc.evaluation.caption_content import class_of

    for name, images in described.items():
        captions = [one.caption for one in images if one.caption]
        if not captions:
            block["left_out"].append(f"no image of {name} has a caption")
        elif not any(class_of(caption, cfg.classes) for caption in captions):
            block["left_out"].append(
                f"no caption of {name} names one of the classes {', '.join(cfg.classes)} "
                f"(evaluate.text.classes); one says “{captions[0][:80]}”"
            )


def _other_pixels(clip: Path, described: Mapping[str, Sequence[_Described]]) -> dict[str, Any]:
    """Set -> how its pixels differ from those that the CLIP was trained on, where known."""
    from sarhpc.shards.contract import differences, read_contract
    from sarhpc.shards.tile_contract import contract_of_tiles

    contract = read_contract(clip)
    if contract is None:
        return {}
    found = {
        name: differences(contract, contract_of_tiles(one.meta for one in images))
        for name, images in described.items()
        if images
    }
    return {name: lines for name, lines in found.items() if lines}


def _captioned(vectors: NDArray[np.float32], described: Sequence[_Described]) -> CaptionedVectors:
    from sarhpc.evaluation.text import CaptionedVectors

    rows = [row for row, one in enumerate(described) if one.caption]
    return CaptionedVectors(
        vectors[rows],
        tuple(str(described[row].caption) for row in rows),
        tuple(described[row].group for row in rows),
        len(described) - len(rows),
    )


@dataclass(frozen=True)
class _Reading:
    """Captions and vectors of the tiles that are compared, part by part."""

    planned: ComparisonPlan
    folder: Path
    locate: Locate
    report: Callable[[str], None]
    config: EvaluateConfig

    def captions(self, name: str, pixels: str, measures: TileMeasures) -> Iterator[_Described]:
        """Yield what the images of a set say of themselves, in their order."""
        from sarhpc.evaluation.caption_content import caption_of

        found: dict[Place, _Described] = {}
        groups = dict(zip(measures.places, measures.groups, strict=True))
        for part, held in self._parts(name, pixels, measures.places):
            for file, image in self._images(
                part, held, lambda names: [n for n in names if n == "txt"]
            ):
                place = (file, image.row)
                found[place] = _Described(caption_of(image), groups[place], image.meta)
        return (found[place] for place in measures.places)

    def vectors(
        self, name: str, pixels: str, measures: TileMeasures, scorer: ClipScorer
    ) -> NDArray[np.float32]:
        """Unit vectors (N, width) of the tiles of a set in their order.

        Raises:
            DataError: a tile or a table cannot be read, or has vectors of another width.
        """
        import numpy as np

        from sarhpc.evaluation.feature_tables import read_features_of

        tables, begun = [], time.monotonic()
        for part, held in self._parts(name, pixels, measures.places):
            tables.append(self._table(part, held, scorer))
            if time.monotonic() - begun >= PROGRESS_S:
                begun = time.monotonic()
                self.report(f"text set={name} parts={len(tables)}")
        found = read_features_of(tables, scorer.width)
        return np.stack([found[place] for place in measures.places])

    def _parts(
        self, name: str, pixels: str, places: Sequence[Place]
    ) -> Iterator[tuple[Part, list[Place]]]:
        """Yield the parts of a set, and those of the places that lie in each."""
        for part in parts_in(self.planned, self.folder):
            if (part.inputs["set"], part.inputs["pixels"]) != (name, pixels):
                continue
            rows = {file: {*rows} for file, rows, *_ in part.inputs["files"]}
            held = [(file, row) for file, row in places if row in rows.get(file, ())]
            if held:
                yield part, held

    def _images(
        self, part: Part, places: Sequence[Place], choose: Callable[[Any], Sequence[str]]
    ) -> Iterator[tuple[str, Image]]:
        """Yield images with their file as the part names it."""
        from sarhpc.evaluation.image_sets import ImageSet, read_images

        rows: dict[str, list[int]] = {}
        for file, row in places:
            rows.setdefault(file, []).append(row)
        facts = {file: rest for file, _, *rest in part.inputs["files"]}
        for file, wanted in rows.items():
            path = str(self.locate(file))
            known = ImageSet(
                part.inputs["set"],
                (path,),
                (len(wanted),),
                dict.fromkeys([path], *facts[file]) if facts[file] else {},
            )
            for image in read_images(known, path, wanted, choose):
                yield file, image

    def _table(self, part: Part, places: Sequence[Place], scorer: ClipScorer) -> Path:
        """The table of a part; one of the same tiles and model is kept."""
        from sarhpc.evaluation.feature_tables import are_features, write_features
        from sarhpc.evaluation.tables import facts_of_table

        path = self.folder / TABLES / f"{part.id}.parquet"
        facts = {
            "input": facts_of_table(part.table).get("input", ""),
            "clip": scorer.revision,
            "places": hashlib.sha256(json.dumps(places).encode()).hexdigest(),
        }
        if not are_features(path, facts):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_features(path, self._batches(part, places, scorer), scorer.width, facts)
        return path

    def _batches(
        self, part: Part, places: Sequence[Place], scorer: ClipScorer
    ) -> Iterator[tuple[Sequence[Place], NDArray[np.float32]]]:
        import numpy as np

        from sarhpc.captioning.contrastive.tiles import seen
        from sarhpc.evaluation.pixels import code_member, codes

        batch: list[tuple[Place, Any]] = []
        for file, image in self._images(part, places, code_member):
            picture = codes(image, part.inputs["scale"], decoded=False)
            codes8 = np.asarray(picture, np.uint8)
            batch.append(((file, image.row), seen(codes8, dict(image.meta))))
            if len(batch) == scorer.batch:
                yield [place for place, _ in batch], scorer.see([one for _, one in batch])
                batch = []
        if batch:
            yield [place for place, _ in batch], scorer.see([one for _, one in batch])
