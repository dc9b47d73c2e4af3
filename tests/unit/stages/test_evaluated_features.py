"""E9 in an evaluation of two sets and of a run: its block, its tables, and what is left out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from evaluated_runs import run_before_evaluation
from feature_networks import SmallNetwork, script_file
from image_sets_on_disk import codes_of, real_set, shard_of, speckle_amplitude, synthetic_set
from line_runs import make_tiny_model

from hpc.errors import ConfigError, TransientError
from hpc.job.pipeline import run_stage
from sarhpc.cli import main
from sarhpc.evaluation import feature_tables
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.settings import require_present
from sarhpc.stages.work import feature_distances

pytestmark = pytest.mark.slow

QUICK = ["bootstrap=10", "gallery=2"]
MEASURES = {"frechet", "kernel", "precision", "recall", "coverage"}


def evaluate(real: Path, synthetic: Path, out: Path, *words: str) -> int:
    given = ["evaluate", str(real), str(synthetic), "--out", str(out), "--workers", "1"]
    return main([*given, "--suite", "features", *words, *QUICK])


def result(out: Path) -> dict[str, Any]:
    return json.loads((out / "evaluation.json").read_text())  # type: ignore[no-any-return]


def numbers(block: dict[str, Any]) -> dict[str, float]:
    """The distance of each measure of each kind of features that has one."""
    kinds = block["sets"]["synthetic"]
    return {f"{kind} {name}": one["raw"] for kind, measures in kinds.items()
            for name, one in measures.items() if "raw" in one}  # fmt: skip


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("sets")
    return real_set(root / "real"), synthetic_set(root / "synthetic")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return script_file(tmp_path_factory.mktemp("network") / "network.pt")


def test_features_of_two_sets_are_compared_and_how_is_recorded(
    sets: tuple[Path, Path], network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(*sets, tmp_path, f"features.backbone={network}", "features.px=32") == 0
    block = result(tmp_path)["features"]
    ours = block["sets"]["synthetic"]
    assert set(ours["backbone"]) == set(ours["measured"]) == MEASURES
    assert all(one["tiles"] == 16 for of in ours.values() for one in of.values())
    assert ours["backbone"]["frechet"]["p_value"] > 0.05
    # 16 tiles have no covariance of 37 measured values; six features they have.
    assert "at least 38" in ours["measured"]["frechet"]["reason"]
    assert "raw" not in ours["measured"]["frechet"]
    facts = block["vectors"]["backbone"]
    assert (facts["width"], facts["px_of_tiles"]) == (6, [64, 64])
    assert facts["input"] | {"mean": None} == {
        "pixels": "codes", "db": None, "fit": "crop", "px": 32, "channels": 3, "mean": None,
        "std": None, "top": 1.0,
    }  # fmt: skip
    assert block["left_out"] == []
    printed = capsys.readouterr().out
    assert "E9 Fréchet distance, FID, features backbone" in printed
    assert "features measured: no number, 16 images a side are too few" in printed
    page = (tmp_path / "report.html").read_text()
    assert page.count('<h2 id="features">Distances between features (E9)</h2>') == 1
    assert "the middle 32 x 32 px of 64 x 64 px" in page
    assert "cannot be shown" not in page


@pytest.mark.usefixtures("without_figures")
def test_features_of_a_part_are_kept_for_the_same_images_and_network(
    sets: tuple[Path, Path], network: Path, tmp_path: Path
) -> None:
    words = [f"features.backbone={network}"]
    assert evaluate(*sets, tmp_path, *words) == 0
    tables = sorted((tmp_path / "features").iterdir())
    assert [pq.read_table(path).num_rows for path in tables] == [36, 16]
    before = result(tmp_path)["features"]
    # A file system gives the number of a removed file to the next one.
    stamp = tables[0].stat().st_mtime_ns
    tables[1].unlink()
    assert evaluate(*sets, tmp_path, *words) == 0
    # The last digits depend on where in memory the vectors lie.
    assert numbers(result(tmp_path)["features"]) == pytest.approx(numbers(before), rel=1e-9)
    assert tables[0].stat().st_mtime_ns == stamp, "the part that was done is not done again"
    # Another network, by its weights, makes other features.
    other = SmallNetwork()
    other.conv.weight.data *= 2
    script_file(tmp_path / "other.pt", other)
    assert evaluate(*sets, tmp_path, f"features.backbone={tmp_path / 'other.pt'}") == 0
    assert tables[0].stat().st_mtime_ns != stamp
    raw = [of["sets"]["synthetic"]["backbone"]["frechet"]["raw"]
           for of in (before, result(tmp_path)["features"])]  # fmt: skip
    assert raw[1] == pytest.approx(4 * raw[0], rel=1e-3)


@pytest.mark.usefixtures("without_figures")
def test_a_blurred_set_is_told_from_real_tiles_by_a_network(
    sets: tuple[Path, Path], network: Path, tmp_path: Path
) -> None:
    found = []
    for blur in (0.0, 0.2, 0.4, 0.6):
        folder = tmp_path / f"{blur:g}"
        amplitude = speckle_amplitude(5, 16)
        frequency = np.fft.fftfreq(64)
        gain = np.exp(-2 * (np.pi * blur) ** 2 * np.add.outer(frequency**2, frequency**2))
        power = np.fft.ifft2(np.fft.fft2(amplitude**2) * gain).real
        shard_of(folder / "000000.tar", codes_of(np.sqrt(np.maximum(power, 0))), {"pixel_m": 0.5})
        words = [f"features.backbone={network}", "features.measured=false"]
        out = tmp_path / f"out{blur:g}"
        assert evaluate(sets[0], folder, out, *words) == 0
        found.append(result(out)["features"]["sets"]["synthetic"]["backbone"])
    for name in ("frechet", "kernel"):
        raw = [one[name]["raw"] for one in found]
        assert raw == sorted({*raw}), name
    assert abs(found[0]["kernel"]["raw"]) <= 2 * found[0]["kernel"]["null_deviation"]
    for name in ("precision", "recall", "coverage"):
        raw = [one[name]["raw"] for one in found]
        assert raw == sorted(raw, reverse=True), name
    print(found)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["features.backbone=nowhere.pt"], "does not exist"),
        (["features.width=7"], "has 6 features, and evaluate.features.width is 7"),
        (["features.px=65"], "takes 65 x 65 px, and the tiles have 64 x 64"),
        (["features.kind=onnx"], "give one of auto"),
    ],
)
def test_a_network_that_cannot_be_used_is_refused_before_anything_is_measured(
    words: list[str],
    said: str,
    sets: tuple[Path, Path],
    network: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate(*sets, tmp_path / "out", f"features.backbone={network}", *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_fails_during_the_work_is_left_out_and_said_and_the_rest_stands(
    sets: tuple[Path, Path],
    network: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = shutil.copy(network, tmp_path / "network.pt")

    def gone(*_: object) -> None:
        path.unlink(missing_ok=True)

    # The file disappears between the check and the work.
    monkeypatch.setattr(feature_distances, "require_backbone", gone)
    assert evaluate(*sets, tmp_path / "out", f"features.backbone={path}") == 0
    found = result(tmp_path / "out")
    assert set(found["features"]["sets"]["synthetic"]) == {"measured"}
    [reason] = found["features"]["left_out"]
    assert "does not exist" in reason
    assert f"E9, left out: {reason}" in found["notes"]
    assert "E9, left out" in capsys.readouterr().out
    assert "does not exist" in (tmp_path / "out" / "report.html").read_text()


def test_a_full_disk_is_no_reason_to_leave_a_measure_out(
    sets: tuple[Path, Path], network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise TransientError("no space left")

    monkeypatch.setattr(feature_tables, "write_features", full)
    assert evaluate(*sets, tmp_path / "out", f"features.backbone={network}") == 75
    assert not (tmp_path / "out" / "evaluation.json").exists()
    monkeypatch.undo()
    assert evaluate(*sets, tmp_path / "out", f"features.backbone={network}") == 0
    assert result(tmp_path / "out")["features"]["left_out"] == []


@pytest.mark.slow
def test_a_run_compares_features_and_refuses_a_network_of_another_width_before_submission(
    network: Path, tmp_path: Path
) -> None:
    model = make_tiny_model(tmp_path / "model")
    words = [f"evaluate.features.backbone={network}"]
    wrong = run_before_evaluation(tmp_path / "wrong", model, [*words, "evaluate.features.width=7"])
    with pytest.raises(ConfigError, match=r"has 6 features, and evaluate.features.width is 7"):
        require_present(wrong, load_run_config(wrong), ["evaluate"])
    run = run_before_evaluation(tmp_path / "run", model, words)
    config = load_run_config(run)
    require_present(run, config, ["evaluate"])
    run_stage(run, stage_named(config, "evaluate"))
    block = result(run.stage("evaluate"))["features"]
    assert block["left_out"] == []
    assert set(block["sets"]["this run"]) == {"measured", "backbone"}
    assert block["sets"]["this run"]["backbone"]["kernel"]["tiles"] == 12
    assert sorted(path.name for path in (run.stage("evaluate") / "features").iterdir()) == [
        "000000.parquet",
        "000001.parquet",
    ]
    assert "Distances between features (E9)" in (run.root / "report.html").read_text()
