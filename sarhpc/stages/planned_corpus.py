"""The planned images of a corpus of a prompt table: published, read by shards, compared."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.errors import VerificationError
from hpc.store.rundir import RunDir
from sarhpc.generation.config import GenerateConfig
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.prompt_tables import corpus_table
from sarhpc.stages.table_preview import long_prompts

if TYPE_CHECKING:
    from sarhpc.generation.plan import ImageRequest
    from sarhpc.generation.prompts.achieved import Coverage

log = logging.getLogger(__name__)

COVERAGE_FILE = "coverage.json"
"""Planned against achieved, in the folder of the corpus."""


def table_shards(run: RunDir, config: RunConfig) -> list[dict[str, Any]]:
    """Inputs of each shard; publishes the planned images in the directory of the stage.

    Raises:
        ConfigError: the table cannot be planned.
    """
    from sarhpc.generation.plan import check_config
    from sarhpc.generation.prompts.images import IMAGES_FILE, publish_images
    from sarhpc.generation.sweeps.settings import layouts_per_shard

    cfg = _settings(config)
    check_config(cfg)
    corpus = corpus_table(config)
    for line in long_prompts(config, corpus):
        log.warning("stage=generate %s", line)
    ranges = publish_images(
        run.stage("generate") / IMAGES_FILE,
        corpus.table,
        corpus.counts,
        corpus.fields,
        seed=cfg.seed,
        shard_images=layouts_per_shard(cfg),
    )
    return [_inputs(cfg, shard) for shard in ranges]


def first_shards(run: RunDir, cfg: GenerateConfig, images: int) -> list[dict[str, Any]]:
    """Inputs of shards of the first `images` images of the corpus, as they were planned."""
    from sarhpc.generation.prompts.images import IMAGES_FILE, ranges_of

    path = run.stage("generate") / IMAGES_FILE
    return [_inputs(cfg, shard) for shard in ranges_of(path, images, cfg.shard_samples)]


def _inputs(cfg: GenerateConfig, shard: Mapping[str, Any]) -> dict[str, Any]:
    from sarhpc.generation.sweeps.settings import layout_inputs

    return {"batch": cfg.batch, "threads": cfg.threads, **layout_inputs(cfg), **shard}


def requests_of(run: RunDir, inputs: Mapping[str, Any]) -> list[ImageRequest]:
    """The images of a planned shard, whether its inputs hold them or a range of the table.

    Raises:
        VerificationError: the planned images are missing or others than were planned.
    """
    from sarhpc.generation.plan import shard_requests

    if "images_sha256" not in inputs:
        return shard_requests(inputs)
    from sarhpc.generation.prompts.images import IMAGES_FILE, shard_images

    path = run.stage("generate") / IMAGES_FILE
    return shard_images(path, inputs["first"], inputs["count"], inputs["images_sha256"])


def coverage_so_far(run: RunDir, config: RunConfig) -> Coverage | None:
    """Planned against achieved of the shards that have records; None without a planned table.

    Of a shard with rejected images its keys say which of them it has. A sweep is counted by
    layouts.
    """
    import numpy as np

    from hpc.store.plan import read_plan
    from sarhpc.generation.prompts.achieved import coverage_of
    from sarhpc.generation.prompts.images import IMAGES_FILE
    from sarhpc.generation.sweeps.settings import images_per_layout

    path = run.stage("generate") / IMAGES_FILE
    if config.generate is None or config.generate.table is None:
        return None
    if not run.plan_file("generate").exists():
        return None
    plan = run.plan_file("generate")
    try:
        ranges = {t.id: (t.inputs["first"], t.inputs["count"]) for t in read_plan(plan).shards}
        records = [(r, *ranges[r.shard]) for r in run.ledger("generate").records().values()]
    except KeyError as error:
        raise VerificationError(f"{plan} has no {error}: restore it, or the records") from error
    achieved = np.zeros(sum(count for _, count in ranges.values()), np.bool_)
    each = images_per_layout(config.generate)
    for record, first, count in records:
        if record.samples == count * each:
            achieved[first : first + count] = True
        else:
            made = {index // each for index in _indices(Path(record.path))}
            achieved[[first + index for index in sorted(made)]] = True
    return coverage_of(path, achieved)


def coverage_notes(run: RunDir, config: RunConfig) -> list[str]:
    """Planned against achieved as a sentence for the report of a run; none without a table."""
    coverage = coverage_so_far(run, config)
    return [] if coverage is None else [f"Corpus: {'; '.join(coverage_lines(coverage))}."]


def coverage_lines(coverage: Coverage) -> list[str]:
    """Planned against achieved as lines of text: `forest 24` or, where some lack, `23 of 24`."""
    lines = [
        f"{coverage.achieved:,} of {coverage.planned:,} planned images, {coverage.prompts:,} "
        f"prompts, at most {coverage.most_of_a_prompt:,} of one"
    ]
    for name, levels in coverage.fields.items():
        counts = (
            f"{level} {achieved:,}" + ("" if achieved == planned else f" of {planned:,}")
            for level, (planned, achieved) in levels.items()
        )
        lines.append(f"{name}: {', '.join(counts)}")
    return lines


def _indices(shard: Path) -> Iterator[int]:
    """Index in its shard of each image that a shard has."""
    from sarhpc.shards.reader import read_member

    return (int(key[6:]) for key, _ in read_member(shard, "txt"))


def check_table(config: RunConfig) -> None:
    """Raise ConfigError unless the prompt table of the run, if it has one, can be planned.

    Raises:
        ConfigError: the message has file and line.
    """
    if _settings(config).table is not None:
        corpus_table(config)


def images_of(config: RunConfig) -> int | None:
    """Images of the corpus, if the configuration alone determines them.

    Raises:
        ConfigError: the prompt table cannot be planned.
    """
    from sarhpc.generation.sweeps.settings import images_per_layout

    layouts = layouts_of(config)
    return None if layouts is None else layouts * images_per_layout(_settings(config))


def layouts_of(config: RunConfig) -> int | None:
    """Layouts of the corpus, likewise: images without a sweep.

    Raises:
        ConfigError: the prompt table cannot be planned.
    """
    cfg = _settings(config)
    return cfg.images if cfg.table is None else corpus_table(config).images


def _settings(config: RunConfig) -> GenerateConfig:
    assert config.generate is not None
    return config.generate
