"""A run folder in which one file is damaged: verbs that look at it end with an exit code."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from random import Random

import pytest
from document_mutations import as_json, damaged
from file_mutations import mutated
from isolated_cases import run_isolated

from sarhpc.cli import main

STORED = Path(__file__).resolve().parents[1] / "golden" / "run_0_1"
SUFFIXES = (".json", ".jsonl", ".yaml", ".txt", "")
VERBS = (["status"], ["verify"], ["logs", "--failed"], ["clean"], ["costs"])
LONG_CASES = 25
"""Damaged copies of each file."""


def install(place: Path) -> tuple[Path, list[Path]]:
    """A run of version 0.1 that was stopped while it generated, and its text files."""
    for tree in ("common", "training", "generation"):
        shutil.copytree(STORED / tree, place, dirs_exist_ok=True)
    run = place / "run"
    run.chmod(0o700)
    files = [path for path in sorted(run.rglob("*")) if path.suffix in SUFFIXES and path.is_file()]
    return run, [path for path in files if "model" not in path.parts]


def damaged_file(data: bytes, path: Path, seed: str) -> bytes:
    """Bytes of a file with damaged values, or with damaged bytes."""
    random = Random(seed)
    if random.random() < 0.4 or path.suffix not in (".json", ".jsonl"):
        return mutated(data, seed, b'{"attempt": 1}\n')[1]
    if path.suffix == ".json":
        return as_json(damaged(json.loads(data), random), random)
    rows = [json.loads(line) for line in data.splitlines()]
    rows[random.randrange(len(rows))] = damaged(random.choice(rows), random)
    return b"\n".join(as_json(row, random).replace(b"\n", b"") for row in rows)


def check(run: Path, file: Path, data: bytes, case: str) -> str | None:
    """What ends in another way than with an exit code."""
    file.write_bytes(damaged_file(data, file, case))
    for verb, *options in VERBS:
        try:
            code = main([verb, str(run), *options])
        except Exception as error:
            return f"{verb}: {type(error).__name__}: {error}"[:300] + where(error)
        if code not in (0, 1, 2, 3, 4, 5, 75):
            return f"{verb}: exit {code}"
    return None


def where(error: BaseException) -> str:
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    return " | ".join(f"{Path(f.filename).name}:{f.lineno}" for f in frames[-4:])


def findings(place: Path, share: int, count: int) -> list[str]:
    run, files = install(place)
    found = []
    for file in files[::share]:
        data, name = file.read_bytes(), file.relative_to(run).as_posix()
        cases = [f"{name}#{number}" for number in range(count)]
        found += run_isolated(cases, functools.partial(check, run, file, data))
        file.write_bytes(data)
    return [str(finding) for finding in found]


@pytest.mark.slow
def test_looking_at_a_damaged_run_ends_with_an_exit_code(tmp_path: Path) -> None:
    assert not findings(tmp_path, 3, 1)


@pytest.mark.long
def test_looking_at_many_damaged_runs_ends_with_an_exit_code(tmp_path: Path) -> None:
    found = findings(tmp_path, 1, LONG_CASES)
    assert not found, "\n".join(found)
