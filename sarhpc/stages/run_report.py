"""The report of a run: what each stage made, pictures, training, and the evaluation."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.errors import DataError
from hpc.store.attempts import count_starts, read_attempts
from hpc.store.plan import read_plan
from hpc.store.rundir import RunDir
from sarhpc.stages.config import RunConfig
from sarhpc.stages.edge_notes import edge_notes
from sarhpc.stages.generate import settings
from sarhpc.stages.image_to_image_set import IMAGE_TO_IMAGE, image_to_image_notes
from sarhpc.stages.inputs.contracts import contract_of_corpus, other_pixels, pixel_facts
from sarhpc.stages.inputs.prompts import (
    asked_class,
    held_out_splits,
    known_prompts,
    land_cover,
    sample_shards,
)
from sarhpc.stages.planned_corpus import coverage_notes
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.run_headline import run_headline
from sarhpc.stages.work.packaging import gate_notes
from sarhpc.stages.work.sharded import sealed_records
from sarhpc.training.denoising.grids import read_index, read_judged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sarhpc.evaluation.classes import Conformity
    from sarhpc.evaluation.compared import ComparedSets
    from sarhpc.evaluation.report import GridRow, Picture, Report, StageLine
    from sarhpc.shards.sample import Sample

SYNTHETIC = "this run"
CLASSIFIER_TILES = 1500
_SHOWN = ("sar.png", "txt", "meta.json")
"""Members that the report uses: masters and optical images are not held in memory."""


def run_report(
    run: RunDir, upstream: Sequence[str], compared: ComparedSets, folder: Path
) -> Report:
    """The report on a run with its evaluation; writes nothing.

    Args:
        run: the run.
        upstream: names of the stages before the evaluation, for the table.
        compared: the evaluation.
        folder: where further measures left pictures and tables.
    """
    from sarhpc.evaluation.report import Report

    config = load_run_config(run)
    synthetic = synthetic_samples(run, config)
    shown = of_the_same_prompts(synthetic, config.evaluate.gallery)
    prompts, grid = _progress(run)
    stages = [line for stage in upstream if (line := stage_line(run, stage))]
    return Report(
        name=run.name,
        facts=_facts(run, compared),
        config_yaml=run.config_text,
        stages=stages,
        real=_real_pictures(run, config, shown[SYNTHETIC], config.evaluate.gallery),
        synthetic={name: _pictures(group) for name, group in shown.items()},
        evaluation=compared.evaluation,
        features=compared.measured,
        other_pixels=_other_pixels(compared),
        gates=compared.gates,
        conformity=_conformity(run, config, synthetic),
        progress_prompts=prompts,
        progress=grid,
        training=_training_rows(run),
        notes=[
            *compared.notes,
            *other_pixels(run, config),
            *coverage_notes(run, config),
            *gate_notes(run),
            *edge_notes(run, config),
            *image_to_image_notes(run, config),
        ],
        headline=run_headline(run, config, stages, folder),
        blocks=compared.blocks,
        folder=folder,
    )


def _other_pixels(compared: ComparedSets) -> dict[str, str]:
    """Pixels of the sets that are compared in others than the corpus is."""
    first, *further = compared.facts["views"]
    return {name: pixels for pixels, names in further for name in names if name not in first[1]}


def synthetic_shards(run: RunDir, config: RunConfig) -> dict[str, list[Any]]:
    """Records of the shards of the corpus, and of each other model that was compared."""
    groups: dict[str, list[Any]] = {SYNTHETIC: sealed_records(run, "generate")}
    if config.compare.models:
        for record in sealed_records(run, "compare"):
            if record.detail["set"] == IMAGE_TO_IMAGE:
                continue
            groups.setdefault(record.detail["set"], []).append(record)
    return groups


def synthetic_samples(run: RunDir, config: RunConfig) -> dict[str, list[Sample]]:
    """The first samples of each set: of the same prompts, but for those that a gate left out."""
    limit = config.evaluate.tiles
    return {
        name: list(itertools.islice(_read(Path(record.path) for record in records), limit))
        for name, records in synthetic_shards(run, config).items()
    }


def of_the_same_prompts(
    sets: Mapping[str, Sequence[Sample]], count: int
) -> dict[str, list[Sample]]:
    """The first samples of each set, at most `count`, such that those in one place share a prompt.

    Where the sets share no prompt, the first ones of each.
    """
    left: dict[str, dict[str | None, deque[Sample]]] = {}
    for name, samples in sets.items():
        for sample in samples:
            left.setdefault(name, {}).setdefault(sample.caption, deque()).append(sample)
    shown: dict[str, list[Sample]] = {name: [] for name in sets}
    for sample in next(iter(sets.values())):
        found = [left.get(name, {}).get(sample.caption) for name in sets]
        if all(found) and len(shown[SYNTHETIC]) < count:
            for name, queue in zip(sets, found, strict=True):
                assert queue is not None
                shown[name].append(queue.popleft())
    if shown[SYNTHETIC]:
        return shown
    return {name: list(samples[:count]) for name, samples in sets.items()}


def _real_samples(run: RunDir, config: RunConfig) -> Iterator[Sample]:
    splits = held_out_splits(run, config.evaluate.real_splits)
    return _read(sample_shards(run, splits))


def _read(shards: Iterable[Path]) -> Iterator[Sample]:
    from sarhpc.shards.reader import read_shard
    from sarhpc.shards.sample import Sample

    for path in shards:
        for sample in read_shard(path):
            kept = {name: sample.members[name] for name in _SHOWN if name in sample.members}
            yield Sample(sample.key, kept, path)


def _stack(samples: Sequence[Sample]) -> NDArray[np.uint8]:
    import numpy as np

    from sarhpc.shards.images import decode_gray8

    if not samples:
        raise DataError(
            "nothing to evaluate: a set has no images, real or synthetic; `sarhpc status` shows "
            "how many each stage made and rejected"
        )
    return np.stack([decode_gray8(sample.members["sar.png"]) for sample in samples])


def _pictures(samples: Sequence[Sample]) -> list[Picture]:
    from sarhpc.evaluation.report import Picture
    from sarhpc.shards.stretch import displayed

    tiles = _stack(samples)
    return [
        Picture(displayed(tile, sample.meta), sample.caption or "", f"seed {sample.meta['seed']}")
        for tile, sample in zip(tiles, samples, strict=True)
    ]


def _real_pictures(
    run: RunDir, config: RunConfig, synthetic: Sequence[Sample], count: int
) -> list[Picture]:
    """For each synthetic tile a real one of its caption, or else of its class, or else any."""
    from sarhpc.evaluation.report import Picture
    from sarhpc.generation.plan import full_prompt
    from sarhpc.shards.stretch import displayed

    real: dict[str, Sample] = {}
    classes: dict[str, list[Sample]] = {}
    for sample in _real_samples(run, config):
        real.setdefault(full_prompt(settings(config), sample.meta["caption"]["SHORT"]), sample)
        alike = classes.setdefault(land_cover(sample.meta) or "", [])
        alike.extend([sample] if len(alike) < count else [])
    pictures = []
    for number, asked in enumerate(synthetic[:count]):
        named = asked_class(asked.meta)
        alike = (classes.get(named) if named else None) or [next(iter(real.values()))]
        match = real.get(asked.meta["prompt"]) or alike[number % len(alike)]
        [tile] = _stack([match])
        pictures.append(
            Picture(displayed(tile, match.meta), match.caption or "", f"tile {match.key}")
        )
    return pictures


def _conformity(
    run: RunDir, config: RunConfig, synthetic: dict[str, list[Sample]]
) -> dict[str, Conformity]:
    """How well images show the class of their prompts; empty where no class is known."""
    from sarhpc.evaluation.classes import judge, train_classifier
    from sarhpc.generation.plan import full_prompt

    held_out = _labelled(_real_samples(run, config), config.evaluate.tiles)
    train = _labelled(_read(sample_shards(run, ["train"])), CLASSIFIER_TILES)
    if len({label for _, label in train}) < 2 or len({label for _, label in held_out}) < 2:
        return {}
    splits = held_out_splits(run, config.evaluate.real_splits)
    classes = {
        full_prompt(settings(config), known.caption): known.land_cover
        for known in known_prompts(run, splits)
    }
    classifier = train_classifier(*_arrays(train), *_arrays(held_out), seed=config.evaluate.seed)
    result = {real_row(splits): classifier.real}
    for name, samples in synthetic.items():
        asked = ((s, asked_class(s.meta) or classes.get(s.meta["prompt"])) for s in samples)
        known = [(s, label) for s, label in asked if label in classifier.classes]
        if len(known) >= 8:
            result[name] = judge(classifier, *_arrays(known))
    return result


def real_row(splits: Sequence[str]) -> str:
    """Name of the row of real tiles of these splits, read by a classifier trained on `train`."""
    return "real, the classifier's own" if "train" in splits else "real, held out"


def _labelled(samples: Iterable[Sample], limit: int) -> list[tuple[Sample, str]]:
    found = ((sample, land_cover(sample.meta)) for sample in samples)
    return list(itertools.islice(((s, label) for s, label in found if label), limit))


def _arrays(labelled: Sequence[tuple[Sample, str]]) -> tuple[NDArray[np.uint8], list[str]]:
    return _stack([sample for sample, _ in labelled]), [label for _, label in labelled]


def stage_line(run: RunDir, stage: str, *, unsealed: bool = False) -> StageLine | None:
    """What a stage made and rejected, by reason; None before it is sealed.

    With `unsealed` it covers the records so far, and is None before the first one.
    """
    from sarhpc.evaluation.report import StageLine

    ledger = run.ledger(stage)
    records = list(ledger.records().values()) if ledger.sealed or unsealed else []
    if not records and not ledger.sealed:
        return None
    rejected: dict[str, int] = {}
    for record in records:
        for reason, count in record.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + count
    for reason in read_plan(run.plan_file(stage)).rejected.values():
        scene = f"scene: {reason.split(':')[0]}"
        rejected[scene] = rejected.get(scene, 0) + 1
    return StageLine(
        name=stage,
        shards=len(records),
        samples=sum(record.samples for record in records),
        rejected=rejected,
        seconds=sum(record.seconds for record in records),
        attempts=count_starts(read_attempts(run.stage(stage))),
    )


def _training_rows(run: RunDir) -> list[dict[str, Any]]:
    from sarhpc.training.metrics.log import read_rows

    rows = read_rows(run.stage("train") / "metrics.jsonl")
    return [row for row in rows if "loss" in row]


def _progress(run: RunDir) -> tuple[list[str], list[GridRow]]:
    """Validation grids as rows: one per step, the first seed of each prompt."""
    from sarhpc.evaluation.report import GridRow
    from sarhpc.shards.pictures import read_picture

    folder = run.stage("train") / "validation"
    images = read_index(folder)
    scores = {row["step"]: row["score"] for row in read_judged(folder)}
    [record] = sealed_records(run, "train")
    exported = int(Path(record.path).name.removeprefix("step_"))
    first = min((image["seed"] for image in images), default=0)
    rows: dict[int, list[dict[str, Any]]] = {}
    for image in images:
        if image["seed"] == first:
            rows.setdefault(image["step"], []).append(image)
    prompts = [image["prompt"] for image in next(iter(rows.values()), [])]
    grid = [
        GridRow(
            f"step {step}, epoch {row[0]['epoch']}"
            + (f", score {scores[step]:.2f}" if step in scores else "")
            + (", exported" if step == exported and scores else ""),
            [read_picture(folder / image["path"], "RGB") for image in row],
        )
        for step, row in sorted(rows.items())
    ]
    return prompts, grid


def _facts(run: RunDir, compared: ComparedSets) -> dict[str, str]:
    [model] = sealed_records(run, "export")
    sets = compared.evaluation.sets
    return {
        "run": run.name,
        "created": run.info["created"],
        "configuration": run.info["fingerprint"],
        "sarhpc": run.info.get("version", ""),
        "host": run.info["host"],
        "model": model.sha256[:12],
        "pixels": compared.facts["pixels"],
        "real tiles measured": str(sets["real"].tiles),
        "synthetic tiles measured": str(sets[SYNTHETIC].tiles),
        **pixel_facts(contract_of_corpus(run)),
    }
