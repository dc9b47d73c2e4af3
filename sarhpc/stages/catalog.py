"""Verb `catalog`: a STAC catalogue from a folder of real files."""

from __future__ import annotations

from pathlib import Path

from hpc.errors import ConfigError


def build_catalogue(folder: Path, out: Path, declarations: Path | None) -> int:
    """Write the catalogue and print what was taken and what was left out, with reasons."""
    from sarhpc.archive.catalog import catalog_directory

    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; name the one that holds the SAR files")
    result = catalog_directory(folder, out, declarations=declarations)
    for scene in result.scenes:
        print(f"scene {scene}")
    for path, reason in sorted(result.skipped.items()):
        print(f"left out {path}: {reason}")
    print(f"{len(result.scenes)} scenes, {len(result.skipped)} files left out: {result.catalogue}")
    print(f"next: sarhpc run RUN --config ... archive.uri={out}")
    return 0
