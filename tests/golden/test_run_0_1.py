"""A run that sarhpc 0.1 left half done is read, and brought to the end that 0.1 would have reached.

`run_0_1/` (see `make_run_0_1.py`) holds one run stopped while it trains and one stopped while it
generates. If a test here fails, what people have on their disks does not go on as it began. Then
either the change is wrong, or such a run has to be refused before anything is written, with the
difference shown: enter it in REFUSALS, and say so in CHANGELOG.md.

Bits of floating point hold for one kind of CPU and one version of the libraries. Elsewhere the
numbers are compared instead, closely.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from make_run_0_1 import CONFIG, environment, status
from run_0_1_digests import (
    arithmetic,
    generated,
    largest_difference,
    mean_difference,
    trained,
)

STORED = Path(__file__).parent / "run_0_1"
TREES = {"training": ("common", "training"), "generation": ("common", "training", "generation")}
REFUSALS: Mapping[str, tuple[str, ...]] = {}
"""`training` or `generation` -> words of the difference that its refusal shows."""
TOLERANCES = {"step": 0.0, "epoch": 0.0, "loss": 1e-6, "grad_norm": 1e-4}
"""Largest relative differences on another kind of CPU; with AVX2 alone 3e-8 and 1e-6."""
MEAN_WEIGHT = 5e-5
"""Mean difference of weights there: AdamW turns a rounding error into a whole step of 1e-3."""
MEAN_LEVEL = 0.02
"""Difference of the mean of an image there, in grey levels."""

pytestmark = pytest.mark.slow


def install(part: str, place: Path) -> Path:
    """The folder `place` with the run of `part` and its base model in it.

    Its records and plans name files by where the run was made, so this is a run that was moved.
    """
    for tree in TREES[part]:
        shutil.copytree(STORED / tree, place, dirs_exist_ok=True)
    for path in sorted(place.rglob("*.stored")):
        path.rename(path.with_suffix(""))
    (place / "run").chmod(0o700)
    return place


def expected(part: str) -> dict[str, Any]:
    return json.loads((STORED / "expected.json").read_text())[part]  # type: ignore[no-any-return]


def sarhpc(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sarhpc.cli", *words]
    return subprocess.run(
        command, cwd=place, env=environment(), capture_output=True, text=True, timeout=500
    )


def contents(run: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below `run` with its time of change."""
    files = (path for path in sorted(run.rglob("*")) if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def assert_refused(place: Path, words: tuple[str, ...], differences: tuple[str, ...]) -> None:
    """The command ends in an error that shows the differences, and has written nothing."""
    before = contents(place / "run")
    done = sarhpc(place, *words)
    assert done.returncode != 0, done.stdout
    assert contents(place / "run") == before, "it refused the run, but only after writing to it"
    for difference in differences:
        assert difference in done.stderr


def bring_on(part: str, place: Path, *commands: tuple[str, ...]) -> bool:
    """Whether the run went on by `commands`; False where it is to be refused, and was."""
    if part in REFUSALS:
        assert_refused(place, commands[0], REFUSALS[part])
        return False
    for words in commands:
        done = sarhpc(place, *words)
        assert done.returncode == 0, f"{' '.join(words)}:\n{done.stdout}{done.stderr[-6000:]}"
    return True


def bits_hold(then: Mapping[str, Any]) -> bool:
    """Whether this machine computes as the one that `then` was recorded on."""
    others = {name: value for name, value in arithmetic().items() if then[name] != value}
    if others:
        message = f"bits are not compared, only numbers: {others} here, not {then}"
        warnings.warn(message, stacklevel=2)
    return not others


@pytest.mark.parametrize("part", TREES)
def test_the_stored_run_has_the_recorded_status_and_verifies(part: str, tmp_path: Path) -> None:
    place = install(part, tmp_path)
    before = contents(place / "run")
    assert status(place) == expected(part)["status"]
    verified = sarhpc(place, "verify", "run", "--deep")
    assert verified.returncode == 0, verified.stdout
    assert verified.stdout.endswith(" 0 wrong\n")
    assert contents(place / "run") == before, "looking at a run changed it"


def test_the_configuration_it_was_made_from_is_still_the_one_it_is_frozen_with(
    tmp_path: Path,
) -> None:
    place = install("training", tmp_path)
    before = contents(place / "run")
    (place / "tiny.yaml").write_text(CONFIG)
    again = sarhpc(place, "init", "run", "--config", "tiny.yaml")
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[0].endswith(expected("training")["fingerprint"])
    assert contents(place / "run") == before


def test_a_stored_run_with_another_configuration_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    place = install("training", tmp_path)
    config = place / "run" / "config.yaml"
    text = config.read_text()
    assert "lr_unet: 0.001\n" in text
    config.write_text(text.replace("lr_unet: 0.001\n", "lr_unet: 0.002\n"))
    assert_refused(place, ("train", "run", "--wait"), ("lr_unet", "0.001", "0.002"))


@pytest.mark.timeout(900)
def test_the_stored_training_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    place = install("training", tmp_path)
    if not bring_on("training", place, ("train", "run", "--wait"), ("export", "run", "--wait")):
        return
    now, then = trained(place / "run"), expected("training")
    assert status(place)["train"]["attempts"] == 2, "it was to go on from the checkpoint"
    logs = [path.read_text() for path in (place / "run/train/logs").rglob("*.err")]
    assert "".join(logs).count("written before checkpoints were signed") == 1
    signed = json.loads((place / "run/train/checkpoints/signatures.json").read_text())
    assert f"step_{trained(place / 'run')['rows'][-1]['step']:08d}" in signed["signatures"]
    assert fingerprint_of_export(place / "run") == fingerprint_of_export(STORED / "generation/run")
    for name, limit in TOLERANCES.items():
        difference = largest_difference(name, now["rows"], then["reached"]["rows"])
        assert difference <= limit, f"{name} differs by {difference:.1e}, relatively"
    models = (place / "run/export/model", STORED / "generation/run/export/model")
    assert mean_difference(*models) <= MEAN_WEIGHT, "the losses agree, the weights do not"
    assert now["weights"].keys() == then["reached"]["weights"].keys()
    if bits_hold(then["arithmetic"]):
        assert now["rows"] == then["reached"]["rows"], "the steps differ in their last bits"
        assert now["weights"] == then["reached"]["weights"], "weights differ in their last bits"


@pytest.mark.timeout(900)
def test_the_stored_corpus_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    place = install("generation", tmp_path)
    made = {path.name: path.stat().st_mtime_ns for path in corpus(place)}
    assert made
    if not bring_on("generation", place, ("generate", "run", "--wait")):
        return
    assert {path.name: path.stat().st_mtime_ns for path in corpus(place)}.items() >= made.items()
    now, then = generated(place / "run"), expected("generation")
    exactly = bits_hold(then["arithmetic"])
    for ours, theirs in zip(now["shards"], then["reached"]["shards"], strict=True):
        levels = zip(ours.pop("mean_levels"), theirs.pop("mean_levels"), strict=True)
        assert all(math.isclose(*pair, abs_tol=MEAN_LEVEL) for pair in levels), ours["shard"]
        assert ours["meta"] == theirs["meta"]
        if exactly:
            assert ours["content"] == theirs["content"], "images differ that look the same"
            if ours["generator"] == theirs["generator"]:
                assert ours == theirs


def renamed(place: Path, name: str) -> Path:
    """The stored run under another name, trained, with nothing exported yet."""
    from relocation import relocate

    install("generation", place)
    for made in ("export", "generate", "data/synthetic"):
        shutil.rmtree(place / "run" / made)
    relocate(place / "run", f"{place}/run", f"{place}/{name}")
    return (place / "run").rename(place / name)


def test_runs_of_other_names_make_the_same_model_and_corpus(tmp_path: Path) -> None:
    runs = [renamed(tmp_path / "a", "campaign"), renamed(tmp_path / "b", "another-name")]
    for run in runs:
        for stage in ("export", "generate"):
            done = sarhpc(run.parent, stage, run.name, "--executor", "debug")
            assert done.returncode == 0, f"{done.stdout}{done.stderr[-6000:]}"
    folders = [run / part for run in runs for part in ("export/model", "data/synthetic")]
    ours, corpus_of_ours, theirs, corpus_of_theirs = (contents_below(folder) for folder in folders)
    assert ours == theirs
    assert len(ours) > 5
    assert corpus_of_ours == corpus_of_theirs
    assert {"000000.tar", "index.parquet", "README.md"} <= corpus_of_ours.keys()


def contents_below(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def fingerprint_of_export(run: Path) -> str:
    return str(json.loads((run / "export/plan.json").read_text())["fingerprint"])


def corpus(place: Path) -> list[Path]:
    return sorted((place / "run/data/synthetic").glob("*.tar"))
