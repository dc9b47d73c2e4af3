"""The prompt table of a run: read from its file or grammar, said in the words of its captions."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.config import to_dict
from hpc.errors import ConfigError
from sarhpc.generation.config import GenerateConfig
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.paths import expanded

if TYPE_CHECKING:
    from sarhpc.generation.prompts.cells import Counts
    from sarhpc.generation.prompts.config import PromptTableConfig
    from sarhpc.generation.prompts.table import PromptTable

GRAMMAR = "the grammar"


@dataclass(frozen=True)
class CorpusTable:
    """The table of a corpus, and how many images each row gets."""

    table: PromptTable
    counts: Counts
    fields: tuple[str, ...]
    """Labels that the corpus covers."""

    @property
    def images(self) -> int:
        """Images of the corpus."""
        return int(self.counts.sum())


_read: dict[str, CorpusTable] = {}
"""The table read last: a submission asks for it several times."""


def corpus_table(config: RunConfig) -> CorpusTable:
    """The prompt table of the corpus with the number of images of each row.

    Raises:
        ConfigError: the table or its coverage cannot be planned; the message has file and line.
    """
    cfg = config.generate
    assert cfg is not None
    assert cfg.table is not None
    key = json.dumps(
        [to_dict(cfg), to_dict(config.caption.template), _state(cfg.table)], sort_keys=True
    )
    if key not in _read:
        _read.clear()
        try:
            _read[key] = _planned(config, cfg, cfg.table)
        except ConfigError as error:
            raise ConfigError(f"{cfg.SECTION}.table: {error}") from error
    return _read[key]


def _state(cfg: PromptTableConfig) -> list[int]:
    """Size and time of the file, which say whether it is the one that was read."""
    path = None if cfg.file is None else Path(expanded(cfg.file))
    if path is None or not path.is_file():
        return []
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _planned(config: RunConfig, cfg: GenerateConfig, table_cfg: PromptTableConfig) -> CorpusTable:
    from sarhpc.generation.prompts.coverage import covered_fields, image_counts
    from sarhpc.generation.prompts.grammar import FIELDS

    _check(table_cfg)
    table = _table(config, table_cfg)
    default = FIELDS if table_cfg.grammar is not None else ["class"]
    fields = covered_fields(table, table_cfg, default)
    total = _total(table, cfg, table_cfg)
    counts = image_counts(table, table_cfg, fields, total, cfg.seed)
    return CorpusTable(table, counts, tuple(fields))


def _check(cfg: PromptTableConfig) -> None:
    from sarhpc.generation.choices import require_choice
    from sarhpc.generation.prompts.coverage import COVERAGES

    if (cfg.file is None) == (cfg.grammar is None):
        raise ConfigError("give either file or grammar, and null for the other")
    require_choice("coverage", cfg.coverage, COVERAGES)
    if cfg.max_per_prompt is not None and cfg.max_per_prompt < 1:
        raise ConfigError(f"max_per_prompt is {cfg.max_per_prompt}: must be >= 1, or null")
    if len({*cfg.by}) < len(cfg.by):
        raise ConfigError(f"by names a field twice: {', '.join(cfg.by)}")
    if cfg.grammar is not None and cfg.grammar.weights and cfg.coverage != "weighted":
        raise ConfigError(f"grammar.weights: coverage={cfg.coverage} does not use them")
    for name, phrases in cfg.phrases.items():
        if not phrases or any(not phrase.strip() for phrase in phrases):
            raise ConfigError(f"phrases.{name}: an empty description")


def _total(table: PromptTable, cfg: GenerateConfig, table_cfg: PromptTableConfig) -> int:
    """Images of the corpus."""
    if not table.counted:
        images = len(table) * cfg.images_per_prompt if cfg.images is None else cfg.images
        if not any(table.weights):
            raise ConfigError(f"{table.source}: every weight is 0, so nothing would be generated")
        return images
    images = int(sum(table.weights))
    if table_cfg.coverage != "weighted":
        raise ConfigError(
            f"coverage={table_cfg.coverage} decides the counts: leave the column count out of "
            f"{table.source}, or set coverage=weighted"
        )
    if images == 0:
        raise ConfigError(f"{table.source}: every count is 0, so nothing would be generated")
    if cfg.images not in (None, images):
        raise ConfigError(
            f"the counts of {table.source} are {images:,} images and {cfg.SECTION}.images is "
            f"{cfg.images:,}: leave one of them out"
        )
    return images


def _table(config: RunConfig, table_cfg: PromptTableConfig) -> PromptTable:
    from sarhpc.archive.procedural.truth.phrases import NOUNS
    from sarhpc.generation.prompts.grammar import Grammar
    from sarhpc.generation.prompts.table import build_table, collected
    from sarhpc.generation.prompts.table_file import unit_of
    from sarhpc.stages.inputs.prompt_rows import FileRows, grammar_rows
    from sarhpc.stages.inputs.prompt_text import PromptWriter

    grammar, writer = Grammar(NOUNS, table_cfg.phrases), PromptWriter(config)
    if table_cfg.grammar is not None:
        rows = grammar_rows(table_cfg.grammar, grammar, writer)
        return build_table(rows, GRAMMAR, unit="prompt")
    path = Path(expanded(str(table_cfg.file)))
    reader = FileRows(path, grammar, writer)
    try:
        table = build_table(collected(reader.rows()), str(path), unit=unit_of(path))
    except UnicodeEncodeError as error:
        raise ConfigError(f"{path}: a text with a lone surrogate ({error})") from error
    return dataclasses.replace(table, counted=reader.counted)
