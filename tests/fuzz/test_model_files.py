"""Damaged copies of model folders: each loads or is refused with an error that names the folder."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from file_mutations import mutated
from isolated_cases import Limits, problem_of, run_isolated

EMBEDDED = Path(__file__).resolve().parents[2] / "sarhpc" / "embedded"
LONG_CASES = 10
"""Mutations of each file of a model."""
LIMITS = Limits(seconds=60.0, resident_bytes=2 << 30, address_bytes=16 << 30)


def load_bundle_and_pipeline(folder: Path) -> None:
    from sarhpc.diffusion.bundle import load_bundle
    from sarhpc.generation.config import GenerateConfig
    from sarhpc.generation.model import load_pipeline

    try:
        load_bundle(folder)
    finally:
        load_pipeline(folder, GenerateConfig(), "cpu")


def load_captioner(folder: Path) -> None:
    from sarhpc.captioning.captioners.blip import load_blip

    load_blip(folder, "cpu")


def load_tokenizer(folder: Path) -> None:
    from sarhpc.diffusion.tokenizer import load_clip_tokenizer

    load_clip_tokenizer(folder)(["a river between fields"])


def findings(source: Path, read: Callable[[Path], None], count: int, work: Path) -> list[str]:
    """What is wrong with how `read` ends on `count` mutations of each file of a model."""
    found = []
    shutil.copytree(source, work)
    files = [path for path in sorted(work.rglob("*")) if path.is_file() and path.suffix != ".md"]
    for file in files:
        file.chmod(0o600)
    for number, file in enumerate(files):
        data, other = file.read_bytes(), files[number - 1].read_bytes()
        name = file.relative_to(work).as_posix()
        check = functools.partial(_check, read, work, file, data, other)
        found += run_isolated([f"{source.name}/{name}#{n}" for n in range(count)], check, LIMITS)
        file.write_bytes(data)
    return [str(finding) for finding in found]


def _check(
    read: Callable[[Path], None], work: Path, file: Path, data: bytes, other: bytes, case: str
) -> str | None:
    file.write_bytes(mutated(data, case, other)[1])
    return problem_of(lambda: read(work), [str(work)])


@pytest.mark.long
def test_damaged_bundles_are_refused_by_name(tmp_path: Path) -> None:
    # Imported before the first fork, which then costs next to nothing.
    load_bundle_and_pipeline(EMBEDDED / "base")
    found = findings(EMBEDDED / "base", load_bundle_and_pipeline, LONG_CASES, tmp_path / "base")
    assert not found, "\n".join(found)


@pytest.mark.long
def test_damaged_captioners_are_refused_by_name(tmp_path: Path) -> None:
    load_captioner(EMBEDDED / "blip")
    found = findings(EMBEDDED / "blip", load_captioner, LONG_CASES, tmp_path / "blip")
    assert not found, "\n".join(found)


@pytest.mark.long
def test_damaged_tokenizers_are_refused_by_name(test_data: Path, tmp_path: Path) -> None:
    source = test_data / "tokenizers" / "sd1_clip_hf"
    load_tokenizer(source)
    found = findings(source, load_tokenizer, LONG_CASES, tmp_path / "tokenizer")
    assert not found, "\n".join(found)
