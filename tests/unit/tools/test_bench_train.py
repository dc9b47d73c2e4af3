"""The benchmark of training runs on an SDXL model too, and its table says what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_bundle import make_bundle

TOOL = Path(__file__).resolve().parents[3] / "tools" / "bench_train.py"


@pytest.mark.long
def test_the_stock_recipe_and_ours_are_measured_in_one_run(tmp_path: Path) -> None:
    bundle, file = make_bundle(tmp_path / "made", xl=True), tmp_path / "told.json"
    words = f"--bundle {bundle} --turns 1 --steps 2 --warmup 1 --samples 8 --global-batch 4"
    command = [sys.executable, str(TOOL), *words.split(), "--micro-batch=2", f"--json={file}"]
    done = subprocess.run(
        [*command, "--levers", "scores stored"],
        check=True,
        capture_output=True,
        text=True,
    )
    told = json.loads(file.read_text())
    sides = told["sides"]
    assert set(sides) == {"stock", "ours", "ours, scores stored"}
    assert all(name in done.stdout for name in sides)
    assert sides["stock"]["ratio"] == 1.0
    assert told["matrix_peak"] > 1e9
    for side in sides.values():
        assert side["step_s"] > 0
        assert 0 < side["mfu"] < 1
    assert 0 < sides["ours"]["outside"] < 1


@pytest.mark.slow
def test_side_that_fails_is_given_up_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import bench_train

    seconds = {"forward": 0.2, "backward": 0.2, "step": 0.5}
    result = {"steps_s": [0.5], "memory_gb": 1.0, "flops": 1e9, "seconds": seconds}

    def ours(_arguments: object, changes: tuple[str, ...]) -> dict[str, object]:
        """Results of every side but one."""
        if changes == ("zero_stage=3",):
            raise bench_train.SideFailedError("out of memory")
        return result

    stock = {"seconds": [0.6], "memory_gb": 1.0}
    monkeypatch.setattr(bench_train, "our_steps", ours)
    monkeypatch.setattr(bench_train, "stock_alone", lambda _: stock)
    words = ["bench_train.py", "--precision=bf16", "--levers", "ZeRO 0", "ZeRO 3", "ZeRO 1"]
    monkeypatch.setattr(sys, "argv", words)
    arguments = bench_train.parse()
    assert arguments.levers == ["ZeRO 3", "ZeRO 1"], "stage 0 is refused in bf16"
    known: list[int] = []
    found = bench_train.measure(
        arguments, lambda sides: known.append(sum(bool(s.seconds) for s in sides.values()))
    )
    assert known[0] == 1, "kept after each side"
    assert found["ours, ZeRO 3"].failed == "out of memory"
    arguments.json = tmp_path / "told.json"
    bench_train.show(arguments, found, 1e12)
    assert "ours, ZeRO 3" in capsys.readouterr().out
    assert json.loads(arguments.json.read_text())["sides"]["ours, ZeRO 1"]["ratio"] == 1.2
