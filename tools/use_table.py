"""What networks learned from the corpora of runs (E12), as one table in Markdown.

    python tools/use_table.py RUN [RUN ...]

A row is what the networks learned from, a column a run: balanced accuracy on its held-out real
tiles with its 95 % interval over their scenes and seeds; below it the value of each seed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpc.documents import read_json

_ROWS = {
    "real": "{labels:,} real labels ({share:.3g} %)",
    "mixed": "{labels:,} real labels ({share:.3g} %) and the corpus",
    "synthetic": "the corpus alone",
    "real, tested on synthetic": "{labels:,} real labels, tested on the corpus",
    "real, labels shuffled": "control: {labels:,} real labels, shuffled",
    "synthetic, labels shuffled": "control: the corpus, labels shuffled",
}
"""Setting -> words of its row, in the order of the table."""


def rows_of(use: Mapping[str, Any]) -> dict[str, str]:
    """Row -> cell of one run, by the block `use` of its evaluation."""
    order = [*_ROWS]
    scores = sorted(use["scores"], key=lambda one: (order.index(one["setting"]), one["share"]))
    found = {
        _ROWS[one["setting"]].format(labels=one["labels"], share=100 * one["share"]): _cell(one)
        for one in scores
    }
    if use["ratio"] is not None:
        found["the corpus alone, over all real labels"] = _cell(use["ratio"])
    return found


def _cell(one: Mapping[str, Any]) -> str:
    seeds = ", ".join(f"{value:.3f}" for value in one["seeds"])
    return f"{one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f}); {seeds}"


def lines(tables: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The table of runs by name; each has the block `use` of its evaluation."""
    columns = {name: rows_of(use) for name, use in tables.items()}
    titles = dict.fromkeys(row for column in columns.values() for row in column)
    yield f"| learned from | {' | '.join(columns)} |"
    yield "|---|" + "---|" * len(columns)
    for title in titles:
        yield f"| {title} | {' | '.join(column.get(title, '') for column in columns.values())} |"


def main(words: Sequence[str]) -> None:
    """Print the table of the runs that are named."""
    parser = argparse.ArgumentParser(description="table of E12 of runs")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    tables = {}
    for run in parser.parse_args(words).runs:
        evaluation = read_json(run / "evaluate" / "evaluation.json")
        if "scores" not in (evaluation.get("use") or {}):
            sys.exit(f"{run}: its evaluation has no E12 (evaluate.use.task=classification)")
        tables[run.name] = evaluation["use"]
    print("\n".join(lines(tables)))


if __name__ == "__main__":
    main(sys.argv[1:])
