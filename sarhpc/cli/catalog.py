"""The verb `catalog`: a STAC catalogue from a folder of real files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hpc.documents import load_yaml
from hpc.errors import ConfigError
from sarhpc.cli.verbs import Verbs, add_verb, existing_path


def add_catalog(verbs: Verbs) -> None:
    """Add `catalog`."""
    catalog = add_verb(verbs, "catalog", "build a STAC catalogue from a folder of SAR files")
    catalog.add_argument("folder", help="folder of SAR products (GeoTIFF, NITF, SAFE, HDF5, "
                         "formats of plug-ins)")  # fmt: skip
    catalog.add_argument("--out", required=True, help="folder the catalogue is written to")
    catalog.add_argument("--declare", help="YAML of facts the files do not carry (default: "
                         "sarhpc.yaml in the folder)")  # fmt: skip
    catalog.set_defaults(handler=catalog_verb)


def catalog_verb(arguments: argparse.Namespace) -> int:
    """Build a STAC catalogue from a folder of real files."""
    declarations = Path(arguments.declare) if arguments.declare else None
    folder = existing_path(arguments.folder, "the folder that holds the SAR files")
    return build_catalogue(folder, Path(arguments.out), declarations)


def build_catalogue(folder: Path, out: Path, declarations: Path | None) -> int:
    """Write the catalogue and print which files it includes and which not, with reasons."""
    from sarhpc.archive.catalog_builder import catalog_directory

    declared = _declarations(declarations) if declarations is not None else None
    report = catalog_directory(folder, out, declarations=declared)
    for scene in report.scenes:
        optical = report.optical.get(scene)
        print(f"scene {scene}" + (f"  optical {optical.name}" if optical else "  no optical image"))
    for skipped in report.skipped:
        print(f"left out {skipped.path.name}: {skipped.reason}")
    print(f"{len(report.scenes)} scenes, {len(report.skipped)} files left out: {report.catalogue}")
    print(f"next: sarhpc run RUN --template paper_sd15 archive.uri={out}")
    return 0


def _declarations(path: Path) -> dict[str, Any]:
    import yaml

    try:
        declared = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"declarations {path} cannot be read: {error}") from error
    if not isinstance(declared, dict):
        raise ConfigError(
            f"declarations {path} must map file names to facts, see docs/guide/index.md"
        )
    return declared
