"""The report of a GPU runs whole on a CPU, with small models."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOOLS = Path(__file__).resolve().parents[3] / "tools"
sys.path.insert(0, str(TOOLS))

pytestmark = pytest.mark.slow


def report(tmp_path: Path, *words: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and rows of a report with small models."""
    file = tmp_path / "report.jsonl"
    command = [sys.executable, str(TOOLS / "gpu_report.py"), "--size=tiny", f"--out={file}"]
    done = subprocess.run([*command, *words], capture_output=True, text=True)
    return done.returncode, [json.loads(line) for line in file.read_text().splitlines()]


def test_whole_report_on_a_cpu_holds(tmp_path: Path) -> None:
    code, rows = report(tmp_path)
    assert code == 0, [row for row in rows if row.get("holds") is False or "stderr" in row]
    ended = {row["phase"]: row["ended"] for row in rows if "ended" in row}
    assert set(ended.values()) == {"done"}
    checks = {row["check"]: row for row in rows if "check" in row}
    for stage in range(4):
        assert checks[f"losses, ZeRO {stage} fp32"]["apart"] < 1e-5
    assert checks["3 + 3 steps are 6"]["halves"] == checks["3 + 3 steps are 6"]["whole"]
    assert "compile=true on CPUs" in checks["losses, compiled bf16"]["refused"]
    sides = [(row["shape"], row["side"]) for row in rows if row.get("result") == "generation"]
    assert {("sd15", "stock"), ("sd15", "ours"), ("sdxl", "ours")} <= set(sides)
    trained = [row for row in rows if row.get("result") == "training"]
    assert all(row["images_per_s"] > 0 for row in trained)
    assert {row["side"] for row in trained} == {"stock", "latents cached"}


def test_result_of_a_phase_that_hangs_or_fails_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_report

    monkeypatch.setattr(gpu_report, "TINY_S", 0.0)
    [row] = gpu_report.run_phase(gpu_report.Phase("machine", 1), "tiny", tmp_path)
    assert (row["ended"], gpu_report.is_bad(row)) == ("deadline", True)
    monkeypatch.setattr(gpu_report, "TINY_S", 100.0)
    [row] = gpu_report.run_phase(gpu_report.Phase("unknown", 1), "tiny", tmp_path)
    assert row["ended"] == "failed"
    assert "KeyError" in row["stderr"]


def test_deadlines_leave_the_report_within_ten_minutes() -> None:
    import gpu_report

    assert sum(phase.deadline_s for phase in gpu_report.PHASES) <= 570


def test_published_shape_needs_no_weights_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers
    import torch
    import transformers
    from gpu_report_models import base_model

    from sarhpc.diffusion.bundle import load_bundle
    from sarhpc.diffusion.config import AutoencoderShape, BundleConfig, TextShape, UNetShape
    from sarhpc.diffusion.families import registry

    small = BundleConfig(
        vocab_size=540,
        unet=UNetShape(4, [8, 16], [True, False], attention_heads=2, norm_groups=4),
        text=TextShape(hidden=16, layers=2, heads=2, intermediate=32),
        vae=AutoencoderShape([4, 4, 8, 8], norm_groups=4, sample_size=32),
    )
    families = (dataclasses.replace(registry.FAMILIES[0], published=small),)
    for kind in (diffusers.ModelMixin, transformers.PreTrainedModel):
        # Put back at the end: the function replaces them.
        monkeypatch.setattr(kind, "from_pretrained", kind.__dict__["from_pretrained"])
    with monkeypatch.context() as only:
        only.setattr(registry, "FAMILIES", families)
        base = base_model("published", "sd15", tmp_path)
    assert sum(file.stat().st_size for file in base.rglob("*.safetensors")) < 1000
    assert load_bundle(base).backbone.config.sample_size == 4
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        str(base), dtype=torch.bfloat16, local_files_only=True
    )
    assert pipeline.unet.dtype == torch.bfloat16
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline("a lake", num_inference_steps=1, output_type="np").images
    assert made.shape == (1, 32, 32, 3)
