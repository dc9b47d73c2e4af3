"""The verbs `package` and `export-corpus`: a finished corpus described anew, or laid out anew."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.errors import ConfigError, IncompleteError
from hpc.store.rundir import open_run
from sarhpc.cli.own_run import own_run
from sarhpc.cli.verbs import Verbs, add_verb, reading_finished_data
from sarhpc.stages.inputs.paths import data_root
from sarhpc.stages.run_config import load_run_config

if TYPE_CHECKING:
    from sarhpc.corpus.layouts.layout import Layout

LAYOUTS = ("imagefolder", "cog", "cog-db", "sarlo80", "sidd")
SPLITS = ("train", "val", "test")


def add_corpus(verbs: Verbs) -> None:
    """Add `package` and `export-corpus`."""
    package = add_verb(
        verbs, "package", "write index, card and metadata of a corpus again, with its scores"
    )
    package.add_argument("run", help="run directory whose corpus is generated")
    package.set_defaults(handler=package_verb)
    export = add_verb(verbs, "export-corpus", "write a corpus in another layout")
    export.add_argument("source", help="run directory, or the folder of a corpus")
    export.add_argument("out", help="new folder; the same command goes on after an interruption")
    export.add_argument("--layout", choices=LAYOUTS, required=True,
                        help="imagefolder: PNG files by split and class with metadata.jsonl; cog: "
                        "cloud-optimised GeoTIFF without a place; cog-db: the same of sigma0 in "
                        "dB, from the 16-bit masters; sarlo80: WebDataset tars with "
                        "the members and metadata of SARLO-80; sidd: SIDD 3.0 at the place "
                        "that --declare states")  # fmt: skip
    export.add_argument("--declare", metavar="FILE",
                        help="for sidd: YAML with the nominal place and collection")  # fmt: skip
    export.add_argument("--split", action="append", choices=SPLITS,
                        help="only this split; may be repeated (default: all)")  # fmt: skip
    export.set_defaults(handler=export_verb)


def package_verb(arguments: argparse.Namespace) -> int:
    """Write index, card and metadata of the run's corpus; exit code 4 where it is damaged."""
    from sarhpc.stages.packaging import package_again

    run = own_run(arguments.run)
    with reading_finished_data():
        made = package_again(run)
    print(f"{made.samples} images in {made.shards} shards; card: {made.card}")
    return 0


def export_verb(arguments: argparse.Namespace) -> int:
    """Write the corpus of a run or folder to another folder; exit code 4 where it is damaged."""
    from sarhpc.corpus.export import export_corpus

    source, out = Path(arguments.source), Path(arguments.out)
    root = corpus_folder(source)
    splits = tuple(dict.fromkeys(arguments.split or SPLITS))
    layout = _layout(arguments.layout, arguments.declare)
    with reading_finished_data():
        done = export_corpus(root, out, layout, splits)
    what = "were exported before" if done.already else "exported"
    print(f"{done.images} images {what}: {out}")
    return 0


def _layout(name: str, declaration: str | None) -> Layout:
    """The layout of this name.

    Raises:
        ConfigError: a declaration is missing, unreadable or of no use.
    """
    from sarhpc.corpus.export import LAYOUTS
    from sarhpc.corpus.layouts.sidd import NEEDS_DECLARATION, read_declaration, sidd_layout

    if name == "sidd":
        if declaration is None:
            raise ConfigError(NEEDS_DECLARATION)
        return sidd_layout(read_declaration(Path(declaration)))
    if declaration is not None:
        raise ConfigError(f"--declare is for the layout sidd: {name} states no place")
    return LAYOUTS[name]


def corpus_folder(source: Path) -> Path:
    """The folder of the corpus in a run directory, or `source` itself.

    Raises:
        ConfigError: there is no such folder.
        IncompleteError: the corpus of the run is not complete.
    """
    if not source.is_dir():
        raise ConfigError(f"{source} is no folder: name a run, or the folder of a corpus")
    if not (source / "run.json").is_file():
        return source
    run = open_run(source)
    if not run.ledger("generate").sealed:
        raise IncompleteError(
            f"generate is not sealed in {run.root}; continue with: sarhpc resume {run.quoted}"
        )
    return data_root(run, load_run_config(run)) / "synthetic"
