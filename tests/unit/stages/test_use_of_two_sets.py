"""E12 of two sets: parts that are kept, what is left out, gates and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_sets_on_disk import shard_of
from known_textures import CLASSES, textures

from sarhpc.cli import main

pytestmark = pytest.mark.slow

QUICK = [
    "bootstrap=10", "gallery=1", "orientation_steps=0", "use.steps=4", "use.seeds=1",
    "use.shares=[0.01,0.5]",
]  # fmt: skip


def texture_set(root: Path, seed: int, classes: tuple[str, ...] = CLASSES, **meta: Any) -> Path:
    """Tiles of twelve scenes, four of each class in every scene."""
    images, numbers = textures(seed, 48)
    codes = np.rint(255 * np.clip(10 ** (images.astype(np.float64) / 20), 0, 1)).astype(np.uint8)
    shard_of(
        root / "000000.tar",
        list(codes),
        lambda n: {"scene_id": f"s{n % 12}", "class": classes[numbers[n]], "pixel_m": 0.5} | meta,
    )
    return root


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("sets")
    return [
        str(texture_set(root / "real", 1)),
        str(texture_set(root / "made", 2, synthetic=True)),
    ]


def words(sets: list[str], out: Path, *more: str) -> list[str]:
    return ["evaluate", *sets, "--out", str(out), "--workers", "1", *more, *QUICK]


def result(out: Path) -> dict[str, Any]:
    return json.loads((out / "evaluation.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def evaluated(sets: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of an evaluation that was killed after its second network, and went on."""
    out = tmp_path_factory.mktemp("evaluated") / "out"
    # Six tables of tiles, and two networks: the process dies as it publishes the third.
    fault = {"SARHPC_FAULT": "publish.before_rename:9:kill"}
    command = [sys.executable, "-m", "sarhpc.cli", *words(sets, out, "--suite", "use")]
    killed = subprocess.run(command, env={**os.environ, **fault}, check=False)
    assert killed.returncode == -signal.SIGKILL
    before = {path.name: path.stat().st_mtime_ns for path in (out / "use").glob("*.json")}
    assert sorted(before) == ["0000.json", "0001.json"]
    assert main(words(sets, out, "--suite", "use")) in (0, 4)
    after = {path.name: path.stat().st_mtime_ns for path in (out / "use").glob("*.json")}
    assert after.items() >= before.items()
    assert len(after) == 5
    return out


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_with_the_networks_that_are_missing(evaluated: Path) -> None:
    found = result(evaluated)["use"]
    assert found["classes"] == sorted(CLASSES)
    assert found["images"] == {"train": 96, "test": 48, "synthetic": 144}
    assert found["left_out"] == {"0.01": "0.01 of 96 real labels is 1, fewer than the 3 classes"}
    settings = {one["setting"]: one for one in found["scores"]}
    assert len(settings) == 6
    assert (settings["real"]["labels"], settings["mixed"]["synthetic"]) == (48, 144)
    gates = {gate["name"]: gate for gate in result(evaluated)["gates"]}
    assert "use_ratio" in gates
    assert 'id="use"' in (evaluated / "report.html").read_text()


@pytest.mark.slow
def test_networks_of_other_settings_are_trained_anew(
    evaluated: Path, sets: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (evaluated / "use" / "0000.json").read_bytes()
    main([*words(sets, evaluated, "--suite", "use"), "use.steps=5"])
    assert (evaluated / "use" / "0000.json").read_bytes() != before
    assert "E12: share left out: 0.01 of 96 real labels is 1" in capsys.readouterr().out


def test_the_rest_goes_on_where_the_sets_have_no_classes_in_common(
    sets: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = texture_set(tmp_path / "other", 3, ("ship", "harbour", "sea"), synthetic=True)
    given = [sets[0], str(other)]
    assert main(words(given, tmp_path / "out", "use.task=classification", "gates.w1_db=null")) == 4
    said = capsys.readouterr()
    assert "E12 was left out: " in said.err
    found = result(tmp_path / "out")
    assert "have 0 classes in common" in found["use"]["reason"]
    assert "E3_w1" in found["sets"]["synthetic"]["measures"]
    assert "gate use_ratio undecided" in said.out
    assert "Not measured: " in (tmp_path / "out" / "report.html").read_text()


def test_an_evaluation_of_use_alone_is_refused_before_anything_is_measured(
    sets: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = texture_set(tmp_path / "other", 3, ("ship", "harbour", "sea"), synthetic=True)
    assert main(words([sets[0], str(other)], tmp_path / "out", "--suite", "use")) == 4
    assert "name the same classes in both" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_a_task_nothing_is_trained(sets: list[str], tmp_path: Path) -> None:
    main(words(sets, tmp_path / "out", "--suite", "radiometry", "use.task=classification"))
    main(words(sets, tmp_path / "out"))
    assert "use" not in result(tmp_path / "out")
    assert not (tmp_path / "out" / "use").exists()
