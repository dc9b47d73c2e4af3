"""The rows of a prompt table as prompts with labels, from a grammar or from a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hpc.errors import ConfigError
from sarhpc.generation.prompts.config import GrammarConfig
from sarhpc.generation.prompts.expansion import expand
from sarhpc.generation.prompts.grammar import Grammar
from sarhpc.generation.prompts.row import (
    PromptRow,
    count_of,
    labels_of,
    level_text,
    seed_of,
    text_of,
    weight_of,
)
from sarhpc.generation.prompts.table_file import read_cells, unit_of
from sarhpc.stages.inputs.prompt_text import PromptWriter, numeric


def grammar_rows(cfg: GrammarConfig, grammar: Grammar, writer: PromptWriter) -> Iterator[PromptRow]:
    """The rows of a grammar, one for each description."""
    number = 0
    for fields, descriptions in expand(grammar, cfg):
        weight = 1.0
        for level in fields.values():
            weight *= cfg.weights.get(level_text(level), 1.0)
        for description in descriptions:
            number += 1
            prompt = writer.stated(description, fields)
            yield PromptRow(prompt, number, weight / len(descriptions), labels=fields)


@dataclass
class FileRows:
    """The rows of a table file, each a row of the table or what is wrong with it."""

    path: Path
    grammar: Grammar
    writer: PromptWriter
    counted: bool = False

    def rows(self) -> Iterator[PromptRow | ConfigError]:
        """The rows of the file; a row of fields becomes one row for each of its descriptions."""
        unit, weighted = unit_of(self.path), False
        for line, cells in read_cells(self.path):
            self.counted |= "count" in cells
            weighted |= "weight" in cells
            if self.counted and weighted:
                raise ConfigError(
                    f"{self.path} {unit} {line}: count and weight: leave one of the columns out"
                )
            try:
                yield from self._read(line, cells)
            except ConfigError as error:
                yield ConfigError(f"{self.path} {unit} {line}: {error}")

    def _read(self, line: int, cells: Mapping[str, object]) -> list[PromptRow]:
        labels = labels_of(cells)
        negative = cells.get("negative_prompt")
        shared = {
            "line": line,
            "negative_prompt": text_of(negative, "negative_prompt") if negative else None,
            "labels": labels,
        }
        amount, seed = _amount(cells), seed_of(cells.get("seed"))
        if "prompt" in cells:
            prompt = self.writer.verbatim(text_of(cells["prompt"], "prompt"), labels)
            return [PromptRow(prompt, weight=amount, seed=seed, **shared)]  # type: ignore[arg-type]
        labels |= numeric(labels)
        descriptions = self.grammar.descriptions(labels)
        shares = [amount / len(descriptions)] * len(descriptions)
        if self.counted:
            whole, rest = divmod(int(amount), len(descriptions))
            shares = [float(whole + (number < rest)) for number in range(len(descriptions))]
        return [
            PromptRow(
                self.writer.stated(description, labels),
                weight=share,
                seed=seed,
                **shared,  # type: ignore[arg-type]
            )
            for description, share in zip(descriptions, shares, strict=True)
        ]


def _amount(cells: Mapping[str, object]) -> float:
    """The count or the weight of a row; 1 where its cell is empty."""
    for name, read in (("count", count_of), ("weight", weight_of)):
        if cells.get(name) not in (None, ""):
            return read(cells[name])
    return 1.0
