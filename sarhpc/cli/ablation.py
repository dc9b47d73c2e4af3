"""The verb `ablation`: runs by what differs in their configurations."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sarhpc.cli.verbs import Verbs, add_json, add_verb, existing_path, print_json

if TYPE_CHECKING:
    from sarhpc.evaluation.ablation import Ablation

NAME = "ablation"


def add_ablation(verbs: Verbs) -> None:
    """Add `ablation`."""
    verb = add_verb(verbs, NAME, "table of runs: what differs, distances to real tiles, hours")
    verb.add_argument("runs", nargs="+", metavar="RUN", help="run directories, two or more; they "
                      "are only read")  # fmt: skip
    verb.add_argument("--out", metavar="FOLDER", help="write ablation.md, .csv, .html and .json "
                      "into this folder instead of printing Markdown")  # fmt: skip
    add_json(verb, "print the table as JSON")
    verb.set_defaults(handler=ablation_verb)


def ablation_verb(arguments: argparse.Namespace) -> int:
    """Print the table, or write it."""
    from sarhpc.api.ablation import ablation
    from sarhpc.evaluation.ablation_formats import to_markdown
    from sarhpc.stages.inputs.paths import require_out

    paths = [existing_path(name, "a run directory") for name in arguments.runs]
    out = None if arguments.out is None else Path(arguments.out)
    if out is not None:
        require_out(out, paths)
    table = ablation(paths)
    written = {} if out is None else _write(out, table)
    if arguments.json:
        print_json(table.to_json())
    elif out is None:
        print(to_markdown(table), end="")
    else:
        print("\n".join([*table.notes, *(f"{name}: {path}" for name, path in written.items())]))
    return 0


def _write(out: Path, table: Ablation) -> dict[str, Path]:
    from hpc.publish import publish_json, publish_text
    from sarhpc.evaluation.ablation_formats import to_csv, to_html, to_markdown

    out.mkdir(parents=True, exist_ok=True)
    forms = {"md": to_markdown, "csv": to_csv, "html": to_html}
    paths = {name: out / f"{NAME}.{name}" for name in (*forms, "json")}
    for name, form in forms.items():
        publish_text(paths[name], form(table))
    publish_json(paths["json"], table.to_json())
    return {name: path.resolve() for name, path in paths.items()}
