"""Damaged copies of real files: each reader ends in what it read or in an error that names a file.

The cases run in processes of their own (`isolated_cases`), so a crash of a C library, a hang and a
huge allocation are findings too. A finding prints its case, of which `case_data` makes the bytes.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from file_mutations import mutated
from fuzz_targets import KINDS, Target, targets_under
from isolated_cases import Finding, Limits, problem_of, run_isolated
from unit.archive.nisar_files import speckle, write_grid, write_swath

REPOSITORY = Path(__file__).resolve().parents[2]
CASES_VARIABLE = "SARHPC_TEST_CASES"
SEED = os.environ.get("SARHPC_FUZZ_SEED", "")
"""Draws other cases than those of every day."""
LONG_CASES = {
    "safe": 12, "scene": 30, "optical": 12, "import": 10, "picture": 6, "tar": 60, "captions": 40,
}  # fmt: skip
"""Mutations of each file, by the way of reading it."""
SHORT_SHARE = 6
"""The short run takes one mutation of one target in so many."""


def case_data(targets: list[Target], number: int, case: str) -> bytes:
    """The mutated bytes of `case`, which names its target and a number."""
    other = targets[(number * 7 + 3) % len(targets)].data()
    return mutated(targets[number].data(), SEED + case, other)[1]


def findings(targets: list[Target], numbers: list[int], count: int, work: Path) -> list[Finding]:
    """What is wrong with how the readers end on `count` mutations of each numbered target."""
    found = []
    for number in numbers:
        target = targets[number]
        folder = work / "data"
        shutil.rmtree(work, ignore_errors=True)
        place = target.lay_out(folder)
        place.write_bytes(target.data())
        check = functools.partial(_check, targets, number, folder, place)
        found += run_isolated([f"{target.name}#{n}" for n in range(count)], check)
    return found


def _check(targets: list[Target], number: int, folder: Path, place: Path, case: str) -> str | None:
    place.write_bytes(case_data(targets, number, case))
    target = targets[number]
    return problem_of(lambda: target.read(folder, place), target.names(folder))


def _targets(*roots: Path) -> dict[str, list[Target]]:
    """Targets by the way of reading, without empty files."""
    found = defaultdict(list)
    for root in roots:
        for target in targets_under(root):
            if target.file.stat().st_size:
                found[target.name.partition(":")[0]].append(target)
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that no public source has small enough: NISAR products and shards of this project."""
    root = tmp_path_factory.mktemp("made")
    write_grid(root / "gslc.h5", {"HH": speckle((48, 40))})
    write_grid(root / "gcov.h5", {"HHHH": np.abs(speckle((48, 40)))}, product="GCOV")
    write_swath(root / "rslc.h5", {"HH": speckle((48, 40))}, valid=(2, 30))
    for path in (REPOSITORY / "tests" / "golden" / "shards").glob("*.tar"):
        shutil.copy(path, root)
    return root


@pytest.fixture(scope="module")
def targets(test_data: Path, made: Path) -> dict[str, list[Target]]:
    """Every real file, those of `../shared/cases` where they are, and the made ones."""
    cases = Path(os.environ.get(CASES_VARIABLE, REPOSITORY.parent / "shared" / "cases"))
    return _targets(test_data, *([cases] if cases.is_dir() else []), made)


@pytest.mark.slow
def test_some_damaged_files_are_refused_by_name(
    targets: dict[str, list[Target]], tmp_path: Path
) -> None:
    found = []
    for kind in KINDS:
        numbers = list(range(0, len(targets[kind]), SHORT_SHARE))
        found += findings(targets[kind], numbers, 1, tmp_path / "work")
    assert not found, "\n".join(map(str, found))


def test_damaged_products_that_are_made_here_are_refused_by_name(
    made: Path, tmp_path: Path
) -> None:
    for of_kind in _targets(made).values():
        found = findings(of_kind, list(range(len(of_kind))), 2, tmp_path / "work")
        assert not found, "\n".join(map(str, found))


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_files(targets: dict[str, list[Target]], kind: str, tmp_path: Path) -> None:
    numbers = list(range(len(targets[kind])))
    found = findings(targets[kind], numbers, LONG_CASES[kind], tmp_path / "work")
    assert not found, "\n".join(map(str, found))


def _crash(case: str) -> str | None:
    os.abort()


def _hang(case: str) -> str | None:
    import time

    time.sleep(60)
    return None


def _allocate(case: str) -> str | None:
    return problem_of(lambda: bytearray(1 << 40), [])


def _fill(case: str) -> str | None:
    return None if len(bytearray(os.urandom(1) * (200 << 20))) else ""


@pytest.mark.parametrize(
    ("check", "problem"),
    [(_crash, "SIGABRT"), (_hang, "not ended after 1 s"), (_allocate, "MemoryError"),
     (_fill, "MiB in use")],
)  # fmt: skip
def test_a_case_that_ends_its_process_is_attributed(
    check: Callable[[str], str | None], problem: str
) -> None:
    # Time enough on a busy machine, but for the case that never ends.
    limits = Limits(seconds=1.0 if check is _hang else 60.0, resident_bytes=100 << 20)
    cases = ["calm", "odd", "calm too"]
    found = run_isolated(cases, lambda case: check(case) if case == "odd" else None, limits)
    assert [finding.case for finding in found] == ["odd"]
    assert problem in found[0].problem
