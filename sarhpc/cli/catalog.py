"""The verb `catalog`: a STAC catalogue from a folder of real files."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.documents import load_yaml
from hpc.errors import ConfigError, DataError
from hpc.shell import quoted
from sarhpc.cli.verbs import Verbs, add_json, add_verb, existing_path, print_json

COLUMNS = ("scene", "file", "size", "pixel", "sigma0", "optical")

if TYPE_CHECKING:
    from sarhpc.archive.catalog_builder import CatalogReport, NoSceneError, Skipped


def add_catalog(verbs: Verbs) -> None:
    """Add `catalog`."""
    catalog = add_verb(verbs, "catalog", "build a STAC catalogue from a folder of SAR files")
    catalog.add_argument("folder", help="folder of SAR products (GeoTIFF, NITF, SAFE, HDF5, "
                         "formats of plug-ins)")  # fmt: skip
    catalog.add_argument("--out", required=True, help="folder the catalogue is written to")
    catalog.add_argument("--declare", help="YAML of facts the files do not carry, beside "
                         "sarhpc.yaml in the folder (default: sarhpc.yaml in OUT)")  # fmt: skip
    add_json(catalog)
    catalog.set_defaults(handler=catalog_verb)


def catalog_verb(arguments: argparse.Namespace) -> int:
    """Build a STAC catalogue from a folder of real files."""
    declarations = Path(arguments.declare) if arguments.declare else None
    folder = existing_path(arguments.folder, "the folder that holds the SAR files")
    return build_catalogue(folder, Path(arguments.out), declarations, as_json=arguments.json)


def build_catalogue(
    folder: Path, out: Path, declarations: Path | None, *, as_json: bool = False
) -> int:
    """Write the catalogue and print which files it includes and which not, with reasons.

    Where files lack nothing but declarations, a draft of them is written into `out`.

    Raises:
        ConfigError: invalid declarations.
        DataError: no scene could be catalogued.
    """
    from sarhpc.archive.catalog_builder import NoSceneError, catalog_directory
    from sarhpc.archive.declaration import SIDECAR

    if declarations is None and (out / SIDECAR).is_file() and out.resolve() != folder.resolve():
        declarations = out / SIDECAR
    declared = _declarations(declarations) if declarations is not None else None
    try:
        report = catalog_directory(
            folder, out, declarations=declared, declared_in=str(declarations)
        )
    except NoSceneError as error:
        draft = _draft(folder, out, error)
        if as_json:
            print_json({"catalogue": None, "scenes": [], **_rest(folder, error, draft)})
        else:
            _print_table(("left out", "why"), _left_out(folder, error.skipped))
        if draft is None:
            raise
        advice = _what_to_do(draft, declarations)
        raise DataError(f"no SAR scene under {folder} could be catalogued; {advice}") from error
    draft = _draft(folder, out, report)
    if as_json:
        scenes = [dict(zip(COLUMNS, row, strict=True)) for row in _scenes(folder, report)]
        rest = _rest(folder, report, draft)
        print_json({"catalogue": report.catalogue, "scenes": scenes, **rest})
        return 0
    _print_table(COLUMNS, _scenes(folder, report))
    _print_table(("left out", "why"), _left_out(folder, report.skipped))
    print(f"{len(report.scenes)} scenes, {len(report.skipped)} files left out: {report.catalogue}")
    if draft is not None:
        print(f"for more scenes: {_what_to_do(draft, declarations)}")
    print(f"next: sarhpc run RUN --template paper_sd15 archive.uri={quoted(out.resolve())}")
    return 0


def _draft(folder: Path, out: Path, found: CatalogReport | NoSceneError) -> Path | None:
    """A draft of what is to be declared, written unless it is there; None if nothing helps."""
    from hpc.publish import publish_text
    from sarhpc.archive.declaration import SIDECAR
    from sarhpc.archive.declaration_draft import draft_declarations

    text = draft_declarations(folder, found.skipped, found.names)
    if text is None:
        return None
    path, number = out / SIDECAR, 2
    while path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
        # What a user has filled in is kept.
        path, number = out / f"sarhpc-{number}.yaml", number + 1
    if not path.exists():
        publish_text(path, text)
    return path


def _what_to_do(draft: Path, declarations: Path | None) -> str:
    if declarations is None or declarations == draft:
        return f"fill in {draft}, and repeat the command"
    return f"fill in {draft}, and add its entries to {declarations}"


def _rest(folder: Path, found: CatalogReport | NoSceneError, draft: Path | None) -> dict[str, Any]:
    left_out = [
        {
            "file": item.path.relative_to(folder).as_posix(),
            "reasons": item.reason.splitlines(),
            "to_declare": list(item.missing) if item.only else [],
        }
        for item in found.skipped
    ]
    return {"left_out": left_out, "draft": draft}


def _scenes(folder: Path, report: CatalogReport) -> Iterator[tuple[str, ...]]:
    for scene, file in report.files.items():
        header = file.header
        spacing = " x ".join(dict.fromkeys(f"{side:.3g}" for side in header.spacing_m))
        optical = report.optical.get(scene)
        yield (
            scene,
            file.path.relative_to(folder).as_posix(),
            f"{header.shape[0]} x {header.shape[1]}",
            f"{spacing} m",
            "yes" if header.calibration == "sigma0" else "unknown",
            optical.name if optical is not None else "-",
        )


def _left_out(folder: Path, skipped: Sequence[Skipped]) -> Iterator[tuple[str, ...]]:
    for item in skipped:
        name = item.path.relative_to(folder).as_posix()
        for reason in item.reason.replace(str(item.path), item.path.name).splitlines():
            yield name, reason
            name = ""


def _print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows in aligned columns under their header; nothing without rows."""
    table = [header, *rows]
    if len(table) == 1:
        return
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    # One long name does not push every other row off the screen.
    widths = [min(width, 48) for width in widths]
    for row in table:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())
    print()


def _declarations(path: Path) -> dict[str, Any]:
    import yaml

    try:
        declared = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"declarations {path} cannot be read: {error}") from error
    if not isinstance(declared, dict):
        raise ConfigError(f"declarations {path} must map file names to facts, see docs/scenes.md")
    return declared
