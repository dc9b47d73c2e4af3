"""A prompt table in memory: columns of a million rows in some hundred megabytes."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from hpc.errors import ConfigError
from sarhpc.generation.prompts.row import Label, PromptRow

MOST_PROBLEMS = 5
"""Wrong rows that one message names."""


@dataclass(frozen=True)
class PromptTable:
    """The rows of a table, column by column."""

    source: str
    """File, or setting of the grammar."""
    unit: str
    """What `lines` counts: `line` or `row`."""
    counted: bool
    """Whether `weights` are numbers of images."""
    prompts: list[str] = field(default_factory=list)
    lines: array[int] = field(default_factory=lambda: array("q"))
    weights: array[float] = field(default_factory=lambda: array("d"))
    seeds: dict[int, int] = field(default_factory=dict)
    """Row -> seed of its first image, where it is given."""
    negatives: dict[int, str] = field(default_factory=dict)
    """Row -> negative prompt, where it is given."""
    labels: dict[str, list[Label | None]] = field(default_factory=dict)
    """Label -> its value in each row; None where a row has none."""

    def __len__(self) -> int:
        return len(self.prompts)

    def where(self, row: int) -> str:
        """File and line of a row, for a message."""
        return f"{self.source} {self.unit} {self.lines[row]}"

    def row_labels(self, row: int) -> dict[str, Label]:
        """The labels of a row."""
        values = ((name, column[row]) for name, column in self.labels.items())
        return {name: value for name, value in values if value is not None}


def build_table(
    rows: Iterable[PromptRow], source: str, *, unit: str = "line", counted: bool = False
) -> PromptTable:
    """The table of `rows`.

    Raises:
        ConfigError: it has no rows, rows that repeat others, or a label of mixed types; the message
            has the lines.
    """
    table = PromptTable(source, unit, counted)
    kinds: dict[str, type] = {}
    # Texts of labels repeat: one object for each.
    texts: dict[Label, Label] = {}
    for number, row in enumerate(rows):
        table.prompts.append(row.prompt)
        table.lines.append(row.line)
        table.weights.append(row.weight)
        if row.seed is not None:
            table.seeds[number] = row.seed
        if row.negative_prompt is not None:
            table.negatives[number] = row.negative_prompt
        for name, value in row.labels.items():
            column = table.labels.setdefault(name, [])
            column.extend([None] * (number - len(column)))
            column.append(texts.setdefault(value, value) if isinstance(value, str) else value)
            _require_kind(kinds, name, value, f"{source} {unit} {row.line}")
    for column in table.labels.values():
        column.extend([None] * (len(table) - len(column)))
    if not len(table):
        raise ConfigError(f"{source}: an empty table; add a row with a prompt")
    _refuse_duplicates(table)
    return table


def _require_kind(kinds: dict[str, type], name: str, value: Label, where: str) -> None:
    kind: type = float if type(value) is int else type(value)
    if kinds.setdefault(name, kind) is not kind:
        raise ConfigError(
            f"{where}: {name} is {value!r:.40}, and other rows have {_NAMES[kinds[name]]}: one "
            "label has one type"
        )


_NAMES = {str: "text", float: "numbers", bool: "true or false"}


def _refuse_duplicates(table: PromptTable) -> None:
    """Refuse rows that ask for the same images: equal prompt, negative prompt and seed."""
    import numpy as np

    identities = (_identity(table, row) for row in range(len(table)))
    hashes = np.fromiter(map(hash, identities), np.int64, len(table))
    order = np.argsort(hashes, kind="stable")
    equal = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    pairs = ((int(order[place]), int(order[place + 1])) for place in equal)
    found = [pair for pair in pairs if _identity(table, pair[0]) == _identity(table, pair[1])]
    if found:
        named = sorted(found, key=lambda pair: pair[1])[:MOST_PROBLEMS]
        lines = "; ".join(
            f"{table.unit} {table.lines[second]} repeats {table.unit} {table.lines[first]} "
            f"({table.prompts[second][:60]})"
            for first, second in named
        )
        raise ConfigError(
            f"{table.source}: {len(found):,} duplicates: {lines}. Use `count` for more images of a "
            "prompt, or give the rows seeds"
        )


def _identity(table: PromptTable, row: int) -> tuple[str, str | None, int | None]:
    return table.prompts[row], table.negatives.get(row), table.seeds.get(row)


def collected(rows: Iterable[PromptRow | ConfigError]) -> Iterator[PromptRow]:
    """The rows; raises what is wrong with the first few together.

    Raises:
        ConfigError: some are no rows.
    """
    problems: list[ConfigError] = []
    for row in rows:
        if not isinstance(row, ConfigError):
            yield row
            continue
        problems.append(row)
        if len(problems) == MOST_PROBLEMS:
            break
    if problems:
        raise ConfigError(_joined(problems))


def _joined(problems: Sequence[ConfigError]) -> str:
    more = ["and perhaps more"] if len(problems) == MOST_PROBLEMS else []
    return "\n".join([*map(str, problems), *more])
