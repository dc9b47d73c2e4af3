"""An ablation as Markdown, CSV and one offline HTML page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from sarhpc.evaluation.ablation import Ablation, AblationRow
from sarhpc.evaluation.ablation_measures import Cell
from sarhpc.evaluation.page import page_environment

HEAD = "run"
Table = Sequence[Sequence[str]]
"""Rows of texts; the first holds the headings."""


def settings_table(ablation: Ablation) -> list[list[str]]:
    """A row a run: what differs, how many tiles were compared, gates, hours."""
    stages = list(dict.fromkeys(name for row in ablation.rows for name in row.cost["stages"]))
    shown = [name for name in ("train", "generate") if name in stages]
    heads = [HEAD, *ablation.settings, "group", "tiles", "gates passed",
             *(f"{name}, h" for name in shown), "whole run, h"]  # fmt: skip
    rows = []
    for row in ablation.rows:
        hours = [row.cost["stages"].get(name) for name in shown]
        values = [value_text(row.settings.get(key, "-")) for key in ablation.settings]
        passed = sum(verdict == "pass" for verdict in row.gates.values())
        rows.append([
            row.name, *values, _group(row), _count(row.tiles),
            f"{passed} of {len(row.gates)}" if row.gates else "-",
            *(_hours(one, row) for one in hours), _hours(row.cost["total"], row),
        ])  # fmt: skip
    return [heads, *rows]


def measures_table(ablation: Ablation) -> list[list[str]]:
    """A row a measure, a column a run."""
    rows = []
    for measure in ablation.measures:
        unit = f", {measure.unit}" if measure.unit else ""
        better = " (more is better)" if measure.more_is_better else ""
        cells = [row.cells.get(measure.name) for row in ablation.rows]
        rows.append([f"{measure.text}{unit}{better}", *map(cell_text, cells)])
    return [["measure", *(row.name for row in ablation.rows)], *rows]


def captions_table(ablation: Ablation) -> list[list[str]]:
    """A row for each captioner before and after fine-tuning, a column a score; empty without."""
    scored = [(row, event, scores) for row in ablation.rows for event, scores in
              row.captions.items()]  # fmt: skip
    names = list(dict.fromkeys(name for _, _, scores in scored for name in scores))
    rows = [
        [row.name, event, *(_number(scores.get(name)) for name in names)]
        for row, event, scores in scored
    ]
    return [[HEAD, "fine-tuning", *names], *rows] if rows else []


def cell_text(cell: Cell | None) -> str:
    """Value, interval, null and rank of a measure."""
    if cell is None:
        return "-"
    if cell.raw is None:
        return f"no number: {cell.reason}"
    parts = [_number(cell.raw)]
    if cell.low is not None:
        parts.append(f"[{_number(cell.low)}, {_number(cell.high)}]")
    if cell.p_value is None and cell.reason:
        parts.append("no null")
    elif cell.p_value is not None:
        parts.append(f"null {_number(cell.null_median)}, 95 % {_number(cell.null_95)}")
        parts.append(f"p {cell.p_value:.3f}")
    if cell.rank is not None:
        parts.append(f"rank {cell.rank}" + (", as good as the best" if cell.like_best else ""))
    return "; ".join(parts)


def value_text(value: Any) -> str:
    """A setting as it is written in a configuration."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def to_markdown(ablation: Ablation) -> str:
    """Tables and notes in Markdown."""
    lines = ["# Ablation", ""]
    for title, table in _tables(ablation):
        lines += [f"## {title}", "", *_markdown(table), ""]
    return "\n".join([*lines, *(f"- {_cell(note)}" for note in ablation.notes)]).rstrip() + "\n"


def to_csv(ablation: Ablation) -> str:
    """A row a run, with a column for each setting that differs and each number."""
    numbers = ("raw", "low", "high", "null_median", "null_95", "p_value", "tiles", "rank")
    scores = dict.fromkeys(
        (event, name) for row in ablation.rows for event, of in row.captions.items() for name in of
    )
    stages = dict.fromkeys(name for row in ablation.rows for name in row.cost["stages"])
    columns = [f"{m.name}.{number}" for m in ablation.measures for number in numbers]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([
        HEAD, "path", *ablation.settings, "group", "tiles", *columns,
        *(f"captions.{event}.{name}" for event, name in scores),
        "cost.unit", "cost.total", *(f"cost.{name}" for name in stages), "missing",
    ])  # fmt: skip
    for row in ablation.rows:
        cells = [row.cells.get(m.name) or Cell(None) for m in ablation.measures]
        writer.writerow([_inert(value) for value in (
            row.name, row.path,
            *(value_text(row.settings.get(key, "")) for key in ablation.settings),
            row.group, row.tiles,
            *(getattr(cell, number) for cell in cells for number in numbers),
            *(row.captions.get(event, {}).get(name) for event, name in scores),
            row.cost["unit"], row.cost["total"],
            *(row.cost["stages"].get(name) for name in stages), row.missing,
        )])  # fmt: skip
    return out.getvalue()


def to_html(ablation: Ablation) -> str:
    """One page with its style inside."""
    tables = list(_tables(ablation))
    return (
        page_environment().get_template("ablation.html.j2").render(ablation=ablation, tables=tables)
    )


def _tables(ablation: Ablation) -> Iterator[tuple[str, Table]]:
    yield "What differs, and what it cost", settings_table(ablation)
    if ablation.measures:
        yield "Measures against real tiles", measures_table(ablation)
    if captions := captions_table(ablation):
        yield "Captioners", captions


def _markdown(table: Table) -> Iterator[str]:
    head, *rows = table
    yield f"| {' | '.join(map(_cell, head))} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"


def _cell(text: str) -> str:
    """The text in a cell of a Markdown table: one line, nothing of it markup."""
    line = " ".join(text.split())
    return "".join(f"\\{c}" if c in "|`*<>[]\\" else c for c in line) or " "


def _inert(value: Any) -> Any:
    """A text that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value


def _group(row: AblationRow) -> str:
    return "not evaluated" if row.group is None else str(row.group)


def _count(count: int | None) -> str:
    return "-" if count is None else str(count)


def _hours(hours: float | None, row: AblationRow) -> str:
    return "-" if hours is None else f"{hours:.3g} {row.cost['unit']}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
