"""The planned images of a corpus of a prompt table: published, read by shards, compared."""

from __future__ import annotations

import heapq
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.errors import HpcError, VerificationError
from hpc.store.rundir import RunDir
from sarhpc.generation.config import GenerateConfig
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.prompt_tables import CorpusTable, corpus_table

if TYPE_CHECKING:
    from sarhpc.generation.plan import ImageRequest
    from sarhpc.generation.prompts.achieved import Coverage

log = logging.getLogger(__name__)

COVERAGE_FILE = "coverage.json"
"""Planned against achieved, in the folder of the corpus."""
_MOST_LEVELS = 12
"""Levels that a dry run shows of a field."""
_TOKENS_READ = 75
"""Tokens that text encoders of the CLIP kind read, without the two markers."""
_MOST_COUNTED = 2000
"""Prompts whose tokens are counted for a warning."""


def table_shards(run: RunDir, config: RunConfig) -> list[dict[str, Any]]:
    """Inputs of each shard; publishes the planned images in the directory of the stage.

    Raises:
        ConfigError: the table cannot be planned.
    """
    from sarhpc.generation.plan import check_config
    from sarhpc.generation.prompts.images import IMAGES_FILE, publish_images

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
        shard_images=cfg.shard_samples,
    )
    return [_inputs(cfg, shard) for shard in ranges]


def first_shards(run: RunDir, cfg: GenerateConfig, images: int) -> list[dict[str, Any]]:
    """Inputs of shards of the first `images` images of the corpus, as they were planned."""
    from sarhpc.generation.prompts.images import IMAGES_FILE, ranges_of

    path = run.stage("generate") / IMAGES_FILE
    return [_inputs(cfg, shard) for shard in ranges_of(path, images, cfg.shard_samples)]


def _inputs(cfg: GenerateConfig, shard: Mapping[str, Any]) -> dict[str, Any]:
    return {"batch": cfg.batch, "threads": cfg.threads, **shard}


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

    Of a shard with rejected images its keys say which of them it has.
    """
    import numpy as np

    from hpc.store.plan import read_plan
    from sarhpc.generation.prompts.achieved import coverage_of
    from sarhpc.generation.prompts.images import IMAGES_FILE

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
    for record, first, count in records:
        if record.samples == count:
            achieved[first : first + count] = True
        else:
            achieved[[first + index for index in _indices(Path(record.path))]] = True
    return coverage_of(path, achieved)


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


def table_lines(config: RunConfig) -> list[str]:
    """What a dry run shows of a prompt table: images, prompts, counts of each level, long prompts.

    Raises:
        ConfigError: the table cannot be planned.
    """
    if _settings(config).table is None:
        return []
    corpus = corpus_table(config)
    table, counts = corpus.table, corpus.counts.tolist()
    used: Counter[str] = Counter()
    for prompt, count in zip(table.prompts, counts, strict=True):
        if count:
            used[prompt] += count
    most = max(used.values())
    lines = [
        f"{corpus.images:,} images of {len(used):,} prompts, at most {most:,} of one, from "
        f"{table.source}"
    ]
    for name, column in table.labels.items():
        levels: Counter[str] = Counter()
        for level, count in zip(column, counts, strict=True):
            levels["(none)" if level is None else str(level)] += count
        lines.append(_level_line(name, levels, covered=name in corpus.fields))
    return lines + long_prompts(config, corpus)


def _level_line(name: str, levels: Counter[str], *, covered: bool) -> str:
    shown = [f"{level} {count:,}" for level, count in list(levels.items())[:_MOST_LEVELS]]
    more = len(levels) - len(shown)
    rest = f", and {more:,} more levels" if more else ""
    return f"{name}{'' if covered else ' (label)'}: {', '.join(shown)}{rest}"


def long_prompts(config: RunConfig, corpus: CorpusTable) -> list[str]:
    """A line on the prompts that the model does not read to their end, if there are any.

    Tokens are counted of the longest prompts only.
    """
    prompts = corpus.table.prompts
    # A token has one byte at least.
    suspects = (row for row, text in enumerate(prompts) if len(text.encode()) > _TOKENS_READ)
    longest = sorted(heapq.nlargest(_MOST_COUNTED, suspects, key=lambda row: len(prompts[row])))
    if not longest:
        return []
    read = zip(longest, _read_part(config, [prompts[row] for row in longest]), strict=True)
    found = [(row, part) for row, part in read if part is not None]
    if not found:
        return []
    row, part = found[0]
    least = "at least " if len(found) == _MOST_COUNTED else ""
    return [
        f"{least}{len(found):,} prompts are longer than the {_TOKENS_READ} tokens that the model "
        f"reads; of {corpus.table.where(row)} it reads up to '{' '.join(part.split()[-6:])}'"
    ]


def _read_part(config: RunConfig, prompts: list[str]) -> list[str | None]:
    """What the model reads of each prompt, None where that is all; by its tokenizer."""
    from sarhpc.diffusion.tokenizer import load_clip_tokenizer
    from sarhpc.stages.inputs.paths import model_folder

    try:
        tokenizer = load_clip_tokenizer(Path(model_folder(config.train.base_model)) / "tokenizer")
    except HpcError as error:
        log.debug("no tokenizer to count tokens with: %s", error)
        words = (prompt.split() for prompt in prompts)
        return [" ".join(w[:_TOKENS_READ]) if len(w) > _TOKENS_READ else None for w in words]
    most = tokenizer.model_max_length - 2
    encoded = tokenizer(prompts, add_special_tokens=False, truncation=False, verbose=False)
    return [
        None if len(ids) <= most else str(tokenizer.decode(ids[:most])) for ids in encoded.input_ids
    ]


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
    cfg = _settings(config)
    return cfg.images if cfg.table is None else corpus_table(config).images


def _settings(config: RunConfig) -> GenerateConfig:
    assert config.generate is not None
    return config.generate
