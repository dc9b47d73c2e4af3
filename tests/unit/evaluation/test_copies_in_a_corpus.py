"""E11 of two sets: block, gate and page; what cannot be searched is left out with the reason."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ground_tiles import tiles_and_copies
from image_sets_on_disk import codes_of, shard_of

from hpc.errors import ConfigError
from sarhpc.api.evaluation import evaluate
from sarhpc.evaluation.compared import ComparedSets
from sarhpc.evaluation.memory import memory_bytes
from sarhpc.evaluation.page import page_environment
from sarhpc.evaluation.page_sections import make_sections

pytestmark = pytest.mark.slow

COUNT, PX = 48, 64
SETTINGS = {"memory": {}, "bootstrap": 2, "orientation_steps": 0}


def codes(tiles: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [codes_of(0.2 * tile) for tile in tiles]


@pytest.fixture(scope="module")
def grounds() -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Training tiles, copies of these, and tiles of other ground."""
    tiles, copies = tiles_and_copies(COUNT, PX, 16)
    others, _ = tiles_and_copies(COUNT, PX, 16, seed=1)
    return codes(tiles), codes(copies), codes(others)


@pytest.fixture(scope="module")
def real(
    tmp_path_factory: pytest.TempPathFactory,
    grounds: tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]],
) -> Path:
    """Shards of training tiles, and of held-out ones."""
    root = tmp_path_factory.mktemp("real")
    for number, (split, tiles) in enumerate((("train", grounds[0]), ("val", grounds[2][:24]))):
        shard_of(
            root / f"{number:06d}.tar",
            tiles,
            lambda n, split=split: {"scene_id": f"{split}{n // 2}", "split": split, "pixel_m": 0.5},
        )
    return root


def corpus(root: Path, tiles: Sequence[np.ndarray], **meta: Any) -> Path:
    shard_of(root / "000000.tar", tiles, {"synthetic": True, "pixel_m": 0.5, **meta})
    return root


def compared(real: Path, synthetic: Path, out: Path, **settings: Any) -> ComparedSets:
    merged = {**SETTINGS, **settings}
    return evaluate(real, synthetic, out, merged, report=lambda line: None)


def test_copies_of_training_tiles_are_counted_shown_and_fail_the_gate(
    tmp_path: Path, real: Path, grounds: tuple[list[np.ndarray], ...]
) -> None:
    mixed = [*grounds[1][:6], *grounds[2][24:]]
    found = compared(
        real, corpus(tmp_path / "s", mixed), tmp_path / "out", **{"gates.memorised": 0.01}
    )
    block = found.blocks["memory"]
    assert block["memorised"]["of"] == len(mixed)
    assert block["memorised"]["count"] in (5, 6, 7)
    assert block["memorised"]["low"] < 6 / len(mixed) < block["memorised"]["high"]
    assert block["held_out"]["count"] <= 1
    assert block["training_tiles"] == COUNT
    keys = {pair["key"]: pair["nearest"] for pair in block["pairs"] if pair["copy"]}
    assert len(keys) >= 5
    assert sum(key[6:] == nearest[6:] for key, nearest in keys.items()) >= 5
    gate = next(gate for gate in found.gates if gate.name == "memorised")
    assert gate.verdict == "fail"
    assert gate.value == pytest.approx(block["memorised"]["share"] - 0.001)
    assert json.loads((tmp_path / "out/evaluation.json").read_text())["memory"] == block
    page = (tmp_path / "out/report.html").read_text()
    assert page.count('<h2 id="memory">Copies and near copies (E11)') == 1
    assert page.count('alt="training tile ') == len(block["pairs"]) == 6
    assert "flipped in azimuth" in page
    assert page.count(">copy</b>") == len(keys)
    assert page.count(">no copy by the limit</b>") == 6 - len(keys)


@pytest.mark.usefixtures("without_figures")
def test_a_corpus_of_other_ground_passes_and_its_tables_are_kept(
    tmp_path: Path, real: Path, grounds: tuple[list[np.ndarray], ...]
) -> None:
    synthetic = corpus(tmp_path / "s", grounds[2][24:])
    settings = {"gates.memorised": 0.05}
    found = compared(real, synthetic, tmp_path / "out", **settings)
    assert found.blocks["memory"]["memorised"]["count"] <= 1
    assert next(g for g in found.gates if g.name == "memorised").verdict == "pass"
    tables = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/memory").glob("*.parquet")}
    assert len(tables) == 3
    again = compared(real, synthetic, tmp_path / "out", **settings)
    assert again.blocks["memory"] == found.blocks["memory"]
    assert tables == {path: path.stat().st_mtime_ns for path in tables}


def test_the_part_memory_of_the_suite_asks_for_it(
    tmp_path: Path, real: Path, grounds: tuple[list[np.ndarray], ...]
) -> None:
    synthetic = corpus(tmp_path / "s", grounds[2][24:])
    found = evaluate(
        real,
        synthetic,
        tmp_path / "out",
        {"bootstrap": 2},
        suites=["memory"],
        report=lambda _: None,
    )
    assert found.blocks["memory"]["memorised"]["count"] <= 1
    assert not found.evaluation.sets["synthetic"].measures


def test_one_image_many_times_is_found_in_the_corpus_itself(
    tmp_path: Path, real: Path, grounds: tuple[list[np.ndarray], ...]
) -> None:
    collapsed = [grounds[2][30]] * 4 + [*grounds[2][24:30], *grounds[2][31:]]
    block = compared(real, corpus(tmp_path / "s", collapsed), tmp_path / "out").blocks["memory"]
    assert block["within"]["count"] >= 4
    assert block["diversity"]["corpus"]["vendi"] < block["diversity"]["training"]["vendi"]


def test_training_shards_that_are_not_there_are_refused_before_anything_is_measured(
    tmp_path: Path, real: Path, grounds: tuple[list[np.ndarray], ...]
) -> None:
    synthetic = corpus(tmp_path / "s", grounds[2][24:])
    with pytest.raises(ConfigError, match=r"evaluate\.memory\.shards=/nowhere does not exist"):
        compared(real, synthetic, tmp_path / "out", **{"memory.shards": "/nowhere"})
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("without_figures")
def test_what_cannot_be_searched_is_left_out_and_the_rest_goes_on(
    tmp_path: Path, real: Path, grounds: tuple[list[np.ndarray], ...]
) -> None:
    settings = {"memory.gib": 1e-6, "gates.memorised": 0.01}
    synthetic = corpus(tmp_path / "s", grounds[2][24:])
    found = compared(real, synthetic, tmp_path / "out", **settings)
    reason = found.blocks["memory"]["left_out"]
    assert "evaluate.memory.gib allows 1e-06: allow more" in reason
    assert any(reason in note for note in found.notes)
    gate = next(gate for gate in found.gates if gate.name == "memorised")
    assert (gate.verdict, gate.reason) == ("undecided", reason)
    assert found.evaluation.sets["synthetic"].measures
    assert "Copies were not looked for" in (tmp_path / "out/report.html").read_text()


@pytest.mark.usefixtures("without_figures")
def test_training_tiles_of_another_spacing_or_too_small_or_of_one_scene_are_left_out(
    tmp_path: Path, real: Path, grounds: tuple[list[np.ndarray], ...]
) -> None:
    synthetic = corpus(tmp_path / "s", grounds[2][24:])
    other = {
        "spacing": (grounds[0], {"pixel_m": 2.0, "scene_id": "a"}, "2 m"),
        "small": ([tile[:48, :48] for tile in grounds[0]], {"pixel_m": 0.5}, "64 x 64 px or more"),
        "scene": (grounds[0], {"pixel_m": 0.5, "scene_id": "a"}, "needs tiles of other scenes"),
        "split": (grounds[0], {"pixel_m": 0.5, "split": "val"}, "and none of train"),
    }
    for name, (tiles, meta, message) in other.items():
        shard_of(tmp_path / name / "000000.tar", tiles, {"split": "train", **meta})
        settings = {"memory.shards": str(tmp_path / name)}
        block = compared(real, synthetic, tmp_path / f"out-{name}", **settings).blocks["memory"]
        assert message in block["left_out"], name


@pytest.mark.usefixtures("without_figures")
def test_without_the_setting_there_is_no_block_and_the_gate_alone_is_refused(
    tmp_path: Path, real: Path, grounds: tuple[list[np.ndarray], ...]
) -> None:
    synthetic = corpus(tmp_path / "s", grounds[2][24:])
    plain = compared(real, synthetic, tmp_path / "out", memory=None)
    assert "memory" not in plain.to_json()
    with pytest.raises(Exception, match=r"set evaluate.memory=\{\}"):
        compared(real, synthetic, tmp_path / "out", memory=None, **{"gates.memorised": 0.1})


def test_the_memory_of_a_million_images_is_told() -> None:
    exact = memory_bytes(100_000, 1_000_000) / 2**30
    assert 2.0 < exact < memory_bytes(100_000, 1_000_000, approximate=True) / 2**30 < 4.0


def test_a_section_shows_what_is_left_of_its_pictures_and_escapes_keys(tmp_path: Path) -> None:
    share = {"count": 1, "of": 2, "share": 0.5, "low": 0.1, "high": 0.9}
    hostile = "<script>alert(1)</script>"
    diversity = {"vendi": 2.0, "mean_distance_to_nearest": 0.5}
    block = {
        "px": [64, 64], "limit": 0.3, "false_alarms": 0.001, "calibration": {"tiles": 40},
        "memorised": share, "nearer_than_a_third": share, "held_out": None, "within": None,
        "diversity": {"tiles": 2, "corpus": diversity, "training": diversity},
        "pairs": [{"key": hostile, "nearest": hostile, "scene": hostile, "similarity": 0.9,
                   "evidence": 0.8, "copy": True, "ratio": None, "flipped": False,
                   "shift_px": [0, 4], "picture": "gone.png"}],
    }  # fmt: skip
    [section] = make_sections({"memory": block}, tmp_path, page_environment())
    assert not section.fault
    assert hostile not in section.body
    assert "(no picture)" in section.body
