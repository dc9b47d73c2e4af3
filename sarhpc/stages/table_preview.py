"""What a dry run shows of a prompt table: images and prompts, counts of levels, long prompts."""

from __future__ import annotations

import heapq
import logging
from collections import Counter
from pathlib import Path

from hpc.errors import HpcError
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.prompt_tables import CorpusTable, corpus_table

log = logging.getLogger(__name__)

_MOST_LEVELS = 12
"""Levels that a dry run shows of a field."""
_TOKENS_READ = 75
"""Tokens that text encoders of the CLIP kind read, without the two markers."""
_MOST_COUNTED = 2000
"""Prompts whose tokens are counted for a warning."""


def table_lines(config: RunConfig) -> list[str]:
    """What a dry run shows of a prompt table: images, prompts, counts of each level, long prompts.

    Raises:
        ConfigError: the table cannot be planned.
    """
    if config.generate is None or config.generate.table is None:
        return []
    corpus = corpus_table(config)
    table, counts = corpus.table, corpus.counts.tolist()
    used: Counter[str] = Counter()
    for prompt, count in zip(table.prompts, counts, strict=True):
        if count:
            used[prompt] += count
    most = max(used.values())
    counted = "images" if config.generate.sweep is None else "layouts"
    lines = [
        f"{corpus.images:,} {counted} of {len(used):,} prompts, at most {most:,} of one, from "
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
